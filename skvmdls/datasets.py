"""Data for open-set experiments: digits, MNIST, Omniglot, CIFAR, and noise.

MNIST, Omniglot and CIFAR are read from the data folder: the argument `data_home`, else
the environment variable ``SKVMDLS_DATA_HOME``, else ``~/skvmdls_data``. If they are not
there, torchvision fetches them, unless ``download=False``. If that fails, the loaders
raise a FileNotFoundError.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from skvmdls._support.values import warn
from skvmdls.inputs.image_folders import labelled_image_files
from skvmdls.inputs.rows import DatasetRows, ImageFiles, LabelledImageFiles

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


__all__ = [
    "DatasetRows",
    "ImageFiles",
    "get_data_home",
    "image_folder",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_mnist",
    "load_omniglot",
    "mnist_noise",
    "uniform_noise",
]

# Lake et al.'s "background small 1": 136 characters, 20 drawings of each.
OMNIGLOT_ALPHABETS = ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")

RandomState = int | np.random.RandomState | None


def image_folder(
    folder: str | os.PathLike[str], transform: Any = None
) -> tuple[DatasetRows, np.ndarray]:
    """Give the images of a folder that has one folder for each class, unread.

    Hidden and system files and folders (as ``.ipynb_checkpoints`` and ``__MACOSX``) are
    left out, and links are followed. Images are read as :class:`ImageFiles` reads
    them.

    Parameters
    ----------
    folder : path
        As torchvision's ``ImageFolder`` takes it: ``folder/class/.../name.png``.
    transform : callable, default=None
        As of :class:`ImageFiles`.

    Returns
    -------
    X : DatasetRows
        Read when a fit or a score needs them. ``X.dataset`` has ``samples``,
        ``classes`` and ``targets``, as an ``ImageFolder`` has.
    y : ndarray of shape (n,), str
        The names of the classes' folders.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, or a class's folder holds no images.

    Warns
    -----
    UserWarning
        If files are passed over because their endings are not those of images.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / name).mkdir()
    ...     Image.new("RGB", (8, 8)).save(folder / name / "1.png")
    >>> X, y = image_folder(folder)
    >>> X.shape, y
    ((2, 3, 8, 8), array(['cat', 'dog'], dtype='<U3'))
    """
    samples, classes, beside = labelled_image_files(Path(folder))
    if told := beside.described(with_hidden=False):
        warn(f"In {os.fspath(folder)!r} these files were passed over: {told}.")
    files = LabelledImageFiles(samples, classes, transform)
    return DatasetRows(files), np.array(classes)[files.targets]


def get_data_home(data_home: str | os.PathLike[str] | None = None) -> Path:
    """Find the data folder.

    Parameters
    ----------
    data_home : path, optional
        None asks the environment variable ``SKVMDLS_DATA_HOME``, and takes
        ``~/skvmdls_data`` if that is not set.

    Returns
    -------
    folder : Path
        It need not exist.

    Examples
    --------
    >>> get_data_home("somewhere").name
    'somewhere'
    """
    if data_home is None:
        data_home = os.environ.get("SKVMDLS_DATA_HOME", "~/skvmdls_data")
    return Path(data_home).expanduser()


def load_digits(
    known: Sequence[int] = (0, 1, 2, 3, 4, 5),
    *,
    test_size: float = 0.3,
    random_state: RandomState = None,
) -> Bunch:
    """Load scikit-learn's 8x8 digits, some classes known and the others unknown.

    No network is needed.

    Parameters
    ----------
    known : sequence of int, default=(0, 1, 2, 3, 4, 5)
        Digits to train on. All images of the others are in the test set.
    test_size : float, default=0.3
        Share of the images of each known digit that is in the test set.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    digits : Bunch
        ``X_train``, ``X_test`` of shape (n, 8, 8), float64 in [0, 16]. ``y_train``,
        ``y_test`` of shape (n,), the digits. ``known``, the known digits.

    Raises
    ------
    ValueError
        If `known` does not name at least two digits.

    Examples
    --------
    >>> digits = load_digits(known=(0, 1), random_state=0)
    >>> digits.X_train.shape, sorted(set(digits.y_train.tolist()))
    ((252, 8, 8), [0, 1])
    >>> len(set(digits.y_test.tolist()))
    10
    """
    if len(set(known)) < 2 or not set(known) <= set(range(10)):
        raise ValueError(f"known={known!r} must name at least two digits from 0 to 9.")
    from sklearn import datasets as sklearn_datasets
    from sklearn.model_selection import train_test_split

    images, labels = sklearn_datasets.load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8)
    is_known = np.isin(labels, known)
    X_train, X_test, y_train, y_test = train_test_split(
        images[is_known],
        labels[is_known],
        test_size=test_size,
        stratify=labels[is_known],
        random_state=random_state,
    )
    return Bunch(
        X_train=X_train,
        y_train=y_train,
        X_test=np.concatenate([X_test, images[~is_known]]),
        y_test=np.concatenate([y_test, labels[~is_known]]),
        known=tuple(known),
    )


def load_mnist(
    data_home: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Bunch:
    """MNIST, 60,000 training and 10,000 test images.

    Parameters
    ----------
    data_home : path, optional
        Folder with torchvision's files, or with ``mnist.npz``.
    download : bool, default=True

    Returns
    -------
    mnist : Bunch
        ``X_train``, ``X_test`` of shape (n, 28, 28), uint8. ``y_train``, ``y_test``
        of shape (n,), int64.
    """
    folder = get_data_home(data_home)
    archive = folder / "mnist.npz"
    if archive.exists():
        with np.load(archive, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    else:
        arrays = {}
        for suffix, train in (("train", True), ("test", False)):
            dataset = _fetch("MNIST", folder, download, train=train)
            arrays[f"X_{suffix}"] = dataset.data.numpy()
            arrays[f"y_{suffix}"] = dataset.targets.numpy()
    return Bunch(
        **{
            name: array.astype(np.int64) if name.startswith("y") else array
            for name, array in arrays.items()
        }
    )


def load_omniglot(
    data_home: str | os.PathLike[str] | None = None, *, download: bool = True
) -> np.ndarray:
    """Load Omniglot's five alphabets of "background small 1", in MNIST's form.

    Parameters
    ----------
    data_home : path, optional
        Folder with torchvision's files, or with ``omniglot_small1.npz``.
    download : bool, default=True

    Returns
    -------
    X : ndarray of shape (2720, 28, 28), uint8
        White strokes on black, bilinearly resized.
    """
    folder = get_data_home(data_home)
    archive = folder / "omniglot_small1.npz"
    if archive.exists():
        with np.load(archive, allow_pickle=False) as arrays:
            return arrays["X"]
    dataset = _fetch("Omniglot", folder, download, background=True)
    images = []
    for image, character in dataset:
        if dataset._characters[character].startswith(OMNIGLOT_ALPHABETS):
            small = image.convert("L").resize((28, 28), resample=2)
            images.append(255 - np.asarray(small, dtype=np.uint8))
    return np.stack(images)


def load_cifar10(
    data_home: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Bunch:
    """CIFAR-10, 50,000 training and 10,000 test images.

    Parameters
    ----------
    data_home : path, optional
        Folder with torchvision's files.
    download : bool, default=True

    Returns
    -------
    cifar10 : Bunch
        ``X_train``, ``X_test`` of shape (n, 3, 32, 32), uint8. ``y_train``, ``y_test``
        of shape (n,), the classes' names.
    """
    return _load_cifar("CIFAR10", data_home, download)


def load_cifar100(
    data_home: str | os.PathLike[str] | None = None, *, download: bool = True
) -> Bunch:
    """CIFAR-100, 50,000 training and 10,000 test images.

    Parameters
    ----------
    data_home : path, optional
        Folder with torchvision's files.
    download : bool, default=True

    Returns
    -------
    cifar100 : Bunch
        As of :func:`load_cifar10`.
    """
    return _load_cifar("CIFAR100", data_home, download)


def _load_cifar(
    name: str, data_home: str | os.PathLike[str] | None, download: bool
) -> Bunch:
    arrays = {}
    for suffix, train in (("train", True), ("test", False)):
        dataset: Any = _fetch(name, get_data_home(data_home), download, train=train)
        arrays[f"X_{suffix}"] = dataset.data.transpose(0, 3, 1, 2)
        arrays[f"y_{suffix}"] = np.array(dataset.classes)[dataset.targets]
    return Bunch(**arrays)


def _fetch(name: str, folder: Path, download: bool, **options: bool) -> "VisionDataset":
    from torchvision import datasets as torchvision_datasets

    try:
        return getattr(torchvision_datasets, name)(folder, download=download, **options)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{name} was not found in {folder} and could not be fetched ({error}). "
            "Name a folder that has it with data_home=... or SKVMDLS_DATA_HOME."
        ) from error


def mnist_noise(X: np.ndarray, *, random_state: RandomState = None) -> np.ndarray:
    """Add uniform noise to images (the paper's MNIST-noise).

    Parameters
    ----------
    X : ndarray of shape (n, height, width), uint8
        MNIST test images.
    random_state : int, RandomState or None, default=None

    Returns
    -------
    noisy : ndarray of the same shape, float64 in [0, 2]
        ``X / 255`` plus uniform noise in [0, 1], pixel by pixel.

    Examples
    --------
    >>> mnist_noise(np.zeros((2, 28, 28), dtype=np.uint8), random_state=0).shape
    (2, 28, 28)
    """
    return X / 255 + uniform_noise(X.shape, random_state=random_state)


def uniform_noise(
    shape: tuple[int, ...], *, random_state: RandomState = None
) -> np.ndarray:
    """Uniform noise (the paper's NOISE).

    Parameters
    ----------
    shape : tuple of int
    random_state : int, RandomState or None, default=None

    Returns
    -------
    noise : ndarray of the given shape, float64 in [0, 1)

    Examples
    --------
    >>> uniform_noise((5, 28, 28), random_state=0).shape
    (5, 28, 28)
    """
    return check_random_state(random_state).uniform(size=shape)

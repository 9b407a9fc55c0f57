"""X as rows that are read where a batch needs them: arrays, memory maps, datasets.

Nothing is converted on the way: bytes stay bytes until they are standardised.
"""

import hashlib
import multiprocessing
import os
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
)

from skvmdls.inputs.loading import (
    BatchReader,
    ReaderPool,
    RowKind,
    first_kind,
    is_on_disk,
    of_torch_types,
    random_state_kept,
)
from skvmdls.inputs.pictures import PictureFormat, opened_picture, warn_of_pages

__all__ = [
    "ArrayRows",
    "DatasetRows",
    "ImageFiles",
    "LabelledImageFiles",
    "Rows",
    "dataset_rows",
    "rows_of",
    "work_of",
]

# Large enough for numpy to be quick, and small enough for rows in float64.
CHUNK, CHUNK_NUMBERS = 1024, 2**23

# A text may end in a full stop, the name of a file in an ending.
HAS_ENDING = re.compile(r"\.\w{2,5}$").search
# Names without an ending that are looked for.
N_TRIED = 10


class Rows(ABC):
    """Inputs of one shape, of which batches are read: (n, *input_shape), of a dtype."""

    # So many are looked at to guess their units.
    n_peeked: int

    def __init__(self, n_rows: int, positions: np.ndarray | None = None) -> None:
        self._positions = np.arange(n_rows) if positions is None else positions

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row: (features,) or (channels, height, width)."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Dtype that the rows come in."""

    @abstractmethod
    def _at(self, positions: np.ndarray) -> Self:
        """Make rows of the same source at other positions."""

    @abstractmethod
    def _read(
        self, batches: Iterable[np.ndarray], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        """Read batches by their positions in the source."""

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows together."""
        return len(self), *self.input_shape

    @property
    def ndim(self) -> int:
        """Length of :attr:`shape`."""
        return 1 + len(self.input_shape)

    def take(self, positions: np.ndarray) -> Self:
        """Give the rows at positions (k,), none of which is read."""
        taken = self._at(self._positions[positions])
        if "digests" in self.__dict__:
            taken.__dict__["digests"] = self.digests[positions]
        return taken

    def batches(
        self, batches: Iterable[ArrayLike], turn: tuple[int, ...] = (0,)
    ) -> Iterator[Tensor]:
        """Read batches of positions (k,) as tensors ``(k, *input_shape)``, on the CPU.

        Where a row is made with random numbers, they follow from its position and from
        the turn.
        """
        at = (self._positions[np.asarray(batch)] for batch in batches)
        return self._read(at, turn)

    def in_order(self, batch_size: int) -> Iterator[Tensor]:
        """Read all rows one behind the other."""
        starts = range(0, len(self), batch_size)
        end = len(self)
        return self.batches(np.arange(i, min(i + batch_size, end)) for i in starts)

    def in_chunks(self) -> Iterator[Tensor]:
        """Read all rows in pieces that take little room even in float64."""
        fitting = CHUNK_NUMBERS // max(1, int(np.prod(self.input_shape)))
        return self.in_order(min(CHUNK, max(1, fitting)))

    def first(self) -> Tensor:
        """Read the first rows, a few."""
        return next(self.take(np.arange(min(len(self), self.n_peeked))).in_order(CHUNK))

    @cached_property
    def digests(self) -> np.ndarray:
        """Digest of each row's content, (n,): equal rows have equal ones."""
        found = np.empty(len(self), dtype="V16")
        start = 0
        for chunk in self.in_chunks():
            # 0.0 and -0.0 are equal.
            rows = chunk.numpy() + 0 if chunk.is_floating_point() else chunk.numpy()
            for i, row in enumerate(rows, start):
                found[i] = hashlib.blake2b(row.data, digest_size=16).digest()
            start += len(rows)
        return found

    @property
    def content(self) -> tuple[str, tuple[int, ...], np.ndarray]:
        """Two of them are the same by this, from any source."""
        return str(self.dtype), self.input_shape, self.digests.view(np.uint8)


class ArrayRows(Rows):
    """Rows of an array (n, ...), which may be a memory map. Nothing of it is copied.

    Examples
    --------
    >>> rows = ArrayRows(np.arange(8, dtype=np.uint8).reshape(4, 2))
    >>> list(rows.take(np.array([3, 1])).in_order(9))
    [tensor([[6, 7],
             [2, 3]], dtype=torch.uint8)]
    """

    n_peeked = CHUNK

    def __init__(self, array: np.ndarray, positions: np.ndarray | None = None) -> None:
        super().__init__(len(array), positions)
        self.array = array

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return self.array.dtype

    def _at(self, positions: np.ndarray) -> "ArrayRows":
        return ArrayRows(self.array, positions)

    def _read(
        self, batches: Iterable[np.ndarray], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        for batch in batches:
            yield torch.from_numpy(of_torch_types(np.asarray(self.array[batch])))


class DatasetRows(Rows):
    """Any map-style dataset as X, read row by row and never held whole.

    The detectors make one of a dataset themselves: a ``Dataset`` of torch, an
    ``ImageFolder``, a set in an HDF5 file, a list of names of image files, or whatever
    else has a length and items. It is for scikit-learn's searches and splits, which
    take parts of X: an array of positions gives the rows there, none of which is read.
    A single position gives that row.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        Its item, or the first of a tuple, is a row: an array or a tensor of shape
        (features,), (height, width) or (channels, height, width), or a PIL image.
        All have one shape and one dtype.
    positions : ndarray of shape (n,), int, default=None
        Positions of its items, in order. None is all of them.

    Attributes
    ----------
    shape : tuple of int
        (n, features) or (n, channels, height, width).
    dtype : dtype
        That of the first row.

    Raises
    ------
    ValueError
        If a row cannot be read, or is of another shape. The message names the row and,
        if the dataset is one of files, the file.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> X = DatasetRows(TensorDataset(torch.eye(3), torch.arange(3)))
    >>> X.shape, X[np.array([2, 0])].shape, X[2]
    ((3, 3), (2, 3), array([0., 0., 1.], dtype=float32))
    >>> np.asarray(X[1:])
    array([[0., 1., 0.],
           [0., 0., 1.]], dtype=float32)
    """

    n_peeked = 32

    def __init__(self, dataset: Any, positions: ArrayLike | None = None) -> None:
        positions = None if positions is None else np.asarray(positions)
        super().__init__(len(dataset), positions)
        self.dataset = dataset
        self._source = _read_by_us(dataset)
        self._kind: RowKind | None = None
        self._pool: ReaderPool | None = None

    @property
    def _first(self) -> "RowKind":
        if self._kind is None:
            first = int(self._positions[0]) if len(self) else 0
            with random_state_kept():
                self._kind = first_kind(self._source, first)
        return self._kind

    @property
    def picture_format(self) -> PictureFormat | None:
        """How its images become numbers. None if its items are no images."""
        return self._first.pictures if len(self.dataset) else None

    def read_as(
        self, pictures: PictureFormat | None, channels: int | None = None
    ) -> "DatasetRows":
        """Return the same rows, with images read in the format of a detector.

        Without a format, one with `channels` is chosen by the first image.
        """
        rows = DatasetRows(self.dataset, self._positions)
        files = _files_read_as(self._source, pictures, channels)
        if files is not self._source:
            rows._source = files
        elif self._first.pictures is not None:
            first = int(self._positions[0]) if len(self) else 0
            with random_state_kept():
                rows._kind = first_kind(self._source, first, pictures, channels)
        return rows

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row, that of the first."""
        return self._first.shape if len(self.dataset) else ()

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the first row."""
        return self._first.dtype

    def with_workers(self, num_workers: int) -> "DatasetRows":
        """Give the same rows, which worker processes will read."""
        rows = self._at(self._positions)
        # A daemon may have no children; the rows are the same without.
        if multiprocessing.current_process().daemon:
            num_workers = 0
        rows._pool = ReaderPool(BatchReader(self._source, self._first), num_workers)
        return rows

    def _at(self, positions: np.ndarray) -> "DatasetRows":
        rows = DatasetRows(self.dataset, positions)
        rows._source, rows._kind = self._source, self._kind
        rows._pool = self._pool
        return rows

    def _read(
        self, batches: Iterable[np.ndarray], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        pool = self._pool or ReaderPool(BatchReader(self._source, self._first), 0)
        return pool.read((turn, batch) for batch in batches)

    def __getitem__(self, key: Any) -> Any:
        """Read one row, or give the rows of a slice, a mask or positions."""
        if isinstance(key, tuple):  # scikit-learn asks for X[rows, ...].
            key = key[0]
        if isinstance(key, int | np.integer):
            return next(self.batches([np.array([key])]))[0].numpy()
        return self.take(np.arange(len(self))[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all rows into one array."""
        array = np.empty(self.shape, self.dtype)
        start = 0
        for batch in self.in_chunks():
            array[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        return array if dtype is None else array.astype(dtype)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_pool": None}

    def __repr__(self) -> str:
        return f"DatasetRows({type(self.dataset).__name__}, {len(self)} rows)"


class ImageFiles(Dataset):
    """A list of image files as a dataset, in colour as torchvision's ``ImageFolder``.

    Images are turned as their EXIF entry demands, and transparent pixels are laid
    over white. 16-bit files are divided by 65535, and float files keep their values.
    A set has one depth: that of its first file, or of the files that a detector was
    fitted on.

    Parameters
    ----------
    paths : sequence of path
    transform : callable, default=None
        From a PIL image to one of the size that all are to have, or to a tensor, as in
        :mod:`torchvision.transforms`. It is given an image of mode ``"RGB"``
        (``"L"`` for a detector of grey images), or ``"F"`` if the file holds more than
        8 bits a channel.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (4, 3), 200).save(path)
    >>> X = DatasetRows(ImageFiles([path]))
    >>> X.shape, X.dtype
    ((1, 3, 3, 4), dtype('uint8'))
    """

    def __init__(self, paths: Iterable[Any], transform: Any = None) -> None:
        self.samples: list[Any] = [os.fspath(path) for path in paths]
        self.transform = transform
        self._format: PictureFormat | None = None
        self._channels = 3
        self._warned_of_pages = False

    @property
    def picture_format(self) -> PictureFormat:
        """Format of all the files, chosen by the first one if it was not given."""
        if self._format is None:
            self._format = PictureFormat.of_file(self._path(0), self._channels)
        return self._format

    def read_as(
        self, pictures: PictureFormat | None, channels: int | None = None
    ) -> "ImageFiles":
        """Return the same files, read in the format of a detector."""
        files = copy(self)
        files._format = pictures
        files._channels = self._channels if channels is None else channels
        return files

    def _path(self, position: int) -> str:
        return self.samples[position]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Any:
        """Open an image."""
        rule, path = self.picture_format, self._path(position)
        with opened_picture(path) as opened:
            if not self._warned_of_pages:
                self._warned_of_pages = warn_of_pages(path, opened)
            picture = rule.read(opened)
        return picture if self.transform is None else self.transform(picture)


class LabelledImageFiles(ImageFiles):
    """Image files with a class each, laid out as torchvision's ``ImageFolder`` is.

    Parameters
    ----------
    samples : sequence of (path, int)
        Files, and the positions of their classes in `classes`.
    classes : sequence of str
    transform : callable, default=None
        As of :class:`ImageFiles`.

    Attributes
    ----------
    samples : list of (str, int)
    targets : list of int
    classes : list of str
    class_to_idx : dict of str to int
    """

    def __init__(
        self,
        samples: Iterable[tuple[Any, int]],
        classes: Sequence[str],
        transform: Any = None,
    ) -> None:
        super().__init__((), transform)
        self.samples = [(os.fspath(path), target) for path, target in samples]
        self.targets = [target for _, target in self.samples]
        self.classes = list(classes)
        self.class_to_idx = {name: i for i, name in enumerate(self.classes)}

    def _path(self, position: int) -> str:
        return self.samples[position][0]

    def __getitem__(self, position: int) -> tuple[Any, int]:
        """Open an image, and give the position of its class with it."""
        return super().__getitem__(position), self.targets[position]


def _read_by_us(dataset: Any) -> Any:
    """Replace torchvision's reader of files, which would lose a part of the picture.

    Its `ImageFolder` and `DatasetFolder` neither turn pictures nor keep more than 8
    bits a channel. A loader of the user's own stays, and a class that reads by itself.
    """
    folder = sys.modules.get("torchvision.datasets.folder")
    if folder is None:
        return dataset
    base = folder.DatasetFolder
    loaders = (folder.default_loader, folder.pil_loader)

    def replaced(inner: Any) -> Any:
        if not isinstance(inner, base) or inner.loader not in loaders:
            return inner
        own = type(inner)
        if own.__getitem__ is not base.__getitem__ or own.__len__ is not base.__len__:
            return inner
        return LabelledImageFiles(inner.samples, inner.classes, inner.transform)

    return _rebuilt(dataset, replaced)


def _files_read_as(
    dataset: Any, pictures: PictureFormat | None, channels: int | None
) -> Any:
    """Give the same dataset with its image files read in a format."""

    def replaced(inner: Any) -> Any:
        is_files = isinstance(inner, ImageFiles)
        return inner.read_as(pictures, channels) if is_files else inner

    return _rebuilt(dataset, replaced)


def _rebuilt(dataset: Any, replaced: Callable[[Any], Any]) -> Any:
    """Replace the datasets inside torch's subsets and concatenations."""
    if type(dataset) is Subset:
        inner = _rebuilt(dataset.dataset, replaced)
        is_same = inner is dataset.dataset
        return dataset if is_same else Subset(inner, dataset.indices)
    if type(dataset) is ConcatDataset:
        parts = [_rebuilt(part, replaced) for part in dataset.datasets]
        pairs = zip(parts, dataset.datasets, strict=True)
        is_same = all(part is old for part, old in pairs)
        return dataset if is_same else ConcatDataset(parts)
    return replaced(dataset)


def rows_of(X: Any, num_workers: int = 0) -> Rows:
    """Give checked X as rows. Of a dataset, worker processes will read them."""
    if isinstance(X, DatasetRows):
        return X.with_workers(num_workers)
    return X if isinstance(X, Rows) else ArrayRows(X)


def work_of(X: Rows) -> int:
    """Count the numbers in the rows of a table. Images are work for all threads.

    Examples
    --------
    >>> work_of(ArrayRows(np.zeros((5, 3)))), work_of(ArrayRows(np.zeros((5, 1, 8, 8))))
    (15, 1000000000)
    """
    return len(X) * X.input_shape[0] if len(X.input_shape) == 1 else 10**9


def dataset_rows(X: Any) -> DatasetRows | None:
    """Give rows of what is no array but a dataset. None of all else.

    Datasets are torch's, arrays that stay in a file (of h5py or zarr), lists of the
    names of image files, and whatever else has a length and items, but is no list.

    Examples
    --------
    >>> from torch.utils.data import TensorDataset
    >>> dataset_rows(TensorDataset(torch.zeros(2, 3))), dataset_rows([[1.0]])
    (DatasetRows(TensorDataset, 2 rows), None)
    """
    if isinstance(X, DatasetRows):
        return X
    if isinstance(X, DataLoader | IterableDataset):
        way = "X.dataset, and num_workers=... to the detector"
        if isinstance(X, IterableDataset):
            way = "a dataset with `__len__` and `__getitem__`, or arrays"
        raise ValueError(
            f"X is a {type(X).__name__}, whose rows cannot be read one by one, in any "
            f"order; fit and scoring need that. Give {way}."
        )
    if isinstance(X, Dataset) or is_on_disk(X) or _has_only_items(X):
        return DatasetRows(X)
    if _are_file_names(X):
        return DatasetRows(ImageFiles(X))
    return None


def _has_only_items(X: Any) -> bool:
    if isinstance(X, Sequence | Mapping | type):
        return False
    is_array = any(hasattr(X, name) for name in ("shape", "__array__", "columns"))
    return hasattr(X, "__len__") and hasattr(X, "__getitem__") and not is_array


def _are_file_names(X: Any) -> bool:
    is_list = isinstance(X, list | tuple)
    is_column = getattr(X, "ndim", 0) == 1 and hasattr(X, "__len__")
    if not (is_list or is_column) or not len(X):
        return False
    if not all(isinstance(name, str | os.PathLike) for name in X):
        return False
    # Texts are not names of files; those without an ending may be.
    names = [os.fspath(name) for name in X]
    return any(map(HAS_ENDING, names)) or any(map(os.path.exists, names[:N_TRIED]))

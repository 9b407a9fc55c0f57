"""X as rows that are read where a batch needs them: datasets, files, memory maps."""

import multiprocessing
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_validate
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)
from torchvision.datasets import ImageFolder

from children import extra_memory
from shared import SCORING_METHODS
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.datasets import DatasetRows, ImageFiles, image_folder
from skvmdls.inputs.rows import ArrayRows, dataset_rows, rows_of
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.model_selection import LeaveClassesOut, get_scorer

# What transforms of others draw from.
# ruff: noqa: NPY002

QUICK = {
    "precision": "float32",
    "max_epochs": 2,
    "contamination": 0.2,
    "random_state": 0,
    "device": "cpu",
    "batch_size": 32,
}
METHODS = (
    *SCORING_METHODS,
    "p_values",
    "prediction_set",
    "select_unknown",
    "reconstruct",
    "reconstruction_weight",
)
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def images():
    """Small pictures in colour, in bytes, of two classes."""
    rng = np.random.default_rng(0)
    y = np.repeat(["dark", "light"], 40)
    X = rng.integers(0, 90, (80, 3, 8, 9), dtype=np.uint8)
    X[y == "light"] += 160
    return X, y


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for i, (x, label) in enumerate(zip(*images, strict=True)):
        (root / label).mkdir(exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(root / label / f"{i:03}.png")
    return root


@pytest.fixture(scope="module")
def of_images(images):
    return VMDLSDetector(**QUICK, autoencoder_epochs=1).fit(*images)


class Items:
    """What has a length and items, and is nothing else."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        if not 0 <= i < len(self.X):
            raise IndexError(i)
        return self.X[i]


def as_hdf5(X, folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "X.h5", "w") as file:
        file["X"] = X
    return h5py.File(folder / "X.h5", "r")["X"]


def as_memory_map(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


KINDS = {
    "tensors": lambda X, _: TensorDataset(torch.from_numpy(X), torch.zeros(len(X))),
    "subset": lambda X, _: Subset(
        TensorDataset(torch.from_numpy(X[::-1].copy())), range(len(X) - 1, -1, -1)
    ),
    "items": lambda X, _: Items(X),
    "rows": lambda X, _: DatasetRows(Items(X)),
    "hdf5": as_hdf5,
    "memory map": as_memory_map,
}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_fits_and_scores_as_the_array_does(
    kind, num_workers, images, of_images, tmp_path
):
    X, y = images
    dataset = KINDS[kind](X, tmp_path)
    detector = clone(of_images).set_params(num_workers=num_workers).fit(dataset, y)
    assert detector.input_shape_ == (3, 8, 9)
    np.testing.assert_array_equal(
        detector.score_samples(dataset), of_images.score_samples(X)
    )
    assert detector.offset_ == of_images.offset_
    if kind == "tensors" and num_workers:
        for method in METHODS:
            np.testing.assert_array_equal(
                getattr(detector, method)(dataset), getattr(of_images, method)(X)
            )
        explained, expected = detector.explain(dataset), of_images.explain(X)
        for name, value in expected.items():
            np.testing.assert_array_equal(explained[name], value)
        assert detector.score(dataset, y) == of_images.score(X, y)


def test_tables_and_grey_images_come_as_datasets_too(table):
    X, y = table
    for given in (X, X.astype(np.float32), np.repeat(X[:, :, None], 8, axis=2)):
        given = np.repeat(given, 2, axis=1) if given.ndim == 3 else given
        expected = VMDLSbDetector(**QUICK).fit(given, y)
        found = VMDLSbDetector(**QUICK).fit(Items(given), y)
        np.testing.assert_array_equal(
            found.score_samples(Items(given)), expected.score_samples(given)
        )


def test_new_classes_are_added_from_a_dataset(table):
    X, y = table
    known = y < 2
    detectors = [VMDLSbDetector(**QUICK).fit(X[known], y[known]) for _ in range(2)]
    detectors[0].add_classes(X[~known], y[~known])
    detectors[1].add_classes(Items(X[~known]), y[~known])
    np.testing.assert_array_equal(*(d.score_samples(X) for d in detectors))


def test_a_folder_of_images_is_read_as_its_pixels(images, folder, of_images):
    X, y = images
    rows, labels = image_folder(folder)
    np.testing.assert_array_equal(labels, y)
    assert rows.shape == X.shape
    assert rows.dtype == X.dtype
    np.testing.assert_array_equal(np.asarray(rows), X)
    names = [path for path, _ in rows.dataset.samples]
    expected = of_images.score_samples(X)
    for given in (rows, ImageFolder(folder), names, np.array(names), ImageFiles(names)):
        np.testing.assert_array_equal(of_images.score_samples(given), expected)


def test_pictures_of_all_modes_become_channels_first():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    colour = Image.fromarray(pixels)
    for mode, channels in {"RGB": 3, "L": 1, "RGBA": 3, "P": 3, "1": 1}.items():
        rows = DatasetRows([colour.convert(mode)])
        assert rows.shape == (1, channels, 5, 4), mode
        assert rows.dtype == np.uint8
    np.testing.assert_array_equal(DatasetRows([colour])[0], pixels.transpose(2, 0, 1))


class Noisy(Dataset):
    """Rows with noise of all three generators, as transforms draw it."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        drawn = random.random() + np.random.uniform() + torch.rand(()).item()
        return self.X[i] + 0.1 * drawn


def test_random_transforms_repeat_whatever_the_number_of_workers(table):
    X, y = table
    noisy = Noisy(X)
    states = random.getstate(), np.random.get_state()[1], torch.get_rng_state()
    scores = []
    for num_workers in (0, 1, 3):
        detector = VMDLSbDetector(**QUICK, num_workers=num_workers).fit(noisy, y)
        scores.append(detector.score_samples(noisy))
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    # Drawn anew in each epoch, and by each row.
    rows = DatasetRows(noisy)
    turns = [next(rows.batches([np.arange(9)], (0, epoch))) for epoch in (0, 1, 0)]
    assert torch.equal(turns[0], turns[2])
    moved = (turns[1] - turns[0])[:, 0]
    assert len(moved.unique()) == 9


@pytest.mark.slow
def test_searches_and_splits_take_rows_as_they_take_arrays(table):
    X, y = table
    rows = DatasetRows(Items(X))
    detector = VMDLSbDetector(**QUICK)
    found = []
    for given in (X, rows):
        cv = StratifiedKFold(2, shuffle=True, random_state=0)
        search = GridSearchCV(detector, {"contamination": [0.1, 0.3]}, cv=cv)
        search.fit(given, y)
        left_out = cross_validate(
            detector,
            given,
            y,
            cv=LeaveClassesOut(2, n_unknown=1, random_state=0),
            scoring=get_scorer("auroc"),
        )
        found.append((search.cv_results_["mean_test_score"], left_out["test_score"]))
    np.testing.assert_array_equal(*found)


def test_parts_of_rows_are_those_of_the_array():
    X = np.arange(24.0).reshape(8, 3)
    rows = DatasetRows(Items(X))
    mask = X[:, 0] > 9
    for key in (slice(2, 7, 2), [3, 1, 1], np.array([5]), mask, (np.array([2]), ...)):
        part = rows[key]
        assert isinstance(part, DatasetRows)
        assert part.shape == X[key].shape
        np.testing.assert_array_equal(np.asarray(part), X[key])
        np.testing.assert_array_equal(np.asarray(part[::-1]), X[key][::-1])
    for i in (0, np.int64(7), -1):
        np.testing.assert_array_equal(rows[i], X[i])
    again = pickle.loads(pickle.dumps(rows.with_workers(1)[1:3]))
    np.testing.assert_array_equal(np.asarray(again), X[1:3])
    assert rows[:0].shape == (0, 3)


# ------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "cannot be read: FileNotFoundError"),
        (lambda path: path.write_bytes(b"no image"), "UnidentifiedImageError"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-60]),
            "cannot be read: OSError",
        ),
        (
            lambda path: Image.new("RGB", (5, 7)).save(path),
            r"shape \(3, 7, 5\).*first has \(3, 8, 9\).*transforms.Resize",
        ),
    ],
    ids=["missing", "no image", "cut off", "another size"],
)
def test_a_bad_file_is_named_and_loses_nothing(
    spoil, message, num_workers, images, of_images, folder, tmp_path
):
    X, y = images
    names = []
    for i in range(len(X)):
        names.append(tmp_path / f"{i}.png")
        Image.fromarray(X[i].transpose(1, 2, 0)).save(names[-1])
    spoil(names[17])
    detector = clone(of_images).set_params(num_workers=num_workers).fit(X, y)
    before = detector.score_samples(X)
    part = Subset(ImageFiles(names), range(10, 30))
    for place, act in (
        (17, lambda: detector.fit(names, y)),
        (17, lambda: detector.score_samples(names)),
        (7, lambda: detector.predict(part)),
    ):
        named = rf"^Row {place} of X, the file '.*17\.png', .*{message}"
        with pytest.raises(ValueError, match=named):
            act()
        np.testing.assert_array_equal(detector.score_samples(X), before)


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (DataLoader(TensorDataset(torch.eye(3))), "DataLoader.*X.dataset"),
        (Endless(), "Endless, whose rows cannot be read one by one"),
        (Items([{"pixels": 1}]), "Row 0 of X cannot be read.*it is a dict"),
        (Items([np.zeros(())]), r"Row 0 of X.*shape \(\)"),
        (Items([np.zeros((1, 2, 3, 4))]), r"Row 0 of X.*shape \(1, 2, 3, 4\)"),
        (Items(["words"]), "Row 0 of X.*dtype <U5"),
        (Items(np.full((3, 2), np.nan)), "Row 0 of X contains NaN or infinity"),
        (Items([np.zeros(3)] * 3 + [np.zeros(2)]), r"Row 3 of X has shape \(2,\)"),
        (Items([np.zeros(3)] * 3 + [np.zeros(3, int)]), "Row 3 of X.*dtype int64"),
        (Items([]), "X, a Items, holds 0 samples"),
        (["a.png", "b.png"], "Row 0 of X, the file 'a.png', cannot be read"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_read_by_the_row_is_explained(given, message):
    with pytest.raises(ValueError, match=message):
        VMDLSbDetector().fit(given, [0, 0, 1, 1])


@pytest.mark.slow
def test_a_dataset_of_another_shape_than_at_fit_is_refused(of_images, table):
    with pytest.raises(ValueError, match=r"inputs of shape \(3, 8, 8\).*\(3, 8, 9\)"):
        of_images.predict(Items(np.zeros((2, 3, 8, 8), np.uint8)))
    of_rows = VMDLSbDetector(**QUICK).fit(*table)
    with pytest.raises(ValueError, match=r"inputs of shape \(5,\).*\(6,\)"):
        of_rows.predict(Items(np.zeros((2, 5))))


def test_labels_are_asked_for_beside_a_folder(folder):
    with pytest.raises(ValueError, match=r"requires y .*y=X.targets"):
        VMDLSbDetector().fit(ImageFolder(folder), None)


def test_images_in_other_units_are_warned_of_in_a_dataset_too(of_images, images):
    with pytest.warns(UserWarning, match="in the same units"):
        of_images.predict(Items(images[0] * 1.0))


def test_a_daemon_which_may_have_no_workers_reads_by_itself(
    of_images, images, monkeypatch
):
    X = images[0][:5]
    expected = of_images.score_samples(X)
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    found = clone_fitted(of_images, num_workers=2).score_samples(Items(X))
    np.testing.assert_array_equal(found, expected)


def clone_fitted(detector, **parameters):
    return pickle.loads(pickle.dumps(detector)).set_params(**parameters)


# ------------------------------------------------------------------- memory


@pytest.mark.parametrize("shape", [(6,), (3, 8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint16, np.float16, ">f8"])
def test_only_batches_are_ever_converted(dtype, shape, monkeypatch):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 150)
    X = rng.integers(0, 99, (300, *shape)) + 20 * y.reshape(-1, *[1] * len(shape))
    X = X.astype(dtype)
    sizes, transform = [], Standardizer.transform

    def observed(self, batch, dtype=torch.float32):
        sizes.append(len(batch))
        return transform(self, batch, dtype)

    monkeypatch.setattr(Standardizer, "transform", observed)
    # Parts without a net are fitted to all rows at once.
    features = ("x", "t1", "mu", "logit") if len(shape) == 1 else "auto"
    settings = {"autoencoder_epochs": 1, "calibration": "split"}
    detector = VMDLSDetector(**QUICK, **settings, features=features)
    detector.fit(X, y)
    for method in METHODS:
        getattr(detector, method)(X)
    detector.explain(X)
    assert max(sizes) <= 135


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int64, np.float16, np.float32, np.longdouble]
)
def test_the_statistics_and_the_batches_are_numpys(dtype):
    """A slow, obvious reference, whole and in float64."""
    X = np.random.default_rng(0).integers(0, 256, (1500, 2, 9, 9)).astype(dtype)
    whole = X.astype(np.float64) / (255 if dtype == np.uint8 else 1)
    mean, scale = whole.mean((0, 2, 3)), whole.std((0, 2, 3))
    standardizer = Standardizer().fit(X)
    np.testing.assert_allclose(standardizer.mean_.ravel(), mean, rtol=1e-13)
    np.testing.assert_allclose(standardizer.scale_.ravel(), scale, rtol=1e-13)
    expected = (whole - standardizer.mean_) / standardizer.scale_
    for given in (X, DatasetRows(Items(X))):
        found = torch.cat(list(standardizer.batches(given, 64, torch.device("cpu"))))
        np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


def test_equal_content_has_equal_digests_wherever_it_is_read_from(tmp_path):
    X = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    X[4] = X[2]
    expected = ArrayRows(X).content
    for given in (as_memory_map(X, tmp_path), Items(X), np.asfortranarray(X)):
        rows = rows_of(dataset_rows(given) or given)
        for found, one in zip(rows.content, expected, strict=True):
            np.testing.assert_array_equal(found, one)
        part = rows.take(np.array([4, 2, 0])).digests
        assert part[0] == part[1] != part[2]


def tiny(input_shape):
    net = nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 8, stride=8),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        nn.Flatten(),
    )
    net.taps = ("0", "1", "2")
    return net


def fit_memory_map(path, n):
    X = np.load(path, mmap_mode="r")[:n]
    settings = QUICK | {"max_epochs": 1, "backbone": tiny, "contamination": 0}
    VMDLSbDetector(**settings).fit(X, np.arange(n) % 2)


@pytest.mark.slow
def test_the_memory_of_fit_beyond_x_does_not_grow_with_x(tmp_path, monkeypatch):
    # Else glibc keeps what was freed, now more and now less: that is not ours.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(2**17))
    n, shape = 9000, (3, 32, 32)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, (n, *shape))
    X[:] = np.random.default_rng(0).integers(0, 256, X.shape, dtype=np.uint8)
    X.flush()
    fit = partial(fit_memory_map, tmp_path / "X.npy")
    few, many = (extra_memory(partial(fit, size)) for size in (n // 3, n))
    # The map's own pages count; a copy in float32 would be four times as much more.
    assert many - few < 2 * (X.nbytes * 2 / 3) / 2**20

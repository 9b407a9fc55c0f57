"""Batches from arrays on disk and from worker processes."""

import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from skvmdls.datasets import DatasetRows
from skvmdls.inputs.loading import (
    BatchReader,
    ReaderPool,
    RowKind,
    StoredArray,
    first_kind,
)

h5py = pytest.importorskip("h5py")


class CountingArray:
    """An array on disk, as far as its reader sees, that counts what is read."""

    def __init__(self, array, chunk):
        self.array, self.chunks = array, (chunk, *array.shape[1:])
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = []

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        self.reads.append(key)
        return self.array[key]


@pytest.mark.parametrize("budget", [0, 500, 10**6])
@pytest.mark.parametrize("chunk", [1, 7, 100, 1000])
def test_rows_of_chunks_are_those_of_the_array(chunk, budget):
    """Against numpy's own indexing, in any order and with repeats."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 3))
    stored = StoredArray(CountingArray(X, chunk), budget)
    for _ in range(5):
        positions = rng.integers(0, 100, 30)
        np.testing.assert_array_equal(stored.rows(positions), X[positions])


def test_a_chunk_is_read_once_for_a_batch_and_kept_while_there_is_room():
    array = CountingArray(np.arange(100.0).reshape(50, 2), chunk=10)
    stored = StoredArray(array, budget=10**6)
    positions = np.random.default_rng(0).permutation(50)
    stored.rows(positions)
    assert len(array.reads) == 5
    stored.rows(positions)
    assert len(array.reads) == 5


def test_what_is_kept_stays_within_the_budget():
    array = CountingArray(np.zeros((100, 2)), chunk=10)
    stored = StoredArray(array, budget=2 * 160)
    stored.rows(np.arange(100))
    assert len(stored._kept) == 2
    stored.rows(np.arange(80, 100))
    assert len(array.reads) == 10


def test_kept_chunks_do_not_travel_to_other_processes():
    stored = StoredArray(CountingArray(np.zeros((100, 20)), chunk=10))
    stored.rows(np.arange(100))
    assert not pickle.loads(pickle.dumps(stored))._kept


@pytest.mark.parametrize("layout", [{}, {"chunks": (7, 4, 5), "compression": "gzip"}])
def test_a_set_in_an_hdf5_file_is_read_as_the_array(layout, tmp_path):
    X = np.random.default_rng(0).integers(0, 9, (40, 4, 5)).astype(np.uint16)
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file.create_dataset("X", data=X, **layout)
    with h5py.File(tmp_path / "X.h5") as file:
        rows = DatasetRows(file["X"])
        assert rows.shape == (40, 1, 4, 5)
        np.testing.assert_array_equal(np.asarray(rows[[5, 3, 39]]), X[[5, 3, 39], None])


def test_a_part_of_a_set_is_read_by_chunks_too():
    X = np.random.default_rng(0).normal(size=(60, 3))
    array = CountingArray(X, 10)
    picked = np.random.default_rng(1).permutation(60)[:40]
    part = Subset(Subset(array, picked), range(39, -1, -1))
    rows = DatasetRows(part)
    np.testing.assert_array_equal(np.asarray(rows), X[picked][::-1])
    assert len(array.reads) <= 7  # The first row, and six chunks.


def test_sets_in_several_files_are_read_by_chunks_too():
    X = np.random.default_rng(0).normal(size=(60, 3))
    arrays = [CountingArray(X[:25], 10), CountingArray(X[25:], 10)]
    rows = DatasetRows(Subset(ConcatDataset(arrays), range(59, -1, -1)))
    order = np.random.default_rng(1).permutation(60)
    found = torch.cat(list(rows.batches(order.reshape(4, 15))))
    np.testing.assert_array_equal(found, X[::-1][order])
    # The first row, and each chunk once.
    assert [len(array.reads) for array in arrays] == [3, 5]


class ManyAtOnce(Dataset):
    """A dataset that reads many items in one call, as torch's data loader asks for."""

    def __init__(self, X):
        self.X, self.calls = X, []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.__getitems__([i])[0]

    def __getitems__(self, positions):
        self.calls.append(positions)
        return [(self.X[i], 0) for i in positions]


@pytest.mark.parametrize(
    "wrapped", [lambda part: part, lambda part: Subset(part, SOME)]
)
def test_a_dataset_that_reads_many_items_is_asked_once_for_a_batch(wrapped):
    X = np.random.default_rng(0).normal(size=(30, 2, 8, 8))
    dataset = ManyAtOnce(X)
    rows = DatasetRows(wrapped(dataset))
    expected = np.asarray([X[i] for i in SOME]) if len(rows) == len(SOME) else X
    dataset.calls.clear()
    order = np.random.default_rng(1).permutation(len(rows))
    np.testing.assert_array_equal(rows.take(order), expected[order])
    [_, positions] = dataset.calls  # The first row shows the shape.
    assert positions == sorted(positions)


SOME = [4, 29, 0, 7, 7, 12]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda items: items[:-1], "__getitems__ returned 2 items for 3 positions"),
        (lambda items: 1 / 0, "Rows 3, 5, 9 of X cannot be read: ZeroDivisionError"),
        (lambda items: [(x[:1], 0) for x, _ in items], "Row 3 of X has shape"),
        (lambda items: [(x * np.nan, 0) for x, _ in items], "Row 3 of X contains NaN"),
    ],
)
def test_what_is_wrong_with_many_items_is_named(change, message):
    class Bad(ManyAtOnce):
        def __getitems__(self, positions):
            items = super().__getitems__(positions)
            return items if len(positions) == 1 else change(items)

    with pytest.raises(ValueError, match=message):
        np.asarray(DatasetRows(Bad(np.ones((30, 4))))[[9, 3, 5]])


def test_nan_in_a_chunk_is_named_by_its_row(tmp_path):
    X = np.zeros((30, 3), np.float32)
    X[17, 1] = np.nan
    rows = DatasetRows(CountingArray(X, 10))
    with pytest.raises(ValueError, match="Row 17 of X contains NaN or infinity"):
        np.asarray(rows[[3, 17, 20]])


def test_a_file_that_breaks_off_is_an_error_of_x():
    class Broken(CountingArray):
        def __getitem__(self, key):
            if isinstance(key, slice):
                raise OSError("cannot read data")
            return super().__getitem__(key)

    with pytest.raises(ValueError, match="Rows of X cannot be read.*cannot read data"):
        np.asarray(DatasetRows(Broken(np.zeros((9, 2)), 3)))


# ------------------------------------------------------------------- workers


class Ones(Dataset):
    def __init__(self, size=8):
        self.size = size

    def __len__(self):
        return 100

    def __getitem__(self, i):
        return np.full(self.size, i, np.float32)


class Dying(Ones):
    def __getitem__(self, i):
        if i == 5 and torch.utils.data.get_worker_info() is not None:
            os._exit(3)
        return super().__getitem__(i)


def test_workers_send_arrays_which_need_no_shared_memory():
    reader = BatchReader(Ones(), RowKind((8,), np.dtype(np.float32)))
    batch = reader[(0,), np.arange(3)]
    assert type(batch) is np.ndarray
    [found] = ReaderPool(reader, 1).read([((0,), np.arange(3))])
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found, batch)
    assert not found.is_shared()


def test_a_worker_that_dies_is_an_error_with_the_way_out():
    dataset = Dying()
    pool = ReaderPool(BatchReader(dataset, first_kind(dataset, 0)), 1)
    with pytest.raises(RuntimeError, match="has died.*num_workers=0.*--shm-size"):
        list(pool.read([((0,), np.arange(9))]))


def test_workers_that_cannot_be_started_are_an_error_with_the_way_out(monkeypatch):
    """As where /dev/shm is full: the locks between processes lie there."""

    def full(*_):
        raise OSError(28, "No space left on device")

    pool = ReaderPool(BatchReader(Ones(), first_kind(Ones(), 0)), 1)
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", full)
    with pytest.raises(RuntimeError, match="No space left.*num_workers=0.*--shm-size"):
        list(pool.read([((0,), np.arange(9))]))


SMALL_SHARED_MEMORY = textwrap.dedent(
    """
    import numpy as np
    from skvmdls.datasets import DatasetRows

    class Large:
        def __len__(self):
            return 40
        def __getitem__(self, i):
            return np.full(100_000, i, np.float32)

    rows = DatasetRows(Large()).with_workers(2)
    batches = [np.arange(i, i + 10) for i in range(0, 40, 10)]
    assert [int(b[0, 0]) for b in rows.batches(batches)] == [0, 10, 20, 30]
    print("read")
    """
)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0,
    reason="mounts a small /dev/shm, as root on Linux",
)
@pytest.mark.slow
def test_workers_read_batches_larger_than_the_shared_memory():
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    words = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"']
    ended = subprocess.run(
        [*words, sys.executable, SMALL_SHARED_MEMORY],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip("mounts are not allowed here")
    assert ended.stdout.strip() == "read", ended.stderr

"""X as rows that are read where a batch needs them: arrays, memory maps, datasets.

Nothing is converted on the way: bytes stay bytes until they are standardised.
"""

import hashlib
import multiprocessing
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision.datasets.folder import default_loader

from skvmdls._validation import as_numpy

__all__ = [
    "ArrayRows",
    "DatasetRows",
    "ImageFiles",
    "InputLike",
    "Rows",
    "dataset_rows",
    "rows_of",
]

# Large enough for numpy to be quick, and small enough for rows in float64.
CHUNK, CHUNK_NUMBERS = 1024, 2**23

# What torch has no type for becomes float64, a batch at a time.
TORCH_TYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
]

# X as users give it.
InputLike = ArrayLike | Dataset[Any]


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
        """Read batches of positions (k,) as tensors (k, *input_shape), on the CPU.

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
        """What makes two of them the same, wherever they are read from."""
        return str(self.dtype), self.input_shape, self.digests.view(np.uint8)


class ArrayRows(Rows):
    """Rows of an array (n, ...), which may be a memory map; nothing of it is copied.

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
            yield torch.from_numpy(_of_torchs_types(np.asarray(self.array[batch])))


class DatasetRows(Rows):
    """Any map-style dataset as X, read row by row and never held whole.

    The detectors make one of a dataset themselves: a ``Dataset`` of torch, an
    ``ImageFolder``, a set in an HDF5 file, a list of names of image files, or whatever
    else has a length and items. It is for scikit-learn's searches and splits, which
    take parts of X: an array of positions gives the rows there, none of which is read;
    a single position gives that row.

    Parameters
    ----------
    dataset : object with ``__len__`` and ``__getitem__``
        Its item, or the first of a tuple, is a row: an array or a tensor of shape
        (features,), (height, width) or (channels, height, width), or a picture of PIL.
        All have one shape and one dtype.
    positions : ndarray of shape (n,), int, default=None
        Which of its items, and in which order; None is all of them.

    Attributes
    ----------
    shape : tuple of int
        (n, features) or (n, channels, height, width).
    dtype : dtype
        That of the first row.

    Raises
    ------
    ValueError
        If a row cannot be read, or is of another shape; the message names the row and,
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
        self._kind: _Kind | None = None
        self._pool: _Pool | None = None

    @property
    def _first(self) -> "_Kind":
        if self._kind is None:
            first = int(self._positions[0]) if len(self) else 0
            with _randomness_kept():
                row = _row(self.dataset, first, (0,))
            self._kind = _Kind(row.shape, row.dtype)
        return self._kind

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
        rows._pool = _Pool(_Reader(self.dataset, self._first), num_workers)
        return rows

    def _at(self, positions: np.ndarray) -> "DatasetRows":
        rows = DatasetRows(self.dataset, positions)
        rows._kind, rows._pool = self._kind, self._pool
        return rows

    def _read(
        self, batches: Iterable[np.ndarray], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        pool = self._pool or _Pool(_Reader(self.dataset, self._first), 0)
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

    Parameters
    ----------
    paths : sequence of path
    transform : callable, default=None
        From a picture of PIL to one of the size that all are to have, or to a tensor;
        of :mod:`torchvision.transforms`.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "grey.png"
    >>> Image.new("L", (4, 3), 200).save(path)
    >>> X = DatasetRows(ImageFiles([path]))
    >>> X.shape, X.dtype
    ((1, 3, 3, 4), dtype('uint8'))
    """

    def __init__(self, paths: Iterable[Any], transform: Any = None) -> None:
        self.samples = [os.fspath(path) for path in paths]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> Any:
        """Open a picture."""
        picture = default_loader(self.samples[position])
        return picture if self.transform is None else self.transform(picture)


def rows_of(X: Any, num_workers: int = 0) -> Rows:
    """Give checked X as rows; of a dataset, worker processes will read them."""
    if isinstance(X, DatasetRows):
        return X.with_workers(num_workers)
    return X if isinstance(X, Rows) else ArrayRows(X)


def dataset_rows(X: Any) -> DatasetRows | None:
    """Give rows of what is no array but a dataset; None of all else.

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
    if isinstance(X, Dataset) or _is_on_disk(X) or _has_only_items(X):
        return DatasetRows(X)
    if _are_file_names(X):
        return DatasetRows(ImageFiles(X))
    return None


def _is_on_disk(X: Any) -> bool:
    is_in_chunks = hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "chunks")
    return is_in_chunks and len(X.shape) > 0 and not hasattr(X, "dask")


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
    return all(isinstance(name, str | os.PathLike) for name in X)


class _Kind(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype


class _Unreadable(NamedTuple):
    """An error on its way from a worker, without the worker's traceback around it."""

    message: str


class _Reader(Dataset):
    """Batches of a dataset's rows, by turn and positions; runs in a worker."""

    def __init__(self, dataset: Any, kind: _Kind) -> None:
        self.dataset, self.kind = dataset, kind

    def __getitem__(self, order: Any) -> Tensor | _Unreadable:
        turn, positions = order
        try:
            with _randomness_kept():
                rows = [self._checked_row(int(i), turn) for i in positions]
        except ValueError as error:
            return _Unreadable(str(error))
        return torch.from_numpy(np.stack(rows))

    def _checked_row(self, position: int, turn: tuple[int, ...]) -> np.ndarray:
        row = _row(self.dataset, position, turn)
        if row.shape != self.kind.shape or row.dtype != self.kind.dtype:
            raise ValueError(
                f"{_named(self.dataset, position)} has shape {row.shape} and dtype "
                f"{row.dtype}, but the first has {self.kind.shape} and "
                f"{self.kind.dtype}; expected one shape and one dtype. Bring pictures "
                "to one size in the dataset's transform: "
                "torchvision.transforms.Resize((height, width))."
            )
        return row


class _Orders:
    """What a data loader is to read next.

    Not the pool itself: workers end at once only if no cycle of references, which waits
    for the garbage collector, leads to them.
    """

    next: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.next)


class _Pool:
    """A data loader whose workers live as long as a fit, whatever is read next."""

    def __init__(self, reader: _Reader, num_workers: int) -> None:
        self.orders = _Orders()
        self.loader = DataLoader(
            reader,
            # No batch is put together again: each order is one.
            batch_size=None,
            sampler=self.orders,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=_as_it_is,
            # Its seeds are not the caller's business, nor are the caller's its.
            generator=torch.Generator(),
        )

    def read(self, orders: Iterable[Any]) -> Iterator[Tensor]:
        self.orders.next = orders
        for batch in self.loader:
            if isinstance(batch, _Unreadable):
                raise ValueError(batch.message)
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _row(dataset: Any, position: int, turn: tuple[int, ...]) -> np.ndarray:
    """Read one row as an array (features,) or (channels, height, width)."""
    seed = np.random.SeedSequence((*turn, position)).generate_state(1)[0]
    random.seed(int(seed))
    np.random.seed(seed)  # noqa: NPY002  # Transforms of others draw from it.
    torch.default_generator.manual_seed(int(seed))
    try:
        item = dataset[position]
        row = _of_torchs_types(_as_array(item))
    except Exception as error:
        raise ValueError(
            f"{_named(dataset, position)} cannot be read: {type(error).__name__}: "
            f"{error}"
        ) from error
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        raise ValueError(f"{_named(dataset, position)} contains NaN or infinity.")
    return row


def _as_array(item: Any) -> np.ndarray:
    if isinstance(item, tuple) and item:
        item = item[0]
    if isinstance(item, Image.Image):
        if item.mode in ("1", "P"):
            item = item.convert("L" if item.mode == "1" else "RGB")
        pixels = np.asarray(item)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    row = as_numpy(item, "it") if isinstance(item, Tensor) else np.asarray(item)
    if row.dtype.kind not in "biuf" or row.ndim not in (1, 2, 3):
        raise ValueError(
            f"it is a {type(item).__name__}, of dtype {row.dtype} and shape "
            f"{row.shape}; expected numbers of shape (features,), (height, width) or "
            "(channels, height, width), or a picture, alone or first of a tuple"
        )
    return row[None] if row.ndim == 2 else row


def _of_torchs_types(array: np.ndarray) -> np.ndarray:
    if array.dtype.name not in TORCH_TYPES or not array.dtype.isnative:
        array = array.astype(np.float64)
    return np.ascontiguousarray(array)


def _named(dataset: Any, position: int) -> str:
    """Name a row of X and, as far as the dataset tells, its file."""
    row = f"Row {position} of X"
    while hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        dataset, position = dataset.dataset, int(dataset.indices[position])
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        return row
    sample = samples[position]
    sample = sample[0] if isinstance(sample, tuple) else sample
    is_file = isinstance(sample, str | os.PathLike)
    return f"{row}, the file {os.fspath(sample)!r}," if is_file else row


@contextmanager
def _randomness_kept() -> Iterator[None]:
    """Put the caller's global random numbers back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])

"""Read rows of a dataset, in this process or in workers."""

import math
import os
import random
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from skvmdls._support.values import as_numpy, listed
from skvmdls.inputs.pictures import PictureFormat, UnfitPictureError, is_grey

__all__ = [
    "BatchReader",
    "ReaderPool",
    "RowKind",
    "first_kind",
    "is_on_disk",
    "of_torch_types",
    "random_state_kept",
]

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


# Bytes of chunks that are kept, and of one where an array is stored as a whole.
CHUNKS_KEPT, USUAL_CHUNK = 2**26, 2**20


class RowKind(NamedTuple):
    """Shape, dtype and picture format of the first row, which all others must have."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pictures: PictureFormat | None = None
    # Of a colour picture behind a grey one, the colours would be lost unnoticed.
    only_grey: bool = False


class _Unreadable(NamedTuple):
    """An error on its way from a worker, without the worker's traceback around it."""

    message: str


class StoredArray:
    """Rows of an array on disk, of h5py or zarr, read by whole chunks.

    To read a row, its whole chunk is decompressed. So all rows of a batch that lie in
    one chunk are read together, and the chunks used last are kept, up to a budget.
    """

    def __init__(self, array: Any, budget: int = CHUNKS_KEPT) -> None:
        self.array, self.budget = array, budget
        row_size = math.prod(array.shape[1:]) * array.dtype.itemsize
        n_usual = max(1, USUAL_CHUNK // max(1, row_size))
        self.step = int(array.chunks[0]) if array.chunks else n_usual
        self.chunk_size = self.step * row_size
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Read the rows at positions (k,), in any order, as an array (k, ...)."""
        positions = np.asarray(positions)
        found = np.empty((len(positions), *self.array.shape[1:]), self.array.dtype)
        chunks = positions // self.step
        for chunk in np.unique(chunks).tolist():
            own = np.flatnonzero(chunks == chunk)
            found[own] = self._chunk(chunk)[positions[own] - chunk * self.step]
        return found

    def _chunk(self, chunk: int) -> np.ndarray:
        if chunk in self._kept:
            self._kept.move_to_end(chunk)
            return self._kept[chunk]
        start = chunk * self.step
        rows = np.asarray(self.array[start : start + self.step])
        if self.chunk_size <= self.budget:
            while self._kept and (len(self._kept) + 1) * self.chunk_size > self.budget:
                self._kept.popitem(last=False)
            self._kept[chunk] = rows
        return rows

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_kept": OrderedDict()}


class BatchReader(Dataset):
    """Batches of a dataset's rows, by turn and positions; runs in a worker.

    They are arrays, not tensors: torch sends tensors through shared memory, of which
    containers have too little, and waits there without an end.
    """

    def __init__(self, dataset: Any, kind: RowKind) -> None:
        self.dataset, self.kind = dataset, kind
        on_disk = [part for part in parts_of(dataset) if is_on_disk(part)]
        self.stored = [
            StoredArray(part, CHUNKS_KEPT // len(on_disk)) for part in on_disk
        ]

    def __getitem__(self, order: Any) -> np.ndarray | _Unreadable:
        turn, positions = order
        positions = np.asarray(positions)
        batch = np.empty((len(positions), *self.kind.shape), self.kind.dtype)
        try:
            with random_state_kept():
                self._fill(batch, positions, turn)
        except ValueError as error:
            return _Unreadable(str(error))
        return batch

    def _fill(
        self, batch: np.ndarray, positions: np.ndarray, turn: tuple[int, ...]
    ) -> None:
        """Read the rows at positions (k,) into a batch (k, ...).

        Those of an array on disk, or of a dataset that reads many items in one call,
        are read together.
        """
        found = [innermost(self.dataset, int(i)) for i in positions]
        at = np.array([place for _, place in found], int)
        for source in {id(source): source for source, _ in found}.values():
            own = np.array([i for i, (each, _) in enumerate(found) if each is source])
            stored = next((each for each in self.stored if each.array is source), None)
            if stored is not None:
                batch[own] = self._stored_rows(stored, at[own], positions[own])
            elif hasattr(source, "__getitems__"):
                own = own[np.argsort(at[own], kind="stable")]
                items = self._items(source, at[own], positions[own], turn)
                for i, item in zip(own, items, strict=True):
                    batch[i] = self._row(item, int(positions[i]))
            else:
                for i in own:
                    position = int(positions[i])
                    with _named_errors(self.dataset, position):
                        item = _item(self.dataset, position, turn)
                    batch[i] = self._row(item, position)

    def _stored_rows(
        self, stored: StoredArray, at: np.ndarray, positions: np.ndarray
    ) -> np.ndarray:
        try:
            rows = of_torch_types(stored.rows(at))
        except Exception as error:
            raise ValueError(
                f"Rows of X cannot be read: {type(error).__name__}: {error}"
            ) from error
        rows = rows[:, None] if rows.ndim == 3 else rows
        self._check_kind(rows[0], int(positions[0]))
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            is_bad = ~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
            bad = int(positions[is_bad.argmax()])
            raise ValueError(f"Row {bad} of X contains NaN or infinity.")
        return rows

    def _items(
        self, source: Any, at: np.ndarray, positions: np.ndarray, turn: tuple[int, ...]
    ) -> list[Any]:
        _seed((*turn, *at.tolist()))
        try:
            items = list(source.__getitems__(at.tolist()))
        except Exception as error:
            raise ValueError(
                f"Rows {listed(map(str, positions))} of X cannot be read: "
                f"{type(error).__name__}: {error}"
            ) from error
        if len(items) != len(at):
            raise ValueError(
                f"{type(source).__name__}.__getitems__ returned {len(items)} items for "
                f"{len(at)} positions; expected one for each."
            )
        return items

    def _row(self, item: Any, position: int) -> np.ndarray:
        row = row_of_item(self.dataset, position, item, self.kind)
        self._check_kind(row, position)
        return row

    def _check_kind(self, row: np.ndarray, position: int) -> None:
        if row.shape != self.kind.shape or row.dtype != self.kind.dtype:
            raise ValueError(
                f"{_named(self.dataset, position)} has shape {row.shape} and dtype "
                f"{row.dtype}, but the first has {self.kind.shape} and "
                f"{self.kind.dtype}; expected one shape and one dtype. Bring images "
                "to one size: resize the files, or pass a dataset whose transform "
                "does, torchvision.transforms.Resize((height, width))."
            )


class _Orders:
    """What a data loader is to read next.

    Not the pool itself: workers end at once only if no cycle of references, which waits
    for the garbage collector, leads to them.
    """

    next: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.next)


class ReaderPool:
    """A data loader whose workers live as long as a fit, whatever is read next."""

    def __init__(self, reader: BatchReader, num_workers: int) -> None:
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
        """Read batches, each by its turn and its positions (k,)."""
        self.orders.next = orders
        try:
            batches = iter(self.loader)
        except OSError as error:
            raise RuntimeError(
                f"The processes that read rows of X cannot be started: {error}. Often "
                "/dev/shm is full, or too many files are open. Use none "
                "(num_workers=0), or give the container more (docker run --shm-size)."
            ) from error
        try:
            for batch in batches:
                if isinstance(batch, _Unreadable):
                    raise ValueError(batch.message)
                yield torch.from_numpy(batch)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RuntimeError(
                f"A process that reads rows of X has died: {error} Often memory runs "
                "out, /dev/shm in a container included. Use fewer processes or none "
                "(num_workers=0), or give the container more (docker run --shm-size)."
            ) from error


def is_on_disk(X: Any) -> bool:
    """Whether X is an array that stays in a file, as those of h5py and zarr do."""
    is_in_chunks = hasattr(X, "shape") and hasattr(X, "dtype") and hasattr(X, "chunks")
    return is_in_chunks and len(X.shape) > 0 and not hasattr(X, "dask")


def _as_it_is(batch: Any) -> Any:
    return batch


def first_kind(
    dataset: Any,
    position: int,
    pictures: PictureFormat | None = None,
    channels: int | None = None,
) -> RowKind:
    """Read a row, to learn what all rows are to be like.

    If its item is a picture of PIL, and no format is given, one is chosen by it.
    """
    only_grey = False
    with _named_errors(dataset, position):
        item = _item(dataset, position, (0,))
        files, _ = innermost(dataset, position)
        if pictures is None:
            pictures = getattr(files, "picture_format", None)
        if pictures is None and isinstance(item, Image.Image):
            pictures = PictureFormat.of(item, channels)
            only_grey = channels is None and pictures.channels == 1
        row = of_torch_types(_row_of(item, files, pictures))
    _check_finite(row, dataset, position)
    # A transform may have made it grey.
    if pictures is not None and row.ndim == 3 and len(row) in (1, 3):
        pictures = replace(pictures, channels=len(row))
    return RowKind(row.shape, row.dtype, pictures, only_grey)


def row_of_item(dataset: Any, position: int, item: Any, kind: RowKind) -> np.ndarray:
    """Convert an item of a dataset to an array (features,) or (channels, ...)."""
    item = _first_of(item)
    with _named_errors(dataset, position):
        if isinstance(item, Image.Image) and kind.only_grey and not is_grey(item):
            raise UnfitPictureError(
                "is in colour, but the first image is grey; expected one kind. "
                "Convert them in the dataset: image.convert('RGB')."
            )
        files, _ = innermost(dataset, position)
        row = of_torch_types(_row_of(item, files, kind.pictures))
    _check_finite(row, dataset, position)
    return row


def _check_finite(row: np.ndarray, dataset: Any, position: int) -> None:
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        raise ValueError(f"{_named(dataset, position)} contains NaN or infinity.")


def _item(dataset: Any, position: int, turn: tuple[int, ...]) -> Any:
    _seed((*turn, position))
    return _first_of(dataset[position])


def _seed(numbers: tuple[int, ...]) -> None:
    seed = np.random.SeedSequence(numbers).generate_state(1)[0]
    random.seed(int(seed))
    np.random.seed(seed)  # noqa: NPY002  # Transforms of others draw from it.
    torch.default_generator.manual_seed(int(seed))


def _first_of(item: Any) -> Any:
    """Return the input of an item that may hold its label too."""
    return item[0] if isinstance(item, tuple) and item else item


@contextmanager
def _named_errors(dataset: Any, position: int) -> Iterator[None]:
    """Raise every error as a ValueError that names the row and its file."""
    try:
        yield
    except UnfitPictureError as error:
        raise ValueError(f"{_named(dataset, position)} {error}") from error
    except Exception as error:
        raise ValueError(
            f"{_named(dataset, position)} cannot be read: {type(error).__name__}: "
            f"{error}"
        ) from error


def _row_of(item: Any, files: Any, pictures: PictureFormat | None) -> np.ndarray:
    """Convert an item to an array; of image files pictures come as they are to be."""
    if isinstance(item, Image.Image):
        rule = pictures or PictureFormat.of(item)
        is_read = hasattr(files, "picture_format")
        return rule.pixels(item) if is_read else rule.as_array(item)
    row = as_numpy(item, "it") if isinstance(item, Tensor) else np.asarray(item)
    if row.dtype.kind not in "biuf" or row.ndim not in (1, 2, 3):
        raise ValueError(
            f"it is a {type(item).__name__}, of dtype {row.dtype} and shape "
            f"{row.shape}; expected numbers of shape (features,), (height, width) or "
            "(channels, height, width), or a PIL image, alone or first of a tuple"
        )
    return row[None] if row.ndim == 2 else row


def parts_of(dataset: Any) -> list[Any]:
    """List the datasets inside torch's subsets and concatenations."""
    if isinstance(dataset, ConcatDataset):
        return [part for inner in dataset.datasets for part in parts_of(inner)]
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return parts_of(dataset.dataset)
    return [dataset]


def innermost(dataset: Any, position: int) -> tuple[Any, int]:
    """Find the dataset that a row comes from, and its position there."""
    while True:
        if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
            position = int(dataset.indices[position])
            dataset = dataset.dataset
        elif isinstance(dataset, ConcatDataset):
            place = bisect_right(dataset.cumulative_sizes, position)
            position -= dataset.cumulative_sizes[place - 1] if place else 0
            dataset = dataset.datasets[place]
        else:
            return dataset, position


def of_torch_types(array: np.ndarray) -> np.ndarray:
    """Convert an array of a type that torch lacks to float64."""
    if array.dtype.name not in TORCH_TYPES or not array.dtype.isnative:
        array = array.astype(np.float64)
    return np.ascontiguousarray(array)


def _named(dataset: Any, position: int) -> str:
    """Name a row of X and, as far as the dataset tells, its file."""
    row = f"Row {position} of X"
    dataset, position = innermost(dataset, position)
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, Sequence) or isinstance(samples, str):
        return row
    sample = samples[position]
    sample = sample[0] if isinstance(sample, tuple) else sample
    is_file = isinstance(sample, str | os.PathLike)
    return f"{row}, the file {os.fspath(sample)!r}," if is_file else row


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the caller's global random numbers back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])

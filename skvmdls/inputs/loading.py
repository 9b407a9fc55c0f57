"""Read rows of a dataset, in this process or in workers."""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from skvmdls._support.values import as_numpy

__all__ = [
    "BatchReader",
    "ReaderPool",
    "RowKind",
    "of_torch_types",
    "random_state_kept",
    "read_row",
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


class RowKind(NamedTuple):
    """Shape and dtype of the first row, which all others must have."""

    shape: tuple[int, ...]
    dtype: np.dtype


class _Unreadable(NamedTuple):
    """An error on its way from a worker, without the worker's traceback around it."""

    message: str


class BatchReader(Dataset):
    """Batches of a dataset's rows, by turn and positions; runs in a worker."""

    def __init__(self, dataset: Any, kind: RowKind) -> None:
        self.dataset, self.kind = dataset, kind

    def __getitem__(self, order: Any) -> Tensor | _Unreadable:
        turn, positions = order
        try:
            with random_state_kept():
                rows = [self._checked_row(int(i), turn) for i in positions]
        except ValueError as error:
            return _Unreadable(str(error))
        return torch.from_numpy(np.stack(rows))

    def _checked_row(self, position: int, turn: tuple[int, ...]) -> np.ndarray:
        row = read_row(self.dataset, position, turn)
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
        for batch in self.loader:
            if isinstance(batch, _Unreadable):
                raise ValueError(batch.message)
            yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def read_row(dataset: Any, position: int, turn: tuple[int, ...]) -> np.ndarray:
    """Read one row as an array (features,) or (channels, height, width)."""
    seed = np.random.SeedSequence((*turn, position)).generate_state(1)[0]
    random.seed(int(seed))
    np.random.seed(seed)  # noqa: NPY002  # Transforms of others draw from it.
    torch.default_generator.manual_seed(int(seed))
    try:
        item = dataset[position]
        row = of_torch_types(row_as_array(item))
    except Exception as error:
        raise ValueError(
            f"{_named(dataset, position)} cannot be read: {type(error).__name__}: "
            f"{error}"
        ) from error
    if row.dtype.kind == "f" and not np.isfinite(row).all():
        raise ValueError(f"{_named(dataset, position)} contains NaN or infinity.")
    return row


def row_as_array(item: Any) -> np.ndarray:
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


def of_torch_types(array: np.ndarray) -> np.ndarray:
    """Convert an array of a type that torch lacks to float64."""
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
def random_state_kept() -> Iterator[None]:
    """Put the caller's global random numbers back."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])

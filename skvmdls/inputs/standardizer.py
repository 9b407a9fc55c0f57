"""Standardise inputs by statistics of the training rows, batch by batch."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from skvmdls._support.devices import fits_on, float64_device, to_device
from skvmdls._support.stored_arrays import check_shape, stored_array
from skvmdls._support.values import warn
from skvmdls.inputs.robust import MOST_ROWS, ColumnScales, robust_scales
from skvmdls.inputs.rows import ArrayRows, Rows, rows_of

__all__ = ["FARTHEST", "BatchSource", "Standardizer"]

# Beyond this many standard deviations all inputs are equally strange, and further out
# float32 would overflow inside the net.
FARTHEST = 1e6

# Far larger values have squares that a float64 cannot sum.
LARGEST = 1e150


class Standardizer:
    """Give inputs zero mean and unit variance, feature by feature or per channel.

    The statistics come from scikit-learn's :class:`~sklearn.preprocessing.\
StandardScaler`, fed chunk by chunk, so that X is never held whole. Images of
    dtype uint8 are divided by 255 first, so that bytes and floats in [0, 1] mean the
    same.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (features,) or (channels, 1, 1), float64
    smallest_, largest_ : float
        The range of the values seen, of bytes after the division.
    were_bytes_ : bool
        Whether they were of dtype uint8.
    columns_ : ColumnScales or None
        For tables with cells far from all others in their column, such as codes for
        "missing": the bounds of the columns, and the codes. Codes become the mean, and
        other cells beyond a bound become the bound.

    Examples
    --------
    >>> X = np.array([[0.0, 5.0], [2.0, 5.0]])
    >>> Standardizer().fit(X).transform(X)
    tensor([[-1.,  0.],
            [ 1.,  0.]])
    """

    def fit(self, X: np.ndarray | Rows) -> "Standardizer":
        """Learn the statistics of X, whose values must have squares, in one pass."""
        X = rows_of(X)
        scaler = StandardScaler()
        self.columns_ = _far_columns(X) if X.ndim == 2 else None
        self.were_bytes_ = X.dtype == np.uint8
        self.smallest_, self.largest_ = math.inf, -math.inf
        for chunk in X.in_chunks():
            values = unit_range(chunk).numpy()
            self.smallest_ = min(self.smallest_, float(values.min()))
            self.largest_ = max(self.largest_, float(values.max()))
            extent = max(-self.smallest_, self.largest_)
            if extent > LARGEST:
                raise ValueError(
                    f"X holds values as large as {extent:.3g}, too large to be "
                    f"standardised: their squares overflow. Rescale X to stay below "
                    f"{LARGEST:.0e}."
                )
            if self.columns_ is not None:
                # What is missing has no part in the mean and the variance.
                values = np.where(self.columns_.is_far(values), np.nan, values)
            scaler.partial_fit(np.moveaxis(values, 1, -1).reshape(-1, X.shape[1]))
        per_channel = (-1,) + (1,) * (X.ndim - 2)
        self.mean_ = scaler.mean_.reshape(per_channel)
        # A constant feature's mean is rounded; the rounding error is no deviation.
        rounding = 1e-12 * np.abs(self.mean_)
        self.scale_ = np.maximum(scaler.scale_.reshape(per_channel), rounding)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Hand out what was learned, for :meth:`from_state`."""
        return {
            "mean": self.mean_,
            "scale": self.scale_,
            "range": [self.smallest_, self.largest_],
            "were_bytes": self.were_bytes_,
            **({} if self.columns_ is None else self.columns_.state_dict()),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], input_shape: tuple[int, ...]
    ) -> "Standardizer":
        """Rebuild from a `state_dict`, checked against the shape of one input."""
        shape = (input_shape[0],) + (1,) * (len(input_shape) - 1)
        standardizer = cls()
        for name in ("mean", "scale"):
            array = stored_array(state, name, len(shape), of="standardizer")
            check_shape(f"standardizer.{name}", array.shape, shape)
            setattr(standardizer, f"{name}_", array)
        if standardizer.scale_.min() <= 0:
            raise ValueError("standardizer.scale must be positive")
        extent = state["range"]
        are_floats = isinstance(extent, list) and [*map(type, extent)] == [float] * 2
        are_floats = are_floats and bool(np.isfinite(extent).all())
        if not are_floats or type(state["were_bytes"]) is not bool:
            raise ValueError(
                "standardizer: expected a range of two floats and whether they were "
                f"bytes, found {str(extent)[:50]} and {str(state['were_bytes'])[:50]}"
            )
        standardizer.smallest_, standardizer.largest_ = extent
        standardizer.were_bytes_ = state["were_bytes"]
        standardizer.columns_ = None
        if "lower" in state:
            columns = ColumnScales.from_state(state, shape)
            standardizer.columns_ = columns
        return standardizer

    def warn_of_other_units(self, X: np.ndarray | Rows) -> None:
        """Warn if images look as if they were scaled otherwise than those of `fit`.

        Bytes are divided by 255 and floats are not: to a detector fitted on floats up
        to 255, bytes are all black; to one fitted on bytes, such floats are glaring.
        """
        # Bytes next to bytes are right, however dark.
        if X.ndim != 4 or (X.dtype == np.uint8 and self.were_bytes_):
            return
        values = unit_range(rows_of(X).first())
        smallest, largest = float(values.min()), float(values.max())
        if self._look_rescaled(smallest, largest):
            divided = " (uint8 divided by 255)"
            warn(
                f"X holds {X.dtype} images with values from {smallest:.3g} to "
                f"{largest:.3g}{divided * (X.dtype == np.uint8)}, but the detector was "
                f"fitted on values from {self.smallest_:.3g} to {self.largest_:.3g}"
                f"{divided * self.were_bytes_}. Give images as they were given to fit: "
                "in the same units and the same range."
            )

    def _look_rescaled(self, smallest: float, largest: float) -> bool:
        extent = max(-self.smallest_, self.largest_)
        size = max(-smallest, largest)
        # Of 255 and 1, or 65535 and 255: no image is so much brighter or darker.
        if size > 16 * extent or 0 < size < extent / 64:
            return True
        # Of [-1, 1] and [0, 1]: one has black at its most negative, the other at 0.
        if self.smallest_ < -0.1 * extent:
            return 0 <= smallest < 0.05 * largest
        return self.smallest_ >= 0 and smallest < -0.1 * size

    def transform(
        self, X: np.ndarray | Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standardise a batch, from whatever dtype, on the device that it is on.

        NaN, which only scikit-learn's ``assume_finite`` lets through, becomes as far
        out as anything can be: such a row is the strangest for every method.
        """
        given = X if isinstance(X, Tensor) else next(rows_of(X).in_order(len(X)))
        # In float64, which not all devices have.
        device = float64_device(given.device)
        mean, scale = (
            torch.from_numpy(array).to(device) for array in (self.mean_, self.scale_)
        )
        values = unit_range(given.to(device))
        if self.columns_ is not None:
            values = self.columns_.bounded(values)
        values = (values - mean).div_(scale)
        values = values.clamp_(-FARTHEST, FARTHEST).nan_to_num_(nan=FARTHEST)
        return values.to(dtype).to(given.device)

    def inverse_transform(self, standardized: Tensor) -> np.ndarray:
        """Undo :meth:`transform`; images that were uint8 come back in [0, 1]."""
        return standardized.double().numpy() * self.scale_ + self.mean_

    def batches(
        self,
        X: np.ndarray | Rows,
        batch_size: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[Tensor]:
        """Standardise batch by batch, in the order of the rows, on the device."""
        for batch in rows_of(X).in_order(batch_size):
            yield self.standardize(batch, device, dtype)

    def standardize(
        self, batch: Tensor, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Standardise one batch, as it was read, on the device."""
        return self.transform(to_device(batch, device), dtype)


def _far_columns(X: Rows) -> ColumnScales | None:
    """Look for far cells in a table, in some rows at even distances."""
    positions = np.linspace(0, len(X) - 1, min(len(X), MOST_ROWS)).astype(int)
    some = torch.cat(list(X.take(positions).in_chunks())).double().numpy()
    if np.abs(some).max(initial=0) > LARGEST:
        return None
    scales = robust_scales(some)
    return scales if scales.has_bounds else None


def unit_range(batch: Tensor) -> Tensor:
    values = batch.double()
    return values / 255 if batch.dtype == torch.uint8 and batch.ndim == 4 else values


class BatchSource:
    """Standardised float32 batches of rows, on a device, for training.

    Arrays that fit a GPU with the training are kept there as they came; of all other
    rows, a batch is sent there when it is needed.

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [4.0]])
    >>> rows, standardizer = ArrayRows(X), Standardizer().fit(X[:2])
    >>> feed = BatchSource(rows, standardizer, torch.device("cpu"))
    >>> list(feed.batches([torch.tensor([2, 0])], (0,)))
    [tensor([[ 3.],
             [-1.]])]
    """

    def __init__(
        self, rows: Rows, standardizer: Standardizer, device: torch.device
    ) -> None:
        self.rows, self.standardizer, self.device = rows, standardizer, device
        n_bytes = math.prod(rows.shape) * rows.dtype.itemsize
        self.resident: Tensor | None = None
        is_array = isinstance(rows, ArrayRows)
        if is_array and device.type == "cuda" and fits_on(n_bytes, device):
            self.resident = torch.cat([chunk.to(device) for chunk in rows.in_chunks()])

    def __len__(self) -> int:
        return len(self.rows)

    def batches(
        self, batches: Iterable[Tensor], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        """Give batches by the positions (k,) of their rows."""
        for batch in self._read(batches, turn):
            yield self.standardizer.transform(to_device(batch, self.device))

    def _read(
        self, batches: Iterable[Tensor], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        if self.resident is None:
            return self.rows.batches(batches, turn)
        resident = self.resident
        return (resident[batch.to(self.device)] for batch in batches)

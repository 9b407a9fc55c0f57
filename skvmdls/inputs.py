"""From arrays to tensors: shapes, labels, standardisation."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data
from torch import Tensor

from skvmdls._devices import fits_on, float64_device, to_device
from skvmdls._labels import as_labels
from skvmdls._rows import ArrayRows, DatasetRows, Rows, dataset_rows, rows_of
from skvmdls._states import check_shape, stored_array
from skvmdls._validation import as_array, plain, warn

__all__ = [
    "Feed",
    "Standardizer",
    "check_inputs",
    "check_labels",
    "check_training_data",
    "labels_with_unknown",
]

# Beyond this many standard deviations all inputs are equally strange, and further out
# float32 would overflow inside the net.
FARTHEST = 1e6
# Far larger values have squares that a float64 cannot sum.
LARGEST = 1e150


def check_inputs(
    estimator: Any, X: Any, input_shape: tuple[int, ...] | None
) -> np.ndarray | DatasetRows:
    """Validate X by scikit-learn's rules, for tables, for images, and for datasets.

    Images come back with four axes (n, channels, height, width), nothing copied where
    it need not be; datasets, of which the first row is read, as rows. `input_shape` is
    that of one input seen during fit; None during fit, where the estimator gets
    ``n_features_in_`` (and ``feature_names_in_``).

    Examples
    --------
    >>> from sklearn.base import BaseEstimator
    >>> check_inputs(BaseEstimator(), np.zeros((5, 8, 8)), None).shape
    (5, 1, 8, 8)
    """
    rows = dataset_rows(X)
    if rows is not None:
        if not len(rows):
            raise ValueError(f"X, a {type(X).__name__}, holds 0 samples.")
        return _checked_shape(estimator, rows, rows.shape, input_shape)
    X = as_array(X)
    is_table = len(X.shape) <= 2
    if is_table and input_shape is not None and len(input_shape) == 3:
        raise ValueError(
            f"X has shape {X.shape}, but {type(estimator).__name__} was fitted on "
            f"images of shape (channels, height, width) = {input_shape}. Pass X "
            "of shape (n, channels, height, width); a single image as X[None]."
        )
    X = validate_data(
        estimator,
        X,
        reset=input_shape is None,
        dtype="numeric",
        allow_nd=True,
        ensure_2d=is_table,
    )
    if is_table:
        return X
    if X.ndim > 4:
        raise ValueError(
            f"X has {X.ndim} dimensions, shape {X.shape}; expected (n, features), "
            "(n, height, width) or (n, channels, height, width). Without a net of "
            "its own for it, give it as a table: X.reshape(len(X), -1)."
        )
    images = X if X.ndim == 4 else X[:, None]
    return _checked_shape(estimator, images, X.shape, input_shape)


def _checked_shape(
    estimator: Any, X: Any, given: tuple[int, ...], input_shape: tuple[int, ...] | None
) -> Any:
    if X.ndim == 4 and 0 in X.shape[1:]:
        raise ValueError(f"X has shape {given}: its images hold no pixels.")
    if input_shape is None:
        estimator.n_features_in_ = int(np.prod(X.shape[1:]))
    elif X.shape[1:] != input_shape:
        raise ValueError(
            f"X has shape {given}: inputs of shape {X.shape[1:]}, but "
            f"{type(estimator).__name__} was fitted on inputs of shape {input_shape}."
            f"{_shape_hint(given, input_shape)}"
        )
    return X


def _shape_hint(shape: tuple[int, ...], input_shape: tuple[int, ...]) -> str:
    if shape == input_shape:
        return " Pass a single image as X[None]."
    if len(input_shape) == 3 and shape[1:] == (*input_shape[1:], input_shape[0]):
        return " Channels come first: try X.transpose(0, 3, 1, 2)."
    return ""


def check_labels(y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Find the classes of labels (n,), sorted, and the position (n,) of each in them.

    Examples
    --------
    >>> classes, encoded = check_labels(np.array(["cat", "dog", "dog", "cat"]))
    >>> encoded
    array([0, 1, 1, 0])
    """
    y = as_labels(y)
    check_classification_targets(y)
    if y.dtype.kind == "u" and y.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(
            f"y holds the label {y.max()}, too large to stand in one array with -1 for "
            "'unknown'. Use labels below 2**63, or strings."
        )
    classes, encoded, counts = np.unique(y, return_inverse=True, return_counts=True)
    if any(label in (-1, "-1") for label in classes.tolist()):
        raise ValueError(
            "y contains the label -1, which stands for 'unknown' in the predictions. "
            "Train on known classes only: rename the class, or drop its rows."
        )
    if len(classes) < 2:
        raise ValueError(
            f"y holds 1 class, {classes.tolist()}; at least 2 classes are needed to "
            "shape the latent space. For a single class use an outlier detector such "
            "as sklearn.ensemble.IsolationForest."
        )
    if counts.min() < 2:
        lonely = classes[counts < 2].tolist()
        raise ValueError(
            f"Classes with one sample in y: {lonely[:5]}{'...' * (len(lonely) > 5)}. "
            "Each class needs at least 2 samples; drop these classes or add to them."
        )
    return classes, encoded


def check_training_data(
    estimator: Any, X: Any, y: Any
) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Validate X and y: gives X, the classes, and the position (n,) of each label."""
    if y is None:
        way = " Give it beside the dataset: y=X.targets." * hasattr(X, "targets")
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but "
            f"the target y is None.{way}"
        )
    X = check_inputs(estimator, X, input_shape=None)
    y = as_labels(y)
    check_consistent_length(X, y)
    return rows_of(X, plain(estimator.num_workers)), *check_labels(y)


def labels_with_unknown(classes: np.ndarray) -> np.ndarray:
    """Put the label for "unknown" behind the classes, in one array.

    Strings get ``"-1"``. Booleans and unsigned integers become signed integers, since
    they cannot hold -1.

    Examples
    --------
    >>> labels_with_unknown(np.array([3, 5]))
    array([ 3,  5, -1])
    >>> labels_with_unknown(np.array(["a", "b"]))
    array(['a', 'b', '-1'], dtype='<U2')
    """
    if classes.dtype.kind == "U" or isinstance(classes[0], str):
        return np.append(classes, np.array("-1", dtype=classes.dtype.kind))
    if classes.dtype.kind in "bu":
        signed = np.promote_types(classes.dtype, np.int8)
        classes = classes.astype(np.int64 if signed.kind == "f" else signed)
    return np.append(classes, np.array(-1, dtype=classes.dtype))


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
        self.were_bytes_ = X.dtype == np.uint8
        self.smallest_, self.largest_ = math.inf, -math.inf
        for chunk in X.in_chunks():
            values = _unit_range(chunk).numpy()
            self.smallest_ = min(self.smallest_, float(values.min()))
            self.largest_ = max(self.largest_, float(values.max()))
            extent = max(-self.smallest_, self.largest_)
            if extent > LARGEST:
                raise ValueError(
                    f"X holds values as large as {extent:.3g}, too large to be "
                    f"standardised: their squares overflow. Rescale X to stay below "
                    f"{LARGEST:.0e}."
                )
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
        return standardizer

    def warn_of_other_units(self, X: np.ndarray | Rows) -> None:
        """Warn if images look as if they were scaled otherwise than those of `fit`.

        Bytes are divided by 255 and floats are not: to a detector fitted on floats up
        to 255, bytes are all black; to one fitted on bytes, such floats are glaring.
        """
        # Bytes beside bytes are right, however dark.
        if X.ndim != 4 or (X.dtype == np.uint8 and self.were_bytes_):
            return
        values = _unit_range(rows_of(X).first())
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
        # Of 255 and 1, or 65535 and 255: no picture is so much brighter or darker.
        if size > 16 * extent or 0 < size < extent / 64:
            return True
        # Of [-1, 1] and [0, 1]: one has black at its most negative, the other at 0.
        if self.smallest_ < -0.1 * extent:
            return 0 <= smallest < 0.05 * largest
        return self.smallest_ >= 0 and smallest < -0.1 * size

    def transform(
        self, X: np.ndarray | Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Standardise a batch, from whatever dtype, on the device that it is on."""
        given = X if isinstance(X, Tensor) else next(rows_of(X).in_order(len(X)))
        # In float64, which not all devices have.
        device = float64_device(given.device)
        mean, scale = (
            torch.from_numpy(array).to(device) for array in (self.mean_, self.scale_)
        )
        values = (_unit_range(given.to(device)) - mean).div_(scale)
        return values.clamp_(-FARTHEST, FARTHEST).to(dtype).to(given.device)

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
            yield self.transform(to_device(batch, device), dtype)


def _unit_range(batch: Tensor) -> Tensor:
    values = batch.double()
    return values / 255 if batch.dtype == torch.uint8 and batch.ndim == 4 else values


class Feed:
    """Standardised float32 batches of rows, on a device, for training.

    Arrays that fit a GPU beside the training are kept there as they came; of all other
    rows, a batch is sent there when it is needed.

    Examples
    --------
    >>> X = np.array([[0.0], [2.0], [4.0]])
    >>> rows, standardizer = ArrayRows(X), Standardizer().fit(X[:2])
    >>> feed = Feed(rows, standardizer, torch.device("cpu"))
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

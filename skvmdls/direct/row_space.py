"""The space in which parts without a net compare rows: standardised, or of unit length.

Distances between table rows mean something once each column is divided by its spread.
Embeddings of a pretrained net are compared by their direction, so that each row is
divided by its length (Mueller and Hein, "Mahalanobis++", ICML 2025). Rows of thousands
of columns are described by their coordinates in the span of the training rows, and by
their distance from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["RowSpace", "looks_like_vectors"]

# Beyond this many spreads all values are equally strange, and squares stay finite.
FARTHEST = 1e6
SMALLEST_LENGTH = 1e-12
# Rows of more columns are described in the span of the training rows, which is found
# exactly for at most so many rows, and else by its largest directions.
WIDEST, LARGEST_SPAN, N_DIRECTIONS = 2048, 1024, 512
# Embeddings have many columns of real numbers in one unit: few values occur twice, and
# the spreads of the columns are of one order.
FEWEST_COLUMNS, DISTINCT_SHARE, LARGEST_SPREAD_RATIO = 64, 0.5, 100.0
N_LOOKED_AT = 1000


def looks_like_vectors(X: np.ndarray) -> bool:
    """Whether rows (n, features) look like embeddings rather than a table's rows.

    True of 64 columns and more that hold real numbers in one unit. In most columns
    more than half of the values other than zero are distinct, and the largest spreads
    are at most 100 times the smallest ones (95 % and 5 % quantiles).

    Parameters
    ----------
    X : ndarray of shape (n, features)
        The first 1,000 rows are looked at.

    Returns
    -------
    is_vectors : bool

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> looks_like_vectors(rng.normal(size=(50, 384)))
    True
    >>> looks_like_vectors(rng.integers(3, size=(50, 384)))
    False
    """
    if X.shape[1] < FEWEST_COLUMNS:
        return False
    rows = np.asarray(X[:N_LOOKED_AT], dtype=np.float64)
    spreads = rows.std(axis=0)
    if not (spreads > 0).any():
        return False
    low, high = np.quantile(spreads[spreads > 0], [0.05, 0.95])
    ordered = np.sort(rows, axis=0)
    is_new = np.ones(ordered.shape, dtype=bool)
    is_new[1:] = np.diff(ordered, axis=0) != 0
    n_distinct = (is_new & (ordered != 0)).sum(axis=0)
    n_nonzero = (rows != 0).sum(axis=0)
    # A column with one value other than zero tells nothing.
    n_distinct, n_nonzero = n_distinct[n_nonzero > 1], n_nonzero[n_nonzero > 1]
    return bool(
        len(n_nonzero)
        and np.median(n_distinct / n_nonzero) > DISTINCT_SHARE
        and high <= LARGEST_SPREAD_RATIO * low
    )


@dataclass(frozen=True)
class RowSpace:
    """A map from rows (n, features) to the space in which parts compare them.

    Rows become ``z = (x - centre) / scale``, limited to a million spreads. With
    `normalize` they are divided by their lengths, and `shift` is subtracted. With a
    `basis` they become their coordinates in it and, last, their distance from its span.

    Parameters
    ----------
    centre, scale, shift : Tensor of shape (features,), float64
    normalize : bool
        Whether rows are brought to unit length.
    basis : Tensor of shape (features, r), float64, or None
        Orthonormal columns.

    Examples
    --------
    >>> X = np.array([[3.0, 4.0], [3.0, -4.0]])
    >>> space = RowSpace.fit(X, normalize=True)
    >>> space(torch.from_numpy(X))
    tensor([[ 0.0000,  0.8000],
            [ 0.0000, -0.8000]], dtype=torch.float64)
    """

    centre: Tensor
    scale: Tensor
    shift: Tensor
    normalize: bool
    basis: Tensor | None = None

    @classmethod
    def fit(
        cls,
        X: np.ndarray,
        *,
        normalize: bool,
        centre: np.ndarray | None = None,
        scale: np.ndarray | None = None,
        widest: int = WIDEST,
    ) -> "RowSpace":
        """Learn the space of training rows (n, features).

        Without `normalize`, columns are centred and divided by `scale`. Both default to
        the mean and the standard deviation; constant columns are not scaled. Rows of
        more than `widest` columns get a basis.
        """
        n_features = X.shape[1]
        if normalize:
            centre, scale = np.zeros(n_features), np.ones(n_features)
        else:
            centre = X.mean(axis=0, dtype=np.float64) if centre is None else centre
            scale = _spreads(X, centre) if scale is None else scale
        space = cls(
            torch.from_numpy(np.asarray(centre, dtype=np.float64)),
            torch.from_numpy(np.asarray(scale, dtype=np.float64)),
            torch.zeros(n_features, dtype=torch.float64),
            normalize,
        )
        rows = space(torch.from_numpy(np.asarray(X)))
        shift = rows.mean(dim=0) if normalize else space.shift
        basis = _span((rows - shift).numpy()) if n_features > widest else None
        return cls(space.centre, space.scale, shift, normalize, basis)

    @property
    def n_dimensions(self) -> int:
        """Length of a row in the space."""
        if self.basis is None:
            return len(self.centre)
        return self.basis.shape[1] + 1

    @property
    def n_folded(self) -> int:
        """Dimensions that the last coordinate stands for: 1 without a basis."""
        if self.basis is None:
            return 1
        return max(1, self.basis.shape[0] - self.basis.shape[1])

    def __call__(self, rows: Tensor) -> Tensor:
        """Map rows (n, features), of any dtype, to float64 (n, n_dimensions)."""
        z = ((rows.double() - self.centre) / self.scale).clamp(-FARTHEST, FARTHEST)
        if self.normalize:
            lengths = torch.linalg.vector_norm(z, dim=1, keepdim=True)
            z = z / lengths.clamp_min(SMALLEST_LENGTH)
        z = z - self.shift
        if self.basis is None:
            return z
        coordinates = z @ self.basis
        outside = torch.linalg.vector_norm(
            z - coordinates @ self.basis.T, dim=1, keepdim=True
        )
        return torch.cat([coordinates, outside], dim=1)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        state = {
            "centre": self.centre.numpy(),
            "scale": self.scale.numpy(),
            "shift": self.shift.numpy(),
            "normalize": np.array([float(self.normalize)]),
        }
        return state if self.basis is None else state | {"basis": self.basis.numpy()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "RowSpace":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        names = ("centre", "scale", "shift")
        vectors = [stored_array(state, name, 1, of="row space") for name in names]
        for name, vector in zip(names, vectors, strict=True):
            check_shape(f"row space.{name}", vector.shape, vectors[0].shape)
        if vectors[1].min() <= 0:
            raise ValueError("row space.scale must be positive")
        normalize = stored_array(state, "normalize", 1, of="row space")
        check_shape("row space.normalize", normalize.shape, (1,))
        basis = None
        if "basis" in state:
            basis = stored_array(state, "basis", 2, of="row space")
            check_shape("row space.basis", basis.shape[:1], vectors[0].shape)
        centre, scale, shift = map(torch.from_numpy, vectors)
        return cls(
            centre,
            scale,
            shift,
            bool(normalize[0]),
            None if basis is None else torch.from_numpy(basis),
        )


def _spreads(X: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Compute standard deviations (features,), 1 of columns that are constant."""
    spreads = np.sqrt(np.mean(np.square(X - centre), axis=0, dtype=np.float64))
    rounding = 1e-9 * np.maximum(1e-3, np.abs(centre))
    return np.where(spreads > rounding, spreads, 1.0)


def _span(rows: np.ndarray) -> Tensor:
    """Find an orthonormal basis (D, r) of rows (n, D), or its largest directions."""
    n, n_features = rows.shape
    if n <= LARGEST_SPAN:
        # The rows' products with each other are fewer than the columns'.
        values, vectors = np.linalg.eigh(rows @ rows.T)
        keep = values > n * np.finfo(np.float64).eps * max(values[-1], 1e-300)
        if not keep.any():
            return torch.eye(n_features, 1, dtype=torch.float64)
        basis = rows.T @ vectors[:, keep] / np.sqrt(values[keep])
        return torch.from_numpy(np.linalg.qr(basis)[0])
    _, _, directions = randomized_svd(
        rows.astype(np.float32), N_DIRECTIONS, n_iter=2, random_state=0
    )
    return torch.from_numpy(np.linalg.qr(directions.T.astype(np.float64))[0])

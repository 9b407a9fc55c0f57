"""Scales of a table's columns that a few cells cannot move.

Tables hold codes such as -9999 for "missing". A few of them multiply the standard
deviation of their column, so that all other values look the same. Cells far beyond a
gap take no part in a column's centre and scale, and the values that occur there more
than once are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = [
    "MOST_ROWS",
    "ColumnScales",
    "FarValue",
    "describe_far_values",
    "robust_scales",
]

# At most this share of a column's cells may be far; it is far from the spread of the
# others by so much, and there is so wide a gap between them.
LARGEST_SHARE, FARTHEST_SPREADS, SMALLEST_GAP = 0.05, 20.0, 3.0
# Bounds are found from so many rows, at even distances.
MOST_ROWS = 20_000
# A constant column's mean is rounded; the rounding error is no deviation.
ROUNDING = 1e-12
N_NAMED = 3


class FarValue(NamedTuple):
    """A value beyond the gap of its column, that of most of the far cells there."""

    column: int
    value: float
    share: float
    spreads: float


@dataclass(frozen=True)
class ColumnScales:
    """Centre and scale of columns, from the cells that are not far.

    Parameters
    ----------
    centre, scale : ndarray of shape (features,), float64
        Mean and standard deviation. The scale of a constant column is its rounding
        error, or 1 where that is zero.
    lower, upper : ndarray of shape (features,), float64
        Cells outside are far; infinite in columns without far cells.
    far_values : tuple of FarValue
        Of each column with far cells, the value that most of them have, if it occurs
        twice or more.

    Examples
    --------
    >>> column = np.append(np.arange(99.0), -9999.0)
    >>> scales = robust_scales(column[:, None])
    >>> scales.scale.round(1), bool(scales.is_far(column[-1:, None]))
    (array([28.6]), True)
    """

    centre: np.ndarray
    scale: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    far_values: tuple[FarValue, ...] = ()

    def is_far(self, X: np.ndarray) -> np.ndarray:
        """Mask (n, features) of the cells of X that are far."""
        return ~((self.lower <= X) & (self.upper >= X))

    @property
    def has_bounds(self) -> bool:
        """Whether a column has far cells."""
        return bool(np.isfinite(self.lower).any() or np.isfinite(self.upper).any())

    @property
    def codes(self) -> np.ndarray:
        """The far value of each column (features,), NaN where it has none."""
        codes = np.full(len(self.centre), np.nan)
        for far in self.far_values:
            codes[far.column] = far.value
        return codes

    def bounded(self, X: Tensor) -> Tensor:
        """Replace codes in rows (n, features) by the centre, and limit far cells.

        A code that the training rows hold is nothing unknown. Any other far cell counts
        as 20 spreads from the centre: strange, and no part of a mean that matters.
        """
        reach = FARTHEST_SPREADS * self.scale
        centre, codes, nearest, farthest, lower, upper = (
            torch.from_numpy(array).to(X.device)
            for array in (
                self.centre,
                self.codes,
                self.centre - reach,
                self.centre + reach,
                self.lower,
                self.upper,
            )
        )
        X = torch.where(codes == X, centre, X)
        X = torch.where(lower > X, nearest, X)
        return torch.where(upper < X, farthest, X)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return what :meth:`bounded` needs, for :meth:`from_state`."""
        limits = {"lower": self.lower, "upper": self.upper}
        largest = np.finfo(np.float64).max
        finite = {name: np.clip(a, -largest, largest) for name, a in limits.items()}
        codes = self.codes
        has_code = ~np.isnan(codes)
        given = {"codes": np.where(has_code, codes, 0.0), "has_code": has_code * 1.0}
        return {**finite, **given, "centre": self.centre, "spread": self.scale}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], shape: tuple[int, ...]
    ) -> "ColumnScales":
        """Rebuild from a `state_dict`; a ValueError if it is not of these columns."""
        arrays = {}
        for name in ("lower", "upper", "codes", "has_code", "centre", "spread"):
            arrays[name] = stored_array(state, name, 1, of="standardizer")
            check_shape(f"standardizer.{name}", arrays[name].shape, shape)
        far = [
            FarValue(int(column), float(arrays["codes"][column]), 0.0, 0.0)
            for column in np.flatnonzero(arrays["has_code"])
        ]
        limits = arrays["lower"], arrays["upper"]
        return cls(arrays["centre"], arrays["spread"], *limits, tuple(far))


def robust_scales(X: np.ndarray) -> ColumnScales:
    """Find centre and scale of columns that a few far cells cannot move.

    In each column, cells are ordered by their distance from the median. The spread is
    that of the nearest 95 %. Among the other cells, those are far that lie at 20
    spreads or more, behind a gap: the first of them is at least three times as far as
    the cell before. Columns of which 95 % of the cells are equal have no far cells.

    Parameters
    ----------
    X : ndarray of shape (n, features)
        Finite numbers. Bounds come from at most 20,000 rows at even distances, centre
        and scale from all rows.

    Returns
    -------
    scales : ColumnScales
        Mean and standard deviation where no cell is far.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 2))
    >>> X[:3, 1] = -9999
    >>> robust_scales(X).far_values[0][:3]
    (1, -9999.0, 0.003)
    """
    lower, upper, spreads, medians = _bounds(np.asarray(X[:: -(-len(X) // MOST_ROWS)]))
    X = np.asarray(X, dtype=np.float64)
    has_far = np.isfinite(lower) | np.isfinite(upper)
    centre, scale = X.mean(axis=0), X.std(axis=0)
    far_values = []
    for column in np.flatnonzero(has_far):
        cells = X[:, column]
        is_far = (cells < lower[column]) | (cells > upper[column])
        centre[column], scale[column] = cells[~is_far].mean(), cells[~is_far].std()
        values, counts = np.unique(cells[is_far], return_counts=True)
        if len(values) and counts.max() > 1:
            value = float(values[counts.argmax()])
            distance = abs(value - medians[column]) / spreads[column]
            share = float(counts.max() / len(X))
            far_values.append(FarValue(int(column), value, share, float(distance)))
    rounding = ROUNDING * np.abs(centre)
    scale = np.where(scale > rounding, scale, np.where(rounding > 0, rounding, 1.0))
    return ColumnScales(centre, scale, lower, upper, tuple(far_values))


def _bounds(rows: np.ndarray) -> tuple[np.ndarray, ...]:
    """Find bounds, spreads and medians, (features,) each, from rows (n, features)."""
    rows = rows.astype(np.float64)
    n, n_features = rows.shape
    n_near = int(np.ceil((1 - LARGEST_SHARE) * n))
    medians = np.median(rows, axis=0)
    distances = np.sort(np.abs(rows - medians), axis=0)
    spreads = np.sqrt(np.mean(distances[:n_near] ** 2, axis=0))
    lower, upper = np.full(n_features, -np.inf), np.full(n_features, np.inf)
    if n_near == n:
        return lower, upper, spreads, medians
    before, after = distances[n_near - 1 : -1], distances[n_near:]
    is_gap = (after >= FARTHEST_SPREADS * spreads) & (after >= SMALLEST_GAP * before)
    is_gap &= spreads > 0
    columns = np.flatnonzero(is_gap.any(axis=0))
    first = is_gap[:, columns].argmax(axis=0)
    # Halfway, so that cells that are a little farther than those seen are not far.
    reach = (before[first, columns] + after[first, columns]) / 2
    lower[columns] = medians[columns] - reach
    upper[columns] = medians[columns] + reach
    return lower, upper, spreads, medians


def describe_far_values(
    scales: ColumnScales, names: Sequence[str] | None = None
) -> str:
    """Write the sentence that warns of values which look like codes for "missing".

    Parameters
    ----------
    scales : ColumnScales
    names : sequence of str, optional
        Names of the columns, by default ``"column 3"``, counted from 0.

    Returns
    -------
    warning : str
        Empty where no value occurs twice beyond a gap.

    Examples
    --------
    >>> X = np.arange(100.0)[:, None]
    >>> X[:2] = -9999
    >>> print(describe_far_values(robust_scales(X)))
    1 column holds values far from all others that look like codes for "missing":
    column 0 has -9999 in 0.02 of the rows, ... spreads off. ...
    """
    found = scales.far_values
    if not found:
        return ""

    def described(far: FarValue) -> str:
        name = f"column {far.column}" if names is None else repr(names[far.column])
        return (
            f"{name} has {far.value:g} in {far.share:.2g} of the rows, "
            f"{far.spreads:.0f} spreads off"
        )

    listed = "; ".join(map(described, found[:N_NAMED]))
    more = ", ..." if len(found) > N_NAMED else ""
    columns = "1 column holds" if len(found) == 1 else f"{len(found)} columns hold"
    return (
        f'{columns} values far from all others that look like codes for "missing": '
        f"{listed}{more}. They take no part in the scale of their column. Replace them "
        "before fit, for example with sklearn.impute.SimpleImputer(missing_values="
        f"{found[0].value:g}, add_indicator=True)."
    )

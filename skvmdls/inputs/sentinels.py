"""Find values that stand for missing ones, such as -9999, in the columns of a table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from skvmdls._support.values import listed, warn

__all__ = ["Sentinel", "find_sentinels", "warn_of_sentinels"]

# Rows that are looked at, of which there must be so many.
MOST_ROWS, FEWEST_ROWS = 5000, 20

# So many robust standard deviations off the median a value must be, and so far from all
# others, as a share of that.
FAR, GAP = 10, 0.5


class Sentinel(NamedTuple):
    """A value in a column that is far from all others there."""

    column: int
    value: float
    share: float
    deviations: float


def find_sentinels(X: np.ndarray) -> list[Sentinel]:
    """Find values far from all others in their columns that look as if chosen by hand.

    They occur more than once, or are written in nines.

    Parameters
    ----------
    X : ndarray of shape (n, features)
        Of many rows, some that are evenly spaced are looked at.

    Returns
    -------
    sentinels : list of Sentinel

    Examples
    --------
    >>> X = np.arange(40.0)[:, None] % 7
    >>> X[3] = -9999
    >>> [(s.column, s.value, s.share) for s in find_sentinels(X)]
    [(0, -9999.0, 0.025)]
    """
    step = max(1, len(X) // MOST_ROWS)
    rows = np.asarray(X[::step], dtype=np.float64)
    if len(rows) < FEWEST_ROWS or not rows.shape[1]:
        return []
    low, middle, high = np.percentile(rows, (25, 50, 75), axis=0)
    spread = (high - low) / 1.349  # That of a normal distribution is its deviation.
    found = []
    for ends in (rows.min(axis=0), rows.max(axis=0)):
        distance = np.abs(ends - middle)
        for j in np.flatnonzero((spread > 0) & (distance > FAR * spread)):
            is_end = rows[:, j] == ends[j]
            gap = np.abs(rows[~is_end, j] - ends[j]).min()
            is_chosen = is_end.sum() > 1 or _is_in_nines(ends[j])
            if is_chosen and gap > GAP * distance[j]:
                found.append(
                    Sentinel(
                        int(j),
                        float(ends[j]),
                        float(is_end.mean()),
                        float(distance[j] / spread[j]),
                    )
                )
    return sorted(found)


def warn_of_sentinels(X: np.ndarray, names: Sequence[str] | None = None) -> None:
    """Warn of values that stand for missing ones, since they decide the scale."""
    found = find_sentinels(X)
    if not found:
        return
    described = [
        f"{names[s.column] if names is not None else f'column {s.column}'}: "
        f"{s.value:g} in {s.share:.2g} of the rows, {s.deviations:.0f} deviations off"
        for s in found
    ]
    warn(
        "X has values that are far from all others in their columns, and seem to stand "
        f"for missing ones ({listed(described)}). They decide the scale of the column, "
        "in which all other values are then alike. Replace them first: "
        "sklearn.impute.SimpleImputer(missing_values=VALUE).fit_transform(X)."
    )


def _is_in_nines(value: float) -> bool:
    digits = f"{abs(value):.12g}".replace(".", "")
    return len(digits) > 1 and set(digits) == {"9"}

"""What the calibration means for a day's work: shares, counts and how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from skvmdls.calibration.conformal import (
    conformal_rank,
    held_out_needed,
    rejection_range,
)

__all__ = [
    "Acceptance",
    "FalseAlarms",
    "RejectionSummary",
    "acceptance_by",
    "acceptance_lines",
    "expected_false_alarms",
]

# Of more classes or groups, those of the lowest acceptance are listed.
MOST_LISTED = 10


class Acceptance(NamedTuple):
    """Share of accepted points of one class or group, with its confidence interval.

    Parameters
    ----------
    name : object
        The class or group.
    n_points : int
    share : float
        Of the points that are accepted.
    low, high : float
        Ends of the interval.

    Examples
    --------
    >>> Acceptance("ant", n_points=4, share=0.75, low=0.19, high=0.99).share
    0.75
    """

    name: Any
    n_points: int
    share: float
    low: float
    high: float


def acceptance_by(
    names: Sequence[Any] | np.ndarray, accepted: np.ndarray, coverage: float = 0.95
) -> list[Acceptance]:
    """Share of accepted points for each class or group.

    Parameters
    ----------
    names : array-like of shape (n,)
        Class or group of each known point.
    accepted : ndarray of shape (n,), bool
    coverage : float in (0, 1), default=0.95
        Of the intervals of Clopper and Pearson, which hold for points that are drawn
        independently.

    Returns
    -------
    acceptance : list of Acceptance
        In the order of the sorted names.

    Examples
    --------
    >>> rows = acceptance_by(["ant", "bee", "ant", "ant"], np.array([True, False] * 2))
    >>> rows[0].name, rows[0].n_points, round(rows[0].share, 2), round(rows[0].low, 2)
    ('ant', 3, 0.67, 0.09)
    """
    from scipy.stats import beta

    values, positions = np.unique(np.asarray(names), return_inverse=True)
    n_points = np.bincount(positions)
    n_accepted = np.bincount(positions, weights=accepted).astype(int)
    tail = (1 - coverage) / 2
    # The quantiles are not defined at the ends, where the limit is known.
    low = np.where(
        n_accepted > 0,
        beta.ppf(tail, np.maximum(n_accepted, 1), n_points - n_accepted + 1),
        0.0,
    )
    high = np.where(
        n_accepted < n_points,
        beta.ppf(1 - tail, n_accepted + 1, np.maximum(n_points - n_accepted, 1)),
        1.0,
    )
    rows = zip(values.tolist(), n_points, n_accepted, low, high, strict=True)
    return [
        Acceptance(v, int(n), float(k / n), float(a), float(b))
        for v, n, k, a, b in rows
    ]


def acceptance_lines(title: str, rows: Sequence[Acceptance]) -> list[str]:
    """Write a line for each class or group, the lowest acceptance first.

    Parameters
    ----------
    title : str
        Of the first line.
    rows : sequence of Acceptance

    Returns
    -------
    lines : list of str

    Examples
    --------
    >>> rows = acceptance_by(["ant", "bee"] * 2, np.array([True, False, True, True]))
    >>> for line in acceptance_lines("Accepted by class", rows):
    ...     print(line)
    Accepted by class (in brackets the range, 19 times in 20):
      bee: 50.0 % of 2 (1.3 to 98.7 %)
      ant: 100.0 % of 2 (15.8 to 100.0 %)
    """
    worst = sorted(rows, key=lambda row: row.share)[:MOST_LISTED]
    if len(worst) < len(rows):
        title = f"{title}, the {len(worst)} lowest of {len(rows)}"
    return [
        f"{title} (in brackets the range, 19 times in 20):",
        *(
            f"  {row.name}: {100 * row.share:.1f} % of {row.n_points:,} "
            f"({100 * row.low:.1f} to {100 * row.high:.1f} %)"
            for row in worst
        ),
    ]


class FalseAlarms(NamedTuple):
    """Known points that will be rejected: the expected number, and its range.

    Parameters
    ----------
    expected : float
    low, high : int

    Examples
    --------
    >>> FalseAlarms(expected=10.0, low=4, high=17).high
    17
    """

    expected: float
    low: int
    high: int


def expected_false_alarms(
    n_points: int,
    n_held_out: int,
    contamination: float,
    confidence: float | None = None,
    coverage: float = 0.95,
) -> FalseAlarms:
    """Count the known points that will be rejected among so many new known points.

    The number has a beta-binomial distribution with parameters `n_points`, ``k`` and
    ``n + 1 - k``, where ``k`` is
    :func:`~skvmdls.calibration.conformal_rank`: new points and the few
    held-out ones are both counted as chance.

    Parameters
    ----------
    n_points : int
        New known points, for example those of a day.
    n_held_out : int
    contamination : float in [0, 1)
    confidence : float in (0, 1) or None, default=None
    coverage : float in (0, 1), default=0.95

    Returns
    -------
    false_alarms : FalseAlarms

    Examples
    --------
    >>> expected_false_alarms(200, n_held_out=999, contamination=0.05)
    FalseAlarms(expected=10.0, low=4, high=17)
    """
    from scipy.stats import betabinom

    rank = conformal_rank(n_held_out, contamination, confidence)
    if rank == 0:
        return FalseAlarms(0.0, 0, 0)
    counts = betabinom(n_points, rank, n_held_out + 1 - rank)
    tail = (1 - coverage) / 2
    return FalseAlarms(
        float(counts.mean()), int(counts.ppf(tail)), int(counts.ppf(1 - tail))
    )


@dataclass(frozen=True)
class RejectionSummary:
    """How many known points a detector rejects, and how sure that is.

    Parameters
    ----------
    n_held_out : int
        Points that set the threshold.
    contamination : float
    confidence : float or None, default=None

    Examples
    --------
    >>> for sentence in RejectionSummary(57, 0.05).sentences(n_points=1000):
    ...     print(sentence)
    Between 0.4 and 9.4 % of new known points will be rejected (19 times in 20).
    Of 1,000 known points a day, about 34 are false alarms, between 3 and 96.
    57 held-out points set the threshold. With 228 the range is 2.4 to 7.9 %.
    """

    n_held_out: int
    contamination: float
    confidence: float | None = None

    @property
    def range(self) -> tuple[float, float]:
        """Share of known points that will be rejected, 19 times in 20."""
        return rejection_range(self.n_held_out, self.contamination, self.confidence)

    def sentences(self, n_points: int | None = None) -> list[str]:
        """Say it in words.

        Parameters
        ----------
        n_points : int or None, default=None
            Known points in a day, of which the false alarms are to be counted.

        Returns
        -------
        sentences : list of str
        """
        settings = (self.contamination, self.confidence)
        if self.contamination == 0:
            return ["No point will be rejected, known or unknown: contamination=0."]
        if conformal_rank(self.n_held_out, *settings) == 0:
            return [
                "No point will be rejected, known or unknown: "
                f"{self.n_held_out} held-out points are too few to set a threshold. "
                f"At least {held_out_needed(*settings):,} are needed."
            ]
        low, high = self.range
        said = [
            f"Between {100 * low:.1f} and {100 * high:.1f} % of new known points will "
            "be rejected (19 times in 20)."
        ]
        if self.confidence is not None:
            said.append(
                f"At most {100 * self.contamination:g} % will be "
                f"({100 * self.confidence:g} % sure)."
            )
        if n_points is not None:
            alarms = expected_false_alarms(n_points, self.n_held_out, *settings)
            said.append(
                f"Of {n_points:,} known points a day, about {alarms.expected:.0f} are "
                f"false alarms, between {alarms.low:,} and {alarms.high:,}."
            )
        more = 4 * self.n_held_out
        low, high = rejection_range(more, *settings)
        said.append(
            f"{self.n_held_out:,} held-out points set the threshold. With {more:,} the "
            f"range is {100 * low:.1f} to {100 * high:.1f} %."
        )
        return said

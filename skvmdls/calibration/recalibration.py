"""New held-out scores from known points of a new site or day.

A detector that is moved to a new camera keeps its net, Gaussians and weights. Known
points of the new place are scored, their scores take the place of the old held-out
ones, and the threshold follows from them by the same rule. So the guarantee is the same
too, for points that come as the new ones did.

It rests on the new points being known. They are compared with the old held-out scores
first, and with each other, and what is far off is named before it is believed.
"""

from dataclasses import dataclass

import numpy as np

from skvmdls._support.values import warn
from skvmdls.calibration.conformal import conformal_rank

__all__ = [
    "RecalibrationReport",
    "compare_with_calibration",
]

# A warning says so if a larger share of the new points is beyond the old threshold, and
# chance has less than this probability of so many.
WORRYING_SHARE, CHANCE = 0.2, 0.01

# A point is far from the other new ones if it is so many times farther below their
# median than the farthest held-out point is below that of the held-out ones.
FAR_OUT = 2.0


@dataclass(frozen=True)
class RecalibrationReport:
    """How new points score, compared with the held-out points so far.

    Parameters
    ----------
    n_points : int
        New points.
    n_rejected : int
        Those that the old threshold rejects.
    expected : float
        Share that it rejects, on average, if the new points come as the old ones did.
    p_value : float
        Chance of rejecting so many or more then: from the beta-binomial distribution.
    outlying : ndarray of shape (k,), int
        Positions of the points that lie far below the other new points, the farthest
        first. Points of unknown classes that slipped in are among them, as a rule.

    Examples
    --------
    >>> report = RecalibrationReport(200, 61, 0.05, 1e-9, np.array([17, 4]))
    >>> print(report.sentence())
    The old threshold rejects 61 of 200 points (30.5%), where 5.0% are expected. 2 lie
    far below the others: rows 17, 4.
    """

    n_points: int
    n_rejected: int
    expected: float
    p_value: float
    outlying: np.ndarray

    @property
    def rejected_share(self) -> float:
        """Share of the new points that the old threshold rejects."""
        return self.n_rejected / self.n_points

    def sentence(self) -> str:
        """Say it in words.

        Returns
        -------
        sentence : str
        """
        said = (
            f"The old threshold rejects {self.n_rejected} of {self.n_points} points "
            f"({self.rejected_share:.1%}), where {self.expected:.1%} are expected."
        )
        if len(self.outlying):
            first = ", ".join(map(str, self.outlying[:10].tolist()))
            more = ", ..." if len(self.outlying) > 10 else ""
            said += (
                f" {len(self.outlying)} lie far below the others: rows {first}{more}."
            )
        return said


def compare_with_calibration(
    held_out_scores: np.ndarray,
    new_scores: np.ndarray,
    contamination: float,
    confidence: float | None = None,
) -> RecalibrationReport:
    """Compare new scores with the held-out scores that they are to replace.

    Parameters
    ----------
    held_out_scores : ndarray of shape (n,)
        Those that set the threshold so far.
    new_scores : ndarray of shape (m,)
        Of points that are said to be known.
    contamination : float in [0, 1)
    confidence : float in (0, 1) or None, default=None
        As the threshold is set.

    Returns
    -------
    report : RecalibrationReport

    Warns
    -----
    UserWarning
        If the old threshold rejects more than a fifth of the new points, and more than
        chance explains, or if some lie far below the others: twice as far below their
        median as the farthest held-out point below that of the held-out ones, each in
        interquartile ranges.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> old, new = rng.normal(size=500), rng.normal(-0.1, size=200)
    >>> report = compare_with_calibration(old, new, contamination=0.05)
    >>> report.n_rejected, round(report.p_value, 2)
    (15, 0.11)
    """
    from scipy.stats import betabinom

    n, m = len(held_out_scores), len(new_scores)
    # Where nothing can be rejected, the lowest held-out score is the measure.
    rank = max(1, conformal_rank(n, contamination, confidence))
    threshold = np.partition(held_out_scores, rank - 1)[rank - 1]
    n_rejected = int(np.count_nonzero(new_scores < threshold))
    lowest = _in_spreads(held_out_scores).min()
    far = np.flatnonzero(_in_spreads(new_scores) < FAR_OUT * lowest)
    report = RecalibrationReport(
        n_points=m,
        n_rejected=n_rejected,
        expected=rank / (n + 1),
        p_value=float(betabinom.sf(n_rejected - 1, m, rank, n + 1 - rank)),
        outlying=far[np.argsort(new_scores[far], kind="stable")],
    )
    is_worrying = report.rejected_share > WORRYING_SHARE and report.p_value <= CHANCE
    if is_worrying or len(report.outlying):
        warn(
            f"{report.sentence()} From now on all of them count as known. Look at them "
            "first: an unknown point among them lowers the threshold."
        )
    return report


def _in_spreads(scores: np.ndarray) -> np.ndarray:
    """Scores (n,) less their median, in interquartile ranges."""
    lower, median, upper = np.quantile(scores, [0.25, 0.5, 0.75])
    # Equal scores have no range: then any other is far.
    return (scores - median) / max(upper - lower, np.finfo(np.float64).tiny)

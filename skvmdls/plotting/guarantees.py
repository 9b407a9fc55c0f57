"""Plots that compare what the threshold guarantees with what new points show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skvmdls._support.estimators import Detector
from skvmdls.calibration.summary import MOST_LISTED, Acceptance, acceptance_by
from skvmdls.inputs.labels import positions
from skvmdls.plotting.base import BLUE, ORANGE, LabelledDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AcceptanceDisplay", "RejectionCalibrationDisplay"]


@dataclass(eq=False, repr=False)
class RejectionCalibrationDisplay(LabelledDisplay):
    """Share of new known points that is rejected, against the share that is allowed.

    Like scikit-learn's ``CalibrationDisplay``, for the p-values of known points. The
    curve lies on the diagonal, or below, if the points come as the training data came.
    The band holds it 19 times in 20 at each place, so it is as wide as few held-out
    points make it. A curve above the band shows points that come differently:
    recalibrate.

    Parameters
    ----------
    p_values : ndarray of shape (n,)
        Of known points that no fit has seen.
    n_held_out : int
        Points that set the threshold.
    allowed : float, optional
        The detector's own `contamination`, to be marked.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = RejectionCalibrationDisplay.from_predictions(
    ...     np.linspace(0.01, 1, 200), n_held_out=99, allowed=0.05
    ... )
    >>> display.ax_.get_xlabel()
    'allowed share of rejected known points'
    """

    p_values: np.ndarray
    n_held_out: int
    allowed: float | None = None

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        known = positions(y, detector.classes_) < len(detector.classes_)
        allowed = detector.contamination if detector.threshold is None else None
        return {
            "p_values": detector.p_value(X)[known],
            "n_held_out": len(detector.calibration_scores_),
            "allowed": allowed,
        }

    @classmethod
    def from_predictions(
        cls,
        p_values: ArrayLike,
        *,
        n_held_out: int,
        allowed: float | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw given p-values of known points.

        Parameters
        ----------
        p_values : array-like of shape (n,)
            As of ``p_value``.
        n_held_out : int
            ``len(detector.calibration_scores_)``.
        allowed : float, optional
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        return cls(np.asarray(p_values), n_held_out, allowed).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        n = len(self.p_values)
        if n == 0:
            raise ValueError(
                "There are no known points: y holds no label of classes_. Give known "
                "points that no fit has seen."
            )
        ranks = np.arange(1, self.n_held_out + 1)
        allowed = ranks / (self.n_held_out + 1)
        rejected = np.searchsorted(np.sort(self.p_values), allowed + 1e-9) / n
        low, high = _band(ranks, self.n_held_out, n)
        ax.fill_between(
            allowed, low, high, color="grey", alpha=0.25, label="19 times in 20"
        )
        ax.plot([0, 1], [0, 1], color="black", ls="--", lw=1, label="as guaranteed")
        label = f"{n:,} new known points"
        ax.step(allowed, rejected, where="post", color=BLUE, lw=2, label=label)
        highest = 1.0
        if self.allowed:
            ax.axvline(
                self.allowed,
                color=ORANGE,
                ls=":",
                lw=2,
                label=f"contamination {self.allowed:g}",
            )
            highest = min(1.0, 4 * self.allowed)
        ax.set_xlim(0, highest)
        # The curve runs at its last height to the right end of the frame.
        ax.set_ylim(0, 1.05 * max(highest, rejected[allowed <= highest].max(initial=0)))
        ax.set_xlabel("allowed share of rejected known points")
        ax.set_ylabel("rejected share of known points")
        ax.legend()
        return 5, 5


def _band(ranks: np.ndarray, n_held_out: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of the rejected share of n new points, at each of the thresholds."""
    from scipy.stats import betabinom

    counts = betabinom(n, ranks, n_held_out + 1 - ranks)
    return counts.ppf(0.025) / n, counts.ppf(0.975) / n


@dataclass(eq=False, repr=False)
class AcceptanceDisplay(LabelledDisplay):
    """Share of accepted points for each class, or for each site or shift.

    The lowest come first. Of more than ten, the ten lowest are drawn. The bars are
    intervals of Clopper and Pearson, which hold 19 times in 20.

    Parameters
    ----------
    acceptance : sequence of Acceptance
        As of :func:`skvmdls.calibration.acceptance_by`.
    promised : float, optional
        Share that is to be accepted on average, ``1 - contamination``.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> accepted = np.array([True, True, False, True])
    >>> display = AcceptanceDisplay.from_predictions(["ant", "bee"] * 2, accepted)
    >>> [tick.get_text() for tick in display.ax_.get_yticklabels()]
    ['ant (2)', 'bee (2)']
    """

    acceptance: Sequence[Acceptance]
    promised: float | None = None

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        found = positions(y, detector.classes_)
        known = found < len(detector.classes_)
        accepted = positions(detector.predict(X), detector.classes_)[known]
        names = detector.classes_[found[known]]
        promised = 1 - detector.contamination if detector.threshold is None else None
        return {
            "acceptance": acceptance_by(names, accepted < len(detector.classes_)),
            "promised": promised,
        }

    @classmethod
    def from_predictions(
        cls,
        names: ArrayLike,
        accepted: ArrayLike,
        *,
        promised: float | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Count and draw which of given known points are accepted.

        Parameters
        ----------
        names : array-like of shape (n,)
            Class, site or shift of each point.
        accepted : array-like of shape (n,), bool
        promised : float, optional
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        rows = acceptance_by(np.asarray(names), np.asarray(accepted))
        return cls(rows, promised).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        rows = sorted(self.acceptance, key=lambda row: row.share)[:MOST_LISTED]
        if not rows:
            raise ValueError(
                "There are no known points: y holds no label of classes_. Give known "
                "points that no fit has seen."
            )
        places = np.arange(len(rows))[::-1]
        share, low, high = np.array([[r.share, r.low, r.high] for r in rows]).T
        ax.errorbar(
            share,
            places,
            xerr=[share - low, high - share],
            fmt="o",
            color=BLUE,
            capsize=4,
            label="accepted, and its range 19 times in 20",
        )
        if self.promised is not None:
            ax.axvline(
                self.promised,
                color=ORANGE,
                ls=":",
                lw=2,
                label=f"all together, on average: {self.promised:g}",
            )
        ax.set_yticks(places, [f"{row.name} ({row.n_points:,})" for row in rows])
        ax.set_xlim(min(0.5, low.min()), 1.01)
        ax.set_xlabel("share of known points that is accepted")
        ax.set_ylabel("class or group (points)")
        ax.legend(loc="lower left")
        return 6, 1.5 + 0.4 * len(rows)

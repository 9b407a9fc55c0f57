"""Plot of the scores of known and unknown points."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d

from skvmdls._support.estimators import Detector
from skvmdls.inputs.labels import positions
from skvmdls.plotting.base import BLUE, ORANGE, LabelledDisplay

__all__ = ["ScoreHistogramDisplay"]


if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(eq=False, repr=False)
class ScoreHistogramDisplay(LabelledDisplay):
    """Histograms of the scores of known and unknown points, with the threshold.

    The axis is the score less the threshold, linear near it and logarithmic far from
    it: scores of unknown points spread over orders of magnitude.

    Parameters
    ----------
    is_known : array-like of shape (n,), bool
    scores : array-like of shape (n,)
    threshold : float
        Minus infinity where everything is accepted; the axis then starts at the known
        points' median.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = ScoreHistogramDisplay.from_predictions(
    ...     [True, True, False], [3.0, 2.0, -40.0], threshold=1.0
    ... )
    >>> display.ax_.get_ylabel()
    'share of each kind of points (%)'
    """

    is_known: ArrayLike
    scores: ArrayLike
    threshold: float

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        return {
            "is_known": positions(y, detector.classes_) < len(detector.classes_),
            "scores": detector.score_samples(X),
            "threshold": detector.offset_,
        }

    @classmethod
    def from_predictions(
        cls,
        is_known: ArrayLike,
        scores: ArrayLike,
        *,
        threshold: float,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw given scores.

        Parameters
        ----------
        is_known : array-like of shape (n,), bool
        scores : array-like of shape (n,)
        threshold : float
            As of the class.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        return cls(is_known, scores, threshold).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        check_consistent_length(self.is_known, self.scores)
        is_known = np.asarray(column_or_1d(self.is_known)).astype(bool)
        scores = np.asarray(column_or_1d(self.scores), dtype=np.float64)
        if not is_known.any():
            raise ValueError("There are no known points to draw.")
        has_threshold = bool(np.isfinite(self.threshold))
        median = float(np.median(scores[is_known]))
        centre = self.threshold if has_threshold else median
        margins = scores - centre
        # Half of the known points within the linear range.
        width = float(np.median(np.abs(margins[is_known]))) or 1.0
        ends = np.arcsinh(np.array([margins.min(), margins.max(), 0]) / width)
        # The threshold is an edge, so that no bar is on both of its sides.
        n_bins = np.clip(2 * math.sqrt(len(scores)), 10, 50)
        step = max(float(np.ptp(ends)), 1e-3) / n_bins
        first, last = np.floor(ends.min() / step), np.ceil(ends.max() / step)
        # A further bin at each end, because the edges are rounded.
        edges = width * np.sinh(step * np.arange(first - 1, last + 2))
        for name, group, colour, hatch in (
            ("known", is_known, BLUE, ""),
            ("unknown", ~is_known, ORANGE, "///"),
        ):
            if group.any():
                ax.hist(
                    margins[group],
                    edges.tolist(),
                    weights=np.full(group.sum(), 100 / group.sum()),
                    color=colour,
                    alpha=0.65,
                    hatch=hatch,
                    edgecolor="white",
                    linewidth=0.3,
                    label=f"{name} ({group.sum()} points)",
                )
        ax.set_xscale("asinh", linear_width=width)
        ticks = _ticks(width / 2, float(np.abs(margins).max()))
        limits = ax.get_xlim()
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        ax.set_xticks([], minor=True)
        ax.set_xlim(limits)  # ticks would widen it
        reference = "threshold"
        if has_threshold:
            ax.axvline(0, color="black", ls="--", label=f"threshold {centre:.4g}")
            ax.set_title("rejected  |  accepted", x=_place_on_axis(ax, 0), fontsize=10)
        else:
            reference = "the known points' median"
            ax.set_title("no threshold: every point is accepted", fontsize=10)
        ax.set_xlabel(f"score less {reference} (linear near 0, then logarithmic)")
        ax.set_ylabel("share of each kind of points (%)")
        ax.margins(y=0.33)  # room for the legend above the bars
        ax.legend()
        return 7, 4


def _ticks(smallest: float, largest: float) -> np.ndarray:
    """Round values of both signs between two sizes, and 0.

    matplotlib's AsinhLocator writes its powers of ten over each other about 0, and
    leaves out 2 and 5 where one or two powers are all there is room for.
    """
    decades = 10.0 ** np.arange(
        np.floor(np.log10(smallest)), np.log10(max(largest, smallest)) + 1
    )
    leading = [1, 2, 5] if len(decades) <= 3 else [1]
    values = np.outer(decades, leading).ravel()
    values = values[(values >= smallest) & (values <= largest)]
    return np.concatenate([-values[::-1], [0.0], values])


def _place_on_axis(ax: "Axes", x: float) -> float:
    """Place of a value on the x-axis, from 0 to 1."""
    return float(ax.transAxes.inverted().transform(ax.transData.transform((x, 0)))[0])

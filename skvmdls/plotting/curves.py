"""Plots over all thresholds: rejection curves and ROC curves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import RocCurveDisplay, roc_curve

from skvmdls._support.estimators import Detector
from skvmdls.inputs.labels import positions
from skvmdls.metrics import (
    ThresholdCurve,
    auroc,
    threshold_curve,
    threshold_curve_from_predictions,
)
from skvmdls.plotting.base import BLUE, GREEN, ORANGE, PURPLE, LabelledDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["KnownUnknownRocDisplay", "ThresholdCurveDisplay"]


@dataclass(eq=False, repr=False)
class ThresholdCurveDisplay(LabelledDisplay):
    """Acceptance, accuracy of accepted points and macro F1 against the threshold.

    Drawn from where 99 % of the known points are accepted up to the highest score.

    Parameters
    ----------
    curve : ThresholdCurve
    threshold : float, optional
        The detector's own.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = ThresholdCurveDisplay.from_predictions(
    ...     [0, 0, 1, 7], [0, 1, 1, 1], [4.0, 1.0, 3.0, 2.0], classes=[0, 1]
    ... )
    >>> [line.get_label() for line in display.ax_.lines][:2]
    ['known points accepted', 'unknown points accepted']
    """

    curve: ThresholdCurve
    threshold: float | None = None

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        curve = threshold_curve(detector, X, y)
        return {"curve": curve, "threshold": detector.offset_}

    @classmethod
    def from_predictions(
        cls,
        y_true: ArrayLike,
        y_known: ArrayLike,
        scores: ArrayLike,
        *,
        classes: ArrayLike,
        threshold: float | None = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Compute the curve of given answers and draw it.

        Parameters
        ----------
        y_true, y_known, scores : array-like of shape (n,)
        classes : array-like of shape (C,)
            As for :func:`skvmdls.metrics.threshold_curve_from_predictions`.
        threshold : float, optional
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ThresholdCurveDisplay
        """
        curve = threshold_curve_from_predictions(y_true, y_known, scores, classes)
        return cls(curve, threshold).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        curve = self.curve
        lines = [
            ("known points accepted", curve.known_acceptance, BLUE, "-"),
            ("unknown points accepted", curve.unknown_acceptance, ORANGE, "--"),
            ("accuracy of accepted", curve.accepted_accuracy, GREEN, "-."),
            ("macro F1", curve.macro_f1, PURPLE, ":"),
        ]
        for name, values, colour, style in lines:
            if values is not None:
                # A threshold between two scores accepts what the higher one does.
                ax.step(
                    curve.thresholds,
                    values,
                    where="pre",
                    color=colour,
                    ls=style,
                    lw=2,
                    label=name,
                )
        low = curve.thresholds[curve.known_acceptance >= 0.99].max()
        high = curve.thresholds[-1]
        if self.threshold is not None and np.isfinite(self.threshold):
            ax.axvline(
                self.threshold,
                color="black",
                ls=(0, (5, 4)),
                lw=1,
                label=f"threshold {self.threshold:.4g}",
            )
            low, high = min(low, self.threshold), max(high, self.threshold)
        margin = 0.03 * max(high - low, 1e-9)
        ax.set_xlim(low - margin, high + margin)
        ax.set_ylim(0, 1.02)
        ax.set_xlabel("threshold $\\lambda$ on score_samples")
        ax.set_ylabel("share of points, accuracy, F1 (0 to 1)")
        ax.legend()
        return 7, 4


@dataclass(eq=False, repr=False)
class KnownUnknownRocDisplay(LabelledDisplay):
    """ROC curve of known against unknown points, with TPR 95 % marked.

    Parameters
    ----------
    is_known : array-like of shape (n,), bool
    scores : array-like of shape (n,)
        Higher is more in-distribution.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = KnownUnknownRocDisplay.from_predictions(
    ...     [True, True, False, False], [0.9, 0.4, 0.5, 0.1]
    ... )
    >>> display.ax_.lines[0].get_label()
    'AUROC 0.750'
    """

    is_known: ArrayLike
    scores: ArrayLike

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        return {
            "is_known": positions(y, detector.classes_) < len(detector.classes_),
            "scores": detector.score_samples(X),
        }

    @classmethod
    def from_predictions(
        cls, is_known: ArrayLike, scores: ArrayLike, *, ax: "Axes | None" = None
    ) -> Self:
        """Draw given scores.

        Parameters
        ----------
        is_known : array-like of shape (n,), bool
        scores : array-like of shape (n,)
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        return cls(is_known, scores).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        area = auroc(self.is_known, self.scores)
        fpr, tpr, _ = roc_curve(self.is_known, self.scores, drop_intermediate=False)
        # The highest threshold that accepts enough, as in tnr_at_tpr.
        at_95 = np.flatnonzero(tpr >= 0.95 - 1e-9)[0]
        curve = RocCurveDisplay(fpr=fpr, tpr=tpr, roc_auc=area).plot(ax=ax)
        curve.line_.set(color=BLUE, lw=2, label=f"AUROC {area:.3f}")
        ax.axhline(0.95, color="black", ls="--", lw=1, label="TPR 95 %")
        ax.plot(
            fpr[at_95],
            tpr[at_95],
            ls="",
            marker="o",
            ms=9,
            color=ORANGE,
            mec="black",
            label=f"there {1 - fpr[at_95]:.1%} of unknown rejected",
        )
        ax.plot([0, 1], [0, 1], color="grey", ls=":", label="chance")
        ax.set_aspect("equal")
        ax.set_xlim(-0.02, 1.02)
        ax.set_ylim(-0.02, 1.02)
        ax.set_xlabel("share of unknown points accepted (FPR, 0 to 1)")
        ax.set_ylabel("share of known points accepted (TPR, 0 to 1)")
        ax.legend(loc="lower right")
        return 5, 5

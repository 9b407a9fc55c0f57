"""Pictures of a detector, in scikit-learn's style of Display classes.

``from_estimator`` asks a fitted detector (or a pipeline or search with one), where
labels that are not in ``classes_`` are unknown points; ``from_predictions`` takes what
it answered. Both draw on given axes `ax`, or make a figure, and ``plot`` draws again;
``ax_`` and ``figure_`` are where it was drawn. Needs matplotlib (``pip install
skvmdls[plot]``), but only once something is drawn. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE
from sklearn.metrics import RocCurveDisplay, roc_curve
from sklearn.utils import check_consistent_length, column_or_1d

from skvmdls._displays import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    Display,
    as_pictures,
)
from skvmdls._estimators import Detector, detector_and_inputs
from skvmdls._labels import positions
from skvmdls._open_world_displays import ExplanationDisplay, ShiftDisplay
from skvmdls.metrics import (
    ThresholdCurve,
    auroc,
    threshold_curve,
    threshold_curve_from_predictions,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "EnsembleDisplay",
    "ExplanationDisplay",
    "KnownUnknownRocDisplay",
    "ReconstructionDisplay",
    "ScoreHistogramDisplay",
    "ShiftDisplay",
    "ThresholdCurveDisplay",
]

CLASS_COLOURS = (BLUE, "#56B4E9", GREEN, "#F0E442", PURPLE, "#D55E00", ORANGE)
CLASS_MARKERS = "o^sDvP*"
RandomState = int | np.random.RandomState | None


class _LabelledDisplay(Display):
    """A picture of labelled points, some of them unknown."""

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, ax: "Axes | None" = None
    ) -> Self:
        """Ask a detector and draw.

        Parameters
        ----------
        estimator : fitted detector, Pipeline or search
        X : array-like
        y : array-like of shape (n,)
            Labels; those not in ``classes_`` are unknown points.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        detector, X = detector_and_inputs(estimator, X)
        return cls(**cls._answers(detector, X, y)).plot(ax=ax)

    @classmethod
    def _answers(cls, detector: Detector, X: Any, y: ArrayLike) -> dict[str, Any]:
        """Compute what the class is made of."""
        raise NotImplementedError


@dataclass(eq=False, repr=False)
class ScoreHistogramDisplay(_LabelledDisplay):
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
        step = max(float(np.ptp(ends)), 1e-3) / 50
        first, last = np.floor(ends.min() / step), np.ceil(ends.max() / step)
        edges = width * np.sinh(step * np.arange(first, last + 2))
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
        ax.legend()
        return 7, 4


@dataclass(eq=False, repr=False)
class ThresholdCurveDisplay(_LabelledDisplay):
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
class KnownUnknownRocDisplay(_LabelledDisplay):
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


@dataclass(eq=False, repr=False)
class EnsembleDisplay(_LabelledDisplay):
    """The feature ensemble in two dimensions, by t-SNE.

    Distances in a t-SNE have no unit, and those between groups little meaning.

    Parameters
    ----------
    points : ndarray of shape (n, 2)
    labels : array-like of shape (n,)
        Those not in `classes` are drawn as unknown.
    classes : array-like of shape (C,)

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> display = EnsembleDisplay(np.eye(3, 2), ["a", "b", "zebra"], ["a", "b"]).plot()
    >>> [text.get_text() for text in display.ax_.get_legend().get_texts()]
    ['a', 'b', 'unknown']
    """

    points: np.ndarray
    labels: ArrayLike
    classes: ArrayLike

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        random_state: RandomState = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Compute ensembles, embed them and draw.

        Parameters
        ----------
        estimator : fitted detector, Pipeline or search
        X : array-like
            A few thousand points at most: t-SNE takes its time.
        y : array-like of shape (n,)
        random_state : int, RandomState or None, default=None
        ax : matplotlib Axes, optional

        Returns
        -------
        display : EnsembleDisplay
        """
        detector, X = detector_and_inputs(estimator, X)
        ensemble = np.asarray(detector.transform(X))
        return cls.from_predictions(
            ensemble, y, classes=detector.classes_, random_state=random_state, ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        ensemble: ArrayLike,
        y: ArrayLike,
        *,
        classes: ArrayLike,
        random_state: RandomState = None,
        ax: "Axes | None" = None,
    ) -> Self:
        """Embed given ensembles and draw.

        Parameters
        ----------
        ensemble : array-like of shape (n, D)
            Answers of ``transform``; each column is brought to unit deviation.
        y : array-like of shape (n,)
        classes : array-like of shape (C,)
        random_state : int, RandomState or None, default=None
        ax : matplotlib Axes, optional

        Returns
        -------
        display : EnsembleDisplay
        """
        check_consistent_length(ensemble, y)
        values = np.asarray(ensemble, dtype=np.float64)
        spread = values.std(axis=0)
        values = values[:, spread > 0] / spread[spread > 0]
        # scikit-learn's 30, which needs more points than that.
        perplexity = min(30.0, (len(values) - 1) / 3)
        points = TSNE(perplexity=perplexity, random_state=random_state).fit_transform(
            values
        )
        return cls(points, y, classes).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        labels = np.asarray(column_or_1d(self.labels))
        classes = np.asarray(self.classes)
        for i, label in enumerate(classes):
            # Another marker for every class: more of them than there are colours
            # repeat a colour only with another marker.
            round_, colour = divmod(i, len(CLASS_COLOURS))
            ax.scatter(
                self.points[labels == label, 0],
                self.points[labels == label, 1],
                s=16,
                color=CLASS_COLOURS[colour],
                marker=CLASS_MARKERS[(i + round_) % len(CLASS_MARKERS)],
                edgecolor="black",
                linewidth=0.2,
                label=str(label),
            )
        is_unknown = positions(labels, classes) == len(classes)
        if is_unknown.any():
            ax.scatter(
                self.points[is_unknown, 0],
                self.points[is_unknown, 1],
                s=16,
                color="black",
                marker="x",
                linewidth=0.7,
                label="unknown",
            )
        ax.set_xlabel("t-SNE 1 (no unit)")
        ax.set_ylabel("t-SNE 2 (no unit)")
        ax.legend(
            title="class", loc="upper left", bbox_to_anchor=(1.01, 1), markerscale=1.7
        )
        return 7, 5


@dataclass(eq=False, repr=False)
class ReconstructionDisplay(Display):
    """Images above what the autoencoder makes of them, with their weights.

    Parameters
    ----------
    images, reconstructions : array-like of shape (n, height, width) or \
            (n, channels, height, width)
        One channel or three.
    weights : array-like of shape (n,), optional
        Reconstruction weights, written beneath.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> images = np.random.default_rng(0).random((3, 8, 8))
    >>> display = ReconstructionDisplay.from_predictions(images, 0.9 * images)
    >>> [tick.get_text() for tick in display.ax_.get_yticklabels()]
    ['input', 'reconstruction']
    """

    images: ArrayLike
    reconstructions: ArrayLike
    weights: ArrayLike | None = None

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, ax: "Axes | None" = None
    ) -> Self:
        """Reconstruct images and draw.

        Parameters
        ----------
        estimator : fitted VMDLSDetector, or a Pipeline or search with one
        X : array-like of shape (n, height, width) or (n, channels, height, width)
            As many as fit side by side, about ten.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ReconstructionDisplay
        """
        detector, X = detector_and_inputs(estimator, X)
        images = np.asarray(X)
        if images.dtype == np.uint8:  # reconstructed in [0, 1] units
            images = images / 255
        return cls.from_predictions(
            images, detector.reconstruct(X), detector.reconstruction_weight(X), ax=ax
        )

    @classmethod
    def from_predictions(
        cls,
        images: ArrayLike,
        reconstructions: ArrayLike,
        weights: ArrayLike | None = None,
        *,
        ax: "Axes | None" = None,
    ) -> Self:
        """Draw given images.

        Parameters
        ----------
        images, reconstructions : array-like of shape (n, height, width) or \
                (n, channels, height, width)
        weights : array-like of shape (n,), optional
            As of the class.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : display
        """
        return cls(images, reconstructions, weights).plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        images, rebuilt = (
            as_pictures(row) for row in (self.images, self.reconstructions)
        )
        check_consistent_length(images, rebuilt)
        n, height, width = images.shape[:3]
        # One scale for all, of the inputs: what is too bright or too dark is cut off.
        low, high = float(images.min()), float(images.max())
        frame = 1 + max(height, width) // 16
        rows = [
            np.pad(
                np.clip((row - low) / max(high - low, 1e-12), 0, 1),
                ((0, 0), (0, frame), (0, frame), (0, 0)),
                constant_values=1.0,
            )
            for row in (images, rebuilt)
        ]
        montage = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        ax.imshow(montage.squeeze(), cmap="gray", vmin=0, vmax=1)
        step = np.array([height, width]) + frame
        ax.set_yticks(step[0] * np.arange(2) + height / 2 - 0.5)
        ax.set_yticklabels(["input", "reconstruction"])
        ax.set_xticks(step[1] * np.arange(n) + width / 2 - 0.5)
        if self.weights is None:
            ax.set_xticklabels([])
        else:
            ax.set_xticklabels([f"{w:.2g}" for w in np.asarray(self.weights)])
            ax.set_xlabel("reconstruction weight $w$ (squared distance, no unit)")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        return 1.5 + 0.9 * n, 0.8 + 1.8 * height / width


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

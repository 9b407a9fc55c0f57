"""Plot of the feature ensemble in two dimensions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE
from sklearn.utils import check_consistent_length, column_or_1d

from skvmdls._support.estimators import detector_and_inputs
from skvmdls.inputs.labels import positions
from skvmdls.plotting.base import BLUE, GREEN, ORANGE, PURPLE, LabelledDisplay

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["EnsembleDisplay"]

CLASS_COLOURS = (BLUE, "#56B4E9", GREEN, "#F0E442", PURPLE, "#D55E00", ORANGE)
CLASS_MARKERS = "o^sDvP*"

RandomState = int | np.random.RandomState | None


@dataclass(eq=False, repr=False)
class EnsembleDisplay(LabelledDisplay):
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

"""Base of all plots: drawing again, colours, plots of points."""

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skvmdls._support.estimators import Detector, detector_and_inputs

__all__ = [
    "BLUE",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "Display",
    "LabelledDisplay",
    "as_pictures",
]


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"


class Display:
    """A plot: where it was drawn, ``ax_`` and ``figure_``, and drawing it again."""

    ax_: "Axes"
    figure_: "Figure | SubFigure"

    def plot(self, ax: "Axes | None" = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            None makes a figure.

        Returns
        -------
        self : display

        Raises
        ------
        ValueError
            If there is nothing to draw. The message says what is missing.
        ImportError
            If matplotlib is missing.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__} needs matplotlib: pip install skvmdls[plot]"
            ) from error
        if ax is not None:
            self._draw(ax)
        else:
            figure, ax = plt.subplots(layout="constrained")
            try:
                figure.set_size_inches(self._draw(ax))
            except Exception:
                plt.close(figure)
                raise
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        """Draw on given axes, and return the size in inches that suits the plot."""
        raise NotImplementedError


def as_pictures(images: ArrayLike) -> np.ndarray:
    """Bring images to (n, height, width, channels)."""
    pictures = np.asarray(images, dtype=np.float64)
    if pictures.ndim == 3:
        pictures = pictures[:, None]
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or not len(pictures):
        raise ValueError(
            f"Points of shape {np.shape(images)} cannot be drawn: expected at least "
            "one image, (n, height, width) or (n, channels, height, width) with one "
            "channel or three."
        )
    return np.moveaxis(pictures, 1, 3)


class LabelledDisplay(Display):
    """A plot of labelled points, some of them unknown."""

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
            Labels. Those not in ``classes_`` are unknown points.
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

"""Plot of points, their reconstructions and their residuals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from skvmdls._support.estimators import detector_and_inputs
from skvmdls.inputs.checking import check_inputs
from skvmdls.plotting.base import Display, as_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ReconstructionDisplay"]


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
        images = np.asarray(check_inputs(detector, X, detector.input_shape_))
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

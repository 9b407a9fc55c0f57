"""Plots of explanations: evidence, and unusual columns or places."""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skvmdls._support.estimators import column_names, detector_and_inputs
from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.labels import positions
from skvmdls.plotting.base import BLUE, ORANGE, Display, as_pictures

__all__ = ["ExplanationDisplay"]


if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Columns of a table that are shown, those that count most.
N_COLUMNS = 8

UNKNOWN = (-1, "-1")


@dataclass(eq=False, repr=False)
class ExplanationDisplay(Display):
    """Why points score as they do: evidence by part, and where the strangeness is.

    A column a point: the evidence with the known points' usual range shaded, and below
    it, of images, the image, the mean image of the nearest class and the residual map.
    Of tables, the columns that count most.

    Parameters
    ----------
    explanation : Bunch
        As of :meth:`skvmdls.VMDLSDetector.explain`, of a few points.
    names : sequence of str
        The parts of the evidence.
    answers : array-like of shape (n,), optional
        Results of `predict`.
    images, class_images : array-like, optional
        The points, and the mean image of the nearest class of each. Of shape
        (n, height, width) or (n, channels, height, width).
    columns : sequence of str, optional
        Names of a table's columns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The place of all. The parts are axes within it.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.utils import Bunch
    >>> explanation = Bunch(
    ...     evidence=np.array([[-0.5, -9.0]]),
    ...     nearest=np.array([[3, 5, 8]]),
    ...     contributions=np.array([[0.4, -30.0]]),
    ...     explained_part="x",
    ... )
    >>> display = ExplanationDisplay(explanation, ("x", "g"), [-1]).plot()
    >>> display.ax_.child_axes[0].get_title()
    'unknown; nearest 3, 5, 8'
    """

    explanation: Any
    names: tuple[str, ...]
    answers: ArrayLike | None = None
    images: ArrayLike | None = None
    class_images: ArrayLike | None = None
    columns: list[str] | None = None

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, *, ax: "Axes | None" = None
    ) -> Self:
        """Explain a few points and draw.

        Parameters
        ----------
        estimator : fitted detector, Pipeline or search
        X : array-like
            As many as fit side by side, about five.
        ax : matplotlib Axes, optional

        Returns
        -------
        display : ExplanationDisplay
        """
        columns = column_names(estimator)
        detector, X = detector_and_inputs(estimator, X)
        explanation = detector.explain(X)
        images = class_images = None
        if len(detector.input_shape_) == 3:
            images = np.asarray(check_inputs(detector, X, detector.input_shape_))
            if images.dtype == np.uint8:  # in [0, 1] units, as the class images
                images = images / 255
            if detector.expected_images_ is not None:
                nearest = positions(explanation.nearest[:, 0], detector.classes_)
                means = detector.expected_images_.means.cpu()[nearest]
                class_images = detector.standardizer_.inverse_transform(means)
        display = cls(
            explanation,
            detector.evidence_names_,
            detector.predict(X),
            images,
            class_images,
            columns,
        )
        return display.plot(ax=ax)

    def _draw(self, ax: "Axes") -> tuple[float, float]:
        n = len(self.explanation.evidence)
        ax.set_axis_off()
        lowest = min(-2.0, float(self.explanation.evidence.min()))
        for i in range(n):
            margin = 0.36 if "contributions" in self.explanation else 0.22
            left, width = (i + margin) / n, (0.96 - margin) / n
            self._draw_evidence(ax.inset_axes((left, 0.57, width, 0.36)), i, lowest)
            if "contributions" in self.explanation:
                self._draw_contributions(ax.inset_axes((left, 0.05, width, 0.37)), i)
            elif self.images is not None:
                self._draw_pictures(ax, self.images, i, (i + 0.04) / n, 0.92 / n)
        return 1.0 + 3.6 * n, 5.0

    def _draw_evidence(self, ax: "Axes", i: int, lowest: float) -> None:
        evidence = self.explanation.evidence[i]
        places = np.arange(len(evidence))
        colours = [ORANGE if value < -1 else BLUE for value in evidence]
        ax.axvspan(-1, 1, color="0.9", zorder=0)
        ax.barh(places, evidence, color=colours)
        ax.axvline(0, color="black", lw=0.8)
        ax.set_xscale("symlog", linthresh=2, linscale=1)
        ax.set_xlim(1.5 * lowest, 3)
        largest = int(np.log10(-1.5 * lowest))
        powers = (
            range(1, 1 + largest)
            if largest < 3
            else range(2, 1 + largest, largest // 3 + 1)
        )
        ticks = [*(-(10.0**k) for k in powers), -1.0, 0.0, 1.0]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.set_yticks(places, self.names, fontsize=8)
        ax.invert_yaxis()
        ax.tick_params(axis="x", labelsize=7)
        ax.set_xlabel("evidence (usual range shaded)", fontsize=8)
        # With fewer than three classes the rest of the row is filled with "unknown".
        nearest = [
            str(label)
            for label in self.explanation.nearest[i].tolist()
            if label not in UNKNOWN
        ]
        title = f"nearest {', '.join(nearest)}"
        if self.answers is not None:
            answer = np.asarray(self.answers).tolist()[i]
            title = f"{'unknown' if answer in UNKNOWN else answer}; {title}"
        ax.set_title(title, fontsize=9)

    def _draw_contributions(self, ax: "Axes", i: int) -> None:
        contributions = self.explanation.contributions[i]
        shown = np.argsort(contributions)[:N_COLUMNS]
        names = self.columns or [f"column {j}" for j in range(len(contributions))]
        colours = np.where(contributions[shown] < 0, ORANGE, BLUE).tolist()
        ax.barh(np.arange(len(shown)), contributions[shown], color=colours)
        ax.axvline(0, color="black", lw=0.8)
        wrapped = [_in_lines(names[j]) for j in shown]
        ax.set_yticks(np.arange(len(shown)), wrapped, fontsize=7, linespacing=1)
        ax.invert_yaxis()
        ax.tick_params(axis="x", labelsize=7)
        part = self.explanation.explained_part
        ax.set_xlabel(f"contribution to the score of {part}", fontsize=8)

    def _draw_pictures(
        self, ax: "Axes", images: ArrayLike, i: int, left: float, width: float
    ) -> None:
        pictures = [("input", as_pictures(images)[i])]
        if self.class_images is not None:
            pictures.append(("mean of its class", as_pictures(self.class_images)[i]))
        has_map = "residual_map" in self.explanation
        share = width / (len(pictures) + has_map)
        panels = [
            ax.inset_axes((left + place * share, 0.13, 0.94 * share, 0.29), anchor="S")
            for place in range(len(pictures) + has_map)
        ]
        low, high = float(pictures[0][1].min()), float(pictures[0][1].max())
        for panel, (name, picture) in zip(panels, pictures, strict=False):
            scaled = np.clip((picture.squeeze() - low) / max(high - low, 1e-12), 0, 1)
            panel.imshow(scaled, cmap="gray", vmin=0, vmax=1)
            panel.set_title(name, fontsize=7)
        if has_map:
            # The same scale for all points, so that they can be compared.
            largest = float(self.explanation.residual_map.max())
            residual = self.explanation.residual_map[i]
            shown = panels[-1].imshow(residual, cmap="magma", vmin=0, vmax=largest)
            panels[-1].set_title("unlike its class", fontsize=7)
            place = (left + (len(panels) - 1) * share, 0.09, 0.94 * share, 0.02)
            bar = ax.figure.colorbar(
                shown, cax=ax.inset_axes(place), orientation="horizontal"
            )
            bar.ax.tick_params(labelsize=6)
            bar.set_label("standard deviations", fontsize=6)
        for panel in panels:
            panel.set(xticks=[], yticks=[])


def _in_lines(name: str) -> str:
    """Break a long name after underscores and spaces, in two lines at most.

    Examples
    --------
    >>> print(_in_lines("od280/od315_of_diluted_wines"))
    od280/od315_of_
    diluted_wines
    """
    lines = textwrap.wrap(name.replace("_", "_ "), 20, max_lines=2, placeholder="...")
    return "\n".join(lines).replace("_ ", "_")

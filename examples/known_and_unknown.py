"""
Scores and the threshold
========================

Each image gets a score. The threshold decides which images get a digit, and which get
``-1`` for unknown. ``fit`` sets it from known images that it holds out. It needs no
unknown images.

You can run this page as a script. It takes half a minute on one processor core::

    python examples/known_and_unknown.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits

# %%
# Train on six digits
# -------------------
# The training set has the digits 0 to 5, and the test set has all ten. With
# ``contamination=0.05`` at most 5 % of the *known* images may be rejected.

digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
detector = VMDLSDetector(contamination=0.05, random_state=0)
detector.fit(digits.X_train, digits.y_train)

labels = detector.predict(digits.X_test)
is_known = np.isin(digits.y_test, digits.known)
for name, part in (("known", is_known), ("unknown", ~is_known)):
    rejected = np.mean(labels[part] == -1)
    print(f"{part.sum()} {name} digits: {rejected:.1%} rejected")
accepted = is_known & (labels != -1)
right = np.mean(labels[accepted] == digits.y_test[accepted])
print(f"accepted known digits with the right label: {right:.1%}")

# %%
# Plot the scores
# ---------------
# ``decision_function`` is the score less the threshold. The axis is linear near the
# threshold and logarithmic far from it. The images below the plot are of both kinds,
# from the lowest score to the highest, with their predictions. One image of each kind
# is on the wrong side.

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by colour-blind readers too
MINUS = "\N{MINUS SIGN}"

margins = detector.decision_function(digits.X_test)


def draw_scores(axes: Axes) -> None:
    bins = np.sinh(np.linspace(*np.arcsinh([margins.min(), margins.max()]), 60))
    for part, colour in ((~is_known, ORANGE), (is_known, BLUE)):
        axes.hist(margins[part], bins, color=colour, alpha=0.75, lw=0)
    axes.set_xscale("asinh", linear_width=1)
    ticks = [-300, -100, -30, -10, -3, -1, 0, 1, 3, 8]
    names = [f"{tick}".replace("-", MINUS) for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="score less the threshold", ylabel="test images")
    axes.spines[["top", "right"]].set_visible(False)
    axes.axvline(0, color="black", lw=1.5)
    top = axes.get_ylim()[1]
    axes.annotate(f"rejected: {MINUS}1", (0, top), (-6, -10), ha="right", **ABOUT)
    axes.annotate("accepted: a digit", (0, top), (6, -10), **ABOUT)
    axes.annotate("threshold", (0, top), (0, 4), ha="center", **ABOUT)
    for part, colour, name in (
        (~is_known, ORANGE, "unknown digits, 6 to 9"),
        (is_known, BLUE, "known digits, 0 to 5"),
    ):
        height = np.histogram(margins[part], bins)[0].max()
        at = np.median(margins[part]), height
        align = "right" if colour == BLUE else "center"
        shift = (-14, -20) if colour == BLUE else (0, 6)
        axes.annotate(name, at, shift, color=colour, ha=align, **ABOUT)


def spread(part: np.ndarray) -> np.ndarray:
    """Rows of seven images, from the lowest score to the highest."""
    rows = np.flatnonzero(part)
    return rows[margins[rows].argsort()[np.linspace(0, len(rows) - 1, 7).astype(int)]]


def draw_images(axes: Axes, histogram: Axes) -> None:
    """Draw images of both kinds by their scores, each with its prediction."""
    chosen = np.concatenate([spread(is_known), spread(~is_known)])
    chosen = chosen[margins[chosen].argsort()]
    places = (np.arange(len(chosen)) + 0.5) / len(chosen)
    to_axes = histogram.transAxes.inverted().transform
    at = to_axes(histogram.transData.transform([(m, 0) for m in margins[chosen]]))[:, 0]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    axes.text(-0.01, 0.02, "prediction", ha="right")
    for row, place, score in zip(chosen, places, at, strict=True):
        colour = BLUE if is_known[row] else ORANGE
        axes.plot([score, place], [1, 0.78], color=colour, lw=0.8, clip_on=False)
        inset = axes.inset_axes((place - 0.031, 0.18, 0.062, 0.6))
        inset.imshow(digits.X_test[row], cmap="gray_r")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set(color=colour, lw=1.5)
        axes.text(place, 0.02, f"{labels[row]}".replace("-", MINUS), ha="center")


ABOUT = {"textcoords": "offset points"}
figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 4.8), height_ratios=(3, 1.1), layout="constrained"
)
draw_scores(above)
figure.canvas.draw()
draw_images(below, above)

# %%
# A lower threshold would accept more images of both kinds.
# :class:`~skvmdls.plotting.ThresholdCurveDisplay` counts both for every threshold.

if "__file__" in globals():  # not in a notebook
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=160)

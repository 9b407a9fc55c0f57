"""
Embeddings of text or images
============================

You have vectors from a pretrained net, and twenty rows of each class. No net is
trained. The score is a sum of several parts, such as distances to class means and to
neighbours. ``fit`` learns the weight of each part by leaving out known classes.

So that nothing is downloaded, one layer with random weights stands in for the
pretrained net. It turns scikit-learn's 8x8 digits into vectors of 384 numbers.

You can run this page as a script. It takes a few seconds::

    python examples/embeddings.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.metrics import auroc

# %%
# Vectors and labels
# ------------------
# Six digits are known, with twenty rows each. All other rows are for the test only.

rng = np.random.default_rng(0)
layer, bias = rng.normal(size=(64, 384)) / 8, rng.normal(size=384)


def encode(images: np.ndarray) -> np.ndarray:
    """Vectors (n, 384) of images (n, 8, 8)."""
    return np.maximum(images.reshape(len(images), 64) / 4 @ layer + bias, 0)


digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
rows = np.concatenate([np.flatnonzero(digits.y_train == c)[:20] for c in digits.known])
X, y = encode(digits.X_train[rows]), digits.y_train[rows]
X_test, is_known = encode(digits.X_test), np.isin(digits.y_test, digits.known)

# %%
# Fit and predict
# ---------------
# All rows set the threshold. Each is scored by parts that were fitted without it.

detector = VMDLSbDetector(contamination=0.05, random_state=0).fit(X, y)
labels = detector.predict_known(X_test[is_known])
is_rejected = detector.is_unknown(X_test)

print(f"rows that set the threshold: {len(detector.calibration_scores_)}")
print(f"accuracy on known digits: {np.mean(labels == digits.y_test[is_known]):.3f}")
for name, part in (("known", is_known), ("unknown", ~is_known)):
    print(f"rejected of the {name} digits: {is_rejected[part].mean():.1%}")

# %%
# Learned weights
# ---------------
# Known digits were left out in turn. ``evidence_.trials`` holds the AUROC with which
# each part separates them from the other digits. The weights are those of the sum that
# separates them best, with a pull towards constants. Here they stay near the constants,
# because six classes represent poorly all that may be unknown. On digits that ``fit``
# has not seen, the sum has a larger AUROC than each of its parts.

trials = detector.evidence_.trials
against_left_out = np.append(trials.aurocs.mean(axis=0), trials.auroc_of_sum.mean())
parts = detector.evidence(X_test).T
sums = [*parts, detector.score_samples(X_test)]
against_unknown = np.array([auroc(is_known, scores) for scores in sums])
for name, weight in zip(trials.names, detector.evidence_.weights, strict=True):
    print(f"weight of {name}: {weight:.2f}")

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by colour-blind readers too


def draw_parts(axes: Axes) -> None:
    """Draw the AUROC of each part, against left-out digits and against unknown ones."""
    weights = detector.evidence_.weights
    names = [
        f"{name}, weight {weight:.2f}"
        for name, weight in zip(trials.names, weights, strict=True)
    ]
    places = np.arange(len(sums))[::-1]
    axes.hlines(places, against_left_out, against_unknown, color="0.8", zorder=0)
    axes.plot(against_left_out, places, "o", color=BLUE, label="digits left out in fit")
    axes.plot(against_unknown, places, "D", color=ORANGE, label="unknown digits")
    axes.set_yticks(places, [*names, "weighted sum"])
    axes.set(title="Each part, and their sum", xlim=(None, 1))
    axes.set_xlabel("AUROC of known digits against other digits")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, frameon=False)


def draw_scores(axes: Axes) -> None:
    """Draw the histogram of scores less the threshold."""
    margins = detector.decision_function(X_test)
    bins = np.linspace(margins.min(), margins.max(), 50)
    for part, colour, name in (
        (~is_known, ORANGE, "unknown digits, 6 to 9"),
        (is_known, BLUE, "known digits, 0 to 5"),
    ):
        axes.hist(margins[part], bins, color=colour, alpha=0.75, lw=0, label=name)
    axes.axvline(0, color="black", lw=1.5, label="threshold")
    axes.set(title="Scores", xlabel="score less the threshold", ylabel="test images")
    axes.margins(y=0.4)  # room for the legend
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right")


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
draw_parts(left)
draw_scores(right)

# %%
# A new class from ten rows
# -------------------------
# ``add_classes`` takes less than a second.

sixes = np.flatnonzero(digits.y_test == 6)
detector.add_classes(X_test[sixes[:10]], [6] * 10)
found = detector.predict(X_test[sixes[10:]])
print(f"after ten sixes, of the others {np.mean(found == 6):.1%} are called 6")

if "__file__" in globals():  # not in a notebook
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=160)

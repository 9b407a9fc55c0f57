"""
Digits: first steps
===================

Train on the digits 0 to 5. The detector then predicts one of these digits for each new
image, or -1 for an image that is unlike all of them, such as a 6 or noise.

You can run this page as a script. It needs no network and takes half a minute on one
processor core::

    python examples/quickstart.py

It writes its plot to ``examples/quickstart.png``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits, uniform_noise
from skvmdls.metrics import auroc
from skvmdls.plotting import EnsembleDisplay, ScoreHistogramDisplay

# %%
# Load the data
# -------------
# The images are scikit-learn's digits of 8x8 pixels. The test set has all ten digits,
# but the training set has only six of them.

digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
for name, X, y in (
    ("training", digits.X_train, digits.y_train),
    ("test", digits.X_test, digits.y_test),
):
    print(f"{name} images: {len(X)}, of the digits {np.unique(y)}")

# %%
# Fit and predict
# ---------------
# ``contamination`` is the share of known images that may be rejected. ``fit`` sets the
# threshold so that new known images keep to this share on average.

detector = VMDLSDetector(contamination=0.05, random_state=0)
detector.fit(digits.X_train, digits.y_train)

print("true digits:", digits.y_test[:20])
print("predicted:  ", detector.predict(digits.X_test[:20]))

# %%
# How good is it?
# ---------------
# The AUROC is the probability that a known image scores higher than an unknown one. It
# does not depend on the threshold.

is_known = np.isin(digits.y_test, digits.known)
labels = detector.predict(digits.X_test)
accepted = is_known & (labels != -1)
noise = 16 * uniform_noise((500, 8, 8), random_state=0)

print(f"digits 0 to 5: {np.mean(labels[is_known] == -1):.1%} rejected")
print(f"digits 6 to 9: {np.mean(labels[~is_known] == -1):.1%} rejected")
print(f"noise:         {np.mean(detector.predict(noise) == -1):.1%} rejected")
right = np.mean(labels[accepted] == digits.y_test[accepted])
print(f"accepted digits 0 to 5 with the right label: {right:.1%}")
print(f"AUROC: {auroc(is_known, detector.score_samples(digits.X_test)):.3f}")

# %%
# Plot the scores
# ---------------
# On the left are the scores, with the threshold. On the right are the features of the
# test images in two dimensions (t-SNE). The detector has never seen the digits that are
# drawn as unknown.

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
ScoreHistogramDisplay.from_estimator(detector, digits.X_test, digits.y_test, ax=left)
EnsembleDisplay.from_estimator(
    detector, digits.X_test, digits.y_test, random_state=0, ax=right
)

# %%
# Next: :ref:`the threshold <sphx_glr_gallery_known_and_unknown.py>`, or
# :ref:`why an image was rejected <sphx_glr_gallery_why_rejected.py>`.

if "__file__" in globals():  # not in a notebook
    path = Path(__file__).with_suffix(".png")
    figure.savefig(path, dpi=120)
    print("Plot:", path)

"""
Photographs
===========

Train on photographs of four things. Photographs of a fifth thing should be rejected.

So that nothing is downloaded, the photographs are crops of the two that come with
scikit-learn. The code is the same for your own. Then
``skvmdls.datasets.image_folder("photos/")`` reads them from one folder for each class.

You can run this page as a script. It takes a minute on one processor core::

    python examples/photographs.py
"""

import numpy as np
from sklearn.datasets import load_sample_images

from skvmdls import VMDLSDetector
from skvmdls.metrics import auroc, closed_set_accuracy

# %%
# Cut the photographs into crops
# ------------------------------
# Each region below is cut into tiles of 34x34 pixels. Every second tile is for
# training. A tile gives five crops of 32x32 pixels. They overlap, so they are not
# independent, and all crops of a tile are one group.

SIZE, TILE = 32, 34
REGIONS = {  # photograph, then the range of rows and of columns
    "sky": (0, (0, 150), (290, 640)),
    "temple": (0, (90, 360), (100, 310)),
    "trees": (0, (290, 427), (330, 640)),
    "leaves": (1, (0, 240), (450, 640)),
    "petals": (1, (120, 320), (210, 410)),
}
UNKNOWN = "petals"
rng = np.random.default_rng(0)
photographs = load_sample_images().images

images, names, tiles, is_test = [], [], [], []
for name, (number, rows, columns) in REGIONS.items():
    for i, top in enumerate(range(rows[0], rows[1] - TILE + 1, TILE)):
        for j, left in enumerate(range(columns[0], columns[1] - TILE + 1, TILE)):
            for down, right in rng.integers(0, TILE - SIZE + 1, (5, 2)):
                y, x = top + down, left + right
                images.append(photographs[number][y : y + SIZE, x : x + SIZE])
                names.append(name)
                tiles.append(f"{name} {i} {j}")
                is_test.append((i + j) % 2 == 1 or name == UNKNOWN)

X = np.stack(images).transpose(0, 3, 1, 2)  # (n, channels, height, width)
y, tiles, is_test = np.array(names), np.array(tiles), np.array(is_test)
X_train, y_train, groups = X[~is_test], y[~is_test], tiles[~is_test]
X_test, y_test = X[is_test], y[is_test]
print(f"{len(X_train)} crops of {len(set(groups))} tiles for training")
print(f"{len(X_test)} crops for the test")

# %%
# Fit
# ---
# A fifth of the tiles is held out to set the threshold. With so few tiles, one in ten
# known crops may be rejected.

detector = VMDLSDetector(
    contamination=0.1,
    calibration_fraction=0.2,
    augmentation="crop_flip",
    max_epochs=10,
    random_state=0,
)
detector.fit(X_train, y_train, groups=groups)
print(detector.summary())

# %%
# Predict
# -------
# The guarantee is for all known crops together and on average. So few tiles leave a
# wide range, and the classes differ in how many of their crops are rejected.

labels, scores = detector.predict(X_test), detector.score_samples(X_test)
is_known = y_test != UNKNOWN
accuracy = closed_set_accuracy(
    y_test, detector.predict_known(X_test), detector.classes_
)
print(f"accuracy on known crops: {accuracy:.3f}")
print(f"AUROC: {auroc(is_known, scores):.3f}")
for name in REGIONS:
    print(f"{name:8} {np.mean(labels[y_test == name] == '-1'):6.1%} rejected")

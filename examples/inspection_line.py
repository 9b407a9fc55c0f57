"""
A day at an inspection line
===========================

A camera looks at parts on a belt. The detector knows screws, nuts and washers. During
the day a new kind of part appears, and later a lamp gets darker. This page shows how to
notice both, and what to do.

So that nothing is downloaded, the parts are drawn. You can run this page as a script.
It takes a minute on one processor core::

    python examples/inspection_line.py

The command line does the same from folders of images, without Python::

    skvmdls fit good_parts/ --out parts.safetensors
    skvmdls predict parts.safetensors new_images/ --out answers.csv
"""

import time
import warnings
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from skvmdls import VMDLSDetector
from skvmdls.monitoring import ShiftMonitor
from skvmdls.plotting import ExplanationDisplay, ShiftDisplay

rng = np.random.default_rng(0)

# %%
# The camera
# ----------
# Each image has 32x32 grey pixels and shows one part, at any angle.


def photograph(kind: str, light: float = 1.0) -> np.ndarray:
    """Draw a part on the belt: an image (32, 32) of bytes."""
    image = Image.new("L", (128, 128), 60)
    pen = ImageDraw.Draw(image)
    if kind == "washer":
        pen.ellipse((28, 28, 100, 100), fill=200)
        pen.ellipse((46, 46, 82, 82), fill=60)
    elif kind == "nut":
        pen.regular_polygon((64, 64, 42), 6, fill=200)
        pen.ellipse((46, 46, 82, 82), fill=60)
    elif kind == "screw":
        pen.rectangle((54, 40, 74, 112), fill=190)
        pen.rectangle((40, 20, 88, 42), fill=210)
    else:  # a spring
        turns = [(40 if i % 2 else 88, 20 + 11 * i) for i in range(9)]
        pen.line(turns, fill=200, width=9)
    image = image.rotate(rng.uniform(0, 360), fillcolor=60)
    image = image.filter(ImageFilter.GaussianBlur(2)).resize((32, 32))
    pixels = light * np.asarray(image) * rng.uniform(0.9, 1.1)
    pixels += rng.normal(0, 4, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def belt(
    n: int, kinds: Sequence[str], light: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 32, 32) of parts of random kinds, and their kinds (n,)."""
    y = rng.choice(kinds, n)
    return np.stack([photograph(kind, light) for kind in y]), y


KNOWN = ["nut", "screw", "washer"]
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
for axis, kind in zip(axes, [*KNOWN, "spring"], strict=True):
    axis.imshow(photograph(kind), cmap="gray", vmin=0, vmax=255)
    axis.set(title=kind, xticks=[], yticks=[])

# %%
# Train
# -----
# ``skvmdls.datasets.image_folder`` reads images from folders, one for each kind. Here
# they come as an array. ``summary`` describes the threshold for a day of 2,000 parts.

X, y = belt(600, KNOWN)
detector = VMDLSDetector(contamination=0.05, random_state=0).fit(X, y)
print(detector.summary(2000))

# %%
# Morning: only known parts
# -------------------------
# The monitor raises an alarm when the stream changes. If it never changes, the
# probability of an alarm is at most 1 %, however long the stream is.

monitor = ShiftMonitor(detector, false_alarm=0.01, random_state=0)
morning, _ = belt(300, KNOWN)
monitor.update(morning)
print(f"rejected: {detector.is_unknown(morning).mean():.1%}, alarm: {monitor.alarm_}")

# %%
# Noon: a new kind of part
# ------------------------
# One part in seven is now a spring.

noon, kinds = belt(700, [*KNOWN * 2, "spring"])
monitor.update(noon)
is_spring, is_rejected = kinds == "spring", detector.is_unknown(noon)
print(f"springs rejected: {is_rejected[is_spring].mean():.1%}")
print(f"known parts rejected: {is_rejected[~is_spring].mean():.1%}")
print(f"alarm: {monitor.alarm_}, {monitor.alarm_at_ - len(morning)} parts after noon")

# %%
# How many of the rejected parts are really unknown? ``false_discoveries`` gives an
# upper bound on the others, which holds with a probability of 90 %.

n_rejected = is_rejected.sum()
n_known = detector.false_discoveries(noon, is_rejected, confidence=0.9)
print(f"of {n_rejected} rejected parts at least {n_rejected - n_known} are unknown")

# %%
# The upper plot shows the evidence for a change: the capital of somebody who bets
# against "nothing has changed", a martingale. It stays about 1, whose logarithm is 0,
# until noon. The plot ends before the lamp changes. The lower plot shows three of the
# rejected parts, and where they differ from parts of the nearest kind.

figure, (above, below) = plt.subplots(
    2, 1, figsize=(11, 8), height_ratios=(1, 1.6), layout="constrained"
)
above.axvline(len(morning), color="grey", ls=":", label="noon: springs appear")
ShiftDisplay.from_monitor(monitor, ax=above)
_ = ExplanationDisplay.from_estimator(detector, noon[is_rejected][:3], ax=below)

# %%
# Afternoon: learn the new kind
# -----------------------------
# Somebody labels the rejected springs. ``add_classes`` learns them without training the
# net again.

springs = noon[is_rejected & is_spring]
start = time.perf_counter()
detector.add_classes(springs, ["spring"] * len(springs))
print(f"learned {len(springs)} springs in {time.perf_counter() - start:.1f} s")

afternoon, kinds = belt(400, [*KNOWN, "spring"])
labels = detector.predict(afternoon)
for kind in detector.classes_:
    found = labels[kinds == kind]
    right, unknown = np.mean(found == kind), np.mean(found == "-1")
    print(f"{kind:6}: {right:6.1%} right, {unknown:5.1%} rejected")

# %%
# Evening: a darker lamp
# ----------------------
# The lamp has lost a quarter of its light, and known parts are rejected.
# ``recalibrate`` sets the threshold again from 200 known parts under the new lamp. The
# net does not change.

evening, _ = belt(400, detector.classes_, light=0.75)
print(f"rejected with the old threshold: {detector.is_unknown(evening).mean():.1%}")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of what the report describes
    detector.recalibrate(belt(200, detector.classes_, light=0.75)[0])
print(detector.recalibration_report_.sentence())
print(f"rejected with the new threshold: {detector.is_unknown(evening).mean():.1%}")

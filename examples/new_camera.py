"""A new camera
============

A camera is replaced. The monitor raises an alarm, and a hundred known images of the
new camera set the threshold again. The detector itself stays as it is.

    python examples/new_camera.py
"""

# %%
# Six digits are known. Their rows are the features, so that nothing has to be set.
import numpy as np

from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.metrics import auroc
from skvmdls.monitoring import ShiftMonitor
from skvmdls.plotting import RejectionCalibrationDisplay

rng = np.random.default_rng(0)
digits = load_digits(known=range(6), random_state=0)
X, X_new = (part.reshape(len(part), -1) for part in (digits.X_train, digits.X_test))
is_known = digits.y_test < 6
detector = VMDLSbDetector(random_state=0).fit(X, digits.y_train)
print(detector.summary(n_points=1000))

# %%
# The old camera breaks. The new one has a third less contrast, and fewer shades.


def through_new_camera(X):
    """See rows (n, 64) of values from 0 to 16 by the new camera."""
    return np.round(2 / 3 * X)


old_stream, new_stream = np.array_split(rng.permutation(X_new[is_known]), 2)
new_stream = through_new_camera(new_stream)
monitor = ShiftMonitor(detector, random_state=0).update(old_stream)
print(
    f"Old camera: alarm {monitor.alarm_}, {detector.is_unknown(old_stream).mean():.1%}"
)
monitor.update(new_stream)
print(
    f"New camera: alarm {monitor.alarm_}, "
    f"{(monitor.alarm_at_ or np.nan) - len(old_stream)} points after the change, "
    f"{detector.is_unknown(new_stream).mean():.1%} of the known rejected"
)

# %%
# Known points that are rejected are an alarm, but are they still told from unknown
# ones? The AUROC does not depend on the threshold. It needs a few unknown points.
unknown = through_new_camera(X_new[~is_known])
scores = [detector.score_samples(part) for part in (new_stream, unknown)]
of_known = np.arange(len(new_stream) + len(unknown)) < len(new_stream)
area = auroc(of_known, np.concatenate(scores))
print(f"AUROC against unknown digits, by the new camera: {area:.3f}")

# %%
# They are, but twice as many known ones are rejected as are allowed. So the
# threshold alone is wrong. Somebody looks at a hundred images of the new camera and
# finds that all are known digits. They set the threshold. The report compares them with
# the old threshold, and would name those that lie far below the others.
looked_at, rest = new_stream[:100], new_stream[100:]
detector.recalibrate(looked_at)
print(detector.recalibration_report_.sentence())
known_rejected = detector.is_unknown(rest).mean()
unknown_rejected = detector.is_unknown(unknown).mean()
print(
    f"Recalibrated: {known_rejected:.1%} of new known points rejected, "
    f"{unknown_rejected:.1%} of the unknown"
)

# %%
# The plot shows which share of the points that nobody looked at each level rejects,
# and the band in which chance leaves it.
display = RejectionCalibrationDisplay.from_predictions(
    detector.p_value(rest),
    n_held_out=len(detector.calibration_scores_),
    allowed=detector.contamination,
)
display.ax_.set_title("The new camera, with the new threshold")

# %%
# The monitor starts again with the new threshold's points. A hundred points leave more
# to chance than all rows of the training did.
monitor.reset().update(rest)
print(f"New camera, recalibrated: alarm {monitor.alarm_}")
print(detector.summary(n_points=1000))

"""Replace the held-out scores of a detector by those of new known points."""

import numpy as np

from skvmdls._support.values import listed, warn
from skvmdls.calibration.probabilities import ClassProbabilities
from skvmdls.calibration.verdicts import Calibration
from skvmdls.scoring.model import Measured

__all__ = ["recalibrated"]


def recalibrated(
    old: Calibration,
    measured: Measured,
    labels: np.ndarray | None,
    classes: np.ndarray,
    *,
    by_class: bool,
) -> Calibration:
    """Take the scores of new points, measured by class, with labels (n,) if known.

    With thresholds by class, classes without new points keep their held-out points.
    Without labels, each point counts under the class that it is given.
    """
    assert measured.class_scores is not None
    assert measured.winners is not None
    assert measured.label_scores is not None
    own = measured.most_likely if labels is None else labels
    new = Calibration(
        measured.score,
        measured.class_scores[np.arange(len(own)), own],
        own,
        measured.winners[:, : old.winners.shape[1]],
        old.probabilities
        if labels is None
        else ClassProbabilities.fit(measured.label_scores, labels),
    )
    has_new = np.isin(np.arange(len(classes)), own)
    if not by_class or has_new.all():
        return new
    without = [repr(label) for label in classes[~has_new].tolist()]
    warn(
        f"{len(without)} of {len(classes)} classes have no new points and keep their "
        f"held-out scores: {listed(without)}."
    )
    return new.joined(old.of_points(~has_new[old.labels]))

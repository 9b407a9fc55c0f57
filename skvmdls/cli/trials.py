"""What `fit` tries on its detector, and what it prints of that."""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from skvmdls.calibration.hold_out import numbers_held_out
from skvmdls.detector.base import BaseDetector
from skvmdls.detector.direct_evidence import most_cross_fitted
from skvmdls.detector.fitting import EVIDENCE_SHARE, held_out_fraction
from skvmdls.detector.parameters import asks_for_net

__all__ = [
    "Trial",
    "check_enough_held_out",
    "held_out_rows",
    "noise_and_plain",
    "try_held_out",
    "try_left_out_classes",
    "try_noise_and_plain",
]

# Of the images of left-out classes, and of noise and plain images, fewer rejected ones
# than this are worth a warning; and held-out images with fewer right labels. The AUROC
# is that of a trial without a threshold.
FEWEST_LEFT_OUT, FEWEST_STRANGE, FEWEST_RIGHT = 0.5, 0.9, 0.7
LOWEST_AUROC = 0.7

# The largest contamination that is advised: above, too much of it is left to chance.
LARGEST_ADVISED = 0.2

LEFT_OUT_SHARE = 1 / 3
MOST_TRIED, N_STRANGE = 1500, 60

# What helps a detector that was trained from nothing.
BACKBONE_HELPS = (
    "For photographs --backbone NAME helps, with a net that was trained on millions of "
    "them."
)


@dataclass(frozen=True)
class Trial:
    """A sentence on what was tried, and a warning where the result is poor."""

    told: str
    warning: str = ""


class ThresholdImages(NamedTuple):
    """How many images set the threshold, how many must, and how many images it takes.

    Of `n_enough` images in all, and hardly of fewer, `n_needed` set the threshold.
    """

    n_set: int
    n_needed: int
    n_enough: int


def threshold_images(
    n_images: int, n_classes: int, detector: BaseDetector, *, is_table: bool
) -> ThresholdImages:
    """Count the images that set the threshold, of so many images and classes.

    A table holds features of a frozen net. Of a small one, all rows set the threshold.
    `contamination` must be positive.
    """
    settings = detector.resolved()
    n_needed = math.ceil(1 / settings.contamination - 1 - 1e-9)

    def n_set(n_images: int) -> int:
        is_small = n_images <= most_cross_fitted(unit_rows=False)
        if is_table and is_small and not asks_for_net(settings):
            return n_images
        fraction = held_out_fraction(settings, n_images, n_classes)
        return numbers_held_out(n_images, fraction, EVIDENCE_SHARE).n_threshold

    n_enough = n_needed
    while n_set(n_enough) < n_needed:
        n_enough = max(n_enough + 1, n_enough * n_needed // (n_set(n_enough) + 1))
    return ThresholdImages(n_set(n_images), n_needed, n_enough)


def check_enough_held_out(
    labels: np.ndarray,
    detector: BaseDetector,
    contamination: float,
    *,
    is_table: bool = False,
) -> None:
    """Refuse a threshold that no image could fall below, before the training.

    A table holds features of a frozen net.

    Raises
    ------
    ValueError
        With the number of images, or the --contamination, that suffices.
    """
    if contamination == 0:
        return
    asked_for = clone(detector).set_params(contamination=contamination)
    n_held_out, n_needed, n_images = threshold_images(
        len(labels), len(np.unique(labels)), asked_for, is_table=is_table
    )
    if n_held_out < n_needed:
        lowest = math.ceil(1e4 / (n_held_out + 1)) / 1e4
        is_advised = lowest <= LARGEST_ADVISED
        others = f"--contamination {lowest:g} or more, or " if is_advised else ""
        are = "is" if n_held_out == 1 else "are"
        raise ValueError(
            f"--contamination {contamination:g} needs {n_needed} held-out images, and "
            f"of these {len(labels)} images {n_held_out} {are} held out to set the "
            "threshold: no image would ever be rejected. Give "
            f"{others}about {n_images} images in all."
        )


def held_out_rows(detector: BaseDetector) -> np.ndarray:
    """Positions of the rows that did not train, of a detector just fitted.

    With cross-fitted scores every row trains, and there are none.
    """
    split = detector.split_
    held_out = np.union1d(split.evidence, split.threshold)
    return np.setdiff1d(held_out, split.training)


def try_held_out(detector: BaseDetector, X: np.ndarray, labels: np.ndarray) -> Trial:
    """Count how many held-out images get the right label."""
    rows = held_out_rows(detector)
    is_right = detector.predict_known(X[rows]) == labels[rows]
    told = (
        f"Of {len(rows)} held-out images, {is_right.sum()} got the right label "
        f"({is_right.mean():.0%})."
    )
    if is_right.mean() >= FEWEST_RIGHT:
        return Trial(told)
    return Trial(
        told,
        f"only {is_right.mean():.0%} of the held-out images got the right label, so "
        f"the classes are hard to tell apart.",
    )


def try_left_out_classes(
    detector: BaseDetector, X: np.ndarray, labels: np.ndarray
) -> Trial | None:
    """Train once more without some classes, and count which of their images it rejects.

    It is an estimate for images of classes that the detector does not know. Where too
    few images are left for a threshold, their scores are compared. None if there are
    fewer than three classes.
    """
    classes = np.unique(labels)
    if len(classes) < 3:
        return None
    rng = np.random.default_rng(0)
    n_out = max(1, min(len(classes) - 2, round(LEFT_OUT_SHARE * len(classes))))
    left_out = np.sort(rng.permutation(classes)[:n_out])
    names = ", ".join(left_out[:3]) + (", ..." if n_out > 3 else "")
    is_out = np.isin(labels, left_out)
    known = rng.permutation(np.flatnonzero(~is_out))[:MOST_TRIED]
    strange = rng.permutation(np.flatnonzero(is_out))[:MOST_TRIED]
    trial = clone(detector).set_params(checkpoint=None, verbose=0)
    # They would be read as warnings of the detector, which is trained on more images.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial.fit(X[known], labels[known])
        has_threshold = np.isfinite(trial.offset_)
    if not has_threshold:
        reason = _why_no_threshold(trial, labels, len(known), is_table=X.ndim == 2)
        return _compared_scores(trial, X[strange], names, reason)
    is_rejected = trial.predict(X[strange]) == "-1"
    told = (
        f"A trial that had not seen {names} rejected {is_rejected.sum()} of "
        f"{len(strange)} of their images ({is_rejected.mean():.0%})."
    )
    if is_rejected.mean() >= FEWEST_LEFT_OUT:
        return Trial(told)
    return Trial(
        told,
        "images of classes that are not among these will mostly be accepted: only "
        f"{is_rejected.mean():.0%} of them were rejected in a trial.",
    )


def _why_no_threshold(
    trial: BaseDetector, labels: np.ndarray, n_known: int, *, is_table: bool
) -> str:
    """Say why a trial has no threshold, and how many images would give it one."""
    if trial.contamination == 0:
        return "had no threshold, since --contamination is 0."
    n_set = len(trial.calibration_scores_)
    few = (
        f"had no threshold: it held out {n_set} images for it, too few for "
        f"--contamination {trial.contamination:g}."
    )
    n_classes = len(trial.classes_)
    n_enough = threshold_images(n_known, n_classes, trial, is_table=is_table).n_enough
    if n_enough > MOST_TRIED:
        return f"{few} A trial trains on at most {MOST_TRIED} images."
    share_known = np.isin(labels, trial.classes_).mean()
    n_images = math.ceil(n_enough / share_known)
    return f"{few} About {n_images} images in all would be enough, not {len(labels)}."


def _compared_scores(
    trial: BaseDetector, strange: np.ndarray, names: str, reason: str
) -> Trial:
    """Compare scores of images of left-out classes with those of known ones."""
    scores = np.r_[trial.calibration_scores_, trial.score_samples(strange)]
    is_known = np.arange(len(scores)) < len(trial.calibration_scores_)
    auroc = roc_auc_score(is_known, scores)
    told = (
        f"A trial that had not seen {names} {reason} Its scores tell their images from "
        f"known ones with an AUROC of {auroc:.2f} (1 is perfect, 0.5 is chance)."
    )
    if auroc >= LOWEST_AUROC:
        return Trial(told)
    return Trial(
        told,
        "images of classes that are not among these will mostly be accepted: their "
        f"scores were hardly lower in a trial (AUROC {auroc:.2f}).",
    )


def noise_and_plain(
    shape: tuple[int, ...], white: float, random_state: int = 0
) -> dict[str, np.ndarray]:
    """Make images of noise, and images of one colour, with values in [0, white].

    Returns
    -------
    images : dict of str to ndarray of shape (60, *shape), float64
    """
    rng = np.random.default_rng(random_state)
    noise = rng.uniform(0, white, (N_STRANGE, *shape))
    shades = rng.uniform(0, white, (N_STRANGE, shape[0], 1, 1))
    shades[0], shades[1] = 0, white
    return {"noise": noise, "one colour": np.broadcast_to(shades, noise.shape).copy()}


def try_noise_and_plain(detector: BaseDetector, images: dict[str, np.ndarray]) -> Trial:
    """Count how many images of noise and of one colour are rejected."""
    shares = {
        name: float(np.mean(detector.predict(X) == "-1")) for name, X in images.items()
    }
    counted = " and ".join(
        f"{share:.0%} of {N_STRANGE} images of {name}" for name, share in shares.items()
    )
    told = f"It rejects {counted}."
    poor = [name for name, share in shares.items() if share < FEWEST_STRANGE]
    if not poor:
        return Trial(told)
    return Trial(
        told,
        f"images of {' and of '.join(poor)} are accepted as if they were known, so do "
        f"not rely on the detector for strange images.",
    )

"""What `fit` tries on its detector, and what it prints of that."""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from skvmdls.calibration.hold_out import hold_out
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
# than this are worth a warning; and held-out images with fewer right labels.
FEWEST_LEFT_OUT, FEWEST_STRANGE, FEWEST_RIGHT = 0.5, 0.9, 0.7

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


def check_enough_held_out(
    labels: np.ndarray,
    detector: BaseDetector,
    contamination: float,
    *,
    is_table: bool = False,
) -> None:
    """Refuse a threshold that no image could fall below, before the training.

    A table holds features of a frozen net. Of a small one, all rows set the threshold.

    Raises
    ------
    ValueError
        With the number of images, or the --contamination, that suffices.
    """
    if contamination == 0:
        return
    asked_for = clone(detector).set_params(contamination=contamination)
    settings = asked_for.resolved()
    classes, codes = np.unique(labels, return_inverse=True)
    is_small = len(labels) <= most_cross_fitted(unit_rows=False)
    share, n_held_out = 1.0, len(labels)
    if not (is_table and is_small and not asks_for_net(settings)):
        fraction = held_out_fraction(settings, len(labels), len(classes))
        rng = np.random.RandomState(0)
        n_held_out = len(hold_out(codes, fraction, EVIDENCE_SHARE, rng).threshold)
        share = (1 - EVIDENCE_SHARE) * fraction
    n_needed = math.ceil(1 / contamination - 1 - 1e-9)
    if n_held_out < n_needed:
        n_images = math.ceil(n_needed / share)
        lowest = math.ceil(1e4 / (n_held_out + 1)) / 1e4
        are = "is" if n_held_out == 1 else "are"
        raise ValueError(
            f"--contamination {contamination:g} needs {n_needed} held-out images, and "
            f"of these {len(labels)} images {n_held_out} {are} held out to set the "
            "threshold: no image would ever be rejected. Give --contamination "
            f"{lowest:g} or more, or about {n_images} images."
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

    It is an estimate for images of classes that the detector does not know. None if
    there are fewer than three classes, or too few images.
    """
    classes = np.unique(labels)
    if len(classes) < 3:
        return None
    rng = np.random.default_rng(0)
    n_out = max(1, min(len(classes) - 2, round(LEFT_OUT_SHARE * len(classes))))
    left_out = np.sort(rng.permutation(classes)[:n_out])
    is_out = np.isin(labels, left_out)
    known = rng.permutation(np.flatnonzero(~is_out))[:MOST_TRIED]
    strange = rng.permutation(np.flatnonzero(is_out))[:MOST_TRIED]
    trial = clone(detector).set_params(checkpoint=None, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trial.fit(X[known], labels[known])
    if not np.isfinite(trial.offset_):
        # Too few held-out images for a threshold.
        return None
    is_rejected = trial.predict(X[strange]) == "-1"
    names = ", ".join(left_out[:3]) + (", ..." if n_out > 3 else "")
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

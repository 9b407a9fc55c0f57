"""What a folder of judged images means, in two sentences."""

from collections.abc import Sequence

import numpy as np
from scipy.special import bdtrc

from skvmdls.calibration.false_discoveries import false_discovery_bound
from skvmdls.cli.folders import Judged
from skvmdls.detector.base import BaseDetector

__all__ = ["conclusion", "is_poor"]

# A share of rejected known images is called too large where chance alone would make it
# so large less often than this.
RARE = 0.01
FEWEST_UNKNOWN_REJECTED = 0.5

# How sure a statement about the rejected images is.
SURE = 0.9


def conclusion(
    detector: BaseDetector, judged: Judged, labels: Sequence[str] | None
) -> list[str]:
    """Conclude on known folders, and on unknown ones, in a sentence each.

    `labels` are the names of the images' folders; without them all images are judged
    together.
    """
    if labels is None:
        return [_of_unlabelled(detector, judged), *_of_rejected(detector, judged)]
    known = np.isin(np.asarray(labels), detector.classes_.astype(str))
    sentences = []
    if known.any():
        sentences.append(_of_known(detector, judged.is_rejected[known]))
    if not known.all():
        sentences.append(_of_unknown(judged.is_rejected[~known]))
    return sentences


def is_poor(detector: BaseDetector, is_rejected: np.ndarray, *, is_known: bool) -> bool:
    """Whether too many images of a known class, or few of an unknown one, go."""
    if not is_known:
        return bool(is_rejected.mean() < FEWEST_UNKNOWN_REJECTED)
    return detector.threshold is None and _is_too_many(is_rejected, detector)


def _of_known(detector: BaseDetector, is_rejected: np.ndarray) -> str:
    counted = f"{is_rejected.sum()} of {len(is_rejected)} images were rejected"
    if detector.threshold is not None:
        return f"Known folders: {counted}. The threshold was set by hand."
    share = f"where at most {detector.contamination:.0%} was guaranteed"
    if _is_too_many(is_rejected, detector):
        return (
            f"Known folders: {counted}, {share}, so these images do not come as the "
            "training images came."
        )
    return (
        f"Known folders: {counted}, {share}, so they come as the training images did."
    )


def _of_unknown(is_rejected: np.ndarray) -> str:
    counted = f"{is_rejected.sum()} of {len(is_rejected)} images were rejected"
    if is_rejected.mean() >= FEWEST_UNKNOWN_REJECTED:
        return f"Unknown folders: {counted}."
    return (
        f"Unknown folders: {counted}, so most images of unknown classes are taken for "
        "known ones. Do not rely on this detector to find them."
    )


def _of_unlabelled(detector: BaseDetector, judged: Judged) -> str:
    counted = f"{judged.is_rejected.sum()} of {len(judged.paths)} images were rejected"
    if detector.threshold is not None:
        return f"{counted}. The threshold was set by hand."
    share = f"of known images at most {detector.contamination:.0%} are, on average"
    if _is_too_many(judged.is_rejected, detector):
        return (
            f"{counted}. {share.capitalize()}, so there are unknown images among "
            "these, or they do not come as the training images came."
        )
    return f"{counted}. {share.capitalize()}, so they may all be known."


def _of_rejected(detector: BaseDetector, judged: Judged) -> list[str]:
    """Bound the unknown images among those that were rejected."""
    n_rejected = int(judged.is_rejected.sum())
    n_held_out = len(detector.calibration_scores_)
    given = judged.p_values, judged.is_rejected, n_held_out, SURE
    n_unknown = n_rejected - false_discovery_bound(*given)
    if n_unknown == 0:
        return []
    return [
        f"Of the {n_rejected} rejected at least {n_unknown} are unknown, or do not "
        f"come as the training images came ({SURE:.0%} sure)."
    ]


def _is_too_many(is_rejected: np.ndarray, detector: BaseDetector) -> bool:
    """Whether so many rejections of known images would be rare by chance."""
    n, n_rejected = len(is_rejected), int(is_rejected.sum())
    return n_rejected > 0 and bool(
        bdtrc(n_rejected - 1, n, float(detector.contamination)) < RARE
    )

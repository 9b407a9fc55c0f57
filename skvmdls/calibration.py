"""What held-out known data decides: the score's constants and the threshold.

Two sets of training rows that neither the net nor the Gaussians saw have one task each.
The first sets the constants of the evidence and of the reconstruction weight, so that a
point's score depends on nothing but the point. The second sets the threshold: the score
function was fixed before its points were scored, which is what the conformal guarantee
asks for.
"""

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["WeightCalibration", "conformal_p_value", "conformal_threshold"]


class HeldOut(NamedTuple):
    """Positions of the rows that train, that set constants, and the threshold."""

    training: np.ndarray
    evidence: np.ndarray
    threshold: np.ndarray


def stratified_sample(
    labels: np.ndarray, n_drawn: int, rng: np.random.RandomState
) -> np.ndarray:
    """Mask of `n_drawn` rows, each class drawn in proportion to its size.

    Systematic sampling through the shuffled classes, one behind the other: every row
    has the same chance, each class gets its share rounded up or down, and classes may
    be as small as they like.

    Examples
    --------
    >>> labels = np.repeat([0, 1], [80, 20])
    >>> drawn = stratified_sample(labels, 10, np.random.RandomState(0))
    >>> np.bincount(labels[drawn])
    array([8, 2])
    """
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    steps = (np.arange(n_drawn) + rng.uniform()) * len(labels) / max(1, n_drawn)
    mask = np.zeros(len(labels), dtype=bool)
    mask[by_class[steps.astype(int)]] = True
    return mask


def hold_out(
    labels: np.ndarray,
    fraction: float,
    evidence_share: float,
    rng: np.random.RandomState,
) -> HeldOut:
    """Split the training data, stratified by labels (n,), into rows with their tasks.

    A share `fraction`, at most a half, is held out, and `evidence_share` of that sets
    the score's constants. If only one row is held out, it has both tasks.

    Examples
    --------
    >>> labels = np.repeat([0, 1], 50)
    >>> rows = hold_out(labels, 0.2, 0.25, np.random.RandomState(0))
    >>> [len(positions) for positions in rows]
    [80, 5, 15]
    """
    # Every other row at most: of two neighbours in a class, one is left to train on.
    n_held_out = max(1, min(round(fraction * len(labels)), len(labels) // 2))
    held_out = stratified_sample(labels, n_held_out, rng)
    rows = np.flatnonzero(held_out)
    n_evidence = math.ceil(evidence_share * n_held_out)
    for_evidence = stratified_sample(labels[rows], n_evidence, rng)
    for_threshold = ~for_evidence if n_held_out > 1 else np.ones(1, dtype=bool)
    return HeldOut(np.flatnonzero(~held_out), rows[for_evidence], rows[for_threshold])


def conformal_threshold(scores: np.ndarray, contamination: float) -> float:
    """Lowest score that is accepted, by split conformal prediction.

    The ``k``-th smallest of ``n`` held-out scores, ``k = floor(contamination (n+1))``:
    the chance that a new known point, exchangeable with them, scores below it is at
    most ``contamination`` [1]_.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of held-out known points; higher is more in-distribution.
    contamination : float in [0, 1)
        Allowed chance of rejecting a known point.

    Returns
    -------
    threshold : float
        Minus infinity where ``k`` is 0: nothing may be rejected.

    Warns
    -----
    UserWarning
        If `contamination` is positive but ``n`` is too small to reject anything.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005.

    Examples
    --------
    >>> conformal_threshold(np.arange(1.0, 100.0), contamination=0.05)
    5.0
    """
    n = len(scores)
    # 0.05 * 100 may round to just below 5, which would cost a whole rank.
    rank = math.floor(contamination * (n + 1) + 1e-9)
    if rank > 0:
        return float(np.partition(scores, rank - 1)[rank - 1])
    if contamination > 0:
        needed = math.ceil(1 / contamination - 1 - 1e-9)
        warnings.warn(
            f"{n} calibration points are too few for contamination={contamination}: "
            f"at least {needed} are needed, so every point will be accepted. Give "
            "more training data, or raise calibration_fraction or contamination.",
            UserWarning,
            stacklevel=2,
        )
    return -math.inf


def conformal_p_value(calibration_scores: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Conformal p-value of "this point is known".

    ``(1 + #{calibration scores <= score}) / (n + 1)``. It is at most ``contamination``
    exactly where the score is below :func:`conformal_threshold`.

    Parameters
    ----------
    calibration_scores : ndarray of shape (n,)
    scores : ndarray of shape (m,)

    Returns
    -------
    p_values : ndarray of shape (m,)
        In ``[1 / (n + 1), 1]``.

    Examples
    --------
    >>> conformal_p_value(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.5]))
    array([0.25, 0.75])
    """
    n_below = np.searchsorted(np.sort(calibration_scores), scores, side="right")
    return (1 + n_below) / (len(calibration_scores) + 1)


@dataclass(frozen=True)
class WeightCalibration:
    """The paper's product of reconstruction weight ``w`` and log-likelihood ``l``.

    Literally, ``w * l`` (Dinari & Freifeld 2022, section 3.4) ranks backwards where
    ``l > 0``; the authors shift ``l`` and scale ``w`` by the largest values of the
    test set. Here both constants come from held-out known data.

    Parameters
    ----------
    shift : float
        Largest log-likelihood of the held-out points. Above it, where few points ever
        are, the weight divides instead of multiplying: it lowers every score.
    scale : float
        Largest weight of the held-out points, which counts as one; positive.

    Examples
    --------
    >>> import numpy as np
    >>> rule = WeightCalibration(shift=100.0, scale=2.0)
    >>> rule.apply(np.array([90.0, 90.0, 90.0]), np.array([1.0, 2.0, 6.0]))
    array([ -5., -10., -30.])
    """

    shift: float
    scale: float

    @classmethod
    def fit(
        cls, log_likelihoods: np.ndarray, weights: np.ndarray
    ) -> "WeightCalibration":
        """Take the constants from the l and w, (n,), of held-out known points."""
        # Perfect reconstructions leave no scale: any error is then a large one.
        smallest = float(np.finfo(np.float32).eps)
        return cls(float(log_likelihoods.max()), max(float(weights.max()), smallest))

    def apply(self, log_likelihoods: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Score points (n,): rising in the log-likelihood, falling in the weight."""
        relative = weights / self.scale
        shortfall = log_likelihoods - self.shift
        # Above the shift a product would reward a large weight.
        return np.where(
            shortfall < 0, shortfall * relative, shortfall / np.maximum(relative, 1)
        )

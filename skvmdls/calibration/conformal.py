"""What held-out known data decides: the score's constants and the threshold.

Two sets of training rows that neither the net nor the Gaussians saw have one task each.
The first sets the constants of the evidence and of the reconstruction weight, so that a
point's score depends on nothing but the point. The second sets the threshold: the score
function was fixed before its points were scored, which is what the conformal guarantee
asks for.
"""

import math
import warnings

import numpy as np

from skvmdls._support.values import listed, warn

__all__ = [
    "class_p_values",
    "class_thresholds",
    "conformal_p_value",
    "conformal_threshold",
    "discoveries",
    "warn_of_classes_never_excluded",
]


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
        warn(
            f"{n} calibration points are too few for contamination={contamination}: "
            f"at least {needed} are needed, so every point will be accepted. Give "
            "more training data (equal rows, and rows of one group, count once), or "
            "raise calibration_fraction or contamination."
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


def class_p_values(
    calibration_scores: np.ndarray,
    calibration_labels: np.ndarray,
    class_scores: np.ndarray,
) -> np.ndarray:
    """Conformal p-values of "this point is of that class", for each class.

    Label-conditional conformal prediction [1]_: a point's score under a class is ranked
    among the scores that the class's own held-out points have under it. For a new point
    of class ``c``, column ``c`` is at most ``a`` with a chance of at most ``a``.

    Parameters
    ----------
    calibration_scores : ndarray of shape (n,)
        Of held-out points, each under its own class.
    calibration_labels : ndarray of shape (n,), int
        Position of each one's class.
    class_scores : ndarray of shape (m, n_classes)

    Returns
    -------
    p_values : ndarray of shape (m, n_classes)
        All one for a class without held-out points.

    References
    ----------
    .. [1] V. Vovk, "Conditional validity of inductive conformal predictors", Machine
       Learning 92, 2013.

    Examples
    --------
    >>> scores, labels = np.array([1.0, 2.0, 9.0]), np.array([0, 0, 1])
    >>> class_p_values(scores, labels, np.array([[1.5, 1.5]]))
    array([[0.66666667, 0.5       ]])
    """
    p_values = np.empty(class_scores.shape)
    for label, scores in enumerate(class_scores.T):
        own = calibration_scores[calibration_labels == label]
        p_values[:, label] = conformal_p_value(own, scores)
    return p_values


def class_thresholds(
    calibration_scores: np.ndarray,
    calibration_labels: np.ndarray,
    n_classes: int,
    contamination: float,
) -> np.ndarray:
    """Lowest score under each class that does not exclude it.

    Parameters
    ----------
    calibration_scores, calibration_labels : ndarray of shape (n,)
        As of :func:`class_p_values`.
    n_classes : int
    contamination : float in [0, 1)

    Returns
    -------
    thresholds : ndarray of shape (n_classes,)
        Minus infinity for a class that cannot be excluded.

    Examples
    --------
    >>> scores = np.arange(1.0, 25.0)
    >>> class_thresholds(scores, np.repeat([0, 1], [20, 4]), 2, contamination=0.05)
    array([  1., -inf])
    """
    with warnings.catch_warnings():
        # The detector names the classes, all in one warning.
        warnings.simplefilter("ignore", UserWarning)
        return np.array(
            [
                conformal_threshold(
                    calibration_scores[calibration_labels == label], contamination
                )
                for label in range(n_classes)
            ]
        )


def warn_of_classes_never_excluded(
    classes: np.ndarray, calibration_labels: np.ndarray, contamination: float
) -> None:
    """Name the classes with too few held-out points for a promise of their own.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    calibration_labels : ndarray of shape (n,), int
    contamination : float in [0, 1)

    Warns
    -----
    UserWarning
        If a class has fewer than ``1 / contamination - 1``.

    Examples
    --------
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     labels = np.repeat([0, 1], [30, 4])
    ...     warn_of_classes_never_excluded(np.array(["ant", "bee"]), labels, 0.05)
    >>> print(caught[0].message)
    1 of 2 classes have too few held-out points for contamination=0.05 ...'bee' (4)...
    """
    if contamination == 0:
        return
    sizes = np.bincount(calibration_labels, minlength=len(classes))
    needed = math.ceil(1 / contamination - 1 - 1e-9)
    small = np.flatnonzero(sizes < needed)
    if not len(small):
        return
    shown = [f"{classes.tolist()[c]!r} ({sizes[c]})" for c in small]
    warn(
        f"{len(small)} of {len(classes)} classes have too few held-out points for "
        f"contamination={contamination} to exclude them: "
        f"{listed(shown)}; {needed} are needed. They are in every "
        "prediction set, so that with guarantee='class' no point is unknown. Give more "
        "of their rows, raise calibration_fraction or contamination, drop_classes, or "
        "use guarantee='marginal'."
    )


def discoveries(p_values: np.ndarray, fdr: float) -> np.ndarray:
    """Which null hypotheses Benjamini & Hochberg 1995 reject.

    Parameters
    ----------
    p_values : ndarray of shape (n,)
    fdr : float in (0, 1)
        Bound on the expected share of true null hypotheses among those rejected.

    Returns
    -------
    rejected : ndarray of shape (n,), bool

    Examples
    --------
    >>> discoveries(np.array([0.01, 0.04, 0.5]), fdr=0.06)
    array([ True,  True, False])
    """
    from scipy.stats import false_discovery_control

    # An adjusted p-value that equals the bound may come out a rounding above it.
    adjusted = false_discovery_control(p_values, method="bh")
    return adjusted <= fdr * (1 + 1e-9)

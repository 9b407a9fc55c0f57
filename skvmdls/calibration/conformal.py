"""Thresholds and p-values from held-out known points, by split conformal prediction.

Two sets of training rows that neither the net nor the Gaussians saw have one task each.
The first sets the constants of the evidence and of the reconstruction weight, so that a
point's score depends on the point alone. The second sets the threshold: the score
function was fixed before its points were scored, as the conformal guarantee requires.

The threshold is the ``k``-th smallest of ``n`` held-out scores, and a point is rejected
if it scores below. If the held-out points and the new ones are drawn independently from
one distribution, the share of known points that this threshold rejects follows the
distribution Beta(``k``, ``n + 1 - k``). It is at most that where scores have ties.
`conformal_rank` chooses ``k``, either so that the mean of this distribution is at
most `contamination`, or so that its `confidence` quantile is.
"""

import math
import warnings

import numpy as np

from skvmdls._support.values import listed, warn

__all__ = [
    "class_p_values",
    "class_thresholds",
    "conformal_p_value",
    "conformal_rank",
    "conformal_threshold",
    "discoveries",
    "held_out_needed",
    "rejection_range",
    "warn_of_classes_never_excluded",
]


def conformal_rank(
    n_held_out: int, contamination: float, confidence: float | None = None
) -> int:
    """Choose which of the sorted held-out scores is the threshold.

    Without `confidence`, ``k = floor(contamination (n + 1))`` [1]_: the chance that a
    new known point is rejected is at most `contamination`, on average over the draw of
    the held-out points.

    With `confidence`, the largest ``k`` with ``P(Binomial(n, contamination) >= k) >=
    confidence`` [2]_ [3]_: with that probability over the held-out points, the one
    threshold that they give rejects at most a share `contamination` of all known
    points. It follows from ``P(Beta(k, n + 1 - k) <= c) = P(Binomial(n, c) >= k)``.

    Parameters
    ----------
    n_held_out : int
        Number ``n`` of held-out points.
    contamination : float in [0, 1)
        Allowed share of rejected known points.
    confidence : float in (0, 1) or None, default=None

    Returns
    -------
    rank : int
        ``k``, counted from 1. It is 0 where nothing may be rejected.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005.
    .. [2] V. Vovk, "Conditional validity of inductive conformal predictors", Asian
       Conference on Machine Learning, 2012.
    .. [3] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
       conformal p-values", Annals of Statistics 51, 2023.

    Examples
    --------
    >>> conformal_rank(999, contamination=0.05)
    50
    >>> conformal_rank(999, contamination=0.05, confidence=0.9)
    41
    """
    from scipy.stats import binom

    if confidence is None:
        # 0.05 * 100 may round to just below 5, which would cost a whole rank.
        return math.floor(contamination * (n_held_out + 1) + 1e-9)
    # The candidate may be off by one: a quantile is the first value that reaches it.
    rank = int(binom.ppf(1 - confidence, n_held_out, contamination)) + 1
    while rank > 0 and binom.sf(rank - 1, n_held_out, contamination) < confidence:
        rank -= 1
    return rank


def held_out_needed(contamination: float, confidence: float | None = None) -> int:
    """Count the held-out points without which nothing can be rejected.

    ``1 / contamination - 1``, and with `confidence` ``log(1 - confidence) / log(1 -
    contamination)``, both rounded up: the first ``n`` for which `conformal_rank`
    is 1.

    Parameters
    ----------
    contamination : float in (0, 1)
    confidence : float in (0, 1) or None, default=None

    Returns
    -------
    n : int

    Examples
    --------
    >>> held_out_needed(0.05), held_out_needed(0.05, confidence=0.9)
    (19, 45)
    """
    if confidence is None:
        return math.ceil(1 / contamination - 1 - 1e-9)
    return math.ceil(math.log1p(-confidence) / math.log1p(-contamination) - 1e-9)


def rejection_range(
    n_held_out: int,
    contamination: float,
    confidence: float | None = None,
    coverage: float = 0.95,
) -> tuple[float, float]:
    """Range of the share of known points that one detector will reject.

    The threshold comes from a limited number of held-out points, so that one detector
    rejects more than another. The range holds the share with probability `coverage`,
    and leaves out the same probability on both sides: quantiles of Beta(``k``, ``n + 1
    - k``), where ``k`` is `conformal_rank`.

    Parameters
    ----------
    n_held_out : int
    contamination : float in [0, 1)
    confidence : float in (0, 1) or None, default=None
    coverage : float in (0, 1), default=0.95

    Returns
    -------
    low, high : float
        Both 0 where nothing can be rejected.

    Examples
    --------
    >>> low, high = rejection_range(57, contamination=0.05)
    >>> round(low, 3), round(high, 3)
    (0.004, 0.094)
    """
    from scipy.stats import beta

    rank = conformal_rank(n_held_out, contamination, confidence)
    if rank == 0:
        return 0.0, 0.0
    tail = (1 - coverage) / 2
    low, high = beta.ppf([tail, 1 - tail], rank, n_held_out + 1 - rank)
    return float(low), float(high)


def conformal_threshold(
    scores: np.ndarray, contamination: float, confidence: float | None = None
) -> float:
    """Lowest score that is accepted, by split conformal prediction.

    The ``k``-th smallest of ``n`` held-out scores, where ``k`` is
    `conformal_rank`. Without `confidence` the chance that a new known point,
    exchangeable with the held-out ones, scores below it is at most `contamination`.
    With `confidence` that share of thresholds rejects at most `contamination` of the
    known points, if all are drawn independently.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of held-out known points. Higher is more in-distribution.
    contamination : float in [0, 1)
        Allowed chance of rejecting a known point.
    confidence : float in (0, 1) or None, default=None
        How sure it shall be that this one threshold keeps to `contamination`. None
        keeps to it on average over thresholds.

    Returns
    -------
    threshold : float
        Minus infinity where ``k`` is 0: nothing may be rejected.

    Warns
    -----
    UserWarning
        If `contamination` is positive but ``n`` is too small to reject anything. It
        gives the number that is needed.

    Examples
    --------
    >>> conformal_threshold(np.arange(1.0, 100.0), contamination=0.05)
    5.0
    >>> conformal_threshold(np.arange(1.0, 100.0), contamination=0.05, confidence=0.9)
    2.0
    """
    n = len(scores)
    rank = conformal_rank(n, contamination, confidence)
    if rank > 0:
        return float(np.partition(scores, rank - 1)[rank - 1])
    if contamination > 0:
        other = "" if confidence is None else ", or lower confidence"
        warn(
            f"{n} calibration points are too few for "
            f"{_settings(contamination, confidence)}: at least "
            f"{held_out_needed(contamination, confidence)} are needed, so every point "
            "will be accepted. Give more training data (equal rows, and rows of one "
            "group, count once), or raise calibration_fraction or contamination"
            f"{other}."
        )
    return -math.inf


def _settings(contamination: float, confidence: float | None) -> str:
    """Name the settings that a threshold is for."""
    if confidence is None:
        return f"contamination={contamination}"
    return f"contamination={contamination} with confidence={confidence}"


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
    # A score of NaN is no evidence that the point is known.
    scores = np.where(np.isnan(scores), -np.inf, scores)
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
    confidence: float | None = None,
) -> np.ndarray:
    """Lowest score under each class that does not exclude it.

    With `confidence`, each class's threshold keeps to `contamination` with that
    probability. That all of them do at once is less likely. Give ``1 - (1 -
    confidence) / n_classes`` for all at once.

    Parameters
    ----------
    calibration_scores, calibration_labels : ndarray of shape (n,)
        As of :func:`class_p_values`.
    n_classes : int
    contamination : float in [0, 1)
    confidence : float in (0, 1) or None, default=None
        As of :func:`conformal_threshold`.

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
                    calibration_scores[calibration_labels == label],
                    contamination,
                    confidence,
                )
                for label in range(n_classes)
            ]
        )


def warn_of_classes_never_excluded(
    classes: np.ndarray,
    calibration_labels: np.ndarray,
    contamination: float,
    confidence: float | None = None,
) -> None:
    """Name the classes with too few held-out points for a guarantee of their own.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    calibration_labels : ndarray of shape (n,), int
    contamination : float in [0, 1)
    confidence : float in (0, 1) or None, default=None

    Warns
    -----
    UserWarning
        If a class has fewer than :func:`held_out_needed`.

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
    needed = held_out_needed(contamination, confidence)
    small = np.flatnonzero(sizes < needed)
    if not len(small):
        return
    shown = [f"{classes.tolist()[c]!r} ({sizes[c]})" for c in small]
    warn(
        f"{len(small)} of {len(classes)} classes have too few held-out points for "
        f"{_settings(contamination, confidence)} to exclude them: {listed(shown)}. "
        f"Each needs {needed}. They are in every "
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

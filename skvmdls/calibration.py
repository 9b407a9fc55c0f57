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
from scipy.stats import false_discovery_control

from skvmdls._validation import warn

__all__ = [
    "WeightCalibration",
    "class_p_values",
    "conformal_p_value",
    "conformal_threshold",
]

# A class keeps so many rows to train on, if it has twice as many: its Gaussian's least.
SMALLEST_TRAINING = 3
# Below, the class's own Gaussian is so poor that most of its new points lie outside.
SMALLEST_PROMISED = 20
FEWEST_GROUPS = 5


class HeldOut(NamedTuple):
    """Positions of the rows that train, that set constants, and the threshold.

    Where rows have groups, `threshold` holds one row of each of its groups, and the
    groups' other rows are in none of the three.
    """

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
    groups: np.ndarray | None = None,
) -> HeldOut:
    """Split the training data, stratified by labels (n,), into rows with their tasks.

    A share `fraction`, at most a half, is held out, and `evidence_share` of that sets
    the score's constants. If only one row is held out, it has both tasks.

    Rows of one group stay together, as copies and near-copies must: a held-out copy of
    a training row looks far better known than any new point. Groups (n,) are numbered
    from 0, and drawn, each with the same chance whatever its size, and one row of each,
    drawn at random, sets the threshold: the groups are exchangeable with that of a new
    point, their rows are not independent. Groups of more rows than are to be held out
    in all always train; a ValueError says so if that is all that there are.

    Examples
    --------
    >>> labels = np.repeat([0, 1], 50)
    >>> rows = hold_out(labels, 0.2, 0.25, np.random.RandomState(0))
    >>> [len(positions) for positions in rows]
    [80, 5, 15]
    """
    if groups is not None:
        return _hold_out_groups(labels, groups, fraction, evidence_share, rng)
    # Every other row at most: of two neighbours in a class, one is left to train on.
    n_held_out = max(1, min(round(fraction * len(labels)), len(labels) // 2))
    held_out = stratified_sample(labels, n_held_out, rng)
    rows = np.flatnonzero(held_out)
    n_evidence = math.ceil(evidence_share * n_held_out)
    for_evidence = stratified_sample(labels[rows], n_evidence, rng)
    for_threshold = ~for_evidence if n_held_out > 1 else np.ones(1, dtype=bool)
    return HeldOut(np.flatnonzero(~held_out), rows[for_evidence], rows[for_threshold])


def _hold_out_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    fraction: float,
    evidence_share: float,
    rng: np.random.RandomState,
) -> HeldOut:
    sizes = np.bincount(groups)
    main_label = _main_labels(labels, groups)
    candidates = _candidates(labels, groups, fraction)
    if not len(candidates):
        raise ValueError(
            f"No rows can be held out to set the threshold: the {len(labels)} rows are "
            f"of {len(sizes)} groups (equal rows are one, and rows of the same "
            "`groups`), each of which is all that some class has, or most of the data. "
            "Give two groups or more of each class: other rows, or finer `groups`."
        )
    # As many rows as without groups, on average over the draws.
    n_wanted = round(fraction * len(labels) / sizes[candidates].mean())
    n_held_out = max(1, min(n_wanted, len(candidates) // 2))
    # By class, and within a class by size, so that few draws are far from the average.
    by_class_and_size = main_label * (sizes.max() + 1) + sizes
    is_held_out = np.zeros(len(sizes), dtype=bool)
    is_held_out[
        candidates[stratified_sample(by_class_and_size[candidates], n_held_out, rng)]
    ] = True
    _give_back(is_held_out, labels, groups)
    held_out = np.flatnonzero(is_held_out)
    n_evidence = math.ceil(evidence_share * len(held_out))
    for_evidence = stratified_sample(main_label[held_out], n_evidence, rng)
    for_threshold = ~for_evidence if len(held_out) > 1 else np.ones(1, dtype=bool)
    shuffled = rng.permutation(len(labels))
    first = shuffled[np.unique(groups[shuffled], return_index=True)[1]]
    return HeldOut(
        np.flatnonzero(~is_held_out[groups]),
        np.flatnonzero(np.isin(groups, held_out[for_evidence])),
        np.sort(first[held_out[for_threshold]]),
    )


def _main_labels(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Give each group the label that most of its rows have."""
    n_labels = labels.max() + 1
    pairs, counts = np.unique(groups * n_labels + labels, return_counts=True)
    order = np.lexsort((counts, pairs // n_labels))
    last = np.append(np.diff(pairs[order] // n_labels) > 0, True)
    return pairs[order][last] % n_labels


def _candidates(labels: np.ndarray, groups: np.ndarray, fraction: float) -> np.ndarray:
    """Find the groups that may be held out, leaving enough to train on."""
    sizes = np.bincount(groups)
    # With few groups all are large: then the smaller half may be held out.
    largest = max(fraction * len(labels), float(np.median(sizes)))
    may_be = (sizes <= largest) & (2 * sizes <= len(labels))
    n_labels = labels.max() + 1
    pairs = np.unique(groups * n_labels + labels)
    n_groups = np.bincount(pairs % n_labels, minlength=n_labels)
    may_be[pairs[n_groups[pairs % n_labels] == 1] // n_labels] = False
    return np.flatnonzero(may_be)


def _give_back(is_held_out: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> None:
    """Return groups of several classes to the training, where a class would miss them.

    In place; at least one group stays held out.
    """
    counts = np.bincount(labels)
    needed = np.minimum(SMALLEST_TRAINING, -(-counts // 2))
    left = np.bincount(labels[~is_held_out[groups]], minlength=len(counts))
    sizes = np.bincount(groups)
    for label in np.flatnonzero(left < needed):
        own = np.unique(groups[labels == label])
        own = own[is_held_out[own]]
        for group in own[np.argsort(sizes[own], kind="stable")]:
            if left[label] >= needed[label] or is_held_out.sum() == 1:
                break
            is_held_out[group] = False
            left += np.bincount(labels[groups == group], minlength=len(counts))


def warn_of_small_classes(
    classes: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None
) -> None:
    """Warn of classes that the promise about all known points says nothing of.

    Those have fewer than 20 rows (or groups, which count once) where another has more
    than twice as many; or fewer than 5 groups, of more rows.
    """
    rows = np.bincount(labels)
    own = rows
    if groups is not None:
        pairs = np.unique(groups * len(classes) + labels)
        own = np.bincount(pairs % len(classes), minlength=len(classes))
    is_small = (own < SMALLEST_PROMISED) & (2 * own < own.max())
    is_small |= (own < FEWEST_GROUPS) & (own < rows)
    if not is_small.any():
        return
    small = np.flatnonzero(is_small)
    unit = "rows" if groups is None else "different rows or groups"
    shown = [f"{classes.tolist()[c]!r} ({own[c]})" for c in small[:5]]
    warn(
        f"{len(small)} of {len(classes)} classes have too few {unit} for the promise "
        f"of the threshold to cover them: {', '.join(shown)}"
        f"{', ...' * (len(small) > 5)}. It is about all known points together; new "
        "points of so small a class may nearly all be rejected. Give more "
        f"{unit} of them, or try covariance_type='tied', and look at the acceptance of "
        "each class on points that were not fitted."
    )


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
    shown = ", ".join(f"{classes.tolist()[c]!r} ({sizes[c]})" for c in small[:5])
    warn(
        f"{len(small)} of {len(classes)} classes have too few held-out points for "
        f"contamination={contamination} to exclude them: {shown}"
        f"{', ...' * (len(small) > 5)}; {needed} are needed. They are in every "
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
    # An adjusted p-value that equals the bound may come out a rounding above it.
    adjusted = false_discovery_control(p_values, method="bh")
    return adjusted <= fdr * (1 + 1e-9)


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

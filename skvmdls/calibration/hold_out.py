"""Split the training rows into those that train and those that are held out."""

import math
from typing import NamedTuple

import numpy as np

from skvmdls._support.values import listed, warn

__all__ = [
    "SMALLEST_TRAINING",
    "Split",
    "hold_out",
    "numbers_held_out",
    "one_of_each_group",
    "usual_fraction",
    "warn_of_small_classes",
]

# A class keeps so many rows to train on, if it has twice as many: its Gaussian's least.
SMALLEST_TRAINING = 3

# Below, the class's own Gaussian is so poor that most of its new points lie outside.
SMALLEST_PROMISED = 20
FEWEST_GROUPS = 5


# Points that are enough in all, and those that should lie below the threshold.
ENOUGH_POINTS, POINTS_BELOW, LARGEST_FRACTION = 1250, 50, 0.1


class ThresholdNeeds(NamedTuple):
    """What decides how many points a threshold needs."""

    contamination: float
    by_class: bool = False


class Split(NamedTuple):
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


def usual_fraction(n_rows: int, n_classes: int, settings: ThresholdNeeds) -> float:
    """Share of rows that is held out by default.

    A tenth; of many rows as many as the threshold and the evidence need.

    Examples
    --------
    >>> usual_fraction(1000, 2, ThresholdNeeds(0.05)), usual_fraction(
    ...     25_000, 2, ThresholdNeeds(0.05)
    ... )
    (0.1, 0.05)
    """
    needed = float(ENOUGH_POINTS)
    if settings.contamination > 0:
        of_class = POINTS_BELOW / settings.contamination
        needed = max(needed, of_class * (n_classes if settings.by_class else 1))
    return min(LARGEST_FRACTION, needed / n_rows)


class HeldOutNumbers(NamedTuple):
    """How many rows are held out, and how many of them have which task."""

    n_held_out: int
    n_evidence: int
    n_threshold: int


def numbers_held_out(
    n_rows: int, fraction: float, evidence_share: float
) -> HeldOutNumbers:
    """Count the rows that :func:`hold_out` holds out, of rows without groups.

    Examples
    --------
    >>> numbers_held_out(100, 0.2, 0.25)
    HeldOutNumbers(n_held_out=20, n_evidence=5, n_threshold=15)
    """
    # Every other row at most: of two neighbours in a class, one is left to train on.
    n_held_out = max(1, min(round(fraction * n_rows), n_rows // 2))
    n_evidence = math.ceil(evidence_share * n_held_out)
    return HeldOutNumbers(n_held_out, n_evidence, max(1, n_held_out - n_evidence))


def hold_out(
    labels: np.ndarray,
    fraction: float,
    evidence_share: float,
    rng: np.random.RandomState,
    groups: np.ndarray | None = None,
) -> Split:
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
    n_held_out, n_evidence, _ = numbers_held_out(len(labels), fraction, evidence_share)
    held_out = stratified_sample(labels, n_held_out, rng)
    rows = np.flatnonzero(held_out)
    for_evidence = stratified_sample(labels[rows], n_evidence, rng)
    for_threshold = ~for_evidence if n_held_out > 1 else np.ones(1, dtype=bool)
    return Split(np.flatnonzero(~held_out), rows[for_evidence], rows[for_threshold])


def one_of_each_group(
    groups: np.ndarray | None, rows: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Draw one of the `rows` (k,) of each group, as sorted positions in `rows`.

    Examples
    --------
    >>> groups, rows = np.array([0, 1, 1, 1, 2]), np.array([0, 1, 3, 4])
    >>> kept = one_of_each_group(groups, rows, np.random.RandomState(0))
    >>> len(kept), groups[rows[kept]]
    (3, array([0, 1, 2]))
    """
    if groups is None:
        return np.arange(len(rows))
    shuffled = rng.permutation(len(rows))
    first = np.unique(groups[rows[shuffled]], return_index=True)[1]
    return np.sort(shuffled[first])


def _hold_out_groups(
    labels: np.ndarray,
    groups: np.ndarray,
    fraction: float,
    evidence_share: float,
    rng: np.random.RandomState,
) -> Split:
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
    _return_to_training(is_held_out, labels, groups)
    held_out = np.flatnonzero(is_held_out)
    n_evidence = math.ceil(evidence_share * len(held_out))
    for_evidence = stratified_sample(main_label[held_out], n_evidence, rng)
    for_threshold = ~for_evidence if len(held_out) > 1 else np.ones(1, dtype=bool)
    shuffled = rng.permutation(len(labels))
    first = shuffled[np.unique(groups[shuffled], return_index=True)[1]]
    return Split(
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


def _return_to_training(
    is_held_out: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> None:
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
    """Warn of classes that are too small for the guarantee about all points.

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
    shown = [f"{classes.tolist()[c]!r} ({own[c]})" for c in small]
    warn(
        f"{len(small)} of {len(classes)} classes have too few {unit} for the guarantee "
        f"of the threshold to cover them: {listed(shown)}. "
        "It is about all known points together; new "
        "points of so small a class may nearly all be rejected. Give more "
        f"{unit} of them, and look at the acceptance of each class on points that were "
        "not fitted."
    )

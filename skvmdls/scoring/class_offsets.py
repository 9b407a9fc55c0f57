"""What the parts expect too much of the new points of small classes.

A part knows the few rows of a small class too well: its mean and its neighbours fit
them, and new points of the class score lower than those of large classes. Scores by
fits that have not seen a row tell by how much.
"""

import numpy as np

__all__ = ["class_offsets", "is_small_class", "rows_for_offsets"]

# A class is small next to one that has so many times its rows.
SMALL_BESIDE = 4
# The median of fewer rows is noise: an offset by it would let anything in.
FEWEST_ROWS = 10
# A part's offset needs this share of the class's rows to be the part's own verdict.
RECOGNISED_SHARE = 0.3
# Rows of each large class that are scored to compare with.
MOST_ROWS_OF_CLASS = 200


def is_small_class(counts: np.ndarray) -> np.ndarray:
    """Mask (n_classes,) of classes with at most a quarter of the rows of the largest.

    Classes of fewer than ten rows are not among them: so few say nothing reliable.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,), int

    Returns
    -------
    is_small : ndarray of shape (n_classes,), bool

    Examples
    --------
    >>> is_small_class(np.array([500, 130, 40]))
    array([False, False,  True])
    """
    return (counts * SMALL_BESIDE <= counts.max()) & (counts >= FEWEST_ROWS)


def rows_for_offsets(labels: np.ndarray, random_state: int = 0) -> np.ndarray:
    """Positions of the rows that offsets are computed from, where rows are many.

    All rows of small classes, and up to 200 of each other class. Empty without small
    classes.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
    random_state : int, default=0

    Returns
    -------
    positions : ndarray of shape (k,), int

    Examples
    --------
    >>> len(rows_for_offsets(np.repeat([0, 1], [5000, 40])))
    240
    >>> len(rows_for_offsets(np.repeat([0, 1], [50, 40])))
    0
    """
    is_small = is_small_class(np.bincount(labels))
    if not is_small.any():
        return np.empty(0, dtype=int)
    rng = np.random.RandomState(random_state)
    drawn = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        drawn.append(own if is_small[label] else own[:MOST_ROWS_OF_CLASS])
    return np.sort(np.concatenate(drawn))


def class_offsets(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """By how much small classes score lower than all rows, part by part.

    Subtract the offsets from raw scores under each class: then the median row of a
    small class scores under it as the median row of all classes under its own. Only
    rows that a part gives to the class count, so that a class which a part does not
    recognise gets no offset there.

    Parameters
    ----------
    scores : ndarray of shape (k, n_classes, n_parts)
        Raw scores by fits that have not seen the rows, as
        :func:`~skvmdls.scoring.cross_fitting.cross_fitted_scores` gives them.
    labels : ndarray of shape (k,), int
        Position of each row's class.

    Returns
    -------
    offsets : ndarray of shape (n_classes, n_parts), float64
        Zero for classes that are not small.

    Examples
    --------
    >>> labels = np.repeat([0, 1], [80, 20])
    >>> scores = np.where(np.eye(2, dtype=bool)[labels], -1.0, -9.0)
    >>> scores[labels == 1, 1] = -4.0
    >>> class_offsets(scores[..., None], labels)
    array([[ 0.],
           [-3.]])
    """
    _, n_classes, n_parts = scores.shape
    under_own = scores[np.arange(len(labels)), labels]
    typical = np.median(under_own, axis=0)
    winners = scores.argmax(axis=1)
    offsets = np.zeros((n_classes, n_parts))
    for label in np.flatnonzero(
        is_small_class(np.bincount(labels, minlength=n_classes))
    ):
        own = labels == label
        is_right = winners[own] == label
        for part in np.flatnonzero(is_right.mean(axis=0) >= RECOGNISED_SHARE):
            right = under_own[own][is_right[:, part], part]
            offsets[label, part] = np.median(right) - typical[part]
    return offsets

"""Scores of all rows by parts that have not seen them, so that no row is kept back.

Where rows are few, none can be spared for the parts' units and the threshold. Parts
that need no trained net are cheap to fit again. Folds of rows are left out in turn, and
scored by parts that were fitted to the others (cross-conformal prediction, V. Vovk,
Annals of Mathematics and Artificial Intelligence 74, 2015).

The guarantee is weaker than that of a split:

- If new points score under the final detector as they do under those of the folds, the
  chance of rejecting a known one is at most `contamination`, as with a split. The
  final detector has seen more rows than those of the folds, so that new points score
  higher under it, as a rule, and fewer are rejected.
- Without any such assumption there is no bound for a single final detector. For the
  rule that compares a new point under each fold's detector (CV+, jackknife+) the bound
  is about twice `contamination` [1]_ [2]_. It would take all ``K`` detectors at
  prediction.

References
----------
.. [1] V. Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial
   Intelligence 74, 2015.
.. [2] R. Barber, E. Candes, A. Ramdas, R. Tibshirani, "Predictive inference with the
   jackknife+", Annals of Statistics 49, 2021.
"""

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed

from skvmdls.scoring.part_weights import FitScores

__all__ = ["CrossFitted", "cross_fitted_scores", "row_folds"]

N_FOLDS = 5


@dataclass(frozen=True)
class CrossFitted:
    """Raw scores of rows under each class, by parts that were fitted without them.

    Parameters
    ----------
    positions : ndarray of shape (k,), int
        The rows that were scored, in order: all of them, but those of classes and
        groups that every fit needs.
    scores : ndarray of shape (k, n_classes, n_parts), float64

    Examples
    --------
    >>> CrossFitted(np.array([0, 2]), np.zeros((2, 3, 4))).of_parts.shape
    (2, 4)
    """

    positions: np.ndarray
    scores: np.ndarray

    @property
    def of_parts(self) -> np.ndarray:
        """Largest score (k, n_parts) of each row over the classes, part by part."""
        return self.scores.max(axis=1)


def row_folds(
    labels: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    n_folds: int = N_FOLDS,
    random_state: int = 0,
) -> np.ndarray:
    """Deal rows into folds, stratified by class; groups stay together.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
    groups : ndarray of shape (n,), int, optional
        Equal rows are of one group, and rows that belong together.
    n_folds : int, default=5
    random_state : int, default=0

    Returns
    -------
    folds : ndarray of shape (n,), int
        From 0 on, or -1 where a row is in every fit: a class keeps a row in each.

    Examples
    --------
    >>> folds = row_folds(np.repeat([0, 1], 5))
    >>> np.sort(folds[:5]), np.sort(folds[5:])
    (array([0, 1, 2, 3, 4]), array([0, 1, 2, 3, 4]))
    >>> row_folds(np.array([0, 0, 1])).tolist()[2]
    -1
    """
    rng = np.random.RandomState(random_state)
    units = np.arange(len(labels)) if groups is None else groups
    _, first, of_row = np.unique(units, return_index=True, return_inverse=True)
    order = rng.permutation(len(first))
    # A group is dealt with the class of its first row.
    order = order[np.argsort(labels[first][order], kind="stable")]
    dealt = np.empty(len(first), dtype=int)
    dealt[order] = (np.arange(len(first)) + rng.randint(n_folds)) % n_folds
    folds = dealt[of_row]
    for label in np.unique(labels):
        own = labels == label
        if len(np.unique(folds[own])) == 1:
            folds[np.isin(of_row, of_row[own])] = -1
    return folds


def cross_fitted_scores(
    X: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    fit: FitScores,
    *,
    groups: np.ndarray | None = None,
    n_folds: int = N_FOLDS,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> CrossFitted:
    """Score each row by parts that were fitted without its fold.

    Parameters
    ----------
    X : ndarray of shape (n, features)
    labels : ndarray of shape (n,), int
        Positions of the classes; each has a row or more.
    n_classes : int
    fit : callable
        As of :func:`~skvmdls.scoring.part_weights.learn_part_weights`.
    groups, n_folds, random_state
        As of :func:`row_folds`.
    n_jobs : int, optional
        Threads that run fits side by side.

    Returns
    -------
    cross_fitted : CrossFitted

    Raises
    ------
    ValueError
        If every row is in every fit, as each class is a single group.

    Examples
    --------
    >>> def fit(X, labels, n_classes):
    ...     means = np.stack([X[labels == c].mean(axis=0) for c in range(n_classes)])
    ...     return lambda rows: -np.abs(rows[:, None] - means)
    >>> X, y = np.array([[0.0], [1.0], [7.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> cross_fitted_scores(X, y, 2, fit).of_parts.ravel()
    array([-1., -1., -2., -2.])
    """
    folds = row_folds(labels, groups=groups, n_folds=n_folds, random_state=random_state)
    positions = np.flatnonzero(folds >= 0)
    if not len(positions):
        raise ValueError(
            f"No row can be scored by a fit without it. Each of {n_classes} classes is "
            "a single group (equal rows are one, and rows of the same `groups`). "
            "Give two groups or more of some class."
        )

    def scores(fold: int) -> np.ndarray:
        fitted, scored = folds != fold, folds == fold
        return fit(X[fitted], labels[fitted], n_classes)(X[scored])

    used = np.unique(folds[positions])
    run = delayed(scores)
    found = Parallel(n_jobs=n_jobs, prefer="threads")(run(fold) for fold in used)
    order = np.argsort(folds[positions], kind="stable")
    in_order = np.empty((len(positions), *found[0].shape[1:]))
    in_order[order] = np.concatenate(found)
    return CrossFitted(positions, in_order)

"""How much each part of the evidence counts, learned by leaving known classes out.

No part is right on all data, and no unknown data are there to choose by. Known classes
that are left out of the fit of the parts stand in for them. Folds of classes are left
out in turn. Scores of held-out rows of the other classes and of rows of the classes
left out train weights that are not negative.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from scipy.optimize import minimize
from scipy.special import expit

from skvmdls.metrics import auroc
from skvmdls.scoring.evidence import Evidence
from skvmdls.scoring.trials import PartTrials, normalized

__all__ = [
    "FitScores",
    "class_folds",
    "fit_weights",
    "learn_part_weights",
    "pull_to_prior",
]

# Scores (n, n_classes, n_parts) of rows (n, features), and what fits such a function to
# rows, labels (n,) from 0 on, and the number of classes.
Scores = Callable[[np.ndarray], np.ndarray]
FitScores = Callable[[np.ndarray, np.ndarray, int], Scores]

# Folds of classes; of up to five classes each is left out in turn. Of many classes,
# fewer folds leave out enough. With two classes, the one that is left shows nothing of
# what tells classes apart.
N_FOLDS, N_FOLDS_OF_MANY, MANY_CLASSES, FEWEST_CLASSES = 5, 3, 60, 3
# Share of the rows of each kept class that are scored instead of fitted.
HELD_OUT_SHARE = 0.25
# A trial fits at most about so many rows, but 20 of each class where it has them. It
# scores at most half as many of each class. More rows change the weights little.
MOST_ROWS, MOST_ROWS_OF_CLASS = 1500, 20
# How strongly weights are drawn to the prior ones, by the classes and their rows.
PULL, PULL_CLASSES, PULL_ROWS = 0.1, 3, 20


class TrialScores(NamedTuple):
    """Raw scores (n, n_parts) of held-out known rows, and (m, n_parts) left out."""

    known: np.ndarray
    left_out: np.ndarray


def class_folds(n_classes: int, random_state: int) -> np.ndarray:
    """Deal classes into folds at random: five, or three of 60 classes and more.

    Up to five classes get a fold each.

    Parameters
    ----------
    n_classes : int
    random_state : int

    Returns
    -------
    folds : ndarray of shape (n_classes,), int

    Examples
    --------
    >>> np.bincount(class_folds(12, random_state=0))
    array([3, 3, 2, 2, 2])
    """
    n_folds = N_FOLDS if n_classes < MANY_CLASSES else N_FOLDS_OF_MANY
    folds = np.empty(n_classes, dtype=int)
    order = np.random.RandomState(random_state).permutation(n_classes)
    folds[order] = np.arange(n_classes) % min(n_classes, n_folds)
    return folds


def pull_to_prior(counts: np.ndarray) -> float:
    """How strongly weights are drawn to the prior ones, from the classes' sizes.

    ``0.1 (3 / C)^2 (1 + 20 / n)``, for C classes of n rows at the median. Few classes
    left out say little about all that is unknown, and few rows little about a class.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,), int

    Returns
    -------
    pull : float

    Examples
    --------
    >>> round(pull_to_prior(np.full(30, 20)), 4)
    0.002
    """
    few_classes = (PULL_CLASSES / len(counts)) ** 2
    return float(PULL * few_classes * (1 + PULL_ROWS / np.median(counts)))


def learn_part_weights(
    X: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    fit: FitScores,
    names: Sequence[str],
    *,
    prior: np.ndarray,
    groups: np.ndarray | None = None,
    random_state: int = 0,
    n_jobs: int | None = None,
) -> PartTrials:
    """Learn how much each part counts, by leaving known classes out.

    Parameters
    ----------
    X : ndarray of shape (n, features)
        Rows that set neither the threshold nor the parts' units.
    labels : ndarray of shape (n,), int
        Positions of the classes.
    n_classes : int
        With fewer than three the prior weights are taken.
    fit : callable
        Fits the parts to rows, labels from 0 on, and a number of classes. What it
        returns takes rows (n, features) to scores (n, n_classes, n_parts).
    names : sequence of str
        The parts.
    prior : ndarray of shape (n_parts,)
        Weights that the learned ones are drawn to.
    groups : ndarray of shape (n,), int, optional
        Rows of one group are fitted or held out together.
    random_state : int, default=0
    n_jobs : int, optional
        Threads that run trials side by side.

    Returns
    -------
    trials : PartTrials

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 4
    >>> X = np.column_stack([9 * np.cos(y), 9 * np.sin(y)]) + rng.normal(size=(200, 2))
    >>> def fit(X, labels, n_classes):
    ...     means = np.stack([X[labels == c].mean(axis=0) for c in range(n_classes)])
    ...     def scores(rows):
    ...         near = -np.linalg.norm(rows[:, None] - means, axis=2)
    ...         noise = np.random.RandomState(0).normal(size=near.shape)
    ...         return np.stack([near, noise], axis=2)
    ...     return scores
    >>> learned = learn_part_weights(X, y, 4, fit, ("near", "noise"), prior=np.ones(2))
    >>> bool(learned.weights[0] > learned.weights[1])
    True
    """
    prior = normalized(np.asarray(prior, dtype=np.float64))
    counts = np.bincount(labels, minlength=n_classes)
    if n_classes < FEWEST_CLASSES or len(names) == 1:
        return PartTrials.untried(names, prior, n_classes)
    folds = class_folds(n_classes, random_state)
    units = np.arange(len(labels)) if groups is None else groups
    run = delayed(_trial)
    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        run(X, labels, units, np.flatnonzero(folds == fold), n_classes, fit, seed)
        for seed, fold in enumerate(np.unique(folds), start=random_state)
    )
    scored = [scores for scores in found if scores is not None]
    if not scored:
        return PartTrials.untried(names, prior, n_classes)
    pull = pull_to_prior(np.minimum(counts, _most_rows_of_class(n_classes)))
    standardized = [_standardized(scores, names) for scores in scored]
    weights = fit_weights(standardized, prior, pull)

    # One column for each part alone, then the learned sum and the prior one.
    sums = np.column_stack([np.eye(len(names)), weights, prior])
    aurocs = np.stack([_aurocs(scores, sums) for scores in standardized])
    return PartTrials(
        tuple(names), weights, aurocs[:, :-2], aurocs[:, -2], aurocs[:, -1], folds, pull
    )


def _trial(
    X: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    left_out: np.ndarray,
    n_classes: int,
    fit: FitScores,
    seed: int,
) -> TrialScores | None:
    """Fit without some classes, and score; None if too few classes or rows are left."""
    rng = np.random.RandomState(seed % 2**32)
    most = _most_rows_of_class(n_classes)
    most_scored = max(1, most // 2)
    is_left_out = np.isin(labels, left_out)
    held_out_units = set()
    for label in np.setdiff1d(labels, left_out):
        own = rng.permutation(np.unique(units[labels == label]))
        n_held_out = max(1, round(HELD_OUT_SHARE * len(own)))
        if len(own) > 1:
            held_out_units.update(own[: min(n_held_out, most_scored)].tolist())
    is_held_out = np.isin(units, list(held_out_units))
    fitted = np.flatnonzero(~is_left_out & ~is_held_out)
    fitted = fitted[_first_of_each(labels[fitted], most, rng)]
    kept, positions = np.unique(labels[fitted], return_inverse=True)
    known = np.flatnonzero(is_held_out & np.isin(labels, kept))
    unknown = np.flatnonzero(is_left_out)
    unknown = unknown[_first_of_each(labels[unknown], most_scored, rng)]
    if len(kept) < 2 or not len(known) or not len(unknown):
        return None
    scores = fit(X[fitted], positions, len(kept))
    return TrialScores(*(scores(X[rows]).max(axis=1) for rows in (known, unknown)))


def _most_rows_of_class(n_classes: int) -> int:
    return max(MOST_ROWS_OF_CLASS, MOST_ROWS // n_classes)


def _aurocs(scores: TrialScores, sums: np.ndarray) -> np.ndarray:
    """AUROC (k,) of sums (n_parts, k) of the parts, of known rows and left out ones."""
    is_known = np.repeat([True, False], [len(scores.known), len(scores.left_out)])
    return np.array([auroc(is_known, s) for s in (np.concatenate(scores) @ sums).T])


def _first_of_each(
    labels: np.ndarray, most: int, rng: np.random.RandomState
) -> np.ndarray:
    """Draw positions of at most so many rows of each label."""
    if np.bincount(labels, minlength=1).max() <= most:
        return np.arange(len(labels))
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:most]
        for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(drawn))


def _standardized(scores: TrialScores, names: Sequence[str]) -> TrialScores:
    """Bring a trial's scores to the unit in which the evidence adds parts."""
    evidence = Evidence.fit(names, scores.known, np.ones(len(names)))
    return TrialScores(*map(evidence.standardize, scores))


def fit_weights(
    trials: Sequence[TrialScores], prior: np.ndarray, pull: float
) -> np.ndarray:
    """Fit weights that tell known rows from those left out, and are not negative.

    They minimise the mean over trials of a logistic loss in which known rows and left
    out ones count half each, plus `pull` times the squared distance of the weights
    from the nearest multiple of the prior ones.

    Parameters
    ----------
    trials : sequence of TrialScores
        Standardised scores.
    prior : ndarray of shape (n_parts,)
        Not negative.
    pull : float

    Returns
    -------
    weights : ndarray of shape (n_parts,)
        They sum to the number of parts.

    Examples
    --------
    >>> known, unknown = np.array([[1.0, -2.0], [1.0, 0.0]]), np.array([[-1.0, 2.0]])
    >>> fit_weights([TrialScores(known, unknown)], np.ones(2), pull=0.001).round(1)
    array([2., 0.])
    """
    scores = np.concatenate([np.concatenate(trial) for trial in trials])
    signs = np.concatenate(
        [np.repeat([1.0, -1.0], [len(known), len(other)]) for known, other in trials]
    )
    shares = np.concatenate(
        [np.repeat(0.5 / np.array(sizes), sizes) for sizes in _sizes(trials)]
    ) / len(trials)
    n_parts, unit_prior = len(prior), prior / np.linalg.norm(prior)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offset = flat[:-1], flat[-1]
        margins = signs * (scores @ weights + offset)
        slopes = -shares * signs * expit(-margins)
        away = weights - (weights @ unit_prior) * unit_prior
        gradient = np.append(scores.T @ slopes + 2 * pull * away, slopes.sum())
        return shares @ np.logaddexp(0, -margins) + pull * away @ away, gradient

    start = np.append(prior / prior.sum(), 1.0)
    bounds = [(0.0, None)] * n_parts + [(None, None)]
    weights = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1]
    # Where no sum of the parts tells them apart, nothing was learned.
    return normalized(weights if weights.sum() > 0 else prior)


def _sizes(trials: Sequence[TrialScores]) -> list[tuple[int, int]]:
    return [(len(trial.known), len(trial.left_out)) for trial in trials]

"""Tuning without unknown data: splits in which known classes play them, and scorers."""

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state, indexable

from skvmdls._support.estimators import Detector, detector_and_inputs
from skvmdls._support.sklearn import Interval, validate_parameter_constraints
from skvmdls.inputs.labels import as_labels, positions
from skvmdls.metrics import (
    acceptance_rate,
    accepted_accuracy,
    auroc,
    closed_set_accuracy,
    open_set_f1,
    tnr_at_tpr,
)

__all__ = ["SCORERS", "LeaveClassesOut", "get_scorer"]

Scorer = Callable[[Any, Any, Any], float]


class LeaveClassesOut(BaseCrossValidator):
    """Cross-validation in which some known classes play the unknown ones.

    Each split leaves `n_unknown` classes out of its training set. Its test set is a
    stratified share of all rows, those of the left-out classes included: a detector
    that was fitted on the training set has never seen their classes. The rows of
    left-out classes that are not in the test set are not used in that split.

    So unknown points make up ``n_unknown / n_classes`` of a test set if the classes
    are equally large. AUROC and ``TNR@TPR`` do not depend on this share; macro F1 and
    accuracy do.

    Test sets of successive splits do not overlap as long as ``n_splits * test_size
    <= 1``. Where this product is 1, as by default, every row is tested exactly once,
    and ``cross_val_predict`` works too.

    Parameters
    ----------
    n_splits : int, default=5
        Number of splits.
    n_unknown : int or float, default=0.3
        Classes left out of each split, as a number or as a share of the classes
        (rounded, at least one). At least two classes must stay. Over the splits,
        any two classes are left out equally often, or one of them once more.
    test_size : float in (0, 1), default=0.2
        Share of the rows of each class in the test set, rounded up or down.
    random_state : int, RandomState or None, default=None
        Chooses the classes and the rows. With an int, every call of :meth:`split`
        gives the same splits.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.repeat(["cat", "dog", "eel", "fox"], 10)
    >>> cv = LeaveClassesOut(n_splits=5, n_unknown=1, random_state=0)
    >>> for train, test in cv.split(np.zeros((40, 2)), y):
    ...     print(np.setdiff1d(y, y[train]), len(train), len(test))
    ['eel'] 24 8
    ['fox'] 24 8
    ['dog'] 24 8
    ['cat'] 24 8
    ['eel'] 24 8
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_splits": [Interval(Integral, 1, None, closed="left")],
        "n_unknown": [
            Interval(Integral, 1, None, closed="left"),
            Interval(Real, 0, 1, closed="neither"),
        ],
        "test_size": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_splits: int = 5,
        *,
        n_unknown: int | float = 0.3,
        test_size: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_splits = n_splits
        self.n_unknown = n_unknown
        self.test_size = test_size
        self.random_state = random_state

    def get_n_splits(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> int:
        """Return the number of splits.

        Parameters
        ----------
        X, y, groups : ignored, default=None
            For scikit-learn's API.

        Returns
        -------
        n_splits : int
        """
        return self.n_splits

    def split(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Generate the positions of training and test rows.

        Parameters
        ----------
        X : array-like of shape (n, ...)
            Only its length counts.
        y : array-like of shape (n,), default=None
            Labels, of at least three classes; without them, an error says so.
        groups : ignored, default=None

        Yields
        ------
        train, test : ndarray of int64, ascending

        Raises
        ------
        ValueError
            If a parameter is out of range, `y` is missing or has too few classes, or
            a class too few rows.
        """
        if y is None:
            raise ValueError(
                "LeaveClassesOut needs y: it leaves out some of its labels."
            )
        if groups is not None:
            warnings.warn("LeaveClassesOut ignores groups.", UserWarning, stacklevel=2)
        X, y = indexable(X, y)
        classes, labels, counts = np.unique(
            as_labels(y), return_inverse=True, return_counts=True
        )
        validate_parameter_constraints(
            self._parameter_constraints, vars(self), type(self).__name__
        )
        n_unknown = self._n_left_out(len(classes))
        self._check_class_sizes(classes, counts)
        rng = check_random_state(self.random_state)
        position = _position_in_class(labels, counts, rng)
        # A fraction of a row of each class that is rounded away in one split counts in
        # the next; the start differs from class to class, so that not all classes
        # round up in the same split.
        start = rng.uniform(size=len(classes))
        times_left_out = np.zeros(len(classes), dtype=int)
        for i in range(self.n_splits):
            is_left_out = _least_often(times_left_out, n_unknown, rng)
            times_left_out += is_left_out
            first, last = (
                np.floor(share * counts + start + 1e-9).astype(int)
                for share in (i * self.test_size, (i + 1) * self.test_size)
            )
            steps = (position - first[labels]) % counts[labels]
            is_test = steps < (last - first)[labels]
            is_unknown = is_left_out[labels]
            self._check_test_set(is_test, is_unknown, counts, i)
            yield np.flatnonzero(~is_test & ~is_unknown), np.flatnonzero(is_test)

    def _check_test_set(
        self, is_test: np.ndarray, is_unknown: np.ndarray, counts: np.ndarray, i: int
    ) -> None:
        for name, kind in (("left-out", is_unknown), ("known", ~is_unknown)):
            if not (is_test & kind).any():
                raise ValueError(
                    f"test_size={self.test_size} of classes of {counts.min()} to "
                    f"{counts.max()} rows leaves no row of a {name} class in the "
                    f"test set of split {i}. Raise test_size, or give more rows."
                )

    def _n_left_out(self, n_classes: int) -> int:
        if n_classes < 3:
            raise ValueError(
                f"y has {n_classes} classes; LeaveClassesOut needs at least 3: one to "
                "leave out and two to train on."
            )
        n_unknown = self.n_unknown
        if not isinstance(n_unknown, Integral):
            n_unknown = max(1, round(n_unknown * n_classes))
        if n_unknown > n_classes - 2:
            raise ValueError(
                f"n_unknown={self.n_unknown!r} leaves out {n_unknown} of {n_classes} "
                f"classes; at most {n_classes - 2} may be, since two must stay to "
                "train on."
            )
        return n_unknown

    def _check_class_sizes(self, classes: np.ndarray, counts: np.ndarray) -> None:
        n_train = counts - np.ceil(self.test_size * counts - 1e-9)
        if n_train.min() < 1:
            smallest = n_train.argmin()
            raise ValueError(
                f"Class {classes[smallest]} has {counts[smallest]} row(s): with "
                f"test_size={self.test_size} none may be left to train on. Lower "
                "test_size, or give more rows of this class, or none."
            )


def _least_often(
    times: np.ndarray, n_chosen: int, rng: np.random.RandomState
) -> np.ndarray:
    """Choose those that were chosen least often, ties at random: a mask."""
    ties = rng.permutation(len(times))
    chosen = np.zeros(len(times), dtype=bool)
    chosen[np.lexsort((ties, times))[:n_chosen]] = True
    return chosen


def _position_in_class(
    labels: np.ndarray, counts: np.ndarray, rng: np.random.RandomState
) -> np.ndarray:
    """Give each row a random place in its class, from 0."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    position = np.empty(len(labels), dtype=int)
    position[by_class] = np.concatenate([np.arange(count) for count in counts])
    return position


def get_scorer(name: str) -> Scorer:
    """Look up a scorer, for ``GridSearchCV(scoring=get_scorer(name))``.

    scikit-learn takes only its own names in ``scoring="..."``; an entry of
    :data:`SCORERS`, or the whole dict for several metrics at once, goes in as an
    object.

    Parameters
    ----------
    name : str
        ``"auroc"``, ``"tnr_at_tpr95"``: unknown points against known ones; both must
        be in the test set, as :class:`LeaveClassesOut` sees
        to. ``"open_set_f1"``: with or without unknown points.
        ``"closed_set_accuracy"``, ``"accepted_accuracy"``,
        ``"neg_acceptance_rate_error"``: known points only.

    Returns
    -------
    scorer : callable
        Takes (estimator, X, y), where the estimator is a detector, a ``Pipeline``
        that ends in one, or a search over either; labels of y that the detector does
        not know count as unknown.

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get_scorer("auroc").__name__
    'auroc_scorer'
    """
    if name not in SCORERS:
        raise ValueError(f"No scorer named {name!r}; there are {sorted(SCORERS)}.")
    return SCORERS[name]


def _scorer(figure: Callable[[Detector, Any, Any], float]) -> Scorer:
    """Let a figure of a detector take a pipeline or a search too.

    scikit-learn's `make_scorer` has no place for ``score_samples``, ``predict_known``
    and ``classes_``.
    """

    @wraps(figure)
    def scorer(estimator: Any, X: Any, y: Any) -> float:
        return figure(*detector_and_inputs(estimator, X), y)

    return scorer


@_scorer
def auroc_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.auroc` of the scores."""
    return auroc(_is_known(y, detector), detector.score_samples(X))


@_scorer
def tnr_at_tpr95_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.tnr_at_tpr` at 95 % of the scores."""
    return tnr_at_tpr(_is_known(y, detector), detector.score_samples(X))


@_scorer
def open_set_f1_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.open_set_f1` of the answers."""
    return open_set_f1(y, detector.predict(X), detector.classes_)


@_scorer
def closed_set_accuracy_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.closed_set_accuracy` of the most likely known labels."""
    return closed_set_accuracy(y, detector.predict_known(X), detector.classes_)


@_scorer
def accepted_accuracy_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.accepted_accuracy` of the answers."""
    return accepted_accuracy(y, detector.predict(X), detector.classes_)


@_scorer
def neg_acceptance_rate_error_scorer(detector: Detector, X: Any, y: Any) -> float:
    """How far the acceptance rate is from ``1 - contamination``, negated.

    `contamination` is the nominal rate even where `threshold` overrides it, so that a
    search over thresholds can look for that rate.
    """
    rate = acceptance_rate(y, detector.predict(X), detector.classes_)
    return -abs(rate - (1 - detector.contamination))


SCORERS: dict[str, Scorer] = {
    "accepted_accuracy": accepted_accuracy_scorer,
    "auroc": auroc_scorer,
    "closed_set_accuracy": closed_set_accuracy_scorer,
    "neg_acceptance_rate_error": neg_acceptance_rate_error_scorer,
    "open_set_f1": open_set_f1_scorer,
    "tnr_at_tpr95": tnr_at_tpr95_scorer,
}


def _is_known(y: Any, detector: Detector) -> np.ndarray:
    return positions(y, detector.classes_) < len(detector.classes_)

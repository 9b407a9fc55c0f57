"""Tuning without unknown data: splits in which known classes play them, and scorers."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state, indexable

from skvmdls._support.estimators import Detector, detector_and_inputs
from skvmdls._support.sklearn import Interval, validate_parameter_constraints
from skvmdls._support.values import warn
from skvmdls.inputs.labels import as_labels, positions
from skvmdls.metrics import (
    acceptance_rate,
    accepted_accuracy,
    auroc,
    closed_set_accuracy,
    decision_cost,
    open_set_f1,
    tnr_at_tpr,
)

__all__ = ["SCORERS", "LeaveClassesOut", "get_scorer"]

Scorer = Callable[[Any, Any, Any], float]

# The parameters that move the threshold of a fitted detector.
THRESHOLD_SETTINGS = ("contamination", "threshold", "confidence")


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


def get_scorer(name: str, **settings: float) -> Scorer:
    """Look up a scorer, for ``GridSearchCV(scoring=get_scorer(name))``.

    scikit-learn takes only its own names in ``scoring="..."``. An entry of
    :data:`SCORERS`, or the whole dict for several metrics at once, goes in as an
    object.

    Parameters
    ----------
    name : str
        One of these, where "known" and "unknown" say which points must be in the test
        set. :class:`LeaveClassesOut` makes test sets with unknown points.

        - ``"auroc"``, ``"tnr_at_tpr95"``: known and unknown. They do not depend on the
          threshold.
        - ``"open_set_f1"``: known, with or without unknown.
        - ``"closed_set_accuracy"``: known. It does not depend on the threshold.
        - ``"accepted_accuracy"``: known.
        - ``"neg_acceptance_rate_error"``: known.
        - ``"neg_decision_cost"``: known, and unknown if they have a cost.
    **settings : float
        With ``"accepted_accuracy"``, optionally `min_acceptance` in (0, 1): the share
        of known points that is to be accepted. From the accuracy of the accepted points
        each missing point of acceptance subtracts 2, which is more than rejecting
        wrong labels can gain. Each point of acceptance above the target subtracts 1,
        since a rejection that is allowed but not made lets unknown points pass, which
        known test points cannot show. So the best threshold is the one that makes use
        of the allowed rejections.

        With ``"neg_decision_cost"``, the costs of
        :func:`skvmdls.metrics.decision_cost`: `false_rejection`, `wrong_label`, and
        optionally `false_acceptance` and `unknown_share`.

    Returns
    -------
    scorer : callable
        Takes (estimator, X, y), where the estimator is a detector, a ``Pipeline``
        that ends in one, or a search over either. Labels of y that the detector does
        not know count as unknown. Higher is better.

    Raises
    ------
    ValueError
        If the name is unknown, or a setting is missing or out of range.
    TypeError
        If the scorer has no such setting.

    Warns
    -----
    UserWarning
        Once, if a scorer that cannot compare thresholds is called at several of them on
        the same labels.

    Examples
    --------
    >>> get_scorer("auroc").__name__
    'auroc_scorer'
    >>> get_scorer("accepted_accuracy", min_acceptance=0.95)
    AcceptedAccuracyScorer(min_acceptance=0.95)
    >>> get_scorer("neg_decision_cost", false_rejection=1, wrong_label=20)
    NegDecisionCostScorer(false_rejection=1, wrong_label=20, false_acceptance=0.0, ...)
    """
    if name == "neg_decision_cost":
        missing = {"false_rejection", "wrong_label"} - set(settings)
        if missing:
            raise ValueError(
                f"neg_decision_cost needs {' and '.join(sorted(missing))}, for example "
                "get_scorer('neg_decision_cost', false_rejection=1, wrong_label=20)."
            )
        return NegDecisionCostScorer(**settings)
    if name == "accepted_accuracy" and settings:
        return AcceptedAccuracyScorer(**settings)
    if name not in SCORERS:
        names = sorted([*SCORERS, "neg_decision_cost"])
        raise ValueError(f"No scorer named {name!r}; there are {names}.")
    if settings:
        raise TypeError(f"The scorer {name!r} takes no settings, got {settings}.")
    return SCORERS[name]


def _scorer(metric: Callable[[Detector, Any, Any], float]) -> Scorer:
    """Let a metric of a detector take a pipeline or a search too.

    scikit-learn's `make_scorer` has no place for ``score_samples``, ``predict_known``
    and ``classes_``.
    """

    @wraps(metric)
    def scorer(estimator: Any, X: Any, y: Any) -> float:
        return metric(*detector_and_inputs(estimator, X), y)

    return scorer


class ThresholdComparisons:
    """Notice that a metric compares thresholds that it cannot compare.

    A scorer sees one fitted detector at a time. The thresholds at which the same labels
    were scored show that a search, or its user, compares them.
    """

    # A search scores each candidate on every fold before it comes to the next one.
    MOST_TEST_SETS = 200

    def __init__(self) -> None:
        self._settings: dict[tuple[int, int], tuple[Any, ...]] = {}
        self._warned: set[str] = set()

    def note(self, detector: Detector, true: np.ndarray, problem: str) -> None:
        """Warn once of the `problem`, if labels (n,) are scored at a second threshold.

        The settings are remembered by the labels' positions `true`.
        """
        key = (len(true), hash(true.tobytes()))
        settings = tuple(getattr(detector, name, None) for name in THRESHOLD_SETTINGS)
        earlier = self._settings.setdefault(key, settings)
        if len(self._settings) > self.MOST_TEST_SETS:
            del self._settings[next(iter(self._settings))]
        if settings != earlier and problem not in self._warned:
            self._warned.add(problem)
            warn(
                "The same points were scored at several thresholds (contamination, "
                f"threshold or confidence), and this score cannot choose among them: "
                f"{problem}. Use scoring=get_scorer('accepted_accuracy', "
                "min_acceptance=0.95), get_scorer('neg_decision_cost', ...), or test "
                "sets with unknown points by LeaveClassesOut."
            )


_comparisons = ThresholdComparisons()

ANY_THRESHOLD = "it is the same at every threshold"


@_scorer
def auroc_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.auroc` of the scores."""
    _comparisons.note(detector, positions(y, detector.classes_), ANY_THRESHOLD)
    return auroc(_is_known(y, detector), detector.score_samples(X))


@_scorer
def tnr_at_tpr95_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.tnr_at_tpr` at 95 % of the scores."""
    _comparisons.note(detector, positions(y, detector.classes_), ANY_THRESHOLD)
    return tnr_at_tpr(_is_known(y, detector), detector.score_samples(X))


@_scorer
def open_set_f1_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.open_set_f1` of the predictions."""
    if _is_known(y, detector).all():
        _comparisons.note(
            detector,
            positions(y, detector.classes_),
            "without unknown points every rejection is an error, so that the lowest "
            "threshold has the highest F1",
        )
    return open_set_f1(y, detector.predict(X), detector.classes_)


@_scorer
def closed_set_accuracy_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.closed_set_accuracy` of the most likely known labels."""
    _comparisons.note(detector, positions(y, detector.classes_), ANY_THRESHOLD)
    return closed_set_accuracy(y, detector.predict_known(X), detector.classes_)


@_scorer
def accepted_accuracy_scorer(detector: Detector, X: Any, y: Any) -> float:
    """:func:`~skvmdls.metrics.accepted_accuracy` of the predictions."""
    _comparisons.note(
        detector,
        positions(y, detector.classes_),
        "accuracy among the accepted points does not count the rejected ones, so that "
        "a high threshold has a high accuracy",
    )
    return accepted_accuracy(y, detector.predict(X), detector.classes_)


@_scorer
def neg_acceptance_rate_error_scorer(detector: Detector, X: Any, y: Any) -> float:
    """How far the acceptance rate is from ``1 - contamination``, negated.

    `contamination` is the nominal rate even where `threshold` overrides it, so that a
    search over thresholds can look for that rate.
    """
    rate = acceptance_rate(y, detector.predict(X), detector.classes_)
    return -abs(rate - (1 - detector.contamination))


@dataclass(frozen=True)
class AcceptedAccuracyScorer:
    """Accuracy of the accepted known points, with a target for their share.

    ``accepted_accuracy - 2 max(0, min_acceptance - acceptance) - max(0, acceptance -
    min_acceptance)``. An accuracy without any accepted point is 0.
    """

    min_acceptance: float

    def __post_init__(self) -> None:
        if not (
            isinstance(self.min_acceptance, Real) and 0 < float(self.min_acceptance) < 1
        ):
            raise ValueError(
                f"min_acceptance={self.min_acceptance!r} must be a number above 0 and "
                "below 1: the share of known points that is to be accepted."
            )

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score an estimator on X with labels y (n,)."""
        detector, X = detector_and_inputs(estimator, X)
        predicted = detector.predict(X)
        acceptance = acceptance_rate(y, predicted, detector.classes_)
        missing = max(0.0, self.min_acceptance - acceptance)
        unused = max(0.0, acceptance - self.min_acceptance)
        accuracy = 0.0
        if acceptance > 0:
            accuracy = accepted_accuracy(y, predicted, detector.classes_)
        return accuracy - 2 * missing - unused


@dataclass(frozen=True)
class NegDecisionCostScorer:
    """:func:`~skvmdls.metrics.decision_cost` of the predictions, negated."""

    false_rejection: float
    wrong_label: float
    false_acceptance: float = 0.0
    unknown_share: float = 0.5

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """Score an estimator on X with labels y (n,)."""
        detector, X = detector_and_inputs(estimator, X)
        return -decision_cost(
            y,
            detector.predict(X),
            detector.classes_,
            false_rejection=self.false_rejection,
            wrong_label=self.wrong_label,
            false_acceptance=self.false_acceptance,
            unknown_share=self.unknown_share,
        )


SCORERS: dict[str, Scorer] = {
    "accepted_accuracy": accepted_accuracy_scorer,
    "auroc": auroc_scorer,
    "closed_set_accuracy": closed_set_accuracy_scorer,
    "neg_acceptance_rate_error": neg_acceptance_rate_error_scorer,
    "open_set_f1": open_set_f1_scorer,
    "tnr_at_tpr95": tnr_at_tpr95_scorer,
}


def _is_known(y: ArrayLike, detector: Detector) -> np.ndarray:
    return positions(y, detector.classes_) < len(detector.classes_)

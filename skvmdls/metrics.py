"""Metrics of open-set classifiers: AUROC, ``TNR@TPR``, open-set F1 and the like.

They take what a detector returns: `y_pred` from ``predict``, `y_known` from
``predict_known``, `scores` from ``score_samples`` (higher for known points) and
`classes` from ``classes_``. Labels that are not among `classes` are unknown. A metric
raises a ValueError if it needs points of a kind that is missing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.utils import check_consistent_length, column_or_1d

from skvmdls._support.estimators import detector_and_inputs
from skvmdls.inputs.labels import as_labels, labels_with_unknown, positions

__all__ = [
    "ThresholdCurve",
    "acceptance_rate",
    "accepted_accuracy",
    "auroc",
    "closed_set_accuracy",
    "decision_cost",
    "open_set_f1",
    "open_set_labels",
    "oscr",
    "threshold_curve",
    "threshold_curve_from_predictions",
    "tnr_at_tpr",
]


def auroc(is_known: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of known against unknown points.

    Parameters
    ----------
    is_known : array-like of shape (n,), bool
    scores : array-like of shape (n,)

    Returns
    -------
    auroc : float
        In [0, 1]: the chance that a known point scores above an unknown one, ties
        counting half.

    Examples
    --------
    >>> auroc([True, True, False, False], [0.9, 0.4, 0.5, 0.1])
    0.75
    """
    known, unknown = _split(is_known, scores)
    labels = np.repeat([True, False], [len(known), len(unknown)])
    return float(roc_auc_score(labels, np.concatenate([known, unknown])))


def tnr_at_tpr(is_known: ArrayLike, scores: ArrayLike, tpr: float = 0.95) -> float:
    """Share of unknown points rejected when a share `tpr` of known ones is accepted.

    Parameters
    ----------
    is_known : array-like of shape (n,), bool
    scores : array-like of shape (n,)
    tpr : float in (0, 1], default=0.95
        Least share of known points to accept. The threshold is the highest that does.

    Returns
    -------
    tnr : float
        In [0, 1].

    Examples
    --------
    >>> tnr_at_tpr([True, True, False, False], [0.9, 0.4, 0.5, 0.1], tpr=0.5)
    1.0
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], got {tpr!r}.")
    known, unknown = _split(is_known, scores)
    n_accepted = int(np.ceil(tpr * len(known) - 1e-9))
    threshold = np.sort(known)[len(known) - n_accepted]
    return float(np.mean(unknown < threshold))


def open_set_f1(y_true: ArrayLike, y_pred: ArrayLike, classes: ArrayLike) -> float:
    """Macro F1 over the known classes, and over "unknown" where `y_true` has some.

    "Unknown" is one more class if, and only if, `y_true` holds unknown points. Where it
    holds none, nothing can be said about "unknown": a rejected point is then a point
    that its own class misses, as any other error, and the F1 of "unknown" (which would
    be 0 as soon as one point is rejected) does not enter the mean.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    f1 : float
        In [0, 1]. A known class that appears neither in `y_true` nor in `y_pred` does
        not count. Without unknown points and without rejections this is the usual macro
        F1.

    Examples
    --------
    >>> open_set_f1(["a", "b", "zebra"], ["a", "b", "-1"], classes=["a", "b"])
    1.0

    Without unknown points, one rejection in four costs the recall of its class:

    >>> f1 = open_set_f1(["a", "a", "b", "b"], ["a", "a", "b", "-1"], ["a", "b"])
    >>> round(f1, 3)
    0.833
    """
    check_consistent_length(y_true, y_pred)
    classes = np.asarray(classes)
    true = positions(y_true, classes, "y_true")
    predicted = positions(y_pred, classes, "y_pred")
    counted = np.union1d(true, predicted)
    if not (true == len(classes)).any():
        counted = counted[counted < len(classes)]
    return float(f1_score(true, predicted, labels=counted, average="macro"))


def open_set_labels(y: ArrayLike, classes: ArrayLike) -> np.ndarray:
    """Replace the labels that are not among the known ones by that for "unknown".

    True labels name unknown classes, and `predict` calls them all -1. With the same
    label for them in both, scikit-learn's own metrics and displays can be used.

    Parameters
    ----------
    y : array-like of shape (n,)
        True or predicted labels.
    classes : array-like
        Known labels, as ``detector.classes_``.

    Returns
    -------
    labels : ndarray of shape (n,)
        As from `predict`: unknown is ``-1``, or ``"-1"`` if labels are strings.

    Examples
    --------
    >>> open_set_labels(["cat", "eel", "dog"], ["cat", "dog"])
    array(['cat', '-1', 'dog'], dtype='<U3')
    >>> from sklearn.metrics import confusion_matrix
    >>> y_true = open_set_labels([3, 5, 8, 9], [3, 5])
    >>> confusion_matrix(y_true, [3, 3, -1, 5], labels=[3, 5, -1])
    array([[1, 0, 0],
           [1, 0, 0],
           [0, 1, 1]])
    """
    known = as_labels(classes, "classes")
    return labels_with_unknown(known)[positions(y, known)]


def closed_set_accuracy(
    y_true: ArrayLike, y_known: ArrayLike, classes: ArrayLike
) -> float:
    """Accuracy without rejection, on the points of known classes.

    Parameters
    ----------
    y_true, y_known : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    accuracy : float
        In [0, 1].

    Examples
    --------
    >>> closed_set_accuracy([0, 1, 7], [0, 0, 1], classes=[0, 1])
    0.5
    """
    true, answered = _known_rows(y_true, y_known, classes)
    return float(np.mean(true == answered))


def acceptance_rate(y_true: ArrayLike, y_pred: ArrayLike, classes: ArrayLike) -> float:
    """Share of the points of known classes that are accepted, whatever their label.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    rate : float
        In [0, 1]. With the conformal threshold about ``1 - contamination``.

    Examples
    --------
    >>> acceptance_rate([0, 0, 1, 7], [0, 1, -1, 0], classes=[0, 1])
    0.6666666666666666
    """
    _, predicted = _known_rows(y_true, y_pred, classes)
    return float(np.mean(predicted < len(np.asarray(classes))))


def accepted_accuracy(
    y_true: ArrayLike, y_pred: ArrayLike, classes: ArrayLike
) -> float:
    """Accuracy on those points of known classes that are accepted.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    accuracy : float
        In [0, 1].

    Examples
    --------
    >>> accepted_accuracy([0, 0, 1, 7], [0, 1, -1, 0], classes=[0, 1])
    0.5
    """
    true, predicted = _known_rows(y_true, y_pred, classes)
    accepted = predicted < len(np.asarray(classes))
    if not accepted.any():
        raise ValueError(
            f"None of the {len(true)} points of known classes is accepted, so there is "
            "no accuracy of accepted points. Lower the threshold."
        )
    return float(np.mean(true[accepted] == predicted[accepted]))


def decision_cost(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    classes: ArrayLike,
    *,
    false_rejection: float,
    wrong_label: float,
    false_acceptance: float = 0.0,
    unknown_share: float = 0.5,
) -> float:
    """Mean cost of an answer, where an error and a rejection have their prices.

    The risk of a classifier that may reject [1]_. :meth:`ThresholdCurve.cost` is the
    same at every threshold.

    Parameters
    ----------
    y_true, y_pred : array-like of shape (n,)
    classes : array-like of shape (C,)
    false_rejection : float
        Cost of rejecting a point of a known class, whatever its label would be.
    wrong_label : float
        Cost of accepting a point of a known class with another class's label.
    false_acceptance : float, default=0.0
        Cost of accepting an unknown point.
    unknown_share : float in [0, 1], default=0.5
        Share of unknown points where the detector will be used. It counts only if
        `false_acceptance` does.

    Returns
    -------
    cost : float
        For each known point if `false_acceptance` is 0, and for each point of either
        kind otherwise.

    Raises
    ------
    ValueError
        If unknown points have a cost but `y_true` holds none, if it holds no known
        point, or if `unknown_share` is out of range.

    References
    ----------
    .. [1] C. K. Chow, "On optimum recognition error and reject tradeoff", IEEE
       Transactions on Information Theory 16, 1970.

    Examples
    --------
    One rejected and one wrong label among four known points:

    >>> decision_cost(
    ...     [0, 0, 1, 1], [0, -1, 1, 0], [0, 1], false_rejection=1, wrong_label=20
    ... )
    5.25
    """
    true, predicted = _known_rows(y_true, y_pred, classes)
    rejected = predicted == len(np.asarray(classes))
    wrong = ~rejected & (true != predicted)
    known_cost = false_rejection * rejected.mean() + wrong_label * wrong.mean()
    if false_acceptance == 0:
        return float(known_cost)
    _check_unknown_share(unknown_share)
    acceptance = _unknown_acceptance(y_true, y_pred, classes)
    unknown_cost = false_acceptance * acceptance
    return float((1 - unknown_share) * known_cost + unknown_share * unknown_cost)


def oscr(
    y_true: ArrayLike, y_known: ArrayLike, scores: ArrayLike, classes: ArrayLike
) -> float:
    """Area under the open-set classification rate curve.

    The curve [1]_ plots the share of known points that are accepted with their own
    label against the share of unknown points that are accepted, over all thresholds. It
    measures the closed-set accuracy and the separation of known from unknown together,
    and is at most either. With one score for both tasks, as here, the area is also the
    OpenAUC [2]_. This is the probability that a known point gets its own label and a
    higher score than an unknown one, where ties count half.

    Parameters
    ----------
    y_true, y_known, scores : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    area : float
        In [0, 1].

    References
    ----------
    .. [1] A. Dhamija, M. Guenther and T. Boult, "Reducing Network Agnostophobia",
       NeurIPS 2018.
    .. [2] Z. Wang et al., "OpenAUC: Towards AUC-Oriented Open-Set Recognition",
       NeurIPS 2022.

    Examples
    --------
    >>> oscr([0, 1, 7], [0, 0, 1], [3.0, 2.0, 1.0], classes=[0, 1])
    0.5
    """
    check_consistent_length(y_true, y_known, scores)
    classes = np.asarray(classes)
    true = positions(y_true, classes, "y_true")
    answered = positions(y_known, classes, "y_known")
    is_known = true < len(classes)
    known, unknown = _split(is_known, scores)
    below, up_to = (
        np.searchsorted(np.sort(unknown), known, side=side)
        for side in ("left", "right")
    )
    ranked_above = (below + up_to) / (2 * len(unknown))
    return float(np.mean(ranked_above * (true == answered)[is_known]))


@dataclass(frozen=True)
class ThresholdCurve:
    """What each threshold lambda would do to given points.

    Accepted are the points that score at least the threshold.

    Parameters
    ----------
    thresholds : ndarray of shape (m,)
        Rising: every distinct score, and one more that rejects every point.
    known_acceptance : ndarray of shape (m,)
        Share of the points of known classes that is accepted.
    unknown_acceptance : ndarray of shape (m,) or None
        Share of the unknown points that is accepted. None if there are none.
    accepted_accuracy : ndarray of shape (m,)
        Accuracy on the accepted points of known classes, nan where there are none.
    macro_f1 : ndarray of shape (m,)
        :func:`open_set_f1` of the answers at this threshold.

    Examples
    --------
    >>> curve = threshold_curve_from_predictions(
    ...     ["a", "b", "b", "zebra"], ["a", "b", "a", "a"], [4.0, 3.0, 1.0, 2.0],
    ...     classes=["a", "b"],
    ... )
    >>> curve.thresholds[:4], curve.known_acceptance[:4].round(2)
    (array([1., 2., 3., 4.]), array([1.  , 0.67, 0.67, 0.33]))
    >>> cost = curve.cost(false_rejection=1, false_acceptance=5, wrong_label=2)
    >>> float(curve.thresholds[cost.argmin()])
    3.0
    """

    thresholds: np.ndarray
    known_acceptance: np.ndarray
    unknown_acceptance: np.ndarray | None
    accepted_accuracy: np.ndarray
    macro_f1: np.ndarray

    def cost(
        self,
        *,
        false_rejection: float,
        wrong_label: float,
        false_acceptance: float = 0.0,
        unknown_share: float = 0.5,
    ) -> np.ndarray:
        """Mean cost of an answer at each threshold.

        Parameters
        ----------
        false_rejection : float
            Cost of rejecting a point of a known class, whatever its label would be.
        wrong_label : float
            Cost of accepting a point of a known class with another class's label.
        false_acceptance : float, default=0.0
            Cost of accepting an unknown point.
        unknown_share : float in [0, 1], default=0.5
            Share of unknown points where the detector will be used, which is not that
            of the points of this curve. Counts only if `false_acceptance` does.

        Returns
        -------
        cost : ndarray of shape (m,)
            At each of ``thresholds``. It is the cost of a known point if
            `false_acceptance` is 0, and of a point of either kind otherwise.

        Raises
        ------
        ValueError
            If unknown points have a cost, but the curve was made without any, or if
            `unknown_share` is out of range.
        """
        wrong = self.known_acceptance * np.nan_to_num(1 - self.accepted_accuracy)
        known_cost = false_rejection * (1 - self.known_acceptance) + wrong_label * wrong
        if false_acceptance == 0:
            return known_cost
        _check_unknown_share(unknown_share)
        if self.unknown_acceptance is None:
            raise ValueError(
                "false_acceptance is a cost of unknown points, but the curve was made "
                "without any. Leave it out, or make the curve of points some of which "
                "are unknown (skvmdls.model_selection.LeaveClassesOut)."
            )
        unknown_cost = false_acceptance * self.unknown_acceptance
        return (1 - unknown_share) * known_cost + unknown_share * unknown_cost


def threshold_curve(estimator: Any, X: Any, y: ArrayLike) -> ThresholdCurve:
    """Measure a fitted detector at every threshold: acceptance, accuracy, macro F1.

    Parameters
    ----------
    estimator : fitted detector
        Or a ``Pipeline`` that ends in one, or a search that found one.
    X : array-like
        Points that the detector was not fitted on.
    y : array-like of shape (n,)
        True labels.

    Returns
    -------
    curve : ThresholdCurve

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSbDetector(max_epochs=2, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> curve = threshold_curve(detector, digits.X_test, digits.y_test)
    >>> highest = curve.thresholds[curve.known_acceptance >= 0.9].max()
    >>> answers = detector.set_params(threshold=highest).predict(digits.X_test)
    >>> acceptance_rate(digits.y_test, answers, detector.classes_) >= 0.9
    True
    """
    detector, X = detector_and_inputs(estimator, X)
    return threshold_curve_from_predictions(
        y, detector.predict_known(X), detector.score_samples(X), detector.classes_
    )


def threshold_curve_from_predictions(
    y_true: ArrayLike, y_known: ArrayLike, scores: ArrayLike, classes: ArrayLike
) -> ThresholdCurve:
    """Measure given answers at every threshold, in O(n log n) time.

    Parameters
    ----------
    y_true, y_known, scores : array-like of shape (n,)
    classes : array-like of shape (C,)

    Returns
    -------
    curve : ThresholdCurve

    Examples
    --------
    >>> curve = threshold_curve_from_predictions(
    ...     [0, 1, 7], [0, 1, 1], [3.0, 2.0, 1.0], classes=[0, 1]
    ... )
    >>> curve.unknown_acceptance
    array([1., 0., 0., 0.])
    """
    check_consistent_length(y_true, y_known, scores)
    classes = np.asarray(classes)
    values = np.asarray(column_or_1d(scores), dtype=np.float64)
    # From the best accepted point to the worst: each threshold accepts the first few.
    order = np.argsort(-values, kind="stable")
    values = values[order]
    true = positions(y_true, classes, "y_true")[order]
    answered = positions(y_known, classes, "y_known")[order]
    is_known = true < len(classes)
    n_known, n_unknown = int(is_known.sum()), int((~is_known).sum())
    if n_known == 0:
        raise ValueError("y_true holds no point of a known class.")

    # How many of the first 0, 1, ... n points are known, and have their own label.
    known, right = (
        np.concatenate([[0], np.cumsum(mask)]) for mask in (is_known, true == answered)
    )
    accepted = np.arange(len(values) + 1)
    rejected, unknown = len(values) - accepted, accepted - known
    total_f1, n_present = _f1_of_accepting_first(true, answered, len(classes))
    if n_unknown:
        # "Unknown" is a class of its own.
        total_f1 += 2 * (n_unknown - unknown) / (rejected + n_unknown)
        n_present = n_present + 1
    macro_f1 = total_f1 / n_present

    n_accepted = _ends_of_ties(values)[::-1]
    above_all = np.nextafter(values[0], np.inf)
    with np.errstate(invalid="ignore"):
        accuracy = right[n_accepted] / known[n_accepted]
    return ThresholdCurve(
        thresholds=np.append(values[n_accepted[:-1] - 1], above_all),
        known_acceptance=known[n_accepted] / n_known,
        unknown_acceptance=unknown[n_accepted] / n_unknown if n_unknown else None,
        accepted_accuracy=accuracy,
        macro_f1=macro_f1[n_accepted],
    )


def _ends_of_ties(values: np.ndarray) -> np.ndarray:
    """Points of equal score are accepted together: only the last of them counts."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1
    return np.concatenate([[0], ends])


def _known_rows(
    y_true: ArrayLike, y_pred: ArrayLike, classes: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of true and predicted labels, of the points of known classes."""
    check_consistent_length(y_true, y_pred)
    classes = np.asarray(classes)
    true = positions(y_true, classes, "y_true")
    predicted = positions(y_pred, classes, "y_pred")
    is_known = true < len(classes)
    if not is_known.any():
        raise ValueError("y_true holds no point of a known class.")
    return true[is_known], predicted[is_known]


def _unknown_acceptance(
    y_true: ArrayLike, y_pred: ArrayLike, classes: ArrayLike
) -> float:
    """Share of the unknown points that are accepted."""
    classes = np.asarray(classes)
    is_unknown = positions(y_true, classes, "y_true") == len(classes)
    if not is_unknown.any():
        raise ValueError(
            "false_acceptance is a cost of unknown points, but y_true holds none. "
            "Leave it out, or give points some of which are unknown "
            "(skvmdls.model_selection.LeaveClassesOut)."
        )
    accepted = positions(y_pred, classes, "y_pred") < len(classes)
    return float(accepted[is_unknown].mean())


def _check_unknown_share(unknown_share: float) -> None:
    if not 0 <= unknown_share <= 1:
        raise ValueError(f"unknown_share must be in [0, 1], got {unknown_share}.")


def _f1_of_accepting_first(
    true: np.ndarray, answered: np.ndarray, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the known classes' F1 if the first 0, 1, ... n points are accepted.

    And the number of known classes that appear, in the truth or in the answers.
    Accepting one more point changes the F1 of one class only: the one answered.
    """
    n = len(true)
    support = np.bincount(true, minlength=n_classes + 1)[:n_classes]
    by_class = np.argsort(answered, kind="stable")
    group = answered[by_class]
    starts = np.searchsorted(group, group)
    right = np.concatenate([[0], np.cumsum((true == answered)[by_class])])
    n_answered = np.arange(n) - starts + 1
    f1 = 2 * (right[1:] - right[starts]) / (n_answered + support[group])
    is_first = n_answered == 1
    gain = np.empty(n)
    gain[by_class] = f1 - np.where(is_first, 0.0, np.append(0.0, f1[:-1]))
    is_new = np.empty(n, dtype=bool)
    is_new[by_class] = is_first & (support[group] == 0)
    n_present = np.count_nonzero(support) + np.cumsum(is_new)
    return (
        np.append(0.0, np.cumsum(gain)),
        np.append(np.count_nonzero(support), n_present),
    )


def _split(is_known: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    check_consistent_length(is_known, scores)
    mask = np.asarray(column_or_1d(is_known)).astype(bool)
    values = np.asarray(column_or_1d(scores))
    known, unknown = values[mask], values[~mask]
    for name, group in (("known", known), ("unknown", unknown)):
        if len(group) == 0:
            raise ValueError(
                f"There are no {name} points: telling known from unknown apart can "
                "only be measured where both are present. Unknown are the labels that "
                "the detector was not fitted on; for test sets that hold some, see "
                "skvmdls.model_selection.LeaveClassesOut."
            )
    return known, unknown

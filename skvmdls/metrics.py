"""How good an open-set classifier is: AUROC, TNR@TPR, open-set F1, and scorers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.utils import check_consistent_length, column_or_1d

__all__ = [
    "SCORERS",
    "auroc",
    "closed_set_accuracy",
    "get_scorer",
    "open_set_f1",
    "tnr_at_tpr",
]

Scorer = Callable[[Any, Any, Any], float]


def auroc(is_known: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of known against unknown points.

    The chance that a known point scores above an unknown one, ties counting half.

    Parameters
    ----------
    is_known : array-like of shape (n,), bool
        True for points of a known class.
    scores : array-like of shape (n,)
        Higher is more in-distribution, as ``score_samples`` gives it.

    Returns
    -------
    auroc : float
        In [0, 1]; 0.5 is chance.

    Raises
    ------
    ValueError
        If known or unknown points are missing.

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
        True for points of a known class.
    scores : array-like of shape (n,)
        Higher is more in-distribution.
    tpr : float in (0, 1], default=0.95
        Least share of known points to accept. The threshold is the highest that does.

    Returns
    -------
    tnr : float
        In [0, 1].

    Raises
    ------
    ValueError
        If known or unknown points are missing, or `tpr` is out of range.

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
    """Macro F1 over the known classes and "unknown", C + 1 classes in all.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels. Every label that is not in `classes` counts as unknown.
    y_pred : array-like of shape (n,)
        Predicted labels; ``-1`` (or whatever is not in `classes`) is unknown.
    classes : array-like of shape (C,)
        The known classes, as ``detector.classes_``.

    Returns
    -------
    f1 : float
        In [0, 1]. A class that appears neither in `y_true` nor in `y_pred` does not
        count; in particular, without unknown points and without rejections this is
        the usual macro F1.

    Examples
    --------
    >>> open_set_f1(["a", "b", "zebra"], ["a", "b", "-1"], classes=["a", "b"])
    1.0
    """
    check_consistent_length(y_true, y_pred)
    classes = np.asarray(classes)
    true, predicted = (_positions(labels, classes) for labels in (y_true, y_pred))
    present = np.union1d(true, predicted)
    return float(f1_score(true, predicted, labels=present, average="macro"))


def closed_set_accuracy(
    y_true: ArrayLike, y_known: ArrayLike, classes: ArrayLike
) -> float:
    """Accuracy without rejection, on the points of known classes.

    Parameters
    ----------
    y_true : array-like of shape (n,)
        True labels; those not in `classes` are left out.
    y_known : array-like of shape (n,)
        Answers of ``predict_known``.
    classes : array-like of shape (C,)
        The known classes.

    Returns
    -------
    accuracy : float
        In [0, 1].

    Raises
    ------
    ValueError
        If no point is of a known class.

    Examples
    --------
    >>> closed_set_accuracy([0, 1, 7], [0, 0, 1], classes=[0, 1])
    0.5
    """
    check_consistent_length(y_true, y_known)
    classes = np.asarray(classes)
    true, answered = (_positions(labels, classes) for labels in (y_true, y_known))
    is_known = true < len(classes)
    if not is_known.any():
        raise ValueError("y_true holds no point of a known class.")
    return float(np.mean(true[is_known] == answered[is_known]))


def get_scorer(name: str) -> Scorer:
    """Look up a scorer, for ``GridSearchCV(scoring=get_scorer(name))``.

    scikit-learn takes only its own names in ``scoring="..."``; an entry of
    :data:`SCORERS`, or the whole dict for several metrics at once, goes in as an
    object.

    Parameters
    ----------
    name : {"auroc", "closed_set_accuracy", "open_set_f1", "tnr_at_tpr95"}

    Returns
    -------
    scorer : callable
        Takes (detector, X, y); labels of y that the detector does not know count as
        unknown.

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


def auroc_scorer(detector: Any, X: Any, y: Any) -> float:
    """:func:`auroc` of a detector's ``score_samples``.

    Parameters
    ----------
    detector : fitted detector
    X, y : test points, some of classes that the detector does not know

    Returns
    -------
    auroc : float
    """
    return auroc(np.isin(y, detector.classes_), detector.score_samples(X))


def tnr_at_tpr95_scorer(detector: Any, X: Any, y: Any) -> float:
    """:func:`tnr_at_tpr` at 95 % of a detector's ``score_samples``.

    Parameters
    ----------
    detector : fitted detector
    X, y : test points, some of classes that the detector does not know

    Returns
    -------
    tnr : float
    """
    return tnr_at_tpr(np.isin(y, detector.classes_), detector.score_samples(X))


def open_set_f1_scorer(detector: Any, X: Any, y: Any) -> float:
    """:func:`open_set_f1` of a detector's ``predict``.

    Parameters
    ----------
    detector : fitted detector
    X, y : test points, possibly of classes that the detector does not know

    Returns
    -------
    f1 : float
    """
    return open_set_f1(y, detector.predict(X), detector.classes_)


def closed_set_accuracy_scorer(detector: Any, X: Any, y: Any) -> float:
    """:func:`closed_set_accuracy` of a detector's ``predict_known``.

    Parameters
    ----------
    detector : fitted detector
    X, y : test points, possibly of classes that the detector does not know

    Returns
    -------
    accuracy : float
    """
    return closed_set_accuracy(y, detector.predict_known(X), detector.classes_)


SCORERS: dict[str, Scorer] = {
    "auroc": auroc_scorer,
    "closed_set_accuracy": closed_set_accuracy_scorer,
    "open_set_f1": open_set_f1_scorer,
    "tnr_at_tpr95": tnr_at_tpr95_scorer,
}


def _split(is_known: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    check_consistent_length(is_known, scores)
    mask = np.asarray(column_or_1d(is_known)).astype(bool)
    values = np.asarray(column_or_1d(scores))
    known, unknown = values[mask], values[~mask]
    for name, part in (("known", known), ("unknown", unknown)):
        if len(part) == 0:
            raise ValueError(
                f"There are no {name} points: telling known from unknown apart can "
                "only be measured where both are present."
            )
    return known, unknown


def _positions(labels: ArrayLike, classes: np.ndarray) -> np.ndarray:
    """Position of each label in `classes`; ``len(classes)`` for unknown ones."""
    values = np.asarray(column_or_1d(labels))
    order = np.argsort(classes)
    is_known = np.isin(values, classes)
    positions = np.full(len(values), len(classes))
    positions[is_known] = order[
        np.searchsorted(classes, values[is_known], sorter=order)
    ]
    return positions

"""One task, all methods: train, set the thresholds, score, measure."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.calibration import conformal_threshold
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.metrics import (
    auroc,
    closed_set_accuracy,
    open_set_f1,
    oscr,
    threshold_curve_from_predictions,
    tnr_at_tpr,
)

__all__ = [
    "HELD_OUT",
    "KNOWN",
    "OURS",
    "Fitted",
    "Peers",
    "Scored",
    "Task",
    "compare",
    "fit",
    "ours",
    "points_to_score",
    "run",
    "score",
    "set_figures",
    "split",
]

Detector: TypeAlias = VMDLSDetector | VMDLSbDetector

OURS: Mapping[str, type[Detector]] = {
    "VMDLS": VMDLSDetector,
    "VMDLS_b": VMDLSbDetector,
}
# Names of the two sets of points that are of known classes.
HELD_OUT, KNOWN = "held out", "known"


@dataclass(frozen=True)
class Task:
    """Known classes to learn, and sets of unknown points to tell them from.

    Parameters
    ----------
    X_train, y_train : ndarray
        Known classes only.
    X_known, y_known : ndarray
        Test points of the known classes.
    unknown : dict of str to ndarray
        Sets of test points of no known class.
    settings : dict
        Parameters of the detectors.
    seed : int
    detectors : dict of str to type
        Classes derived from ours stand for a training that no parameter stands for.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(40, 6)), np.arange(40) % 2
    >>> Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1}, seed=0).seed
    0
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_known: np.ndarray
    y_known: np.ndarray
    unknown: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    detectors: Mapping[str, type[Detector]] = field(default_factory=lambda: OURS)


class Fitted(NamedTuple):
    """A fitted detector, and how long that took: None where it recalled its net."""

    detector: Detector
    seconds: float | None


@dataclass(frozen=True)
class Scored:
    """What one method says of the points of a task.

    Parameters
    ----------
    scores, answers : dict of str to ndarray
        Of the held-out points (scores only), the known ones, and each unknown set;
        higher scores are more in-distribution, and the answers never reject.
    fit_seconds : float or None
    microseconds_a_point : float
    classifies : bool, default=True
        Whether the answers are the method's own.

    Examples
    --------
    >>> Scored({"known": np.ones(1)}, {"known": np.ones(1)}, None, 2.0).classifies
    True
    """

    scores: Mapping[str, np.ndarray]
    answers: Mapping[str, np.ndarray]
    fit_seconds: float | None
    microseconds_a_point: float
    classifies: bool = True


# From a task and our fitted detector, by name: peers that wait to be fitted and scored.
Peers: TypeAlias = Callable[[Task, Detector], Mapping[str, Callable[[], Scored]]]


def run(task: Task, peers: Peers | None = None) -> dict[str, Any]:
    """Run both detectors, and the peers beside them, on a task.

    Each detector sets its threshold by its own held-out points, peers set theirs by
    those of VMDLS. A peer that fails is recorded with its error.

    Parameters
    ----------
    task : Task
    peers : callable, optional
        None: our detectors alone.

    Returns
    -------
    figures : dict of str to dict
        Of each method: ``fit seconds``, ``microseconds a point``, ``closed-set
        accuracy`` (None where it does not classify), ``acceptance``, and under
        ``sets`` the :func:`set_figures` of each unknown set; or ``error``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(120) % 3
    >>> X = rng.normal(size=(120, 6)) + 4 * np.eye(6)[y]
    >>> task = Task(X, y, X, y, {"far": X + 9}, {"max_epochs": 2})
    >>> sorted(run(task))
    ['VMDLS', 'VMDLS_b']
    """
    return compare(task, fit(task), peers)


def fit(task: Task) -> dict[str, Fitted]:
    """Fit the detectors of a task: the first trains the net, the others recall it.

    Parameters
    ----------
    task : Task

    Returns
    -------
    fitted : dict of str to Fitted
        In the order of the task.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> fitted = fit(task)
    >>> fitted["VMDLS_b"].seconds is None
    True
    """
    fitted: dict[str, Fitted] = {}
    with tempfile.TemporaryDirectory() as memory:
        settings = {"memory": memory, "verbose": 1, "random_state": task.seed}
        settings |= task.settings
        for name, kind in task.detectors.items():
            started = time.perf_counter()
            detector = kind(**_taken_by(kind, settings))
            detector.fit(task.X_train, task.y_train)
            seconds = None if fitted else time.perf_counter() - started
            fitted[name] = Fitted(detector, seconds)
    return fitted


def _taken_by(kind: type[Detector], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what only VMDLS takes; a name that nothing takes is an error later."""
    others = VMDLSDetector().get_params().keys() - kind().get_params().keys()
    return {name: value for name, value in settings.items() if name not in others}


def compare(
    task: Task, fitted: Mapping[str, Fitted], peers: Peers | None = None
) -> dict[str, Any]:
    """Measure fitted detectors, and beside them the peers.

    Parameters
    ----------
    task : Task
    fitted : dict of str to Fitted
    peers : callable, optional

    Returns
    -------
    figures : dict of str to dict
        As of :func:`run`.

    Examples
    --------
    See :func:`run`.

    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> sorted(compare(task, fit(task)))
    ['VMDLS', 'VMDLS_b']
    """
    [(detector, _), *_] = fitted.values()
    classes = detector.classes_
    figures = {
        name: _figures(task, classes, scored)
        for name, scored in ours(task, fitted).items()
    }
    for name, attempt in (peers(task, detector) if peers else {}).items():
        try:
            figures[name] = _figures(task, classes, attempt())
        except Exception as error:
            figures[name] = {"error": f"{type(error).__name__}: {error}"}
    return figures


def ours(task: Task, fitted: Mapping[str, Fitted]) -> dict[str, Scored]:
    """Score a task by fitted detectors.

    Parameters
    ----------
    task : Task
    fitted : dict of str to Fitted

    Returns
    -------
    scored : dict of str to Scored

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> ours(task, fit(task))["VMDLS"].scores["held out"].shape
    (30,)
    """
    points = {KNOWN: task.X_known, **task.unknown}
    return {
        name: score(
            points,
            detector.score_samples,
            {place: detector.predict_known(X) for place, X in points.items()},
            fit_seconds=seconds,
            held_out=detector.calibration_scores_,
        )
        for name, (detector, seconds) in fitted.items()
    }


def score(
    points: Mapping[str, Any],
    score_points: Callable[[Any], np.ndarray],
    answers: Mapping[str, np.ndarray],
    *,
    fit_seconds: float | None,
    held_out: np.ndarray | None = None,
    classifies: bool = True,
) -> Scored:
    """Score all points of a task, and time it.

    Parameters
    ----------
    points : dict of str to points
        As of :func:`points_to_score`, in the form that `score_points` takes.
    score_points : callable
    answers : dict of str to ndarray
    fit_seconds : float or None
    held_out : ndarray, optional
        Scores of the held-out points, where they are there already.
    classifies : bool, default=True

    Returns
    -------
    scored : Scored

    Raises
    ------
    FloatingPointError
        If a score is not finite.

    Examples
    --------
    >>> points = {"held out": np.zeros(3), "known": np.ones(2)}
    >>> score(points, np.negative, {}, fit_seconds=1.0).scores["known"]
    array([-1., -1.])
    """
    if held_out is None:
        held_out = score_points(points[HELD_OUT])
    started = time.perf_counter()
    scores = {name: score_points(X) for name, X in points.items() if name != HELD_OUT}
    seconds = time.perf_counter() - started
    scores[HELD_OUT] = held_out
    if not all(np.isfinite(part).all() for part in scores.values()):
        raise FloatingPointError("its scores are not finite")
    n_points = sum(map(len, answers.values()))
    return Scored(
        scores, answers, fit_seconds, 1e6 * seconds / max(1, n_points), classifies
    )


def points_to_score(task: Task, detector: Detector) -> dict[str, np.ndarray]:
    """Points that a peer is to score, by name: those held out, the known, the unknown.

    Parameters
    ----------
    task : Task
    detector : fitted detector
        Which sets the threshold by the held-out points.

    Returns
    -------
    points : dict of str to ndarray

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> list(points_to_score(task, fit(task)["VMDLS"].detector))
    ['held out', 'known', 'noise']
    """
    _, threshold = split(task, detector)
    return {HELD_OUT: task.X_train[threshold], KNOWN: task.X_known, **task.unknown}


def split(task: Task, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Rows that the detector's net was trained on, and those that set the threshold.

    Parameters
    ----------
    task : Task
    detector : fitted detector

    Returns
    -------
    training, threshold : ndarray of int64
        Positions in ``task.X_train``.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> [len(rows) for rows in split(task, fit(task)["VMDLS"].detector)]
    [360, 30]
    """
    return detector.split_.training, detector.split_.threshold


def set_figures(
    y_known: np.ndarray,
    classes: np.ndarray,
    answers: tuple[np.ndarray, np.ndarray],
    scores: tuple[np.ndarray, np.ndarray],
    held_out: np.ndarray,
) -> dict[str, float]:
    """How well a method tells one set of unknown points from the known ones.

    Parameters
    ----------
    y_known : ndarray of shape (n,)
        True labels of the known test points.
    classes : ndarray
    answers, scores : pairs of ndarrays
        Of the known and of the unknown points; the answers never reject.
    held_out : ndarray
        Scores of held-out known points: both thresholds are conformal quantiles of it.

    Returns
    -------
    figures : dict of str to float
        ``AUROC``, ``TNR@TPR95``, ``OSCR``; macro ``F1`` at contamination 0.05, ``F1 at
        99 %`` at 0.01; and ``best F1``, at the threshold that is best for this very
        set: no method can know it, so it only bounds what a threshold could do.

    Examples
    --------
    >>> known, unknown = np.arange(200.0), np.arange(200.0) - 300
    >>> labels = np.arange(200) % 2
    >>> figures = set_figures(
    ...     labels, np.arange(2), (labels, labels), (known, unknown), known
    ... )
    >>> figures["AUROC"], round(figures["best F1"], 3)
    (1.0, 1.0)
    """
    n_known, n_unknown = map(len, scores)
    unknown_label = labels_with_unknown(classes)[-1]
    truth = np.concatenate([y_known, np.repeat(unknown_label, n_unknown)])
    answered, values = np.concatenate(answers), np.concatenate(scores)
    is_known = np.repeat([True, False], [n_known, n_unknown])
    curve = threshold_curve_from_predictions(truth, answered, values, classes)

    def f1(contamination: float) -> float:
        accepted = values >= conformal_threshold(held_out, contamination)
        rejecting = np.where(accepted, answered, unknown_label)
        return open_set_f1(truth, rejecting, classes)

    return {
        "AUROC": auroc(is_known, values),
        "TNR@TPR95": tnr_at_tpr(is_known, values),
        "OSCR": oscr(truth, answered, values, classes),
        "F1": f1(0.05),
        "F1 at 99 %": f1(0.01),
        "best F1": float(curve.macro_f1.max()),
    }


def _figures(task: Task, classes: np.ndarray, scored: Scored) -> dict[str, Any]:
    scores, answers = scored.scores, scored.answers
    accuracy = closed_set_accuracy(task.y_known, answers[KNOWN], classes)
    threshold = conformal_threshold(scores[HELD_OUT], 0.05)
    return {
        "fit seconds": scored.fit_seconds,
        "microseconds a point": scored.microseconds_a_point,
        "closed-set accuracy": accuracy if scored.classifies else None,
        "acceptance": float(np.mean(scores[KNOWN] >= threshold)),
        "sets": {
            name: set_figures(
                task.y_known,
                classes,
                (answers[KNOWN], answers[name]),
                (scores[KNOWN], scores[name]),
                scores[HELD_OUT],
            )
            for name in task.unknown
        },
    }

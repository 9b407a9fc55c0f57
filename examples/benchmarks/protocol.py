"""One task, all methods: train, set the thresholds, score, measure."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from peers import (
    PEERS,
    SoftmaxNet,
    fit_peer,
    peer_scores,
    train_softmax,
)
from skvmdls import VMDLSDetector
from skvmdls._devices import resolve_device, resolve_precision
from skvmdls.augmentation import resolve_augmentation
from skvmdls.backbones import BACKBONES, resolve_factory
from skvmdls.calibration import HeldOut, conformal_threshold, hold_out
from skvmdls.inputs import check_inputs, labels_with_unknown
from skvmdls.metrics import (
    auroc,
    closed_set_accuracy,
    open_set_f1,
    oscr,
    threshold_curve_from_predictions,
    tnr_at_tpr,
)
from skvmdls.training import seeded

__all__ = [
    "OURS",
    "Scored",
    "Task",
    "compare",
    "fit",
    "ours",
    "run",
    "set_figures",
    "softmax_net",
    "standardized",
]

OURS = ("VMDLS", "VMDLS_b")


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
    detector : type, default=VMDLSDetector
        A class derived from it, for a training that no parameter stands for.

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
    detector: type[VMDLSDetector] = VMDLSDetector


@dataclass(frozen=True)
class Scored:
    """What one method says of held-out, known and unknown points.

    Parameters
    ----------
    held_out, known : ndarray
        Scores.
    unknown : dict of str to ndarray
        Scores of each unknown set.
    answers : ndarray
        Labels of the known test points; they never reject.
    unknown_answers : dict of str to ndarray
    seconds : dict of str to float
        ``fit seconds`` and ``microseconds a point``.

    Examples
    --------
    >>> Scored(np.zeros(2), np.ones(1), {}, np.ones(1), {}, {}).known
    array([1.])
    """

    held_out: np.ndarray
    known: np.ndarray
    unknown: dict[str, np.ndarray]
    answers: np.ndarray
    unknown_answers: dict[str, np.ndarray]
    seconds: dict[str, float | None]


def run(task: Task, peers: tuple[str, ...] = PEERS) -> dict[str, Any]:
    """Run both detectors and the peers on a task.

    VMDLS_b is read off the fitted VMDLS detector: with one seed they train the same net
    and fit the same Gaussians. All thresholds come from the same held-out points, those
    that the VMDLS detector sets its own by. A peer that fails is recorded with its
    error.

    Parameters
    ----------
    task : Task
    peers : tuple of str, default=PEERS

    Returns
    -------
    figures : dict of str to dict
        Of each method: ``fit seconds``, ``microseconds a point``, ``closed-set
        accuracy``, ``acceptance``, and under ``sets`` the :func:`set_figures` of each
        unknown set; or ``error``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(120) % 3
    >>> X = rng.normal(size=(120, 6)) + 4 * np.eye(6)[y]
    >>> task = Task(X, y, X, y, {"far": X + 9}, {"max_epochs": 2})
    >>> sorted(run(task, peers=("Energy",)))
    ['Energy', 'VMDLS', 'VMDLS_b']
    """
    return compare(task, *fit(task), peers)


def fit(task: Task) -> tuple[VMDLSDetector, float]:
    """Fit the detector of a task.

    Parameters
    ----------
    task : Task

    Returns
    -------
    detector : VMDLSDetector
    seconds : float
        That it took.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> fit(task)[0].n_features_in_
    6
    """
    started = time.perf_counter()
    detector = task.detector(**task.settings, verbose=1, random_state=task.seed)
    detector.fit(task.X_train, task.y_train)
    return detector, time.perf_counter() - started


def compare(
    task: Task, detector: VMDLSDetector, fit_seconds: float, peers: tuple[str, ...]
) -> dict[str, Any]:
    """Measure a fitted detector, and beside it the peers.

    Parameters
    ----------
    task : Task
    detector : VMDLSDetector
    fit_seconds : float
    peers : tuple of str

    Returns
    -------
    figures : dict of str to dict
        As of :func:`run`.

    Examples
    --------
    See :func:`run`.

    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> sorted(compare(task, *fit(task), peers=()))
    ['VMDLS', 'VMDLS_b']
    """
    scored = ours(task, detector, fit_seconds)
    figures = {
        name: _figures(task, detector, method) for name, method in scored.items()
    }
    for name, method in _theirs(task, detector, peers):
        figures[name] = (
            {"error": method}
            if isinstance(method, str)
            else _figures(task, detector, method)
        )
    return figures


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


def _figures(task: Task, detector: VMDLSDetector, scored: Scored) -> dict[str, Any]:
    classes = detector.classes_
    threshold = conformal_threshold(scored.held_out, 0.05)
    return {
        **scored.seconds,
        "closed-set accuracy": closed_set_accuracy(
            task.y_known, scored.answers, classes
        ),
        "acceptance": float(np.mean(scored.known >= threshold)),
        "sets": {
            name: set_figures(
                task.y_known,
                classes,
                (scored.answers, scored.unknown_answers[name]),
                (scored.known, scored.unknown[name]),
                scored.held_out,
            )
            for name in task.unknown
        },
    }


def _n_points(task: Task) -> int:
    return len(task.X_known) + sum(map(len, task.unknown.values()))


def _split(task: Task, detector: VMDLSDetector) -> HeldOut:
    """Repeat the split that `fit` made, which draws from the seed first of all."""
    labels = np.searchsorted(detector.classes_, task.y_train)
    rng = check_random_state(task.seed)
    return hold_out(labels, detector.calibration_fraction, detector._weight_share, rng)


def ours(task: Task, detector: VMDLSDetector, fit_seconds: float) -> dict[str, Scored]:
    """Score a task by a fitted detector, with its weight and without.

    Parameters
    ----------
    task : Task
    detector : VMDLSDetector
        Fitted to the task.
    fit_seconds : float

    Returns
    -------
    scored : dict of str to Scored
        Of ``"VMDLS"`` and ``"VMDLS_b"``.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> ours(task, *fit(task))["VMDLS_b"].held_out.shape
    (30,)
    """
    held_out = task.X_train[_split(task, detector).threshold]
    points = {"held out": held_out, "known": task.X_known, **task.unknown}
    likelihoods = {name: detector.class_log_likelihood(X) for name, X in points.items()}
    answers = {
        name: detector.classes_[likelihood.argmax(axis=1)]
        for name, likelihood in likelihoods.items()
    }
    started = time.perf_counter()
    weighted = {
        name: detector.score_samples(X)
        for name, X in points.items()
        if name != "held out"
    }
    a_point = 1e6 * (time.perf_counter() - started) / _n_points(task)
    weighted["held out"] = detector.calibration_scores_
    plain = {name: likelihood.max(axis=1) for name, likelihood in likelihoods.items()}
    seconds: dict[str, dict[str, float | None]] = {
        "VMDLS": {"fit seconds": fit_seconds, "microseconds a point": a_point},
        "VMDLS_b": {"fit seconds": None, "microseconds a point": None},
    }
    return {
        method: Scored(
            scores["held out"],
            scores["known"],
            {name: scores[name] for name in task.unknown},
            answers["known"],
            {name: answers[name] for name in task.unknown},
            seconds[method],
        )
        for method, scores in (("VMDLS", weighted), ("VMDLS_b", plain))
    }


def _theirs(task: Task, detector: VMDLSDetector, peers: tuple[str, ...]) -> Any:
    """Yield each peer's name with what it says, or with its error."""
    if not peers:
        return
    device = resolve_device(detector.device)
    started = time.perf_counter()
    net, inputs, labels = softmax_net(task, detector)
    train_seconds = time.perf_counter() - started
    points = {
        "held out": task.X_train[_split(task, detector).threshold],
        "known": task.X_known,
        **task.unknown,
    }
    batches = {
        name: standardized(detector, X).to(device).split(256)
        for name, X in points.items()
    }
    with torch.no_grad():
        answers = {
            name: detector.classes_[
                torch.cat([net(x).argmax(dim=1) for x in parts]).cpu().numpy()
            ]
            for name, parts in batches.items()
        }
    for peer in peers:
        try:
            started = time.perf_counter()
            fitted = fit_peer(peer, net, inputs, labels)
            fit_seconds = train_seconds + time.perf_counter() - started
            held_out = peer_scores(fitted, batches["held out"])
            started = time.perf_counter()
            scores = {
                name: peer_scores(fitted, batches[name])
                for name in ("known", *task.unknown)
            }
            a_point = 1e6 * (time.perf_counter() - started) / _n_points(task)
            if not all(np.isfinite(part).all() for part in scores.values()):
                raise FloatingPointError("its scores are not finite")
        except Exception as error:
            yield peer, f"{type(error).__name__}: {error}"
            continue
        yield (
            peer,
            Scored(
                held_out,
                scores["known"],
                {name: scores[name] for name in task.unknown},
                answers["known"],
                {name: answers[name] for name in task.unknown},
                {"fit seconds": fit_seconds, "microseconds a point": a_point},
            ),
        )


def softmax_net(
    task: Task, detector: VMDLSDetector
) -> tuple[SoftmaxNet, torch.Tensor, torch.Tensor]:
    """Train the peers' net, on the rows that the detector's net was trained on.

    Parameters
    ----------
    task : Task
    detector : VMDLSDetector
        Fitted to the task.

    Returns
    -------
    net : SoftmaxNet
    inputs, labels : Tensor
        What it was trained on.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> net, inputs, labels = softmax_net(task, fit(task)[0])
    >>> net(inputs).shape
    torch.Size([360, 2])
    """
    rows = _split(task, detector).training
    device = resolve_device(detector.device)
    inputs = standardized(detector, task.X_train[rows]).to(device)
    places = np.searchsorted(detector.classes_, task.y_train[rows])
    labels = torch.from_numpy(places).to(device)
    input_shape = detector.input_shape_
    factory = resolve_factory(detector.backbone, BACKBONES, input_shape, "backbone")
    n_classes = len(detector.classes_)
    with seeded(task.seed, device):
        net = SoftmaxNet(factory, input_shape, n_classes).to(device)
        train_softmax(
            net,
            inputs,
            labels,
            epochs=detector.max_epochs,
            batch_size=min(n_classes, detector.classes_per_batch or 10)
            * detector.samples_per_class,
            learning_rate=detector.learning_rate,
            weight_decay=detector.weight_decay,
            augmentation=resolve_augmentation(detector.augmentation, input_shape),
            dtype=resolve_precision(detector.precision, device),
        )
    # Peers must not pay for gradients of the weights, which none of them uses.
    return net.requires_grad_(False), inputs, labels


def standardized(detector: VMDLSDetector, X: np.ndarray) -> torch.Tensor:
    """Points as the detector's net takes them.

    Parameters
    ----------
    detector : VMDLSDetector
    X : ndarray

    Returns
    -------
    inputs : Tensor, on the CPU

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> detector = VMDLSDetector(max_epochs=1).fit(X, y)
    >>> standardized(detector, X).shape
    torch.Size([400, 6])
    """
    X = check_inputs(detector, X, detector.input_shape_)
    return detector.standardizer_.transform(X)

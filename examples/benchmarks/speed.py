"""What training, fitting and scoring cost, each as a ratio measured in one run.

The rooms under test are called as the detector calls them. Competing functions take
turns, so that what else the machine does falls on all of them alike; the figure is the
median over the turns. Memory is the growth of a fresh process's high-water mark.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from children import extra_memory
from peers import SoftmaxNet, train_softmax
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._support.devices import resolve_precision
from skvmdls._support.torch_state import seeded
from skvmdls.nets import BACKBONES
from skvmdls.nets.network import build_network
from skvmdls.scoring.gaussians import ClassGaussians, fit_gaussians
from skvmdls.training import distancing_loss, squared_distances, triplet_loss
from skvmdls.training.choices import TrainingChoices
from skvmdls.training.loops import train_network
from skvmdls.training.plans import NetworkPlan, network_plan

__all__ = ["GROUPS", "LIMITS", "alternate", "speed"]

GROUPS = ("losses", "training", "fits", "scores", "gaussians")

Row = dict[str, Any]

CPU = torch.device("cpu")
N_CLASSES = 10
SAMPLES_PER_CLASS = 16
BATCH = N_CLASSES * SAMPLES_PER_CLASS
EPOCHS_OF_A_FIT = 20
# What takes the time or memory now, as profiles show it; by the beginning of a measure.
LIMITS = {
    "triplet and distancing loss": (
        "with 400 points, comparing the positives of each anchor with its negatives, "
        "and passes over the batch x batch matrices. With 160, calling some fifty "
        "small operations"
    ),
    "its extra memory": (
        "batch x batch matrices: distances, their masks, counts and gradients"
    ),
    "one epoch of": "the backbone's convolutions",
    "whole fit of VMDLSbDetector": (
        "the epochs, then forward passes in float32 over the training data (for the "
        "Gaussians) and over the held-out data"
    ),
    "whole fit of VMDLSDetector": (
        "the same, and the five epochs of the autoencoder in float32"
    ),
    "score_samples of VMDLSbDetector": (
        "the forward pass, and the Gaussians' matrix products in float64 (ten classes "
        "of 992 dimensions)"
    ),
    "score_samples of VMDLSDetector": (
        "the first stage of the backbone on the reconstruction. It has a quarter of "
        "the multiplications of resnet18, but takes half of its time, because memory "
        "limits it at full resolution. The autoencoder itself takes a hundredth"
    ),
    "tied covariance": (
        "the two matrix products themselves, and passes over their results"
    ),
    "extra memory of fitting": (
        "one class's sums: a few 800 x 800 matrices in float64"
    ),
}
IMAGES = {"cnn": (1, 28, 28), "plain_cnn": (1, 28, 28), "resnet18": (3, 32, 32)}


def speed(quick: bool, groups: Sequence[str] = GROUPS) -> Iterator[Row]:
    """Measure row by row, on the CPU.

    Parameters
    ----------
    quick : bool
        One turn on little data, to see that it runs: its figures are rough.
    groups : sequence of str
        Some of :data:`GROUPS`.

    Yields
    ------
    row : dict
        ``measure``, ``peer`` (what is compared with), ``ours`` and ``theirs`` (medians,
        in ``unit``), ``ratio`` of the medians, ``spread`` (smallest and largest ratio
        of single turns), ``target``.

    Examples
    --------
    >>> next(speed(quick=True, groups=["losses"]))["peer"]
    'pytorch-metric-learning, all triplets'
    """
    turns, n_batches = (1, 1) if quick else (3, 2)
    if "losses" in groups:
        for batch, target in ((160, "<= 1/5"), (400, "<= 1/30")):
            yield _metric_loss(batch, 10 * turns, target)
        yield _metric_loss_memory(100 if quick else 400, "<= 1/10")
        yield _metric_loss_limit(200 if quick else 1000, "< 1024")
    if "training" in groups:
        backbones = ("plain_cnn", "resnet18")
        for backbone in backbones:
            yield _epoch(backbone, turns, n_batches, "<= 1.05")
        auto = resolve_precision("auto", CPU)
        if auto != torch.float32:
            for backbone in backbones:
                yield _precision(backbone, auto, turns, n_batches)
    if "fits" in groups:
        for detector, target in (
            (VMDLSbDetector, "<= 1.10"),
            (VMDLSDetector, "<= 1.4"),
        ):
            # Of 1,600, nine tenths are trained on: nine whole batches, as the peer's.
            yield _fit(detector, turns, 200 if quick else 1600, target)
    if "scores" in groups:
        yield from _scores(turns, n=64 if quick else 512)
    if "gaussians" in groups:
        yield _tied_scores(turns, 100 if quick else 1000)
        yield _gaussian_memory(2_000 if quick else 20_000)


def alternate(
    functions: dict[str, Callable[[], Any]], turns: int
) -> dict[str, np.ndarray]:
    """Time functions in turns, after one turn that does not count.

    Parameters
    ----------
    functions : dict of str to callable
    turns : int

    Returns
    -------
    seconds : dict of str to ndarray of shape (turns,)

    Examples
    --------
    >>> seconds = alternate({"a": lambda: None, "b": lambda: None}, turns=3)
    >>> {name: times.shape for name, times in seconds.items()}
    {'a': (3,), 'b': (3,)}
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(turns + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(times) for name, times in seconds.items()}


def _row(
    measure: str,
    peer: str,
    seconds: dict[str, np.ndarray],
    target: str | None,
    unit: str = "s",
) -> Row:
    ours, theirs = seconds["ours"], seconds["theirs"]
    ratios = ours / theirs
    return {
        "measure": measure,
        "peer": peer,
        "ours": float(np.median(ours)),
        "theirs": float(np.median(theirs)),
        "unit": unit,
        "ratio": float(np.median(ours) / np.median(theirs)),
        "spread": [float(ratios.min()), float(ratios.max())],
        "target": target,
    }


def _images(backbone: str, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % N_CLASSES
    images = torch.randn(n, *IMAGES[backbone], generator=generator)
    images += labels.view(-1, 1, 1, 1) / N_CLASSES
    return images, labels


# -- The metric loss --------------------------------------------------------------


def _metric_loss(batch: int, turns: int, target: str) -> Row:
    return _row(
        f"triplet and distancing loss, forward and backward, batch {batch}",
        "pytorch-metric-learning, all triplets",
        alternate(
            {
                "ours": partial(_our_metric_loss, batch),
                "theirs": partial(_their_metric_loss, batch),
            },
            turns,
        ),
        target,
    )


def _metric_loss_memory(batch: int, target: str) -> Row:
    functions = {"ours": _our_metric_loss, "theirs": _their_metric_loss}
    memory = {
        name: np.array([_memory_beyond_a_small_one(function, batch)])
        for name, function in functions.items()
    }
    return _row(
        f"its extra memory, batch {batch}",
        "pytorch-metric-learning, all triplets",
        memory,
        target,
        unit="MiB",
    )


def _metric_loss_limit(batch: int, target: str) -> Row:
    memory = _memory_beyond_a_small_one(_our_metric_loss, batch)
    return {
        "measure": f"its extra memory, batch {batch}",
        "peer": None,
        "ours": memory,
        "theirs": None,
        "unit": "MiB",
        "ratio": None,
        "spread": None,
        "target": target,
    }


def _outputs(batch: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(batch, 32, generator=generator).requires_grad_()
    return outputs, torch.arange(batch) % N_CLASSES


def _our_metric_loss(batch: int) -> None:
    outputs, labels = _outputs(batch)
    distances = squared_distances(outputs)
    # As in training, where each class has equally many points.
    loss = triplet_loss(distances, labels, 0.1, -(-batch // N_CLASSES)).mean()
    loss = loss + distancing_loss(distances, labels, 32.0).mean()
    loss.backward()


def _their_metric_loss(batch: int) -> None:
    """Only the triplet loss: the library has no distancing loss."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.reducers import MeanReducer

    outputs, labels = _outputs(batch)
    criterion = TripletMarginLoss(
        margin=0.1,
        distance=LpDistance(normalize_embeddings=False, power=2),
        reducer=MeanReducer(),
    )
    criterion(outputs, labels).backward()


def _memory_beyond_a_small_one(function: Callable[[int], None], batch: int) -> float:
    return extra_memory(partial(function, batch), warm_up=partial(function, 20))


# -- Training ---------------------------------------------------------------------


def _epoch(backbone: str, turns: int, n_batches: int, target: str) -> Row:
    data = _images(backbone, n_batches * BATCH)
    seconds = alternate(
        {
            "ours": partial(_train_ours, backbone, *data, torch.float32),
            "theirs": partial(_train_softmax, backbone, *data, torch.float32),
        },
        turns,
    )
    return _row(
        f"one epoch of {backbone}, batch {BATCH}, float32: our losses",
        "cross-entropy",
        seconds,
        target,
    )


def _precision(backbone: str, auto: torch.dtype, turns: int, n_batches: int) -> Row:
    data = _images(backbone, n_batches * BATCH)
    seconds = alternate(
        {
            "ours": partial(_train_ours, backbone, *data, auto),
            "theirs": partial(_train_ours, backbone, *data, torch.float32),
        },
        turns,
    )
    return _row(
        f"one epoch of {backbone}, batch {BATCH}: precision='auto' ({auto})",
        "float32",
        {name: n_batches * BATCH / times for name, times in seconds.items()},
        None,
        unit="images/s",
    )


def _plan(epochs: int, dtype: torch.dtype) -> NetworkPlan:
    detector = VMDLSbDetector(kl_warmup=0.0, samples_per_class=SAMPLES_PER_CLASS)
    settings, cpu = detector.resolved(), torch.device("cpu")
    choices = TrainingChoices("adamw", 1e-3, 1e-2, augmentation=None, max_epochs=epochs)
    plan = network_plan(settings, choices, (1, 1, 1), N_CLASSES, cpu)
    return replace(plan, dtype=dtype)


class Held:
    """Inputs that are standardised already, in one tensor (n, ...)."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def batches(
        self, batches: Iterable[Tensor], turn: tuple[int, ...]
    ) -> Iterator[Tensor]:
        """Give batches by positions."""
        return (self.inputs[batch] for batch in batches)


def _train_ours(
    backbone: str, images: Tensor, labels: Tensor, dtype: torch.dtype
) -> None:
    with seeded(0, CPU):
        shape = tuple(images.shape[1:])
        network = build_network(BACKBONES[backbone], shape, 32, N_CLASSES)
        train_network(network, Held(images), labels, _plan(1, dtype), seed=0)


def _train_softmax(
    backbone: str,
    images: Tensor,
    labels: Tensor,
    dtype: torch.dtype,
    epochs: int = 1,
) -> None:
    """Train with batches of the same size, the same optimiser and schedule."""
    with seeded(0, CPU):
        net = SoftmaxNet(BACKBONES[backbone], tuple(images.shape[1:]), N_CLASSES)
        train_softmax(net, images, labels, _plan(epochs, dtype))


def _fit(
    detector: type[VMDLSDetector | VMDLSbDetector], turns: int, n: int, target: str
) -> Row:
    images, labels = _images("cnn", n)
    n_trained = round(0.9 * n)
    estimator = detector(max_epochs=EPOCHS_OF_A_FIT, device="cpu", random_state=0)
    X, y = images.numpy(), labels.numpy()
    softmax = partial(
        _train_softmax,
        "cnn",
        images[:n_trained],
        labels[:n_trained],
        resolve_precision("auto", CPU),
        epochs=EPOCHS_OF_A_FIT,
    )
    return _row(
        f"whole fit of {detector.__name__}, cnn, {n} images, {EPOCHS_OF_A_FIT} epochs",
        "the softmax net's training alone",
        alternate({"ours": lambda: estimator.fit(X, y), "theirs": softmax}, turns),
        target,
    )


# -- Scoring ----------------------------------------------------------------------


def _scores(turns: int, n: int) -> Iterator[Row]:
    from pytorch_ood.detector import ODIN

    images, labels = _images("resnet18", max(n, 300))
    X, y = images.numpy(), labels.numpy()
    detectors = {
        detector: detector(
            backbone="resnet18", max_epochs=1, device="cpu", random_state=0
        ).fit(X[:300], y[:300])
        for detector in (VMDLSbDetector, VMDLSDetector)
    }
    backbone = detectors[VMDLSDetector].network_.backbone
    classifier = nn.Sequential(deepcopy(backbone), nn.Linear(512, N_CLASSES))
    # It needs gradients of the input only.
    odin = ODIN(classifier.eval().requires_grad_(False))
    X, batches = X[:n], images[:n].split(256)

    @torch.inference_mode()
    def forward() -> None:
        for batch in batches:
            backbone(batch)

    def odin_scores() -> None:
        for batch in batches:
            odin.predict(batch)

    seconds = alternate(
        {
            "VMDLSbDetector": lambda: detectors[VMDLSbDetector].score_samples(X),
            "VMDLSDetector": lambda: detectors[VMDLSDetector].score_samples(X),
            "forward": forward,
            "ODIN": odin_scores,
        },
        turns,
    )
    for ours, theirs, target in (
        ("VMDLSbDetector", "forward", "<= 1.10"),
        ("VMDLSDetector", "forward", "<= 1.5"),
        ("VMDLSDetector", "ODIN", "<= 1/2"),
    ):
        peer = {"forward": "the bare forward pass", "ODIN": "pytorch-ood's ODIN"}
        yield _row(
            f"score_samples of {ours}, resnet18, {n} images of 3x32x32",
            peer[theirs],
            {"ours": seconds[ours], "theirs": seconds[theirs]},
            target,
        )


# -- The Gaussians ----------------------------------------------------------------


def _tied_scores(turns: int, n_classes: int) -> Row:
    n, n_features = 10 * n_classes, 3 * n_classes // 2
    rng = np.random.default_rng(0)
    whitening = np.triu(rng.normal(size=(n_features, n_features)))
    np.fill_diagonal(whitening, 1 + np.abs(whitening.diagonal()))
    means = rng.normal(size=(n_classes, n_features))
    gaussians = ClassGaussians(means, whitening, "tied")
    points = torch.from_numpy(rng.normal(size=(n, n_features)))
    square, tall = gaussians.precisions_cholesky, gaussians.means.T

    def products() -> None:
        points @ square
        points @ tall

    return _row(
        f"tied covariance, {n_classes} classes x {n_features} dimensions: likelihoods "
        f"of {n} points",
        "the two matrix products that it needs",
        alternate(
            {"ours": lambda: gaussians.log_likelihood(points), "theirs": products},
            turns,
        ),
        "<= 1.5",
    )


def _gaussian_memory(n: int) -> Row:
    memory = {
        name: np.array([extra_memory(partial(_fit_streamed, n_points))])
        for name, n_points in (("ours", 10 * n), ("theirs", n))
    }
    return _row(
        f"extra memory of fitting the Gaussians to {10 * n} points of 800 dimensions",
        f"{n} points",
        memory,
        "<= 1.10",
        unit="MiB",
    )


def _fit_streamed(n_points: int) -> None:
    def class_batches(label: int) -> Iterator[dict[str, np.ndarray]]:
        rng = np.random.default_rng(label)
        for _ in range(n_points // N_CLASSES // 200):
            yield {"g": rng.normal(size=(200, 800)).astype(np.float32)}

    fit_gaussians(class_batches, range(N_CLASSES), "full")

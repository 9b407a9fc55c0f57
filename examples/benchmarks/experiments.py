"""The experiments: which data, which settings, which tasks.

Each is a function from the options of the command line to its tasks, by name. A task is
run, and stored, one at a time.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.utils import Bunch

from figures import (
    draw_points,
    draw_scores,
    ranked_with_plane,
    scores_by_weight,
    spread_by_tsne,
)
from protocol import Task, run
from skvmdls import VMDLSDetector
from skvmdls.datasets import (
    load_cifar10,
    load_cifar100,
    load_imagenet_resize,
    load_mnist,
    load_omniglot,
    mnist_noise,
    uniform_noise,
)
from skvmdls.training import NetworkPlan

__all__ = [
    "EXPERIMENTS",
    "LOSSES",
    "PUBLIC_SPLITS",
    "TUNING_SPLITS",
    "Experiment",
    "Options",
    "alone",
    "with_peers",
]

# The usual protocol's known digits. They are a test: nothing is tuned on them.
PUBLIC_SPLITS = (
    (2, 4, 5, 9, 8, 3),
    (3, 2, 6, 9, 4, 0),
    (5, 8, 3, 2, 4, 6),
    (3, 7, 8, 4, 0, 5),
    (6, 3, 4, 9, 8, 2),
)
# Known digits of the splits that recipes may be chosen on, by training images alone.
TUNING_SPLITS = (
    (0, 1, 2, 3, 4, 5),
    (4, 5, 6, 7, 8, 9),
    (0, 1, 2, 4, 6, 8),
    (0, 1, 3, 5, 7, 9),
)

FEATURE_SUBSETS = (
    ("mu",),
    ("g",),
    ("g", "mu"),
    ("t1", "t2", "t3"),
    ("t1", "t2", "t3", "g", "mu"),
)


class _WithoutTriplets(VMDLSDetector):
    """No margin is short of this one, so that the triplet loss is always zero."""

    def _network_plan(self, device: torch.device) -> NetworkPlan:
        return replace(super()._network_plan(device), triplet_margin=-1e30)


# The distancing loss alone is left out: it holds no class together.
LOSSES: dict[str, tuple[type[VMDLSDetector], dict[str, float]]] = {
    "KL": (_WithoutTriplets, {"distancing_margin": 0.0}),
    "distancing + KL": (_WithoutTriplets, {}),
    "triplet": (VMDLSDetector, {"distancing_margin": 0.0, "kl_weight": 0.0}),
    "triplet + KL": (VMDLSDetector, {"distancing_margin": 0.0}),
    "triplet + distancing": (VMDLSDetector, {"kl_weight": 0.0}),
    "triplet + distancing + KL": (VMDLSDetector, {}),
}


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Parameters
    ----------
    data_home : Path or None
    n_train, n_test : int
        Training points, and test points of each set; at most those that there are.
    seeds : int
    settings : dict
        Parameters of the detectors.

    Examples
    --------
    >>> Options(None, n_train=100, n_test=50, seeds=1, settings={}).seeds
    1
    """

    data_home: Path | None
    n_train: int
    n_test: int
    seeds: int
    settings: dict[str, Any] = field(default_factory=dict)


def with_peers(task: Task) -> dict[str, Any]:
    """Figures of our methods and of all peers.

    Parameters
    ----------
    task : Task

    Returns
    -------
    part : dict
        ``methods``.

    Examples
    --------
    >>> with_peers.__name__  # see protocol.run
    'with_peers'
    """
    return {"methods": run(task)}


def alone(task: Task) -> dict[str, Any]:
    """Figures of our methods alone.

    Parameters
    ----------
    task : Task

    Returns
    -------
    part : dict
        ``methods``.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> sorted(alone(task)["methods"])
    ['VMDLS', 'VMDLS_b']
    """
    return {"methods": run(task, ())}


@dataclass(frozen=True)
class Experiment:
    """A benchmark: its tasks, its presets, and what the paper reports.

    Parameters
    ----------
    title : str
    tasks : callable
        From :class:`Options` to pairs of a name and a function that makes the task.
    presets : dict of str to dict
        ``n_train``, ``n_test``, ``seeds`` and ``settings`` of ``"quick"`` and
        ``"paper"``.
    paper : dict of str to dict
        The paper's macro F1 of each unknown set, by method.
    measure : callable, default=with_peers
        What becomes of a task: a dict of JSON's types.
    draw : callable, optional
        From the parts and a path, writes the PNG.
    compares_parts : bool, default=False
        Whether the parts differ in their settings, and are not averaged.

    Examples
    --------
    >>> EXPERIMENTS["osr-mnist"].presets["quick"]["seeds"]
    3
    """

    title: str
    tasks: Callable[[Options], Iterator[tuple[str, Callable[[], Task]]]]
    presets: dict[str, dict[str, Any]]
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    measure: Callable[[Task], dict[str, Any]] = with_peers
    draw: Callable[[Mapping[str, Any], Path], None] | None = None
    compares_parts: bool = False


def _drawn(n: int, n_drawn: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).permutation(n)[:n_drawn]


def _osr_mnist(options: Options) -> Iterator[tuple[str, Callable[[], Task]]]:
    mnist = load_mnist(options.data_home)
    X_known, y_known = mnist.X_test[: options.n_test], mnist.y_test[: options.n_test]
    unknown = {
        "Omniglot": load_omniglot(options.data_home)[: options.n_test],
        "MNIST-noise": mnist_noise(X_known, random_state=0),
        "NOISE": uniform_noise(X_known.shape, random_state=0),
    }

    def task(seed: int) -> Task:
        rows = _drawn(len(mnist.X_train), options.n_train, seed)
        return Task(
            mnist.X_train[rows],
            mnist.y_train[rows],
            X_known,
            y_known,
            unknown,
            options.settings,
            seed,
        )

    for seed in range(options.seeds):
        yield f"seed {seed}", partial(task, seed)


def _ablation_features(options: Options) -> Iterator[tuple[str, Callable[[], Task]]]:
    """One net a seed: all but the Gaussians is recalled."""
    memory = tempfile.mkdtemp()
    for features in FEATURE_SUBSETS:
        settings = options.settings | {"features": features, "memory": memory}
        for name, task in _osr_mnist(replace(options, settings=settings)):
            yield f"{' + '.join(features)}; {name}", task


def _ablation_losses(options: Options) -> Iterator[tuple[str, Callable[[], Task]]]:
    def trained_by(
        detector: type[VMDLSDetector], task: Callable[[], Task]
    ) -> Callable[[], Task]:
        return lambda: replace(task(), detector=detector)

    for losses, (detector, margins) in LOSSES.items():
        settings = options.settings | margins
        for name, task in _osr_mnist(replace(options, settings=settings)):
            yield f"{losses}; {name}", trained_by(detector, task)


def _digits_left_out(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    splits: Sequence[Sequence[int]],
    options: Options,
) -> Iterator[tuple[str, Callable[[], Task]]]:
    def task(known: Sequence[int], seed: int) -> Task:
        (X_train, y_train), (X_test, y_test) = (
            (X[order], y[order])
            for X, y in (train, test)
            for order in [_drawn(len(X), len(X), seed)]
        )
        is_train, is_known = np.isin(y_train, known), np.isin(y_test, known)
        return Task(
            X_train[is_train][: options.n_train],
            y_train[is_train][: options.n_train],
            X_test[is_known][: options.n_test],
            y_test[is_known][: options.n_test],
            {"other digits": X_test[~is_known][: options.n_test]},
            options.settings,
            seed,
        )

    for seed in range(options.seeds):
        for known in splits:
            name = f"known {', '.join(map(str, known))}; seed {seed}"
            yield name, partial(task, known, seed)


def _osr_splits(options: Options) -> Iterator[tuple[str, Callable[[], Task]]]:
    mnist = load_mnist(options.data_home)
    train, test = (mnist.X_train, mnist.y_train), (mnist.X_test, mnist.y_test)
    return _digits_left_out(train, test, PUBLIC_SPLITS, options)


def _leave_classes_out(options: Options) -> Iterator[tuple[str, Callable[[], Task]]]:
    """Tell digits apart by training images only: recipes are chosen here."""
    mnist = load_mnist(options.data_home)
    order = _drawn(len(mnist.X_train), len(mnist.X_train), 0)
    X, y = mnist.X_train[order], mnist.y_train[order]
    half = len(X) // 2
    train, test = (X[:half], y[:half]), (X[half:], y[half:])
    return _digits_left_out(train, test, TUNING_SPLITS, options)


def _cifar(
    load: Callable[[Path | None], Bunch], options: Options
) -> Iterator[tuple[str, Callable[[], Task]]]:
    cifar = load(options.data_home)
    unknown = {}
    # Of the paper's four sets, one can be had here; the others are named, not hidden.
    for name in ("ImageNet-crop", "LSUN-crop", "LSUN-resize"):
        print(f"Skipped {name}: there is no loader for it.")
    try:
        images = load_imagenet_resize(options.data_home)
        unknown["ImageNet-resize"] = images[_drawn(len(images), options.n_test, seed=0)]
    except FileNotFoundError as error:
        print(f"Skipped ImageNet-resize: {error}")
    tested = _drawn(len(cifar.X_test), options.n_test, seed=0)

    def task(seed: int) -> Task:
        rows = _drawn(len(cifar.X_train), options.n_train, seed)
        return Task(
            cifar.X_train[rows],
            cifar.y_train[rows],
            cifar.X_test[tested],
            cifar.y_test[tested],
            unknown,
            options.settings,
            seed,
        )

    for seed in range(options.seeds):
        yield f"seed {seed}", partial(task, seed)


def _presets(
    quick: tuple[int, int, int], paper: tuple[int, int, int], **settings: Any
) -> dict[str, dict[str, Any]]:
    """From (n_train, n_test, seeds) of each; a setting may be a pair of both's."""
    return {
        name: {
            **dict(zip(("n_train", "n_test", "seeds"), sizes, strict=True)),
            "settings": {
                key: value[i] if isinstance(value, tuple) else value
                for key, value in settings.items()
            },
        }
        for i, (name, sizes) in enumerate((("quick", quick), ("paper", paper)))
    }


# Digits take the small net where it is quick, and the paper's for its own setting: of
# six times as many images or more, half as many epochs.
_DIGITS = {
    "backbone": ("cnn", "plain_cnn"),
    "augmentation": "affine",
    "max_epochs": (20, 10),
}
_PHOTOGRAPHS = {"augmentation": "crop_flip", "max_epochs": (2, 100)}

EXPERIMENTS = {
    "osr-mnist": Experiment(
        "MNIST against Omniglot, noisy digits and noise (the paper's Table 3)",
        _osr_mnist,
        _presets((10_000, 3_000, 3), (60_000, 10_000, 1), **_DIGITS),
        paper={"VMDLS": {"Omniglot": 0.974, "MNIST-noise": 0.984, "NOISE": 0.984}},
    ),
    "ablation-features": Experiment(
        "Parts of the ensemble, on one net (as the paper's Table 5)",
        _ablation_features,
        _presets((3_000, 3_000, 1), (60_000, 10_000, 1), **_DIGITS),
        measure=alone,
        compares_parts=True,
    ),
    "ablation-losses": Experiment(
        "The losses, by what a latent space of two dimensions tells apart (as the "
        "paper's Table 4 and Figure 4)",
        _ablation_losses,
        _presets(
            (3_000, 1_000, 1),
            (60_000, 1_000, 1),
            **_DIGITS,
            latent_dim=2,
            features=["mu"],
        ),
        measure=ranked_with_plane,
        draw=draw_points,
        compares_parts=True,
    ),
    "figure-1": Experiment(
        "Features of a softmax net and our latent space, by t-SNE (as the paper's "
        "Figure 1)",
        _osr_mnist,
        _presets((3_000, 1_000, 1), (60_000, 1_000, 1), **_DIGITS),
        measure=spread_by_tsne,
        draw=draw_points,
    ),
    "figure-3": Experiment(
        "Scores of digits and of Omniglot, without the weight and with it (as the "
        "paper's Figure 3)",
        _osr_mnist,
        _presets((3_000, 1_000, 1), (60_000, 1_000, 1), **_DIGITS),
        measure=scores_by_weight,
        draw=draw_scores,
    ),
    "osr-splits": Experiment(
        "Six known digits against the four others, on the five public splits",
        _osr_splits,
        _presets((3_000, 3_000, 1), (60_000, 10_000, 1), **_DIGITS),
    ),
    "leave-classes-out": Experiment(
        "Six digits against the four others, on training images, to choose recipes",
        _leave_classes_out,
        _presets(
            (3_000, 2_000, 1),
            (30_000, 10_000, 3),
            backbone="cnn",
            augmentation="affine",
        ),
        measure=alone,
    ),
    "osr-cifar10": Experiment(
        "CIFAR-10 against ImageNet-resize (the paper's Table 2)",
        partial(_cifar, load_cifar10),
        _presets(
            (2_000, 1_000, 1), (50_000, 10_000, 1), backbone="resnet18", **_PHOTOGRAPHS
        ),
        paper={
            "VMDLS": {"ImageNet-resize": 0.906},
            "VMDLS_b": {"ImageNet-resize": 0.875},
        },
    ),
    "ood-cifar10": Experiment(
        "CIFAR-10 against ImageNet-resize, by AUROC and TNR (the paper's Table 1)",
        partial(_cifar, load_cifar10),
        _presets(
            (1_000, 500, 1),
            (50_000, 10_000, 1),
            backbone="densenet_bc100",
            **_PHOTOGRAPHS,
        ),
    ),
    "ood-cifar100": Experiment(
        "CIFAR-100 against ImageNet-resize, by AUROC and TNR (the paper's Table 1)",
        partial(_cifar, load_cifar100),
        _presets(
            (1_000, 500, 1),
            (50_000, 10_000, 1),
            backbone="densenet_bc100",
            **_PHOTOGRAPHS,
        ),
    ),
}

"""The experiments: which data, which settings, which tasks.

Each is a function from the options of the command line to its tasks, by name. A task is
run, and stored, one at a time.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from torch import nn

from archives import load_cifar10, load_cifar100, load_imagenet_resize
from figures import (
    draw_points,
    draw_scores,
    ranked_with_plane,
    scores_by_weight,
    spread_by_tsne,
)
from peers import softmax_peers
from protocol import OURS, Task, run
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.datasets import (
    load_mnist,
    load_omniglot,
    mnist_noise,
    uniform_noise,
)
from tables import TABLES, TUNING_TABLES, table_peers, table_tasks

__all__ = [
    "CIFAR10_SPLITS",
    "EXPERIMENTS",
    "LOSSES",
    "PAPER_SETTINGS",
    "PUBLIC_SPLITS",
    "TUNING_SPLITS",
    "Experiment",
    "Options",
    "strided_net",
    "with_peers",
    "with_table_peers",
]

# The paper's method to the letter, where the defaults depart from it.
PAPER_SETTINGS = {
    "classification_weight": 0.0,
    "metric_weight": 1.0,
    "fusion": "early",
    "weighting": "paper",
}

# The usual protocol's known digits. They are a test: nothing is tuned on them.
PUBLIC_SPLITS = (
    (2, 4, 5, 9, 8, 3),
    (3, 2, 6, 9, 4, 0),
    (5, 8, 3, 2, 4, 6),
    (3, 7, 8, 4, 0, 5),
    (6, 3, 4, 9, 8, 2),
)
# And its known classes of CIFAR-10, as "cifar10" in split.py of github.com/iCGY96/ARPL
# and as "cifar-10-10" in data/open_set_splits/osr_splits.py of
# github.com/sgvaze/osr_closed_set_all_you_need (Vaze et al. 2022), places in
# alphabetical order. The first two name the same classes; the protocol has them so.
CIFAR10_SPLITS = (
    (0, 6, 4, 9, 1, 7),
    (7, 6, 4, 9, 0, 1),
    (1, 5, 7, 3, 9, 4),
    (8, 6, 1, 9, 0, 7),
    (2, 4, 1, 7, 9, 6),
)
# Known classes of the splits that recipes may be chosen on, by training images alone.
TUNING_SPLITS = (
    (0, 1, 2, 3, 4, 5),
    (4, 5, 6, 7, 8, 9),
    (0, 1, 2, 4, 6, 8),
    (0, 1, 3, 5, 7, 9),
)

# And those of runs on half of the classes.
HALVES = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))

ENSEMBLE = ("t1", "t2", "t3", "g", "mu")
FEATURE_SUBSETS = (("mu",), ("g",), ("g", "mu"), ("t1", "t2", "t3"), ENSEMBLE)
ALL_PARTS = (*ENSEMBLE, "logit")
# VMDLS adds the residual of the reconstruction to each of these, VMDLS_b does not.
EVIDENCE: dict[str, dict[str, Any]] = {
    **{f"{part} alone": {"features": (part,), "fusion": "late"} for part in ALL_PARTS},
    "all, late": {"features": ALL_PARTS, "fusion": "late"},
    "all, early": {"features": ALL_PARTS, "fusion": "early"},
    "the paper's, early": {"features": ENSEMBLE, "fusion": "early"},
    "the paper's, early, its product": {
        "features": ENSEMBLE,
        "fusion": "early",
        "weighting": "paper",
    },
}

# How photographs may be trained, and looked at; of each training both share the nets.
_SHORT_STEPS = {"learning_rate": 2e-3, "weight_decay": 0.01, "optimizer": "adamw"}
_LONG_STEPS = {"learning_rate": 4e-3, "weight_decay": 0.3, "optimizer": "adamw"}
_FLIPS = {"average_flips": True}
PHOTOGRAPH_CHOICES: dict[str, dict[str, Any]] = {
    "learning rate 0.002, weight decay 0.01": _SHORT_STEPS,
    "learning rate 0.002, weight decay 0.01, flips averaged": _SHORT_STEPS | _FLIPS,
    "learning rate 0.004, weight decay 0.3": _LONG_STEPS,
    "learning rate 0.004, weight decay 0.3, flips averaged": _LONG_STEPS | _FLIPS,
}

_ANY_MARGIN = {"triplet_margin": [Real]}


class _AnyMargin(VMDLSDetector):
    """Takes any triplet margin, even one that no triplet is short of."""

    _parameter_constraints: ClassVar = {
        **VMDLSDetector._parameter_constraints,
        **_ANY_MARGIN,
    }


class _AnyMarginB(VMDLSbDetector):
    _parameter_constraints: ClassVar = {
        **VMDLSbDetector._parameter_constraints,
        **_ANY_MARGIN,
    }


FOR_ANY_MARGIN = {"VMDLS": _AnyMargin, "VMDLS_b": _AnyMarginB}
_NO_TRIPLETS = {"triplet_margin": -1e30}
_NO_DISTANCING = {"distancing_margin": 0.0}
_NO_KL = {"kl_weight": 0.0}
# The paper's Table 4 sets these margins in two dimensions, where the default's, of 2,
# leaves the classes close together. The distancing loss alone is left out: it holds no
# class together.
LOSSES: dict[str, dict[str, float]] = {
    "KL": _NO_TRIPLETS | _NO_DISTANCING,
    "distancing (32) + KL": _NO_TRIPLETS,
    "triplet": _NO_DISTANCING | _NO_KL,
    "triplet + KL": _NO_DISTANCING,
    "triplet + distancing (32)": _NO_KL,
    "triplet + distancing (1) + KL": {"distancing_margin": 1.0},
    "triplet + distancing (32) + KL": {},
    "triplet (1) + distancing (32) + KL": {"triplet_margin": 1.0},
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


Tasks: TypeAlias = Iterator[tuple[str, Callable[[], Task]]]


def with_peers(task: Task) -> dict[str, Any]:
    """``methods``: figures of our methods and of the peers on a softmax net."""
    return {"methods": run(task, softmax_peers)}


def with_table_peers(task: Task) -> dict[str, Any]:
    """``methods``: figures of our methods and of scikit-learn's peers."""
    return {"methods": run(task, table_peers)}


def alone(task: Task) -> dict[str, Any]:
    """``methods``: figures of our methods alone."""
    return {"methods": run(task)}


@dataclass(frozen=True)
class Experiment:
    """A benchmark: its tasks, its presets, and what the paper reports.

    Parameters
    ----------
    title : str
    tasks : callable
        From :class:`Options` to pairs of a name and a function that makes the task.
    presets : dict of str to dict
        ``n_train``, ``n_test``, ``seeds`` and ``settings``, by name: ``"quick"`` shows
        that it runs, ``"cpu"`` takes two cores less than an hour, ``"paper"`` is the
        paper's.
    paper : dict of str to dict
        The paper's macro F1 of each unknown set, by method.
    measure : callable, default=with_peers
        What becomes of a task: a dict of JSON's types.
    draw : callable, optional
        From the parts and a path, writes the PNG.
    layout : {"methods", "parts", "tables"}
        What a row of its page is: a method, averaged over all parts; a kind of part,
        averaged over its seeds and splits; or a table, averaged over its splits.

    Examples
    --------
    >>> EXPERIMENTS["osr-mnist"].presets["quick"]["seeds"]
    3
    """

    title: str
    tasks: Callable[[Options], Tasks]
    presets: dict[str, dict[str, Any]]
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    measure: Callable[[Task], dict[str, Any]] = with_peers
    draw: Callable[[Mapping[str, Any], Path], None] | None = None
    layout: Literal["methods", "parts", "tables"] = "methods"


def _drawn(n: int, n_drawn: int, seed: int) -> np.ndarray:
    return np.random.RandomState(seed).permutation(n)[:n_drawn]


def _sample(images: np.ndarray, options: Options) -> np.ndarray:
    return images[_drawn(len(images), options.n_test, seed=0)]


def _by_seed(
    train: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray],
    unknown: dict[str, np.ndarray],
    options: Options,
) -> Tasks:
    def task(seed: int) -> Task:
        rows = _drawn(len(train[0]), options.n_train, seed)
        X, y = (part[rows] for part in train)
        return Task(X, y, *known, unknown, options.settings, seed)

    for seed in range(options.seeds):
        yield f"seed {seed}", partial(task, seed)


DATA: dict[str, Callable[[Path | None], Any]] = {
    "MNIST": load_mnist,
    "CIFAR-10": load_cifar10,
    "CIFAR-100": load_cifar100,
}


def _mnist(options: Options) -> Tasks:
    mnist = DATA["MNIST"](options.data_home)
    X_known, y_known = mnist.X_test[: options.n_test], mnist.y_test[: options.n_test]
    unknown = {
        "Omniglot": load_omniglot(options.data_home)[: options.n_test],
        "MNIST-noise": mnist_noise(X_known, random_state=0),
        "NOISE": uniform_noise(X_known.shape, random_state=0),
    }
    train = mnist.X_train, mnist.y_train
    return _by_seed(train, (X_known, y_known), unknown, options)


def _in_colour(images: np.ndarray) -> np.ndarray:
    """From (n, 28, 28) to (n, 3, 32, 32): a black rim, and the grey in each channel."""
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    return np.repeat(padded[:, None], 3, axis=1)


# Of the paper's four sets, ImageNet-resize can be had; its ImageNet-crop, LSUN-crop and
# LSUN-resize cannot.
UNKNOWN: dict[str, Callable[[Path | None], np.ndarray]] = {
    "ImageNet-resize": load_imagenet_resize,
    "CIFAR-100": lambda data_home: DATA["CIFAR-100"](data_home).X_test,
    "CIFAR-10": lambda data_home: DATA["CIFAR-10"](data_home).X_test,
    "MNIST": lambda data_home: _in_colour(DATA["MNIST"](data_home).X_test),
}


def _photographs(known: str, others: Sequence[str], options: Options) -> Tasks:
    cifar = DATA[known](options.data_home)
    tested = _drawn(len(cifar.X_test), options.n_test, seed=0)
    X_known, y_known = cifar.X_test[tested], cifar.y_test[tested]
    unknown = {
        name: _sample(UNKNOWN[name](options.data_home), options) for name in others
    }
    unknown["NOISE"] = uniform_noise(X_known.shape, random_state=0)
    train = cifar.X_train, cifar.y_train
    return _by_seed(train, (X_known, y_known), unknown, options)


def strided_net(input_shape: tuple[int, ...]) -> nn.Module:
    """Stand for a net of the user's own: strided convolutions, ``g`` of 192.

    Parameters
    ----------
    input_shape : tuple (channels, height, width)

    Returns
    -------
    net : Module
        With the attribute `taps`, which a factory's net must have.

    Examples
    --------
    >>> import torch
    >>> strided_net((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 192])
    """
    net = nn.Sequential()
    n_inputs = input_shape[0]
    for number, (n_outputs, stride) in enumerate([(48, 1), (96, 2), (192, 2)], 1):
        stage = nn.Sequential()
        for place_stride in (stride, 1):
            stage.append(
                nn.Conv2d(n_inputs, n_outputs, 3, place_stride, padding=1, bias=False)
            )
            stage.append(nn.BatchNorm2d(n_outputs)).append(nn.ReLU())
            n_inputs = n_outputs
        net.add_module(f"stage{number}", stage)
    net.add_module("pooling", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.taps = ("stage1", "stage2", "stage3")  # type: ignore[assignment]
    return net


def _on_own_net(tasks: Callable[[Options], Tasks], options: Options) -> Tasks:
    # A function cannot be among the settings that a run stores.
    settings = {**options.settings, "backbone": strided_net}
    yield from tasks(replace(options, settings=settings))


_cifar10 = partial(_photographs, "CIFAR-10", ("ImageNet-resize", "CIFAR-100", "MNIST"))
_cifar100 = partial(_photographs, "CIFAR-100", ("ImageNet-resize", "CIFAR-10"))


def _variants(
    tasks: Callable[[Options], Tasks],
    variants: Mapping[str, Mapping[str, Any]],
    options: Options,
    detectors: Mapping[str, Any] = OURS,
) -> Tasks:
    """Each variant of the settings, on nets that they share wherever they can."""

    def with_detectors(task: Callable[[], Task]) -> Task:
        return replace(task(), detectors=detectors)

    with tempfile.TemporaryDirectory() as memory:
        for variant, changed in variants.items():
            settings = {"memory": memory, **options.settings, **changed}
            for name, task in tasks(replace(options, settings=settings)):
                yield f"{variant}; {name}", partial(with_detectors, task)


def _left_out(
    name: str,
    splits: Sequence[Sequence[int]],
    options: Options,
    from_training: bool = False,
) -> Tasks:
    """Set some classes against the others, on the test images.

    Or, to choose recipes, on the half of the training images that is not trained on.
    """
    data = DATA[name](options.data_home)
    train, test = (data.X_train, data.y_train), (data.X_test, data.y_test)
    classes = np.unique(data.y_train)
    if from_training:
        order = _drawn(len(data.X_train), len(data.X_train), 0)
        X, y = data.X_train[order], data.y_train[order]
        half = len(X) // 2
        train, test = (X[:half], y[:half]), (X[half:], y[half:])

    def task(known: Sequence[int], seed: int) -> Task:
        (X_train, y_train), (X_test, y_test) = (
            (X[order], y[order])
            for X, y in (train, test)
            for order in [_drawn(len(X), len(X), seed)]
        )
        is_train, is_known = (np.isin(y, classes[[*known]]) for y in (y_train, y_test))
        return Task(
            X_train[is_train][: options.n_train],
            y_train[is_train][: options.n_train],
            X_test[is_known][: options.n_test],
            y_test[is_known][: options.n_test],
            {"other classes": X_test[~is_known][: options.n_test]},
            options.settings,
            seed,
        )

    for seed in range(options.seeds):
        for known in splits:
            part = f"known {', '.join(map(str, known))}; seed {seed}"
            yield part, partial(task, known, seed)


def _preset(
    n_train: int, n_test: int, settings: dict[str, Any], seeds: int = 1
) -> dict[str, Any]:
    return {"n_train": n_train, "n_test": n_test, "seeds": seeds, "settings": settings}


# Presets set sizes, nets and epochs. Everything else of a training is left to `fit`.
# Digits take the small net where it is quick, and the paper's for its own setting: of
# six times as many images or more, half as many epochs.
_DIGITS: dict[str, Any] = {"max_epochs": 20}
_ALL_DIGITS: dict[str, Any] = {"backbone": "plain_cnn", "max_epochs": 10}
_FEW_DIGITS = {
    "quick": _preset(3_000, 3_000, _DIGITS),
    "paper": _preset(60_000, 10_000, _ALL_DIGITS),
}
_SHOWN_DIGITS = {
    "quick": _preset(3_000, 1_000, _DIGITS),
    "paper": _preset(60_000, 1_000, _ALL_DIGITS),
}
_MNIST_CPU = _preset(10_000, 3_000, _DIGITS)


def _photograph_presets(
    cpu: dict[str, Any], n_paper: int, backbone: str
) -> dict[str, dict[str, Any]]:
    return {
        "quick": _preset(2_000, 1_000, {"max_epochs": 2}),
        "cpu": cpu,
        "paper": _preset(n_paper, 10_000, {"max_epochs": 100, "backbone": backbone}),
    }


_CIFAR10_CPU = _preset(10_000, 3_000, {"max_epochs": 10})
_TWO_DIMENSIONS = {"latent_dim": 2, "features": ENSEMBLE, "distancing_margin": 32.0}

EXPERIMENTS = {
    "osr-mnist": Experiment(
        "MNIST against Omniglot, noisy digits and noise (the paper's Table 3)",
        _mnist,
        {
            "quick": _preset(10_000, 3_000, _DIGITS, seeds=3),
            "cpu": _preset(10_000, 3_000, _DIGITS, seeds=3),
            "paper": _preset(60_000, 10_000, _ALL_DIGITS),
        },
        paper={"VMDLS": {"Omniglot": 0.974, "MNIST-noise": 0.984, "NOISE": 0.984}},
    ),
    "osr-splits": Experiment(
        "Six known digits against the four others, on the five public splits",
        partial(_left_out, "MNIST", PUBLIC_SPLITS),
        _FEW_DIGITS,
    ),
    "osr-cifar10": Experiment(
        "CIFAR-10 against other photographs, digits and noise (the paper's Table 2)",
        _cifar10,
        _photograph_presets(_CIFAR10_CPU | {"seeds": 3}, 50_000, "resnet18"),
        paper={
            "VMDLS": {"ImageNet-resize": 0.906},
            "VMDLS_b": {"ImageNet-resize": 0.875},
        },
    ),
    "ood-cifar10": Experiment(
        "CIFAR-10 against other photographs, digits and noise, by AUROC and TNR (the "
        "paper's Table 1)",
        _cifar10,
        _photograph_presets(_CIFAR10_CPU | {"seeds": 3}, 50_000, "densenet_bc100"),
    ),
    "all-cifar10": Experiment(
        "CIFAR-10, all 50,000 training images: what two cores can train in 40 minutes",
        _cifar10,
        {
            "quick": _preset(2_000, 1_000, {"max_epochs": 2}),
            "cpu": _preset(50_000, 10_000, {"max_epochs": 25}),
            "paper": _preset(50_000, 10_000, {"max_epochs": 100}),
        },
    ),
    "own-net-cifar10": Experiment(
        "CIFAR-10 on a net of the user's own, by AUROC and TNR",
        partial(_on_own_net, _cifar10),
        {
            "quick": _preset(2_000, 1_000, {"max_epochs": 2}),
            "cpu": _preset(20_000, 3_000, {"max_epochs": 12}, seeds=3),
            "paper": _preset(50_000, 10_000, {"max_epochs": 100}),
        },
    ),
    "defaults-cifar10": Experiment(
        "CIFAR-10, 20,000 images and nothing set, by AUROC and TNR",
        _cifar10,
        {
            "quick": _preset(2_000, 1_000, {"max_epochs": 2}),
            "cpu": _preset(20_000, 3_000, {}, seeds=3),
            "paper": _preset(50_000, 10_000, {}),
        },
    ),
    "ood-cifar100": Experiment(
        "CIFAR-100 against other photographs and noise, by AUROC and TNR (the paper's "
        "Table 1)",
        _cifar100,
        _photograph_presets(
            _preset(10_000, 3_000, {"max_epochs": 10}), 50_000, "densenet_bc100"
        ),
    ),
    "defaults-few-cifar10": Experiment(
        "Five classes of CIFAR-10 with 200 images each and nothing set, against the "
        "other five",
        partial(_left_out, "CIFAR-10", HALVES),
        {
            "quick": _preset(500, 500, {"max_epochs": 2}),
            "cpu": _preset(1_000, 3_000, {}, seeds=2),
            "paper": _preset(25_000, 5_000, {}),
        },
    ),
    "osr-splits-cifar10": Experiment(
        "Six known classes of CIFAR-10 against the four others, on the five public "
        "splits",
        partial(_left_out, "CIFAR-10", CIFAR10_SPLITS),
        _photograph_presets(
            _preset(6_000, 3_000, {"max_epochs": 10}), 30_000, "resnet18"
        ),
    ),
    "osr-tables": Experiment(
        "Tables, a third of their classes left out",
        partial(table_tasks, TABLES),
        {
            "quick": _preset(300, 300, {"max_epochs": 5}),
            "cpu": _preset(5_000, 3_000, {}, seeds=5),
            # The paper has no tables: this one is without bounds.
            "paper": _preset(100_000, 100_000, {}, seeds=5),
        },
        measure=with_table_peers,
        layout="tables",
    ),
    "leave-classes-out": Experiment(
        "Six digits against the four others, on training images, to choose recipes",
        partial(_left_out, "MNIST", TUNING_SPLITS, from_training=True),
        {
            "quick": _preset(3_000, 2_000, {}),
            "paper": _preset(30_000, 10_000, {}, seeds=3),
        },
        measure=alone,
    ),
    "leave-classes-out-cifar10": Experiment(
        "Six classes of CIFAR-10 against the four others, on training images, to "
        "choose recipes",
        partial(_left_out, "CIFAR-10", TUNING_SPLITS, from_training=True),
        _photograph_presets(
            _preset(6_000, 3_000, {"max_epochs": 10}), 15_000, "resnet18"
        ),
    ),
    "choices-cifar10": Experiment(
        "Two choices for photographs: six classes of CIFAR-10 against the four others, "
        "on training images",
        partial(
            _variants,
            partial(_left_out, "CIFAR-10", TUNING_SPLITS, from_training=True),
            PHOTOGRAPH_CHOICES,
        ),
        _photograph_presets(
            _preset(6_000, 3_000, {"max_epochs": 10}), 15_000, "resnet18"
        ),
        measure=alone,
        layout="parts",
    ),
    "leave-classes-out-tables": Experiment(
        "The tables that recipes may be chosen on, a third of their classes left out",
        partial(table_tasks, TUNING_TABLES),
        {
            "quick": _preset(1_000, 1_000, {}, seeds=2),
            "cpu": _preset(5_000, 3_000, {}, seeds=5),
            "paper": _preset(100_000, 100_000, {}, seeds=5),
        },
        measure=with_table_peers,
        layout="tables",
    ),
    "ablation-features": Experiment(
        "Parts of the ensemble under one Gaussian, on one net (as the paper's Table 5)",
        partial(
            _variants,
            _mnist,
            {
                " + ".join(features): PAPER_SETTINGS | {"features": features}
                for features in FEATURE_SUBSETS
            },
        ),
        _FEW_DIGITS,
        measure=alone,
        layout="parts",
    ),
    "ablation-evidence-mnist": Experiment(
        "Parts of the evidence on MNIST, on one net",
        partial(_variants, _mnist, EVIDENCE),
        {**_FEW_DIGITS, "cpu": _MNIST_CPU},
        measure=alone,
        layout="parts",
    ),
    "ablation-evidence-cifar10": Experiment(
        "Parts of the evidence on CIFAR-10, on one net",
        partial(_variants, _cifar10, EVIDENCE),
        _photograph_presets(_CIFAR10_CPU, 50_000, "resnet18"),
        measure=alone,
        layout="parts",
    ),
    "ablation-losses": Experiment(
        "The losses, their margins in brackets, in a latent space of two dimensions "
        "(as the paper's Table 4 and Figure 4)",
        partial(_variants, _mnist, LOSSES, detectors=FOR_ANY_MARGIN),
        {
            name: _preset(n_train, 1_000, digits | _TWO_DIMENSIONS | PAPER_SETTINGS)
            for name, n_train, digits in (
                ("quick", 3_000, _DIGITS),
                ("cpu", 10_000, _DIGITS),
                ("paper", 60_000, _ALL_DIGITS),
            )
        },
        measure=ranked_with_plane,
        draw=draw_points,
        layout="parts",
    ),
    "figure-1": Experiment(
        "Features of a softmax net and our latent space, by t-SNE (as the paper's "
        "Figure 1)",
        _mnist,
        _SHOWN_DIGITS,
        measure=spread_by_tsne,
        draw=draw_points,
    ),
    "figure-3": Experiment(
        "Scores of digits and of Omniglot, without the weight and with it (as the "
        "paper's Figure 3)",
        _mnist,
        _SHOWN_DIGITS,
        measure=scores_by_weight,
        draw=draw_scores,
    ),
}

"""The parameters of both detectors: each declared, documented and constrained once."""

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields
from numbers import Integral, Real
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.sklearn import HasMethods, Interval, Options, StrOptions
from skvmdls._support.values import plain
from skvmdls.nets.backbones import BackboneFactory

__all__ = ["DetectorParameters", "decisive", "parameter", "with_parameters"]

Class = TypeVar("Class", bound=type)

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def parameter(default: Any, *constraints: Any, decides: bool = True) -> Any:
    """Declare a parameter: its default, and what scikit-learn checks it against.

    One that does not decide the nets or the Gaussians may change between fits that
    share a memory or a checkpoint.
    """
    metadata = {"constraints": list(constraints), "decides": decides}
    return field(default=default, metadata=metadata)


def decisive(parameters: Any) -> dict[str, Any]:
    """By name, the parameters of a detector that decide its nets and Gaussians."""
    free = {f.name for f in fields(parameters) if not f.metadata["decides"]}
    values = parameters.get_params(deep=False)
    return {name: value for name, value in values.items() if name not in free}


def with_parameters(cls: Class) -> Class:
    """Give an estimator its ``__init__``, its constraints and its whole docstring.

    The dataclass only writes ``__init__``: what makes a scikit-learn estimator, its
    `repr` and its identity, stays.
    """
    made: Any = dataclass(eq=False, repr=False)(cls)
    made._parameter_constraints = {
        declared.name: declared.metadata["constraints"] for declared in fields(made)
    }
    made.__doc__ = _completed(made)
    return made


def _completed(cls: type) -> str:
    """Put the bases' parameters and attributes before its own, in one docstring."""
    own = _sections(cls)
    merged = {"": own.pop("")}
    for title in ("Parameters", "Attributes"):
        bases = (
            _sections(base) for base in reversed(cls.__mro__[1:]) if _is_ours(base)
        )
        entries = [*(base.get(title, "") for base in bases), own.pop(title, "")]
        merged[title] = "\n".join(filter(None, entries))
    return "\n".join(
        f"{title}\n{'-' * len(title)}\n{text}\n" if title else f"{text}\n"
        for title, text in (merged | own).items()
        if text
    )


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _sections(cls: type) -> dict[str, str]:
    """Sections of a class's docstring by their titles; the summary's is empty."""
    summary, *rest = SECTION.split(inspect.cleandoc(vars(cls).get("__doc__") or ""))
    texts = dict(zip(["", *rest[::2]], [summary, *rest[1::2]], strict=True))
    return {title: text.strip() for title, text in texts.items()}


class Settings(SimpleNamespace):
    """Temporary."""


@with_parameters
class DetectorParameters:
    """What both detectors take.

    Parameters
    ----------
    backbone : str or callable, default="auto"
        The net ``g``: a name in :data:`skvmdls.nets.BACKBONES`, or a factory
        ``factory(input_shape) -> nn.Module`` (see :mod:`skvmdls.nets`). ``"auto"``
        is ``"mlp"`` for tables, ``"photo_cnn"`` for colour images from 32x32 up, and
        ``"cnn"`` for other images.
    latent_dim : int, default=32
        Dimension ``d`` of the latent space.
    triplet_margin : float, default=0.1
        ``M_t``, in squared distance (paper, eq. 2).
    distancing_margin : float, default=None
        ``M_d``, in squared distance: how far apart points of different classes are
        pushed (eq. 3). None is `latent_dim`.
    margin_warmup : float in [0, 1], default=0.5
        Share of the training over which ``M_d`` rises from 0.
    kl_warmup : float in [0, 1], default=0.5
        Share of the epochs before KL is switched on: the classes must begin to separate
        before it pulls each of them together.
    prior_variance : float, default=0.1
        ``s^2`` of the classes' priors in the latent space.
    kl_weight : float, default=0.1
        Weight of the KL loss (eqs. 5-7).
    classification_weight : float, default=1.0
        Weight of the cross-entropy of a classification head on ``g``, trained along. 0:
        no head, the paper's losses alone.
    metric_weight : float, default=1.0
        Weight of triplet + distancing + `kl_weight` x KL; 1: the paper's. Beside a head
        they count less where the margins cannot be met, so that one weight serves
        digits and photographs (see ``skvmdls.training.backbone_share``).
    features : "auto" or sequence of str, default="auto"
        Parts of the evidence: ``"x"`` (the standardised input itself, for tables),
        ``"t1"``, ``"t2"``, ``"t3"`` (the taps of the backbone), ``"g"`` (its output),
        ``"mu"`` (the latent mean) and ``"logit"`` (the head's largest logit).
        ``"auto"`` is all that there are; with ``fusion="early"``, the paper's five.
    fusion : {"late", "early"}, default="late"
        ``"late"``: each part has class Gaussians of its own, its score is standardised
        on held-out known points, and the standardised scores are added (``t1``, ``t2``,
        ``mu`` and the reconstruction's residual by half). ``"early"``: one Gaussian for
        each class over all parts, as in the paper.
    normalize : "auto" or bool, default="auto"
        Whether each part is L2-normalised, with the logarithm of its length as one more
        column. ``"auto"``: with late fusion on images.
    average_flips : bool, default=False
        Whether each image is looked at twice, as it is and mirrored left to right, and
        the parts are averaged: for photographs, where a mirrored one is of the same
        class. It makes a better classifier, at twice the time of scoring.
    covariance_type : {"full", "tied", "diag"}, default="full"
        A covariance for each class, one for all, or variances only.
    covariance_estimator : estimator, default=None
        Any estimator of :mod:`sklearn.covariance`; None is Ledoit-Wolf shrinkage.
    covariance_pooling : float in [0, 1], default=0.05
        Share that the covariance pooled over all classes has in that of each class
        (regularised discriminant analysis, Friedman 1989). 0 leaves each class its own,
        as in the paper; ``"tied"`` does not use it, since there it is all.
    contamination : float in [0, 0.5], default=0.05
        Share of new known points that may be rejected; sets the threshold. May be
        changed on a fitted detector, with `set_params`.
    threshold : float, default=None
        Threshold on ``score_samples``; overrides `contamination`. May be changed on a
        fitted detector.
    guarantee : {"marginal", "class"}, default="marginal"
        Whom `contamination` is promised to. ``"marginal"``: over all known points
        together. ``"class"``: for each class on its own, from its own held-out points,
        of which it needs ``1 / contamination - 1`` (label-conditional conformal
        prediction); `predict` then answers the class of the largest of `p_values` that
        is not excluded. May be changed on a fitted detector; a `threshold` overrides
        it.
    calibration_fraction : float in (0, 0.5], default=0.1
        Share of the training data, stratified, that is held out to set the threshold.
    classes_per_batch : int, default=None
        ``B_C``, at least 2. None is all classes, or as many as go into a batch of 160
        points.
    samples_per_class : int, default=None
        ``B_N``, at least 2. None is 16, or, with more than ten classes in a batch, as
        many as go into 160 points.
    max_epochs : "auto" or int, default="auto"
        Epochs of training the net; each visits about as many points as there are.
        ``"auto"`` is 20; for tables of few rows up to 60, enough for 2,000 steps.
    optimizer : {"adamw", "muon"}, default="adamw"
        ``"muon"`` learns the backbone's convolutions and linear layers, the first
        aside, by orthogonalised steps of the same size, and all else as ``"adamw"``
        does; it makes a better classifier of photographs in the same epochs. The
        autoencoder always takes AdamW.
    learning_rate : float, default=0.001
        Peak of the one-cycle schedule.
    weight_decay : float, default=0.01
        Decoupled, as in AdamW.
    augmentation : str or callable, default=None
        ``"affine"`` or ``"crop_flip"`` for images, or a function from a standardised
        batch (a tensor) to one of the same shape.
    freeze_epochs : int, default=0
        Epochs at the start in which only ``mu`` and ``sigma`` train, for a backbone
        that comes with trained weights.
    batch_size : int, default=256
        Rows that are scored at a time.
    num_workers : int, default=0
        Processes that read the rows of a dataset given as X, as of torch's
        ``DataLoader``; 0 reads them in this one. Arrays need none. No answer depends on
        it.
    device : str or torch.device, default="auto"
        ``"auto"`` picks CUDA, MPS or the CPU, whatever is there.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        What the net trains in. ``"auto"`` is bfloat16 where the hardware has
        instructions for it. The autoencoder's training and scoring do not use bfloat16.
    memory : path or joblib.Memory, default=None
        Keeps trained nets and Gaussians on disk under all that went into them, so that
        fits that differ only in what follows training (`features`, `fusion`,
        `normalize`, `average_flips`, `covariance_type`, `covariance_estimator`,
        `covariance_pooling`, `weighting`, `contamination`, `threshold`, `guarantee`)
        train once. Like every
        pickle, load only from a folder that you trust.
    checkpoint : path, default=None
        A file that holds the state of the training after every epoch. A `fit` that was
        interrupted or killed, started again with the same data and parameters, goes on
        from there and ends where it would have ended. Delete the file to start anew.
    verbose : int, default=0
        1 shows progress bars.
    random_state : int, RandomState or None, default=None
        With an int, training repeats itself bit for bit on one CPU.
    """

    backbone: str | BackboneFactory = parameter("auto", str, callable)
    _: KW_ONLY
    latent_dim: int = parameter(32, Interval(Integral, 1, None, closed="left"))
    triplet_margin: float = parameter(0.1, Interval(Real, 0, None, closed="left"))
    distancing_margin: float | None = parameter(
        None, Interval(Real, 0, None, closed="left"), None
    )
    margin_warmup: float = parameter(0.5, Interval(Real, 0, 1, closed="both"))
    kl_warmup: float = parameter(0.5, Interval(Real, 0, 1, closed="both"))
    prior_variance: float = parameter(0.1, Interval(Real, 0, None, closed="neither"))
    kl_weight: float = parameter(0.1, Interval(Real, 0, None, closed="left"))
    classification_weight: float = parameter(
        1.0, Interval(Real, 0, None, closed="left")
    )
    metric_weight: float = parameter(1.0, Interval(Real, 0, None, closed="left"))
    features: str | tuple[str, ...] = parameter("auto", str, "array-like")
    fusion: str = parameter("late", StrOptions({"late", "early"}))
    normalize: bool | str = parameter("auto", StrOptions({"auto"}), "boolean")
    average_flips: bool = parameter(False, "boolean")
    covariance_type: str = parameter("full", StrOptions({"full", "tied", "diag"}))
    covariance_estimator: Any = parameter(None, HasMethods("fit"), None)
    covariance_pooling: float = parameter(0.05, Interval(Real, 0, 1, closed="both"))
    contamination: float = parameter(
        0.05, Interval(Real, 0, 0.5, closed="right"), Options(Real, {0}), decides=False
    )
    threshold: float | None = parameter(
        None, Interval(Real, None, None, closed="neither"), None, decides=False
    )
    guarantee: str = parameter(
        "marginal", StrOptions({"marginal", "class"}), decides=False
    )
    calibration_fraction: float = parameter(0.1, Interval(Real, 0, 0.5, closed="right"))
    classes_per_batch: int | None = parameter(
        None, Interval(Integral, 2, None, closed="left"), None
    )
    samples_per_class: int | None = parameter(
        None, Interval(Integral, 2, None, closed="left"), None
    )
    max_epochs: int | str = parameter(
        "auto", Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})
    )
    optimizer: str = parameter("adamw", StrOptions({"adamw", "muon"}))
    learning_rate: float = parameter(1e-3, Interval(Real, 0, None, closed="neither"))
    weight_decay: float = parameter(1e-2, Interval(Real, 0, None, closed="left"))
    augmentation: str | Callable[[Tensor], Tensor] | None = parameter(
        None, str, callable, None
    )
    freeze_epochs: int = parameter(0, Interval(Integral, 0, None, closed="left"))
    batch_size: int = parameter(256, Interval(Integral, 1, None, closed="left"))
    num_workers: int = parameter(
        0, Interval(Integral, 0, None, closed="left"), decides=False
    )
    device: str | torch.device = parameter("auto", str, torch.device)
    precision: str = parameter("auto", StrOptions({"auto", "float32", "bfloat16"}))
    memory: Any = parameter(
        None, str, os.PathLike, HasMethods("cache"), None, decides=False
    )
    checkpoint: str | os.PathLike[str] | None = parameter(
        None, str, os.PathLike, None, decides=False
    )
    verbose: int = parameter(0, "verbose", decides=False)
    random_state: int | np.random.RandomState | None = parameter(None, "random_state")

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def resolved(self):
        values = {n: plain(v) for n, v in self.get_params(deep=False).items()}
        return Settings(
            **(
                {"autoencoder": None, "autoencoder_epochs": 0, "weighting": "evidence"}
                | values
            )
        )

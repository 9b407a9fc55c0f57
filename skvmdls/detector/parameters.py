"""Parameters of the detectors: type, default, constraints and text, declared once."""

import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import (
    KW_ONLY,
    Field,
    FrozenInstanceError,
    dataclass,
    field,
    fields,
)
from numbers import Integral, Real
from types import UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
)

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.sklearn import HasMethods, Interval, Options, StrOptions
from skvmdls._support.values import plain
from skvmdls.nets.backbones import BackboneFactory

__all__ = [
    "AutoencoderParameters",
    "DetectorParameters",
    "Settings",
    "asks_for_net",
    "changeable",
    "decisive",
    "parameter",
    "with_parameters",
]

Class = TypeVar("Class", bound=type)

# Parameters that decide the nets, and parts without a net as well.
OF_ANY_EVIDENCE = (
    "batch_size",
    "calibration",
    "calibration_fraction",
    "device",
    "precision",
    "random_state",
)

SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)

# scikit-learn's constraints, as docstrings name them.
KINDS = {
    None: "None",
    str: "str",
    callable: "callable",
    os.PathLike: "path-like",
    torch.device: "torch.device",
    "array-like": "sequence of str",
    Mapping: "mapping of str to float",
    "boolean": "bool",
    "verbose": "int",
    "random_state": "int, RandomState",
}


def parameter(
    *constraints: Any,
    default: Any,
    text: str,
    decides: Literal["nets", "gaussians", "neither"] = "nets",
) -> Any:
    """Declare a parameter of an estimator.

    Parameters
    ----------
    *constraints : object
        scikit-learn's constraints on the value. Those that follow from the annotation,
        which are None and the words of a ``Literal``, are added.
    default : object
        Its default.
    text : str
        Its entry in the class docstring: one paragraph. ``$after_nets`` and
        ``$after_gaussians`` stand for the names that :func:`changeable` returns.
    decides : {"nets", "gaussians", "neither"}, default="nets"
        Which part of a fit depends on it first. Gaussians depend on the nets.

    Returns
    -------
    field : dataclasses.Field
    """
    metadata = {"constraints": constraints, "text": text, "decides": decides}
    return field(default=default, metadata=metadata)


def changeable(parameters: Any, *, after: Literal["nets", "gaussians"]) -> list[str]:
    """Name the parameters that may change and leave the nets, or Gaussians, as is.

    Examples
    --------
    >>> changeable(AutoencoderParameters, after="nets")
    ['weighting']
    """
    free = {"nets": ("gaussians", "neither"), "gaussians": ("neither",)}[after]
    return [f.name for f in fields(parameters) if f.metadata["decides"] in free]


def asks_for_net(settings: "Settings") -> bool:
    """Whether a parameter of the net, or of its training, is not at its default.

    Examples
    --------
    >>> asks_for_net(Settings()), asks_for_net(Settings(max_epochs=3))
    (False, True)
    """
    if settings.fusion == "early" or settings.weighting == "paper":
        return True
    if settings.autoencoder not in ("auto", None):
        return True
    if settings.augmentation not in ("auto", None):
        return True
    return any(
        getattr(settings, declared.name) != declared.default
        for declared in fields(settings)
        if declared.metadata["decides"] == "nets"
        and declared.name not in ("autoencoder", "augmentation", *OF_ANY_EVIDENCE)
    )


def decisive(parameters: Any) -> dict[str, Any]:
    """By name, the parameters of a detector that decide its nets and Gaussians."""
    free = changeable(parameters, after="gaussians")
    values = parameters.get_params(deep=False)
    return {name: value for name, value in values.items() if name not in free}


@dataclass_transform(
    eq_default=False, kw_only_default=False, field_specifiers=(parameter,)
)
def with_parameters(cls: Class) -> Class:
    """Give an estimator its ``__init__``, its constraints and its whole docstring.

    The dataclass only writes ``__init__``: what makes a scikit-learn estimator, its
    `repr` and its identity, stays.
    """
    made: Any = dataclass(eq=False, repr=False)(cls)
    made._parameter_constraints = {
        declared.name: _constraints(declared) for declared in fields(made)
    }
    made.__doc__ = _docstring(made)
    return made


def _constraints(declared: Field[Any]) -> list[Any]:
    constraints = [*declared.metadata["constraints"]]
    for alternative in _alternatives(declared.type):
        if get_origin(alternative) is Literal:
            constraints.append(StrOptions(set(get_args(alternative))))
        elif alternative is type(None):
            constraints.append(None)
    return constraints


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Split a union into its types."""
    is_union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if is_union else (annotation,)


def _docstring(cls: type) -> str:
    """Write "Parameters" from the fields, and merge "Attributes" with the bases'."""
    own = _sections(cls)
    bases = [_sections(base) for base in reversed(cls.__mro__[1:]) if _is_ours(base)]
    attributes = [sections.get("Attributes", "") for sections in [*bases, own]]
    first = {
        "": own[""],
        "Parameters": "\n".join(_entries(cls)),
        "Attributes": "\n".join(filter(None, attributes)),
    }
    return "\n".join(
        f"{title}\n{'-' * len(title)}\n{text}\n" if title else f"{text}\n"
        for title, text in (first | own | first).items()
        if text
    )


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == __name__.partition(".")[0]


def _sections(cls: type) -> dict[str, str]:
    """Sections of a class's docstring by their titles; the summary's is empty."""
    summary, *rest = SECTION.split(inspect.cleandoc(vars(cls).get("__doc__") or ""))
    texts = dict(zip(["", *rest[::2]], [summary, *rest[1::2]], strict=True))
    return {title: text.strip() for title, text in texts.items()}


def _entries(cls: Any) -> Iterator[str]:
    names = {
        f"$after_{part}": _listed([f"`{name}`" for name in changeable(cls, after=part)])
        for part in ("nets", "gaussians")
    }
    for declared in fields(cls):
        text = " ".join(declared.metadata["text"].split())
        for place, listed in names.items():
            text = text.replace(place, listed)
        default = declared.default
        stated = json.dumps(default) if isinstance(default, str) else repr(default)
        yield f"{declared.name} : {_kind(declared)}, default={stated}"
        yield textwrap.indent(
            textwrap.fill(text, 80, break_long_words=False, break_on_hyphens=False),
            " " * 4,
        )


def _kind(declared: Field[Any]) -> str:
    """Name the values that a parameter takes, as scikit-learn's docstrings do."""
    kinds = [_kind_of(constraint) for constraint in declared.metadata["constraints"]]
    # The words come from the annotation: it keeps their order, StrOptions does not.
    for alternative in _alternatives(declared.type):
        if get_origin(alternative) is Literal:
            words = [json.dumps(word) for word in get_args(alternative)]
            kinds.append(words[0] if len(words) == 1 else f"{{{', '.join(words)}}}")
        elif alternative is type(None):
            kinds.append("None")
    return _listed(kinds, "or")


def _listed(words: Sequence[str], conjunction: str = "and") -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def _kind_of(constraint: Any) -> str:
    if isinstance(constraint, HasMethods):
        return f"object with a method {constraint.methods[0]!r}"
    if isinstance(constraint, Options):
        return ", ".join(map(repr, constraint.options))
    if not isinstance(constraint, Interval):
        return KINDS[constraint]
    low, high = constraint.left, constraint.right
    number = "int" if constraint.type is Integral else "float"
    includes_low = constraint.closed in ("left", "both")
    if high is not None:
        closing = "]" if constraint.closed in ("right", "both") else ")"
        return f"{number} in {'[' if includes_low else '('}{low}, {high}{closing}"
    return number if low is None else f"{number} {'>=' if includes_low else '>'} {low}"


@with_parameters
class DetectorParameters:
    """Parameters of both detectors."""

    backbone: str | BackboneFactory = parameter(
        str,
        callable,
        default="auto",
        text="""The net ``g``: a name in :data:`skvmdls.nets.BACKBONES`, or a factory
        ``factory(input_shape) -> nn.Module`` (see :mod:`skvmdls.nets`). ``"auto"`` is
        ``"mlp"`` for tables, ``"photo_cnn"`` for colour images of 32x32 pixels and
        more, and ``"cnn"`` for other images.""",
    )
    _: KW_ONLY
    contamination: float = parameter(
        # scikit-learn's checks of outlier detectors ask for an interval without 0.
        Interval(Real, 0, 0.5, closed="right"),
        Options(Real, {0}),
        default=0.05,
        text="""Share of new known points that may be rejected. It sets the threshold.
        You can change it on a fitted detector with `set_params`.""",
        decides="neither",
    )
    confidence: float | None = parameter(
        Interval(Real, 0, 1, closed="neither"),
        default=None,
        text="""With a number, for example 0.9, the threshold holds for this detector:
        with that probability over the held-out points, it rejects at most
        `contamination` of new known points. With None it holds on average over
        trainings. You can change it on a fitted detector.""",
        decides="neither",
    )
    unknown_prior: float | None = parameter(
        Interval(Real, 0, 1, closed="neither"),
        default=None,
        text="""Share of unknown points that you expect where you use the detector.
        With it, `predict_proba` has a last column for "unknown". You can change it on a
        fitted detector.""",
        decides="neither",
    )
    threshold: float | None = parameter(
        Interval(Real, None, None, closed="neither"),
        default=None,
        text="""Threshold on ``score_samples``, used instead of `contamination`. You can
        change it on a fitted detector.""",
        decides="neither",
    )
    guarantee: Literal["marginal", "class"] = parameter(
        default="marginal",
        text="""Points for which `contamination` is guaranteed. ``"marginal"``: all
        known points together. ``"class"``: each class, from its own held-out points, of
        which at least ``1 / contamination - 1`` are needed (label-conditional conformal
        prediction). `predict` then returns the class with the largest of `p_values`
        among those that are not rejected. You can change it on a fitted detector. A
        `threshold` overrides it.""",
        decides="neither",
    )
    calibration: Literal["auto", "split", "cross"] = parameter(
        default="auto",
        text="""
        Which points set the threshold. ``"split"``: a part of the rows is held out.
        ``"cross"``: every row is scored by a fit without it (cross-conformal
        prediction), and the final detector is fitted to all rows. With a net it takes
        six trainings instead of one. ``"auto"`` is ``"cross"`` up to 2,000 rows of a
        table or 5,000 vectors, if no part of the net is used, and for up to 1,000
        images of 200,000 numbers in all if the net is ``"cnn"``. A
        `calibration_fraction` makes it ``"split"``.
        """,
    )
    calibration_fraction: float | Literal["auto"] = parameter(
        Interval(Real, 0, 0.5, closed="right"),
        default="auto",
        text="""
        Share of the training data that is held out, stratified by class, to set the
        threshold. ``"auto"`` is a tenth, and of more than 12,500 rows 1,250 of them,
        or more where a class has its own guarantee or `contamination` is small.
        """,
    )
    latent_dim: int = parameter(
        Interval(Integral, 1, None, closed="left"),
        default=32,
        text="Dimension ``d`` of the latent space.",
    )
    triplet_margin: float = parameter(
        Interval(Real, 0, None, closed="left"),
        default=0.1,
        text="Margin ``M_t`` of the triplet loss, a squared distance (paper, eq. 2).",
    )
    distancing_margin: float | None = parameter(
        Interval(Real, 0, None, closed="left"),
        default=None,
        text="""Margin ``M_d`` of the distancing loss, a squared distance (paper, eq.
        3). The loss pushes points of different classes this far apart. None is
        `latent_dim`.""",
    )
    margin_warmup: float = parameter(
        Interval(Real, 0, 1, closed="both"),
        default=0.5,
        text="Share of the training over which ``M_d`` rises from 0 to its value.",
    )
    kl_warmup: float = parameter(
        Interval(Real, 0, 1, closed="both"),
        default=0.5,
        text="""Share of the epochs that train without the KL loss. The classes must
        begin to separate before the loss pulls each of them together.""",
    )
    prior_variance: float = parameter(
        Interval(Real, 0, None, closed="neither"),
        default=0.1,
        text="Variance ``s^2`` of the priors of the classes in the latent space.",
    )
    kl_weight: float = parameter(
        Interval(Real, 0, None, closed="left"),
        default=0.1,
        text="Weight of the KL loss (paper, eqs. 5-7).",
    )
    classification_weight: float = parameter(
        Interval(Real, 0, None, closed="left"),
        default=1.0,
        text="""Weight of the cross-entropy of a classification head on ``g``. With 0
        the net has no head, and the losses are those of the paper.""",
    )
    metric_weight: float = parameter(
        Interval(Real, 0, None, closed="left"),
        default=1.0,
        text="""Weight of the paper's loss, which is triplet + distancing + `kl_weight`
        x KL. With a head its gradient in the backbone is scaled down where the margins
        cannot be met, so that the same weight suits digits and photographs (see
        ``skvmdls.training.backbone_share``).""",
    )
    features: str | Sequence[str] = parameter(
        str,
        "array-like",
        default="auto",
        text="""
        Parts of the evidence. Of the net: ``"t1"``, ``"t2"``, ``"t3"`` (outputs of
        three stages of the backbone), ``"g"`` (its output), ``"mu"`` (the latent mean)
        and ``"logit"`` (the largest logit of the head). For images with late fusion
        also ``"texture"`` (colours, contrasts and flatness) and ``"boundary"`` (the
        mean distance to the boundaries between classes). For tables also ``"x"``,
        the standardised input, and parts that need no net (see :mod:`skvmdls.direct`):
        ``"shared"``, ``"relative"``, ``"separate"``, ``"neighbours"``, ``"prototype"``,
        ``"linear"`` and ``"trees"``. ``"auto"`` is all parts of the net and
        ``"texture"`` for images. For vectors, and for tables of up to 2,000 rows, it is
        parts without a net, and no net is trained unless a parameter of the net is
        given. For larger tables it is both. With ``fusion="early"`` it is the five
        parts of the paper.
        """,
        decides="gaussians",
    )
    part_weights: Literal["auto", "learned", "fixed"] | Mapping[str, float] = parameter(
        Mapping,
        default="auto",
        text="""
        How much each part counts. ``"learned"``: the weights of the parts without a
        net are learned in `fit`, by leaving known classes out. ``"fixed"``: documented
        constants. Or a mapping from parts to weights; a part that it leaves out keeps
        its constant. ``"auto"`` is ``"learned"``, which costs little. The weights are
        in ``evidence_.weights``, and what they were learned from in
        ``evidence_.trials``.
        """,
        decides="gaussians",
    )
    fusion: Literal["late", "early"] = parameter(
        default="late",
        text="""How the parts are combined. ``"late"``: each part has its own class
        Gaussians. Its score is standardised on held-out known points, and the
        standardised scores are summed. ``t1``, ``t2``, ``mu`` and the residual have
        weight 0.5. ``"early"``: each class has one Gaussian over all parts, as in the
        paper.""",
        decides="gaussians",
    )
    normalize: bool | Literal["auto"] = parameter(
        "boolean",
        default="auto",
        text="""Whether each part is L2-normalised, with the logarithm of its length as
        an additional column. ``"auto"`` normalises images with late fusion.""",
        decides="gaussians",
    )
    average_flips: bool = parameter(
        "boolean",
        default=False,
        text="""Whether the parts of an image are averaged over the image and its mirror
        image (left to right). It makes photographs classified better and doubles the
        time of scoring. Use it where a mirrored image has the same class.""",
        decides="gaussians",
    )
    covariance_type: Literal["auto", "full", "tied", "diag"] = parameter(
        default="auto",
        text="""Covariances of the Gaussians of ``"x"`` and the parts of the net,
        estimated by Ledoit-Wolf shrinkage: one for each class, one for all classes, or
        variances only. ``"auto"`` decides for each part: ``"full"`` if the median class
        has a row for every four columns, else ``"tied"``, and ``"diag"`` for more than
        4,096 columns.""",
        decides="gaussians",
    )
    covariance_pooling: float = parameter(
        Interval(Real, 0, 1, closed="both"),
        default=0.05,
        text="""Weight of the pooled covariance of all classes in the covariance of each
        class (regularised discriminant analysis, Friedman 1989). With 0 each class has
        its own covariance, as in the paper. With ``covariance_type="tied"`` it has no
        effect.""",
        decides="gaussians",
    )
    classes_per_batch: int | None = parameter(
        Interval(Integral, 2, None, closed="left"),
        default=None,
        text="""Number of classes in a batch, ``B_C``. None is all classes, or as many
        as fit in a batch of 160 points.""",
    )
    samples_per_class: int | None = parameter(
        Interval(Integral, 2, None, closed="left"),
        default=None,
        text="""Number of points of each class in a batch, ``B_N``. None is 16. With
        more than ten classes in a batch, it is as many as fit in 160 points.""",
    )
    max_epochs: int | Literal["auto"] = parameter(
        Interval(Integral, 1, None, closed="left"),
        default="auto",
        text="""Number of epochs of the net. An epoch visits about as many points as
        there are. ``"auto"`` is 12 for 20,000 images, and more for fewer, up to 24, or
        48 if the net is ``"photo_cnn"``. It is 20 for nets that were
        trained before, and 20 to 60 for tables, enough for 2,000 steps.""",
    )
    optimizer: Literal["auto", "adamw", "muon"] = parameter(
        default="auto",
        text="""Optimizer of the net. ``"muon"`` updates the convolutions and linear
        layers of the backbone, except the first, by orthogonalised steps, and all other
        weights as ``"adamw"`` does. ``"auto"`` is ``"muon"`` for images, and
        ``"adamw"`` for tables, for nets that were trained before, and for nets without
        a head. The autoencoder is always trained by AdamW. ``training_choices_`` shows
        what was chosen.""",
    )
    learning_rate: float | Literal["auto"] = parameter(
        Interval(Real, 0, None, closed="neither"),
        default="auto",
        text="""Peak of the one-cycle schedule. ``"auto"`` is 0.001 with AdamW and
        0.004 with Muon, or 0.016 if the net is ``"photo_cnn"``.""",
    )
    weight_decay: float | Literal["auto"] = parameter(
        Interval(Real, 0, None, closed="left"),
        default="auto",
        text="""Decoupled weight decay, as in AdamW. ``"auto"`` is 0.01 with AdamW and
        0.3 with Muon.""",
    )
    augmentation: str | Callable[[Tensor], Tensor] | None = parameter(
        str,
        callable,
        default="auto",
        text="""Augmentation of the training data. For images: ``"crop_flip"`` shifts
        and mirrors them, ``"affine"`` turns, rescales and shifts them a little. Or a
        function from a standardised batch (a tensor) to one of the same shape. None is
        no augmentation. ``"auto"`` is None for tables. For images, a small net is
        trained without mirroring: if it classifies mirrored training images as well as
        others, ``"crop_flip"`` is chosen, else ``"affine"``.""",
    )
    freeze_epochs: int = parameter(
        Interval(Integral, 0, None, closed="left"),
        default=0,
        text="""Number of epochs at the start that train only ``mu`` and ``sigma``. Use
        it for backbones with pretrained weights.""",
    )
    batch_size: int = parameter(
        Interval(Integral, 1, None, closed="left"),
        default=256,
        text="Number of rows that are scored at a time.",
        decides="neither",
    )
    num_workers: int = parameter(
        Interval(Integral, 0, None, closed="left"),
        default=0,
        text="""Number of processes that read the rows if X is a dataset, as in torch's
        ``DataLoader``. With 0 the current process reads them. Results do not depend on
        it.""",
        decides="neither",
    )
    device: str | torch.device = parameter(
        str,
        torch.device,
        default="auto",
        text="""Device to train and score on. ``"auto"`` is CUDA or MPS if there is one,
        else the CPU.""",
    )
    precision: Literal["auto", "float32", "bfloat16"] = parameter(
        default="auto",
        text="""Precision in which the net is trained. ``"auto"`` is bfloat16 if the
        hardware has instructions for it. The autoencoder is trained, and points are
        scored, in float32.""",
    )
    memory: Any = parameter(
        str,
        os.PathLike,
        HasMethods("cache"),
        None,
        default=None,
        text="""Folder (or ``joblib.Memory``) that caches trained nets and Gaussians.
        Fits that differ only in $after_nets train the nets once. The cache holds
        pickles, so use only a folder that you trust.""",
        decides="neither",
    )
    checkpoint: str | os.PathLike[str] | None = parameter(
        str,
        os.PathLike,
        default=None,
        text="""File that stores the state of the training after every epoch. If a `fit`
        was interrupted or killed, call it again with the same data and parameters: it
        resumes from the file and ends with the same result. Only $after_gaussians may
        differ. Delete the file to train from the start.""",
        decides="neither",
    )
    verbose: int = parameter(
        "verbose",
        default=0,
        text="""With 1 `fit` prints what it chose, and shows progress bars where a net
        is trained.""",
        decides="neither",
    )
    random_state: int | np.random.RandomState | None = parameter(
        "random_state",
        default=None,
        text="""Seed of the training. With an int, training gives the same result to the
        bit each time on one CPU.""",
    )

    _parameter_constraints: ClassVar[dict[str, list[Any]]]

    def resolved(self) -> "Settings":
        """Copy the parameters, with numpy's scalars as Python's own.

        Returns
        -------
        settings : Settings
            Attributes have the names of the parameters and cannot be changed.
        """
        return Settings(**{f.name: plain(getattr(self, f.name)) for f in fields(self)})


@with_parameters
class AutoencoderParameters:
    """Parameters of a detector with an autoencoder."""

    _: KW_ONLY
    autoencoder: str | BackboneFactory = parameter(
        str,
        callable,
        default="auto",
        text="""A name in :mod:`skvmdls.nets.autoencoder`, or a factory
        ``factory(input_shape) -> nn.Module`` of a net whose output has the shape of its
        input. ``"auto"`` is ``"mlp"`` for tables and ``"cnn"`` for images.""",
    )
    autoencoder_epochs: int = parameter(
        Interval(Integral, 1, None, closed="left"),
        default=5,
        text="""Number of epochs of the autoencoder. After too many, it reconstructs
        unknown points as well as known ones.""",
    )
    weighting: Literal["evidence", "paper"] = parameter(
        default="evidence",
        text="""How the reconstruction enters the score. ``"evidence"``: the residual at
        the first tap is one more part of the evidence. ``"paper"``: the weight is
        multiplied with the log-likelihood, after a shift and a scale set by held-out
        data (see :class:`skvmdls.calibration.WeightCalibration`).""",
        decides="gaussians",
    )


@with_parameters
class Settings(AutoencoderParameters, DetectorParameters):
    """Plain copy of a detector's parameters that cannot be changed.

    ``autoencoder`` is None for a detector without one.

    Examples
    --------
    >>> DetectorParameters(latent_dim=np.int64(2)).resolved().latent_dim
    2
    """

    _: KW_ONLY
    autoencoder: str | BackboneFactory | None = parameter(  # type: ignore[assignment]
        str, callable, default=None, text="See :class:`AutoencoderParameters`."
    )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in vars(self):
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

"""Settings of one training, resolved from the parameters of a detector."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor

from skvmdls._support.devices import resolve_precision
from skvmdls.training.augmentation import resolve_augmentation

__all__ = [
    "AutoencoderPlan",
    "NetworkPlan",
    "Plan",
    "autoencoder_plan",
    "network_plan",
    "usual_epochs",
]

FEWEST_EPOCHS, MOST_EPOCHS = 20, 60
TABLE_STEPS = 2000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a net is trained: a detector's parameters by their names, resolved."""

    epochs: int
    learning_rate: float
    weight_decay: float
    # What is shown does not make it another plan.
    verbose: int = field(compare=False)

    @classmethod
    def of(cls, parameters: Any, **resolved: Any) -> Self:
        """Take parameters by the fields' names, but for what is resolved here."""
        names = {declared.name for declared in fields(cls)} - set(resolved)
        return cls(**{name: getattr(parameters, name) for name in names}, **resolved)


@dataclass(frozen=True, kw_only=True)
class NetworkPlan(Plan):
    """How the network is trained: a :class:`Plan`, and what its losses need."""

    augmentation: Callable[[Tensor], Tensor] | None
    dtype: torch.dtype
    optimizer: str
    classes_per_batch: int
    samples_per_class: int
    triplet_margin: float
    distancing_margin: float
    margin_warmup: float
    prior_variance: float
    kl_weight: float
    kl_warmup: float
    classification_weight: float
    metric_weight: float
    freeze_epochs: int


@dataclass(frozen=True, kw_only=True)
class AutoencoderPlan(Plan):
    """How the autoencoder is trained: in float32, on the points as they are."""

    batch_size: int


def usual_epochs(n_batches: int, is_table: bool) -> int:
    """Epochs that a training takes if nothing else is asked for.

    Tables of few rows need more of them: :data:`TABLE_STEPS` steps, within bounds.

    Examples
    --------
    >>> usual_epochs(5, is_table=True), usual_epochs(5, is_table=False)
    (60, 20)
    """
    if not is_table:
        return FEWEST_EPOCHS
    return min(max(FEWEST_EPOCHS, math.ceil(TABLE_STEPS / n_batches)), MOST_EPOCHS)


# Points of a batch of many classes; one of few classes has MOST_SAMPLES of each.
USUAL_BATCH, MOST_SAMPLES = 160, 16


def network_plan(detector: Any, n_rows: int, device: torch.device) -> NetworkPlan:
    """How a detector that knows its inputs and classes trains its network on rows."""
    margin = detector.distancing_margin
    classes_per_batch, samples_per_class = _batch_of(detector)
    n_batches = max(1, round(n_rows / classes_per_batch / samples_per_class))
    is_table = len(detector.input_shape_) == 1
    epochs = detector.max_epochs
    return NetworkPlan.of(
        detector,
        epochs=usual_epochs(n_batches, is_table) if epochs == "auto" else int(epochs),
        augmentation=resolve_augmentation(detector.augmentation, detector.input_shape_),
        dtype=resolve_precision(detector.precision, device),
        classes_per_batch=classes_per_batch,
        samples_per_class=samples_per_class,
        distancing_margin=detector.latent_dim if margin is None else margin,
    )


def _batch_of(detector: Any) -> tuple[int, int]:
    """How many classes a batch holds, and how many points of each.

    A head learns badly from batches that leave most classes out, and so do batch norms.
    """
    samples = detector.samples_per_class
    most_classes = max(2, USUAL_BATCH // (samples or 2))
    classes = min(len(detector.classes_), detector.classes_per_batch or most_classes)
    return classes, samples or min(MOST_SAMPLES, max(2, USUAL_BATCH // classes))


def autoencoder_plan(detector: Any) -> AutoencoderPlan:
    """How a detector trains its autoencoder."""
    return AutoencoderPlan.of(
        detector, epochs=detector.autoencoder_epochs, batch_size=128
    )

"""Settings of one training, resolved from the parameters of a detector."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from skvmdls._support.devices import resolve_precision
from skvmdls.training.augmentation import resolve_augmentation
from skvmdls.training.choices import STEPS, TrainingChoices

__all__ = [
    "AutoencoderPlan",
    "NetworkPlan",
    "Plan",
    "TrainingSettings",
    "autoencoder_plan",
    "batches_per_epoch",
    "network_plan",
]

# Points of a batch of many classes; one of few classes has MOST_SAMPLES of each.
USUAL_BATCH, MOST_SAMPLES = 160, 16
AUTOENCODER_BATCH = 128


class TrainingSettings(Protocol):
    """The parameters of a detector that decide a training, as plain values."""

    latent_dim: int
    triplet_margin: float
    distancing_margin: float | None
    margin_warmup: float
    kl_warmup: float
    prior_variance: float
    kl_weight: float
    classification_weight: float
    metric_weight: float
    classes_per_batch: int | None
    samples_per_class: int | None
    learning_rate: float | Literal["auto"]
    weight_decay: float | Literal["auto"]
    freeze_epochs: int
    precision: Literal["auto", "float32", "bfloat16"]
    verbose: int
    autoencoder_epochs: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a net is trained: the parameters of a detector by their names, resolved."""

    epochs: int
    learning_rate: float
    weight_decay: float
    # The progress bar does not make it another plan.
    verbose: int = field(compare=False)


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


def batches_per_epoch(settings: TrainingSettings, n_rows: int, n_classes: int) -> int:
    """Count the batches of an epoch, which visits about as many rows as there are."""
    classes_per_batch, samples_per_class = _batch_of(settings, n_classes)
    return max(1, round(n_rows / classes_per_batch / samples_per_class))


def network_plan(
    settings: TrainingSettings,
    choices: TrainingChoices,
    input_shape: tuple[int, ...],
    n_classes: int,
    device: torch.device,
) -> NetworkPlan:
    """Plan the training of the network on inputs of so many classes."""
    margin = settings.distancing_margin
    classes_per_batch, samples_per_class = _batch_of(settings, n_classes)
    return NetworkPlan(
        epochs=choices.max_epochs,
        learning_rate=choices.learning_rate,
        weight_decay=choices.weight_decay,
        verbose=settings.verbose,
        augmentation=resolve_augmentation(choices.augmentation, input_shape),
        dtype=resolve_precision(settings.precision, device),
        optimizer=choices.optimizer,
        classes_per_batch=classes_per_batch,
        samples_per_class=samples_per_class,
        triplet_margin=settings.triplet_margin,
        distancing_margin=settings.latent_dim if margin is None else margin,
        margin_warmup=settings.margin_warmup,
        prior_variance=settings.prior_variance,
        kl_weight=settings.kl_weight,
        kl_warmup=settings.kl_warmup,
        classification_weight=settings.classification_weight,
        metric_weight=settings.metric_weight,
        freeze_epochs=settings.freeze_epochs,
    )


def _batch_of(settings: TrainingSettings, n_classes: int) -> tuple[int, int]:
    """Classes in a batch, and points of each.

    A head learns badly from batches that leave most classes out, and so do batch norms.
    """
    samples = settings.samples_per_class
    most_classes = max(2, USUAL_BATCH // (samples or 2))
    classes = min(n_classes, settings.classes_per_batch or most_classes)
    return classes, samples or min(MOST_SAMPLES, max(2, USUAL_BATCH // classes))


def autoencoder_plan(settings: TrainingSettings) -> AutoencoderPlan:
    """Plan the training of the autoencoder, by AdamW."""
    rate, decay = settings.learning_rate, settings.weight_decay
    usual_rate, usual_decay = STEPS["adamw"]
    return AutoencoderPlan(
        epochs=settings.autoencoder_epochs,
        learning_rate=usual_rate if isinstance(rate, str) else rate,
        weight_decay=usual_decay if isinstance(decay, str) else decay,
        verbose=settings.verbose,
        batch_size=AUTOENCODER_BATCH,
    )

"""Train the nets: losses, augmentation, batches, loops."""

from skvmdls.training.augmentation import AUGMENTATIONS, affine, crop_flip
from skvmdls.training.choices import TrainingChoices
from skvmdls.training.losses import (
    distancing_loss,
    kl_loss,
    squared_distances,
    triplet_loss,
)

__all__ = [
    "AUGMENTATIONS",
    "TrainingChoices",
    "affine",
    "crop_flip",
    "distancing_loss",
    "kl_loss",
    "squared_distances",
    "triplet_loss",
]

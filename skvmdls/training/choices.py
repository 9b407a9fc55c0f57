"""Choose the settings of a training that are left at ``"auto"``."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from skvmdls.training.augmentation import resolve_augmentation
from skvmdls.training.mirroring import MirrorTrial

__all__ = [
    "ChoosableSettings",
    "Situation",
    "TrainingChoices",
    "choose_training",
    "usual_epochs",
]

# Peak of the learning rate, and weight decay, by optimizer. See docs/recipe.md.
STEPS = {"adamw": (1e-3, 1e-2), "muon": (4e-3, 0.3)}

# Peak for nets with norms and a whitened first layer, by Muon. Others may diverge.
FAST_RATE = 1.6e-2

# Epochs of images: so many for 20,000 of them, and the more the fewer there are, up to
# a limit, which is higher for photographs by `photo_cnn`.
EPOCHS_OF_20000, FEWEST_EPOCHS, MOST_EPOCHS, MOST_FAST_EPOCHS = 12, 12, 24, 48
TUNING_EPOCHS = 20

# Tables with few rows need more epochs: so many steps, within bounds.
TABLE_STEPS, FEWEST_TABLE_EPOCHS, MOST_TABLE_EPOCHS = 2000, 20, 60


class ChoosableSettings(Protocol):
    """The parameters of a detector that may be ``"auto"``."""

    optimizer: Literal["auto", "adamw", "muon"]
    learning_rate: float | Literal["auto"]
    weight_decay: float | Literal["auto"]
    augmentation: str | Callable[[Tensor], Tensor] | None
    max_epochs: int | Literal["auto"]
    classification_weight: float


class Situation(NamedTuple):
    """What the choices depend on: the data, and the net.

    `is_trained` tells whether the backbone comes with weights that were trained before,
    and `is_fast` whether it is made for long steps, as :func:`skvmdls.nets.photo_cnn`.
    """

    input_shape: tuple[int, ...]
    n_rows: int
    n_batches: int
    is_trained: bool = False
    is_fast: bool = False


@dataclass(frozen=True)
class TrainingChoices:
    """How the network of a detector was trained.

    Parameters
    ----------
    optimizer : {"adamw", "muon"}
    learning_rate : float
        Peak of the one-cycle schedule.
    weight_decay : float
    augmentation : callable, str or None
        As the parameter `augmentation` names it.
    max_epochs : int
    reason : str, default=""
        Why the images are mirrored, or not, if that was left to `fit`.

    Examples
    --------
    >>> print(TrainingChoices("adamw", 1e-3, 1e-2, None, 20, ""))
    adamw, learning rate 0.001, weight decay 0.01, no augmentation, 20 epochs
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    augmentation: str | Callable[[Tensor], Tensor] | None
    max_epochs: int
    reason: str = ""

    def __str__(self) -> str:
        given = self.augmentation
        augmentation = "no augmentation" if given is None else f"augmentation {given!r}"
        choices = (
            f"{self.optimizer}, learning rate {self.learning_rate:g}, weight decay "
            f"{self.weight_decay:g}, {augmentation}, {self.max_epochs} epochs"
        )
        return f"{choices}. {self.reason}" if self.reason else choices


def choose_training(
    settings: ChoosableSettings,
    situation: Situation,
    try_mirroring: Callable[[], MirrorTrial],
) -> TrainingChoices:
    """Take the values that are given, and choose those that are ``"auto"``.

    Muon trains the nets of images, with a head, from nothing. AdamW trains all others:
    nets of tables, nets that were trained before, and nets without a head.
    `try_mirroring` is called if the augmentation depends on it.
    """
    is_image = len(situation.input_shape) == 3
    reason = ""
    optimizer: str = settings.optimizer
    if optimizer == "auto":
        has_head = settings.classification_weight > 0
        from_nothing = is_image and has_head and not situation.is_trained
        optimizer = "muon" if from_nothing else "adamw"
    rate, decay = STEPS[optimizer]
    if optimizer == "muon" and situation.is_fast:
        rate = FAST_RATE
    if not isinstance(settings.learning_rate, str):
        rate = settings.learning_rate
    if not isinstance(settings.weight_decay, str):
        decay = settings.weight_decay
    augmentation = settings.augmentation
    if augmentation != "auto":
        # A wrong name ends the fit here.
        resolve_augmentation(augmentation, situation.input_shape)
    elif not is_image:
        augmentation = None
    else:
        trial = try_mirroring()
        augmentation = "crop_flip" if trial.keeps_classes else "affine"
        chosen = "Images are mirrored" if trial.keeps_classes else "No mirroring"
        reason = f"{chosen}: {trial}."
    epochs = settings.max_epochs
    if isinstance(epochs, str):
        epochs = usual_epochs(situation)
    return TrainingChoices(optimizer, rate, decay, augmentation, epochs, reason)


def usual_epochs(situation: Situation) -> int:
    """Choose the epochs of a training.

    Examples
    --------
    >>> table = Situation((10,), n_rows=800, n_batches=5)
    >>> images = Situation((3, 32, 32), n_rows=20_000, n_batches=125)
    >>> usual_epochs(table), usual_epochs(images)
    (60, 12)
    """
    if len(situation.input_shape) == 1:
        wanted = math.ceil(TABLE_STEPS / situation.n_batches)
        return min(max(FEWEST_TABLE_EPOCHS, wanted), MOST_TABLE_EPOCHS)
    if situation.is_trained:
        return TUNING_EPOCHS
    wanted = round(EPOCHS_OF_20000 * math.sqrt(20_000 / situation.n_rows))
    most = MOST_FAST_EPOCHS if situation.is_fast else MOST_EPOCHS
    return min(max(FEWEST_EPOCHS, wanted), most)

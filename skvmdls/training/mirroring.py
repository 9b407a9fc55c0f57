"""Whether a mirrored image keeps its class, as the training images tell."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skvmdls._support.devices import autocast
from skvmdls.nets.backbones import SMALLEST_IMAGE, cnn

__all__ = ["MOST_TRIED", "MirrorTrial", "reduced", "try_mirroring"]

# The trial sees images of at most so many pixels a side, and so many of them.
SIDE, MOST_TRIED = 16, 2000
HELD_OUT_SHARE = 0.25
N_STEPS, BATCH, LEARNING_RATE = 100, 64, 4e-3

# Shares of the accuracy that mirrored images must keep: in all, and in each class of
# which the net knows at least so many held-out images. See docs/recipe.md.
KEPT, KEPT_BY_CLASS, FEWEST_OF_CLASS = 0.9, 0.5, 5


class MirrorTrial(NamedTuple):
    """Accuracies on held-out training images, as they are and mirrored."""

    accuracy: float
    mirrored_accuracy: float
    keeps_classes: bool

    def __str__(self) -> str:
        return (
            f"a net trained without mirroring has an accuracy of {self.accuracy:.2f} "
            f"on held-out images and of {self.mirrored_accuracy:.2f} on mirrored ones"
        )


def reduced(images: Tensor) -> Tensor:
    """Average images (n, channels, height, width) down to at most 16x16 pixels."""
    height, width = (max(SMALLEST_IMAGE, min(SIDE, n)) for n in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))


def try_mirroring(
    images: Tensor, labels: Tensor, seed: int, dtype: torch.dtype = torch.float32
) -> MirrorTrial:
    """Train a small net without mirroring, and compare images with mirrored ones.

    `images` (n, channels, height, width) are standardised and reduced, `labels` (n,)
    from 0, on one device. Draws from torch's global generators.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator).to(images.device)
    n_held_out = max(1, round(HELD_OUT_SHARE * len(images)))
    held_out, training = order[:n_held_out], order[n_held_out:]
    n_classes = int(labels.max()) + 1
    net = _trained(images[training], labels[training], n_classes, seed, dtype)
    y = labels[held_out]
    is_right = _predicted(net, images[held_out], dtype) == y
    stays_right = _predicted(net, images[held_out].flip(3), dtype) == y
    counts, right, kept = (
        y.bincount(weight, minlength=n_classes)
        for weight in (None, is_right.double(), stays_right.double())
    )
    accuracy, mirrored = is_right.double().mean(), stays_right.double().mean()
    # A net that has learned little tells nothing of mirror images.
    chance = counts.max() / counts.sum()
    margin = 3 * (chance * (1 - chance) / len(y)).sqrt()
    has_learned = accuracy > chance + margin
    is_judged = right >= FEWEST_OF_CLASS
    by_class = (kept >= KEPT_BY_CLASS * right) | ~is_judged
    # Of few images, a share is that uncertain.
    error = (accuracy * (1 - accuracy) / len(y)).sqrt()
    keeps = has_learned & (mirrored + error >= KEPT * accuracy) & by_class.all()
    return MirrorTrial(float(accuracy), float(mirrored), bool(keeps))


def _trained(
    images: Tensor, labels: Tensor, n_classes: int, seed: int, dtype: torch.dtype
) -> nn.Module:
    backbone = cnn(tuple(images.shape[1:]))
    net = nn.Sequential(backbone, nn.Linear(128, n_classes)).to(images.device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=N_STEPS
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(N_STEPS):
        batch = torch.randint(len(images), (BATCH,), generator=generator)
        batch = batch.to(images.device)
        with autocast(images.device, dtype):
            logits = net(images[batch])
        optimizer.zero_grad()
        F.cross_entropy(logits.float(), labels[batch]).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def _predicted(net: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    with autocast(images.device, dtype):
        return net(images).argmax(dim=1)

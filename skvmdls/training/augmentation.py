"""Random changes of a training batch: crops, flips, small rotations."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["AUGMENTATIONS", "affine", "crop_flip", "resolve_augmentation"]


def crop_flip(batch: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its size and mirror half of them.

    Edges are reflected.

    Parameters
    ----------
    batch : Tensor of shape (batch, channels, height, width)

    Returns
    -------
    augmented : Tensor of the same shape

    Examples
    --------
    >>> crop_flip(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """
    n, _, height, width = batch.shape
    reach = max(1, round(min(height, width) / 8))
    padded = F.pad(batch, (reach,) * 4, mode="reflect")
    shifts = torch.randint(2 * reach + 1, (2, n, 1), device=batch.device)
    rows = shifts[0] + torch.arange(height, device=batch.device)
    columns = shifts[1] + torch.arange(width, device=batch.device)
    mirrored = torch.rand(n, 1, device=batch.device) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    sample = torch.arange(n, device=batch.device)[:, None, None]
    cropped = padded[sample, :, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)


def affine(batch: Tensor) -> Tensor:
    """Rotate, rescale and shift each image a little, for digits and the like.

    Up to 12 degrees, 10 % and 2 pixels of 28, drawn for each image on its own; edges
    are continued.

    Parameters
    ----------
    batch : Tensor of shape (batch, channels, height, width)

    Returns
    -------
    augmented : Tensor of the same shape

    Examples
    --------
    >>> affine(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """

    def uniform(reach: float) -> Tensor:
        return (2 * torch.rand(len(batch), device=batch.device) - 1) * reach

    angle, scale = uniform(torch.pi / 15), 1 + uniform(0.1)
    shift = uniform(1 / 7), uniform(1 / 7)
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    maps = torch.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], dim=1)
    grid = F.affine_grid(maps.view(-1, 2, 3), list(batch.shape), align_corners=False)
    return F.grid_sample(
        batch, grid.to(batch.dtype), padding_mode="border", align_corners=False
    )


AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "affine": affine,
    "crop_flip": crop_flip,
}


def resolve_augmentation(
    choice: str | Callable[[Tensor], Tensor] | None, input_shape: tuple[int, ...]
) -> Callable[[Tensor], Tensor] | None:
    """Turn the parameter `augmentation` into a function on a batch, or None."""
    if choice is None or callable(choice):
        return choice
    if choice not in AUGMENTATIONS:
        raise ValueError(
            f"augmentation={choice!r} is not known. Use None, one of "
            f"{sorted(AUGMENTATIONS)}, or a callable on a batch tensor."
        )
    if len(input_shape) != 3:
        raise ValueError(
            f"augmentation={choice!r} is for images, but X has {input_shape[0]} "
            "features a row. Use None or a callable on a batch tensor."
        )
    return AUGMENTATIONS[choice]

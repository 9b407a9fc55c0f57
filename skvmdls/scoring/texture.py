"""What an image looks like before any net: its colours, contrasts and flatness.

A net that separates classes ignores what they share, so that its parts may like uniform
noise. These statistics need no training, and known images vary little in them.
"""

import torch
from torch import Tensor

__all__ = ["texture_features", "texture_length"]

# Scales at which neighbouring pixels are compared: the image, and half of its size.
N_SCALES = 2
# In standard deviations of the training pixels: the smallest difference that counts,
# and the difference up to which neighbours are flat.
SMALLEST, FLAT = 1e-3, 0.03
# Flatness and colourfulness below these shares are all alike.
SMALLEST_SHARE, SMALLEST_COLOUR = 1e-2, 1e-3


def texture_features(x: Tensor) -> Tensor:
    """Compute statistics of standardised images.

    Of each channel the mean and the contrast (logarithm of the standard deviation). At
    two scales the mean size of differences between neighbouring pixels, how unequal
    they are (root mean square by mean), and the share of flat neighbours, all as
    logarithms. Of each pair of channels, one after the other, the logarithm of the
    share of variance that they do not have in common.

    Parameters
    ----------
    x : Tensor of shape (n, channels, height, width)

    Returns
    -------
    features : Tensor of shape (n, :func:`texture_length`)

    Examples
    --------
    >>> texture_features(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 26])
    """
    mean = x.mean(dim=(2, 3))
    centred = x - mean[:, :, None, None]
    variance = centred.square().mean(dim=(2, 3))
    deviation = (variance + SMALLEST**2).sqrt()
    common = (centred[:, :-1] * centred[:, 1:]).mean(dim=(2, 3))
    correlation = common / (deviation[:, :-1] * deviation[:, 1:])
    own_share = (1 - correlation.square()).clamp_min(0) + SMALLEST_COLOUR
    found = [mean, deviation.log(), own_share.log()]
    for _ in range(_n_scales(x)):
        across, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
        size = _mean_of_both(across.abs(), down.abs()) + SMALLEST
        square = _mean_of_both(across.square(), down.square()) + SMALLEST**2
        flat = _mean_of_both((-across.abs() / FLAT).exp(), (-down.abs() / FLAT).exp())
        found += [size.log(), square.log() / 2 - size.log()]
        found.append((flat + SMALLEST_SHARE).log())
        x = _halved(x)
    return torch.cat(found, dim=1)


def texture_length(input_shape: tuple[int, ...]) -> int:
    """Count the statistics of images (channels, height, width).

    Examples
    --------
    >>> texture_length((3, 8, 8)), texture_length((1, 8, 1))
    (26, 2)
    """
    return texture_features(torch.zeros(1, *input_shape)).shape[1]


def _n_scales(x: Tensor) -> int:
    """Count the scales at which there are neighbours in both directions."""
    shortest = min(x.shape[2:])
    return sum(shortest >= 2 ** (scale + 1) for scale in range(N_SCALES))


def _mean_of_both(across: Tensor, down: Tensor) -> Tensor:
    return (across.mean(dim=(2, 3)) + down.mean(dim=(2, 3))) / 2


def _halved(x: Tensor) -> Tensor:
    """Average squares of four pixels; an odd last row or column is left out."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = x[:, :, 0:height:2] + x[:, :, 1:height:2]
    return (rows[..., 0:width:2] + rows[..., 1:width:2]) / 4

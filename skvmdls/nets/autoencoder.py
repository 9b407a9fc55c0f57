"""The reconstruction net: a plain autoencoder, trained apart from the classifier.

What it cannot reconstruct, it has not seen: the distance between the first taps of a
point and of its reconstruction is the weight of section 3.4 of the paper. A factory
takes the input shape and returns a module whose output has the shape of its input.
Those here raise a ValueError for inputs of the other kind, as :mod:`skvmdls.nets`
do.
"""

from torch import nn

from skvmdls.nets.backbones import BackboneFactory, check_image, check_table

__all__ = ["AUTOENCODERS", "cnn", "mlp"]


def mlp(input_shape: tuple[int, ...]) -> nn.Module:
    """Fully connected autoencoder with a bottleneck of at most 8, for tables.

    Examples
    --------
    >>> import torch
    >>> mlp((20,))(torch.zeros(2, 20)).shape
    torch.Size([2, 20])
    """
    check_table(input_shape, "mlp")
    features = input_shape[0]
    # As wide as the input, the bottleneck would let everything through.
    bottleneck = max(1, min(8, features // 2))
    return nn.Sequential(
        nn.Linear(features, 128),
        nn.ReLU(),
        nn.Linear(128, bottleneck),
        nn.Linear(bottleneck, 128),
        nn.ReLU(),
        nn.Linear(128, features),
    )


def cnn(input_shape: tuple[int, ...]) -> nn.Module:
    """Convolutional autoencoder, for images from 8x8 up.

    Two strided convolutions, a bottleneck of 8 channels at a quarter of height and
    width, and the mirror image. Each place is coded on its own: what is unusual in a
    small part of an image is missed there, whatever the rest of it.

    Examples
    --------
    >>> import torch
    >>> cnn((3, 30, 17))(torch.zeros(2, 3, 30, 17)).shape
    torch.Size([2, 3, 30, 17])
    """
    check_image(input_shape, "cnn")
    channels, *size = input_shape
    half = [-(-side // 2) for side in size]
    bottleneck = 8
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, bottleneck, kernel_size=1),
        nn.Conv2d(bottleneck, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Upsample(tuple(half)),
        nn.Conv2d(32, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Upsample(tuple(size)),
        nn.Conv2d(16, channels, kernel_size=3, padding=1),
    )


AUTOENCODERS: dict[str, BackboneFactory] = {"cnn": cnn, "mlp": mlp}

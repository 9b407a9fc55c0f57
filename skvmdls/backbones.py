"""Backbones: the deterministic part ``g`` of the network, and their taps.

A backbone is any :class:`torch.nn.Module` that maps a batch of inputs to a batch of
vectors ``g`` of shape (batch, k), and that names its three taps: an attribute ``taps``
with the names of three of its submodules (as in ``named_modules()``), in the order in
which they run. Their outputs, averaged over all but the first two axes, are ``t1``,
``t2`` and ``t3`` of the feature ensemble.

A factory is any callable that takes the input shape, (channels, height, width) or
(features,), and returns a backbone:

>>> from torchvision.models import resnet18
>>> def small_resnet(input_shape):
...     module = resnet18(num_classes=128)
...     module.taps = ("layer1", "layer2", "layer3")
...     return module
>>> len(small_resnet((3, 32, 32)).taps)
3
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

__all__ = ["BACKBONES", "BackboneFactory", "cnn", "mlp", "resolve_factory"]

BackboneFactory = Callable[[tuple[int, ...]], nn.Module]

SMALLEST_IMAGE = 8


class Staged(nn.Sequential):
    """Stages one behind the other, then a head; the taps are after the stages."""

    taps = ("stage1", "stage2", "stage3")


def mlp(input_shape: tuple[int, ...]) -> nn.Module:
    """Three batch-normed hidden layers, for tables.

    Parameters
    ----------
    input_shape : tuple (features,)

    Returns
    -------
    backbone : nn.Module
        Maps (batch, features) to ``g`` (batch, 128); taps of 128 after each of the
        hidden layers.

    Raises
    ------
    ValueError
        If `input_shape` is that of an image.

    Examples
    --------
    >>> import torch
    >>> mlp((20,))(torch.zeros(2, 20)).shape
    torch.Size([2, 128])
    """
    check_table(input_shape, "mlp")
    width = 128
    backbone = Staged()
    n_inputs = input_shape[0]
    for name in ("stage1", "stage2", "stage3"):
        backbone.add_module(
            name,
            nn.Sequential(
                nn.Linear(n_inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
            ),
        )
        n_inputs = width
    backbone.add_module("head", nn.Sequential(nn.Linear(width, width), nn.ReLU()))
    return backbone


def cnn(input_shape: tuple[int, ...]) -> nn.Module:
    """Small batch-normed convolutional net, for images of any size from 8x8 up.

    Four 3x3 convolutions in three stages of 32, 64 and 128 channels, max-pooling after
    the first two, then one fully connected layer on a 4x4 grid of averages (fewer
    where the image is small).

    Parameters
    ----------
    input_shape : tuple (channels, height, width)

    Returns
    -------
    backbone : nn.Module
        Maps (batch, channels, height, width) to ``g`` (batch, 128); taps of 32, 64
        and 128 after the stages.

    Raises
    ------
    ValueError
        If `input_shape` is not that of an image, or the image is too small.

    Examples
    --------
    >>> import torch
    >>> cnn((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 128])
    """
    check_image(input_shape, "cnn")
    channels, height, width = input_shape
    grid = (min(4, height // 4), min(4, width // 4))
    backbone = Staged()
    backbone.add_module("stage1", nn.Sequential(*_convolution(channels, 32)))
    backbone.add_module(
        "stage2",
        nn.Sequential(nn.MaxPool2d(2), *_convolution(32, 64), *_convolution(64, 64)),
    )
    backbone.add_module(
        "stage3", nn.Sequential(nn.MaxPool2d(2), *_convolution(64, 128))
    )
    backbone.add_module(
        "head",
        nn.Sequential(
            nn.AdaptiveAvgPool2d(grid),
            nn.Flatten(),
            nn.Linear(128 * grid[0] * grid[1], 128),
            nn.ReLU(),
        ),
    )
    # Convolutions follow the layout of their weights; this one is the faster.
    return backbone.to(memory_format=torch.channels_last)


BACKBONES: dict[str, BackboneFactory] = {"cnn": cnn, "mlp": mlp}


def resolve_factory(
    choice: str | BackboneFactory,
    named: dict[str, BackboneFactory],
    input_shape: Sequence[int],
    parameter: str,
) -> BackboneFactory:
    """Turn the value of a parameter into a factory.

    Parameters
    ----------
    choice : str or callable
        A name in `named`, a factory, or ``"auto"``: ``"mlp"`` for tables and ``"cnn"``
        for images.
    named : dict of str to callable
    input_shape : sequence of int
    parameter : str
        Name of the parameter, for the message.

    Returns
    -------
    factory : callable

    Raises
    ------
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> resolve_factory("auto", BACKBONES, (20,), "backbone").__name__
    'mlp'
    """
    if isinstance(choice, nn.Module):
        raise ValueError(
            f"{parameter} is a {type(choice).__name__}, a module; expected a factory, "
            f"a callable that takes the input shape: pass {parameter}=make_net, with "
            "`def make_net(input_shape): return module`."
        )
    if callable(choice):
        return choice
    if choice == "auto":
        choice = "mlp" if len(input_shape) == 1 else "cnn"
    if choice not in named:
        raise ValueError(
            f"{parameter}={choice!r} is not known. Use 'auto', one of {sorted(named)}, "
            "or a factory: a callable that takes the input shape and returns a module."
        )
    return named[choice]


def check_table(input_shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless the inputs are rows of features.

    Parameters
    ----------
    input_shape : tuple of int
    name : str
        Name of the net, for the message.
    """
    if len(input_shape) != 1:
        raise ValueError(
            f"The net {name!r} takes tables, X of shape (n, features), but X holds "
            f"images of shape {input_shape}. Use 'auto' or 'cnn'."
        )


def check_image(input_shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless the inputs are images of at least 8x8.

    Parameters
    ----------
    input_shape : tuple of int
    name : str
        Name of the net, for the message.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"The net {name!r} takes images, X of shape (n, channels, height, width) "
            f"or (n, height, width), but X has {input_shape[0]} features a row. "
            "Use 'auto' or 'mlp'."
        )
    if min(input_shape[1:]) < SMALLEST_IMAGE:
        hint = (
            " Channels come first: try X.transpose(0, 3, 1, 2)."
            if input_shape[-1] in (1, 3, 4)
            else ""
        )
        raise ValueError(
            f"The net {name!r} takes images of at least {SMALLEST_IMAGE}x"
            f"{SMALLEST_IMAGE} pixels, but X holds images of (channels, height, "
            f"width) = {input_shape}.{hint}"
        )


def _convolution(n_inputs: int, n_outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_inputs, n_outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
    ]

"""Nets: backbones with three taps, pretrained ones, and autoencoders."""

from skvmdls.nets import autoencoder
from skvmdls.nets.backbones import (
    BACKBONES,
    BackboneFactory,
    ModuleFactory,
    cnn,
    densenet_bc100,
    from_module,
    mlp,
    photo_cnn,
    plain_cnn,
    resnet18,
    resnet34,
    vgg_crosr,
    wide_resnet28_10,
)
from skvmdls.nets.pretrained import pretrained
from skvmdls.nets.residual import residual_mlp

__all__ = [
    "BACKBONES",
    "BackboneFactory",
    "ModuleFactory",
    "autoencoder",
    "cnn",
    "densenet_bc100",
    "from_module",
    "mlp",
    "photo_cnn",
    "plain_cnn",
    "pretrained",
    "residual_mlp",
    "resnet18",
    "resnet34",
    "vgg_crosr",
    "wide_resnet28_10",
]

"""First layers that are set from the training images."""

import numpy as np
import torch
from torch import nn

from skvmdls.nets import photo_cnn
from skvmdls.training.whitening import whiten_first_layer, whitened_layer


def photographs(n=60, seed=0):
    """Smooth colours under a little noise, as (n, 3, 16, 16)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(n, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    mixed = np.einsum(
        "ij,njhw->nihw", [[1, 0.9, 0.8], [0, 0.3, 0], [0, 0, 0.2]], coarse
    )
    return torch.from_numpy(mixed + 0.1 * rng.normal(size=mixed.shape)).float()


def test_outputs_are_uncorrelated_with_unit_variance_and_each_has_its_negative():
    layer, images = nn.Conv2d(3, 24, kernel_size=2), photographs()
    whiten_first_layer(layer, images.split(7))
    outputs = layer(images).detach().movedim(1, -1).reshape(-1, 24)
    torch.testing.assert_close(outputs[:, 12:], -outputs[:, :12])
    covariance = outputs[:, :12].T.cov().double()
    torch.testing.assert_close(covariance, covariance.diag().diag(), atol=0.05, rtol=0)
    variances = covariance.diag()
    assert variances.max() < 1.01
    assert variances.min() > 0.5
    assert not layer.weight.requires_grad


def test_many_channels_keep_the_axes_of_largest_variance():
    layer = nn.Conv2d(6, 4, kernel_size=2)
    images = torch.randn(40, 6, 8, 8)
    images[:, 2] *= 100
    whiten_first_layer(layer, [images])
    assert layer.weight[:2, 2].abs().sum() > 0.9 * layer.weight[:2].abs().sum()


def test_images_of_one_colour_give_finite_filters():
    layer = nn.Conv2d(3, 24, kernel_size=2)
    whiten_first_layer(layer, [torch.ones(4, 3, 8, 8)])
    assert layer.weight.isfinite().all()


def test_only_nets_that_ask_for_it_are_whitened():
    assert whitened_layer(nn.Sequential(nn.Conv2d(3, 8, 3))) is None
    assert whitened_layer(photo_cnn((3, 32, 32))).kernel_size == (2, 2)

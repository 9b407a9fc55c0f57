"""Texture of images beside a slow reference, and what it sees."""

import itertools
import math

import numpy as np
import pytest
import torch

from skvmdls.scoring.texture import texture_features, texture_length


def slow(image):
    """Features of one image (channels, height, width), pixel by pixel."""
    found = [channel.mean() for channel in image]
    found += [math.log(math.sqrt(channel.var() + 1e-6)) for channel in image]
    for one, other in itertools.pairwise(image):
        covariance = ((one - one.mean()) * (other - other.mean())).mean()
        deviations = math.sqrt((one.var() + 1e-6) * (other.var() + 1e-6))
        found.append(math.log(1 - (covariance / deviations) ** 2 + 1e-3))
    for _ in range(2):
        height, width = image.shape[1:]
        if min(height, width) < 2:
            break
        sizes, squares, flat = [], [], []
        for channel in image:
            pairs = [
                [channel[i, j + 1] - channel[i, j]
                 for i in range(height) for j in range(width - 1)],
                [channel[i + 1, j] - channel[i, j]
                 for i in range(height - 1) for j in range(width)],
            ]  # fmt: skip
            size = np.mean([np.mean(np.abs(p)) for p in pairs]) + 1e-3
            square = np.mean([np.mean(np.square(p)) for p in pairs]) + 1e-6
            share = np.mean([np.mean(np.exp(-np.abs(p) / 0.03)) for p in pairs])
            sizes.append(math.log(size))
            squares.append(math.log(square) / 2 - math.log(size))
            flat.append(math.log(share + 1e-2))
        found += [*sizes, *squares, *flat]
        image = np.array(
            [
                [
                    [channel[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean()
                     for j in range(width // 2)]
                    for i in range(height // 2)
                ]
                for channel in image
            ]
        )  # fmt: skip
    return found


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (1, 7, 5), (2, 2, 9), (3, 1, 4), (1, 1, 1)], ids=str
)
def test_features_are_those_of_a_slow_reference(shape):
    images = np.random.default_rng(0).normal(size=(4, *shape))
    images[1] = 0.7
    found = texture_features(torch.from_numpy(images))
    assert found.shape == (4, texture_length(shape))
    np.testing.assert_allclose(found.numpy(), [slow(x) for x in images], atol=1e-9)


def test_extreme_images_stay_finite():
    images = torch.zeros(3, 3, 8, 8)
    images[1] = 1e6 * torch.randn(3, 8, 8)
    images[2, 1] = 1e6
    assert torch.isfinite(texture_features(images)).all()

"""Whether mirrored images keep their class."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from skvmdls._support.torch_state import seeded
from skvmdls.training.mirroring import SIDE, reduced, try_mirroring

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("full_trials")


def trial(images, labels, seed=0):
    images = torch.as_tensor(images, dtype=torch.float32)
    images = (images - images.mean()) / images.std()
    with seeded(seed, CPU):
        return try_mirroring(reduced(images), torch.as_tensor(labels), seed)


def halves(n, rng, *, chiral):
    """Bright left or right halves, or bright upper or lower ones, under noise."""
    labels = np.arange(n) % 2
    images = rng.normal(size=(n, 1, 8, 8))
    for image, label in zip(images, labels, strict=True):
        half = image[0].T if chiral else image[0]
        half[4 * label : 4 * label + 4] += 1
    return images, labels


@pytest.mark.parametrize("chiral", [True, False])
def test_left_and_right_are_not_mirrored_but_above_and_below_are(chiral):
    images, labels = halves(200, np.random.default_rng(0), chiral=chiral)
    assert trial(images, labels).keeps_classes is not chiral


def test_digits_are_not_mirrored():
    X, y = load_digits(return_X_y=True)
    found = trial(X.reshape(-1, 1, 8, 8)[:800], y[:800])
    assert found.accuracy > 0.8
    assert not found.keeps_classes


def test_one_pair_of_mirror_images_among_other_classes_is_enough():
    rng = np.random.default_rng(0)
    X, y = load_digits(return_X_y=True)
    images = X.reshape(-1, 1, 8, 8)
    symmetric = np.isin(y, (0, 1, 8))
    chiral = y == 2
    pair = np.concatenate([images[chiral], images[chiral][..., ::-1]])
    images = np.concatenate([images[symmetric], pair])
    labels = np.concatenate(
        [np.searchsorted((0, 1, 8), y[symmetric]), 3 + np.repeat([0, 1], chiral.sum())]
    )
    order = rng.permutation(len(images))
    assert not trial(images[order], labels[order]).keeps_classes


def test_a_net_that_has_learned_nothing_mirrors_nothing():
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(200, 1, 8, 8)), rng.integers(0, 4, 200)
    assert not trial(images, labels).keeps_classes


def test_large_images_are_tried_small_and_small_ones_as_they_are():
    assert reduced(torch.zeros(1, 3, 90, 40)).shape == (1, 3, SIDE, SIDE)
    small = torch.rand(1, 1, 8, 11)
    torch.testing.assert_close(reduced(small), small)

"""Random changes of images, and the parameter that names them."""

import pytest
import torch

from skvmdls.training.augmentation import (
    AUGMENTATIONS,
    affine,
    crop_flip,
    resolve_augmentation,
)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values())
def test_augmentation_keeps_shape_range_and_dtype_and_varies_by_sample(augmentation):
    torch.manual_seed(0)
    batch = torch.rand(1, 3, 12, 10).expand(16, -1, -1, -1)
    augmented = augmentation(batch)
    assert augmented.shape == batch.shape
    assert augmented.dtype == batch.dtype
    assert augmented.min() >= batch.min() - 1e-6
    assert augmented.max() <= batch.max() + 1e-6
    assert len({tuple(image.flatten().tolist()) for image in augmented}) > 8


def test_crop_flip_only_shifts_and_mirrors():
    torch.manual_seed(0)
    columns = torch.arange(12.0).expand(1, 1, 10, 12)
    for image in crop_flip(columns.expand(32, -1, -1, -1)):
        steps = image[0, 0].diff()
        assert torch.all(steps.abs() == 1)
        assert torch.equal(image[0], image[0, :1].expand(10, -1))


def test_affine_continues_a_constant_image():
    torch.manual_seed(0)
    torch.testing.assert_close(
        affine(torch.full((4, 1, 9, 9), 2.5)), torch.full((4, 1, 9, 9), 2.5)
    )


def test_augmentations_are_found_by_name():
    assert resolve_augmentation(None, (5,)) is None
    assert resolve_augmentation(torch.relu, (5,)) is torch.relu
    assert resolve_augmentation("affine", (1, 8, 8)) is affine
    with pytest.raises(ValueError, match=r"'mixup' is not known.*'crop_flip'"):
        resolve_augmentation("mixup", (1, 8, 8))
    with pytest.raises(ValueError, match="'affine' is for images, but X has 5"):
        resolve_augmentation("affine", (5,))

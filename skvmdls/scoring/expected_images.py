"""Mean images of each class, for the maps of `explain`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["N_IMAGES", "ExpectedImages", "class_means", "grid_of", "in_grid"]

# Images are compared in so many places a side at most, with their class's mean and so
# many components, found from about so many images, and smoothed over that share of a
# side. See docs/recipe.md.
LARGEST_GRID, N_COMPONENTS, N_IMAGES, SMOOTHING = 32, 8, 3000, 2.5 / 28


class ExpectedImages(nn.Module):
    """Mean images of each class, and the main variations of all classes.

    An autoencoder that is good at small parts of an image reconstructs strange ones
    too. The mean of its class and a few principal components cannot: what is left over
    of an image is where it is unlike its class. See docs/recipe.md.

    Parameters
    ----------
    means : ndarray of shape (n_classes, channels, h, w), float64
        Of standardised images, in a grid of at most 32 x 32 places.
    components : ndarray of shape (k, channels, h, w), float64
        Orthonormal, of the images less their class's mean.

    Examples
    --------
    >>> components = np.eye(1, 81).reshape(1, 1, 9, 9)
    >>> expected = ExpectedImages(np.zeros((1, 1, 9, 9)), components)
    >>> image = torch.zeros(1, 1, 9, 9)
    >>> image[0, 0, 4, 4] = 3
    >>> divmod(int(expected.residual_map(image, torch.tensor([0])).argmax()), 9)
    (4, 4)
    """

    means: Tensor
    components: Tensor

    def __init__(self, means: np.ndarray, components: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("means", torch.from_numpy(means))
        self.register_buffer("components", torch.from_numpy(components))

    @classmethod
    def fit(cls, images: Tensor, labels: np.ndarray) -> "ExpectedImages":
        """From images (n, channels, h, w) in the grid, of each class one or more."""
        from sklearn.decomposition import PCA

        means = class_means(images, labels)
        # One array of their size and no more: they may be the peak of a fit's memory.
        deviations = means[labels].neg_().add_(images).flatten(start_dim=1).numpy()
        n_components = min(N_COMPONENTS, *deviations.shape)
        found = PCA(n_components, copy=False, svd_solver="randomized", random_state=0)
        # In the order of a file, whose matrix products round alike.
        components = np.ascontiguousarray(found.fit(deviations).components_)
        return cls(means.numpy(), components.reshape(-1, *images.shape[1:]))

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], input_shape: tuple[int, ...], n_classes: int
    ) -> "ExpectedImages":
        """Rebuild from a `state_dict`. A ValueError if it is not of these classes."""
        means = stored_array(state, "means", 4, of="expected")
        components = stored_array(state, "components", 4, of="expected")
        shape = (input_shape[0], *grid_of(input_shape))
        check_shape("expected.means", means.shape, (n_classes, *shape))
        check_shape("expected.components", components.shape[1:], shape)
        return cls(means, components)

    def rearranged(
        self, order: np.ndarray, new: Tensor | None = None
    ) -> "ExpectedImages":
        """Take some of the classes, old and then new ones (k, channels, h, w)."""
        means = self.means.cpu() if new is None else torch.cat([self.means.cpu(), new])
        return ExpectedImages(means[order].numpy(), self.components.cpu().numpy())

    def residual_map(self, images: Tensor, classes: Tensor) -> Tensor:
        """How far each place is from what images of a class look like there.

        Parameters
        ----------
        images : Tensor of shape (n, channels, height, width)
            Standardised.
        classes : Tensor of shape (n,), int64
            Under which class to look at each.

        Returns
        -------
        residuals : Tensor of shape (n, height, width), float64
            The rest of the image, averaged over a neighbourhood, where the
            edges of strokes cancel out. Root mean square over the channels, in standard
            deviations of the input.
        """
        from scipy.ndimage import gaussian_filter

        size = images.shape[2:]
        deviations = in_grid(images) - self.means.cpu()[classes]
        components = self.components.cpu().flatten(start_dim=1)
        flat = deviations.flatten(start_dim=1)
        left_over = (flat - flat @ components.T @ components).view_as(deviations)
        sigma = [0, 0, *(SMOOTHING * side for side in left_over.shape[2:])]
        smooth = gaussian_filter(left_over.numpy(), sigma, mode="constant")
        residuals = torch.from_numpy(smooth).square().mean(dim=1, keepdim=True).sqrt()
        return functional.interpolate(residuals, size, mode="bilinear")[:, 0]


def grid_of(input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the grid in which images of a shape are compared.

    Examples
    --------
    >>> grid_of((3, 28, 224))
    (28, 32)
    """
    height, width = input_shape[1:]
    return min(height, LARGEST_GRID), min(width, LARGEST_GRID)


def in_grid(images: Tensor) -> Tensor:
    """Average images (n, channels, height, width) into the grid, in float64.

    Examples
    --------
    >>> in_grid(torch.ones(2, 3, 64, 28)).shape
    torch.Size([2, 3, 32, 28])
    """
    grid = grid_of(tuple(images.shape[1:]))
    return functional.adaptive_avg_pool2d(images.cpu().double(), grid)


def class_means(images: Tensor, labels: np.ndarray) -> Tensor:
    """Mean image (n_classes, ...) of each class, from labels (n,) 0, 1, ...

    Examples
    --------
    >>> class_means(torch.tensor([1.0, 3.0, 5.0]), np.array([0, 0, 1]))
    tensor([2., 5.])
    """
    return torch.stack(
        [images[labels == label].mean(dim=0) for label in range(labels.max() + 1)]
    )

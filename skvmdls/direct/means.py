"""Parts of the evidence from class means: shared and separate covariances, prototypes.

All of them are functions of the rows in a :class:`~skvmdls.direct.row_space.RowSpace`
and of arrays that are frozen after the fit. Every score is higher for better known
points, one column a class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["ClassMoments", "SeparateCovariances", "fit_moments"]

SMALLEST_LENGTH = 1e-12
# Every covariance gets this share of the mean variance along its diagonal.
SMALLEST_VARIANCE = 1e-9


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m) between rows (n, D) and (m, D)."""
    squares = a.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1)
    return (squares - 2 * (a @ b.T)).clamp_min(0)


def unit_rows(rows: Tensor) -> Tensor:
    """Divide rows (n, D) by their lengths; zeros stay zeros."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.clamp_min(SMALLEST_LENGTH)


@dataclass(frozen=True)
class ClassMoments:
    """Class means under one covariance, and how the means spread about their centre.

    With ``u = W^T (z - centre)``, where ``W W^T`` is the inverse of the covariance
    within classes, and ``u_c`` the same of the mean of class c:

    - `shared` is minus half the squared Mahalanobis distance, ``-|u - u_c|^2 / 2`` [1]_
      (of rows of unit length: [3]_);
    - `relative` is the same, less that under one Gaussian of all classes [2]_. The
      Gaussian's covariance is the one within classes plus that of the class means
      about `centre`, so that both shrink alike. It is
      ``u . u_c - |u_c|^2 / 2 - |V^T u|^2 / 2``, with `between` ``= W V`` and
      ``V V^T = I - (I + B)^-1``, for ``B`` the covariance of the ``u_c``;
    - `prototype` is the cosine between ``z - middle`` and the class mean less `middle`,
      the mean of the class means [4]_.

    Parameters
    ----------
    means : Tensor of shape (n_classes, D), float64
    centre : Tensor of shape (D,), float64
        Mean of all training rows.
    middle : Tensor of shape (D,), float64
        Mean of the class means at the fit.
    whitening : Tensor of shape (D, D), float64
        ``W``.
    between : Tensor of shape (D, k), float64
        ``W V``, with k at most the number of classes less one.

    References
    ----------
    .. [1] K. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution
       Samples and Adversarial Attacks", NeurIPS 2018.
    .. [2] J. Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD
       Detection", arXiv:2106.09022, 2021.
    .. [3] M. Mueller and M. Hein, "Mahalanobis++: Improving OOD Detection via Feature
       Normalization", ICML 2025.
    .. [4] J. Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> z = rng.normal(size=(60, 3)) + 9 * y[:, None]
    >>> moments = fit_moments(z, y, 2)
    >>> moments.shared(torch.full((1, 3), 9.0).double()).argmax(dim=1)
    tensor([1])
    """

    means: Tensor
    centre: Tensor
    middle: Tensor
    whitening: Tensor
    between: Tensor

    def shared(self, rows: Tensor) -> Tensor:
        """Score rows (n, D) under each class by one covariance, (n, n_classes)."""
        white = (rows - self.centre) @ self.whitening
        return -squared_distances(white, self.white_means) / 2

    def relative(self, rows: Tensor) -> Tensor:
        """Score rows (n, D) as `shared`, less a Gaussian of all classes."""
        centred = rows - self.centre
        common = (centred @ self.between).square().sum(dim=1, keepdim=True) / 2
        return centred @ self.directions - self.half_lengths - common

    def prototype(self, rows: Tensor) -> Tensor:
        """Cosine between rows (n, D) and class means about the middle, in [-1, 1]."""
        return unit_rows(rows - self.middle) @ self.prototypes.T

    # What follows from the arrays is computed once: a single row is scored in less time
    # than these products take.

    @cached_property
    def white_means(self) -> Tensor:
        """``u_c`` of each class, (n_classes, D)."""
        return (self.means - self.centre) @ self.whitening

    @cached_property
    def directions(self) -> Tensor:
        """``W u_c`` of each class, (D, n_classes)."""
        return self.whitening @ self.white_means.T

    @cached_property
    def half_lengths(self) -> Tensor:
        """``|u_c|^2 / 2`` of each class, (n_classes,)."""
        return self.white_means.square().sum(dim=1) / 2

    @cached_property
    def prototypes(self) -> Tensor:
        """Class means about the middle, of unit length, (n_classes, D)."""
        return unit_rows(self.means - self.middle)

    def shared_terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split `shared` under classes (n,) into dimensions (n, D) that sum to it."""
        deviations = rows - self.means[classes]
        return -deviations * (deviations @ self.whitening @ self.whitening.T) / 2

    def relative_terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split `relative` under classes (n,) into dimensions (n, D)."""
        centred = rows - self.centre
        pulled = centred @ self.between @ self.between.T
        means = self.means[classes] - self.centre
        return (centred - means / 2) * (
            means @ self.whitening @ self.whitening.T
        ) - centred * pulled / 2

    def prototype_terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split `prototype` under classes (n,) into dimensions (n, D)."""
        return unit_rows(rows - self.middle) * self.prototypes[classes]

    def with_classes(self, rows: Tensor, labels: np.ndarray) -> "ClassMoments":
        """Append the means of classes; rows (n, D) and labels (n,) from 0 on."""
        added = class_means(rows, labels, labels.max() + 1)
        return replace(self, means=torch.cat([self.means, added]))

    def of_classes(self, positions: np.ndarray) -> "ClassMoments":
        """Keep the classes at some positions."""
        return replace(self, means=self.means[torch.from_numpy(positions)])

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        return {name: getattr(self, name).numpy() for name in _MOMENTS}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], n_dimensions: int) -> "ClassMoments":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        arrays = {
            name: stored_array(state, name, ndim, of="moments")
            for name, ndim in _MOMENTS.items()
        }
        for name, array in arrays.items():
            first = array.shape[0] if name != "means" else array.shape[1]
            check_shape(f"moments.{name}", (first,), (n_dimensions,))
        check_shape("moments.whitening", arrays["whitening"].shape, (n_dimensions,) * 2)
        return cls(**{name: torch.from_numpy(array) for name, array in arrays.items()})


_MOMENTS = {"means": 2, "centre": 1, "middle": 1, "whitening": 2, "between": 2}


def class_means(rows: Tensor, labels: np.ndarray, n_classes: int) -> Tensor:
    """Mean row (n_classes, D) of each class, from rows (n, D) and labels (n,)."""
    sums = torch.zeros(n_classes, rows.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(labels), rows)
    counts = np.bincount(labels, minlength=n_classes)
    return sums / torch.from_numpy(counts)[:, None]


def ledoit_wolf(deviations: np.ndarray, n_folded: int = 1) -> np.ndarray:
    """Covariance (D, D) of centred rows (n, D), drawn to a multiple of the identity.

    By the closed form of Ledoit and Wolf (2004). The last coordinate may stand for the
    length in `n_folded` more dimensions. They are drawn to the same multiple.

    Examples
    --------
    >>> ledoit_wolf(np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]))
    array([[1., 0.],
           [0., 0.]])
    """
    n, n_coordinates = deviations.shape
    n_dimensions = n_coordinates - 1 + n_folded
    covariance = deviations.T @ deviations / n
    if n_folded > 1:
        # Of the folded dimensions only the length is known: they share it equally, and
        # nothing is known of how they go along with the others.
        outside = covariance[-1, -1] / n_folded
        covariance[-1], covariance[:, -1] = 0.0, 0.0
        covariance[-1, -1] = outside
    variances = np.full(n_coordinates, 1.0)
    variances[-1] = n_folded
    mean_variance = variances @ np.diag(covariance) / n_dimensions
    squares = (covariance**2).sum() + (n_folded - 1) * covariance[-1, -1] ** 2
    distance = squares / n_dimensions - mean_variance**2
    fourth = ((deviations**2).sum(axis=1) ** 2).mean() - squares
    noise = max(fourth / n / n_dimensions, 0.0)
    shrinkage = min(noise / distance, 1.0) if distance > 0 else 1.0
    shrunk = (1 - shrinkage) * covariance
    shrunk.flat[:: n_coordinates + 1] += shrinkage * mean_variance
    return shrunk


def whitening_of(covariance: np.ndarray) -> np.ndarray:
    """Find the upper triangular ``W`` (D, D) with ``W W^T`` the inverse covariance."""
    n_dimensions = len(covariance)
    smallest = SMALLEST_VARIANCE * max(np.trace(covariance) / n_dimensions, 1e-300)
    covariance = covariance + max(smallest, 1e-24) * np.eye(n_dimensions)
    lower = cholesky(covariance, lower=True)
    return solve_triangular(lower, np.eye(n_dimensions), lower=True).T


def fit_moments(
    rows: np.ndarray, labels: np.ndarray, n_classes: int, n_folded: int = 1
) -> ClassMoments:
    """Fit class means and the covariance within classes to rows (n, D).

    Parameters
    ----------
    rows : ndarray of shape (n, D), float64
    labels : ndarray of shape (n,), int
        Positions of the classes, each of which has a row.
    n_classes : int
    n_folded : int, default=1
        Dimensions that the last coordinate is the length in.

    Returns
    -------
    moments : ClassMoments
    """
    tensor = torch.from_numpy(rows)
    means = class_means(tensor, labels, n_classes)
    centre = tensor.mean(dim=0)
    deviations = rows - means.numpy()[labels]
    n_free = max(len(rows) - n_classes, 1)
    covariance = ledoit_wolf(deviations, n_folded) * (len(rows) / n_free)
    whitening = torch.from_numpy(whitening_of(covariance))
    shares = torch.from_numpy(np.bincount(labels, minlength=n_classes) / len(rows))
    white_means = (means - centre) @ whitening
    _, sizes, directions = torch.linalg.svd(
        white_means * shares.sqrt()[:, None], full_matrices=False
    )
    kept = sizes > 1e-8 * sizes.max().clamp_min(1e-150)
    kept[0] = True
    variances = sizes[kept].square()
    between = directions[kept].T * (variances / (1 + variances)).sqrt()
    return ClassMoments(
        means, centre, means.mean(dim=0), whitening, whitening @ between
    )


@dataclass(frozen=True)
class SeparateCovariances:
    """A covariance for each class, drawn towards that within all classes.

    The score is ``-d^2 / 2``, with ``d`` the Mahalanobis distance from the class mean.
    A class of n rows in D dimensions counts as n rows, the covariance within classes
    as D more (regularised discriminant analysis, J. H. Friedman, JASA 84, 1989). The
    determinants are left out: a point of a wide class is as well known as one of a
    narrow class.

    Parameters
    ----------
    means : Tensor of shape (n_classes, D), float64
    whitenings : Tensor of shape (n_classes, D, D), float64
    common : Tensor of shape (D, D), float64
        Covariance within classes, for those that are added.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(60) % 2
    >>> z = rng.normal(size=(60, 3)) + 9 * y[:, None]
    >>> separate = SeparateCovariances.fit(z, y, fit_moments(z, y, 2))
    >>> separate.scores(torch.full((1, 3), 9.0).double()).argmax(dim=1)
    tensor([1])
    """

    means: Tensor
    whitenings: Tensor
    common: Tensor

    @classmethod
    def fit(
        cls, rows: np.ndarray, labels: np.ndarray, moments: ClassMoments
    ) -> "SeparateCovariances":
        """Fit to rows (n, D) and labels (n,), about the means of `moments`."""
        inverse = solve_triangular(
            moments.whitening.numpy(), np.eye(rows.shape[1]), lower=False
        )
        common = inverse.T @ inverse
        whitenings = _separate_whitenings(rows, labels, moments.means.numpy(), common)
        return cls(moments.means, whitenings, torch.from_numpy(common))

    def scores(self, rows: Tensor) -> Tensor:
        """Score rows (n, D) under each class, (n, n_classes)."""
        pairs = zip(self.means, self.whitenings, strict=True)
        return torch.stack(
            [-((rows - m) @ w).square().sum(dim=1) / 2 for m, w in pairs], dim=1
        )

    def terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split the scores under classes (n,) into dimensions (n, D) that sum to it."""
        terms = torch.empty_like(rows)
        for label in classes.unique():
            own = classes == label
            deviations, whitening = (
                rows[own] - self.means[label],
                self.whitenings[label],
            )
            terms[own] = -deviations * (deviations @ whitening @ whitening.T) / 2
        return terms

    def with_classes(self, rows: Tensor, labels: np.ndarray) -> "SeparateCovariances":
        """Append classes; rows (n, D) and labels (n,) from 0 on."""
        means = class_means(rows, labels, labels.max() + 1)
        whitenings = _separate_whitenings(
            rows.numpy(), labels, means.numpy(), self.common.numpy()
        )
        return replace(
            self,
            means=torch.cat([self.means, means]),
            whitenings=torch.cat([self.whitenings, whitenings]),
        )

    def of_classes(self, positions: np.ndarray) -> "SeparateCovariances":
        """Keep the classes at some positions."""
        kept = torch.from_numpy(positions)
        return replace(self, means=self.means[kept], whitenings=self.whitenings[kept])

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        return {
            "means": self.means.numpy(),
            "whitenings": self.whitenings.numpy(),
            "common": self.common.numpy(),
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], n_dimensions: int
    ) -> "SeparateCovariances":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        means = stored_array(state, "means", 2, of="separate")
        whitenings = stored_array(state, "whitenings", 3, of="separate")
        common = stored_array(state, "common", 2, of="separate")
        check_shape("separate.means", means.shape[1:], (n_dimensions,))
        check_shape(
            "separate.whitenings",
            whitenings.shape,
            (len(means), n_dimensions, n_dimensions),
        )
        check_shape("separate.common", common.shape, (n_dimensions,) * 2)
        return cls(*map(torch.from_numpy, (means, whitenings, common)))


def _separate_whitenings(
    rows: np.ndarray, labels: np.ndarray, means: np.ndarray, common: np.ndarray
) -> Tensor:
    """Whitenings (n_classes, D, D), each of own rows and D of the common covariance."""
    n_dimensions = rows.shape[1]
    whitenings = np.empty((len(means), n_dimensions, n_dimensions))
    for label, mean in enumerate(means):
        deviations = rows[labels == label] - mean
        scatter = deviations.T @ deviations + n_dimensions * common
        n_free = max(len(deviations) - 1 + n_dimensions, 1)
        whitenings[label] = whitening_of(scatter / n_free)
    return torch.from_numpy(whitenings)

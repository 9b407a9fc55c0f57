"""Class Gaussians of the feature ensemble: streaming fit and log-likelihood."""

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.linalg import LinAlgError, cholesky, solve_triangular
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from skvmdls._support.stored_arrays import check_shape, stored_array
from skvmdls._support.values import listed, warn

__all__ = [
    "ClassGaussians",
    "cache_features",
    "check_class_sizes",
    "check_memory",
    "covariance_type_for",
    "fit_gaussians",
]

# A feature that hardly ever moves within its class would outvote all others as soon as
# a known point moves it: spreads are taken to be no less than this share of the usual.
SMALLEST_RELATIVE_SCALE = 0.1

# Two points lie on a line, along which no shrinkage can tell noise from spread.
SMALLEST_CLASS = 3

# For classes that come later, the pooled covariance counts as so many of their points.
PRIOR_POINTS = 10

# What all classes have in common, by the type of covariance.
COMMON = {"full": {"scale", "pooled"}, "tied": {"centre"}, "diag": {"scale"}}

# A covariance of its own needs so many rows of a class for each column. See
# docs/recipe.md.
FULL_ROWS_PER_COLUMN = 0.25

# Matrices of more columns take minutes: the inverse grows with their cube.
WIDEST_MATRIX = 4096

# Where the machine's memory is unknown, Gaussians of more bytes are refused.
USUAL_MEMORY = 2**34

# Classes of "tied" that one matrix product serves.
CLASSES_AT_ONCE = 64

Features = dict[str, np.ndarray]

ClassBatches = Callable[[int], Iterable[Features]]

# By the reason, the positions of classes that take the pooled covariance.
PooledInstead = defaultdict[str, set[int]]


class ClassGaussians(nn.Module):
    """One Gaussian a class, in float64.

    Parameters
    ----------
    means : ndarray of shape (n_classes, D)
    precisions_cholesky : ndarray
        ``W`` with ``W W^T`` the inverse covariance, as in
        :class:`~sklearn.mixture.GaussianMixture`: of shape (n_classes, D, D) for
        ``"full"``, (D, D) for ``"tied"``, (n_classes, D) for ``"diag"``.
    covariance_type : {"full", "tied", "diag"}
    common : mapping of str to ndarray, optional
        Common to all classes, for those that are added later: ``scale`` (D,),
        the pooled deviations, of ``"full"`` and ``"diag"``. ``pooled`` (D, D), the
        pooled covariance in units of `scale`, of ``"full"``. ``centre`` (D,), about
        which ``"tied"`` computes, by default the mean of `means`.

    Attributes
    ----------
    means, precisions_cholesky : Tensor
        As given. They move with ``.to(device)``.
    covariance_type : str

    Examples
    --------
    >>> import numpy as np, torch
    >>> gaussians = ClassGaussians(np.zeros((2, 3)), np.ones((2, 3)), "diag")
    >>> gaussians.log_likelihood(torch.zeros(1, 3))
    tensor([[-2.7568, -2.7568]], dtype=torch.float64)
    """

    means: Tensor
    precisions_cholesky: Tensor
    centre: Tensor
    white_means: Tensor
    white_lengths: Tensor

    def __init__(
        self,
        means: np.ndarray,
        precisions_cholesky: np.ndarray,
        covariance_type: str,
        common: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__()
        self.covariance_type = covariance_type
        self.register_buffer("means", torch.from_numpy(means))
        self.register_buffer(
            "precisions_cholesky", torch.from_numpy(precisions_cholesky)
        )
        common = dict(common or {})
        if covariance_type == "tied":
            # The same for all points: about their centre, rounding is least.
            common.setdefault("centre", means.mean(axis=0))
        for name, array in common.items():
            self.register_buffer(name, torch.from_numpy(array))
        if covariance_type == "tied":
            # Both follow from the others: no part of the state.
            white_means = torch.cat(
                [
                    (means - self.centre) @ self.precisions_cholesky
                    for means in _equal_blocks(self.means)
                ]
            )[: len(means)]
            white_lengths = torch.stack([mean.square().sum() for mean in white_means])
            self.register_buffer("white_means", white_means, persistent=False)
            self.register_buffer("white_lengths", white_lengths, persistent=False)

    def common(self) -> dict[str, np.ndarray]:
        """Hand out what all classes have in common, as given, as far as it is there."""
        buffers = dict(self.named_buffers())
        names = COMMON[self.covariance_type] & buffers.keys()
        return {name: buffers[name].cpu().numpy() for name in names}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], covariance_type: str
    ) -> "ClassGaussians":
        """Rebuild from a `state_dict`, of tensors or arrays that are checked."""
        means = stored_array(state, "means", 2, of="gaussians")
        n_classes, n_features = means.shape
        shape = {
            "full": (n_classes, n_features, n_features),
            "tied": (n_features, n_features),
            "diag": (n_classes, n_features),
        }[covariance_type]
        name = "precisions_cholesky"
        precisions = stored_array(state, name, len(shape), of="gaussians")
        check_shape(f"gaussians.{name}", precisions.shape, shape)
        diagonal = (
            precisions
            if covariance_type == "diag"
            else np.diagonal(precisions, axis1=-2, axis2=-1)
        )
        if diagonal.min() <= 0:
            raise ValueError(f"gaussians.{name} must have a positive diagonal")
        common = {}
        for name in COMMON[covariance_type] & state.keys():
            ndim = 2 if name == "pooled" else 1
            common[name] = stored_array(state, name, ndim, of="gaussians")
            check_shape(f"gaussians.{name}", common[name].shape, (n_features,) * ndim)
        if "scale" in common and common["scale"].min() <= 0:
            raise ValueError("gaussians.scale must be positive")
        return cls(means, precisions, covariance_type, common)

    def log_likelihood(self, features: Tensor) -> Tensor:
        """``log N(t; class c)`` of each row for each class.

        Parameters
        ----------
        features : Tensor of shape (n, D)

        Returns
        -------
        log_likelihood : Tensor of shape (n, n_classes), float64
            Natural logarithms of densities. Positive values are ordinary.
        """
        t = features.to(self.means)
        distances = {
            "full": self._full_distances,
            "tied": self._tied_distances,
            "diag": self._diag_distances,
        }[self.covariance_type](t)
        constant = t.shape[1] * math.log(2 * math.pi)
        # In place: with a thousand classes, each pass over the distances shows.
        return distances.add_(constant).mul_(-0.5).add_(self.half_log_precision())

    def _full_distances(self, t: Tensor) -> Tensor:
        # Class by class: all of them at once would need n x C x D of memory.
        return torch.stack(
            [
                ((t - mean) @ whitening).square().sum(dim=1)
                for mean, whitening in zip(
                    self.means, self.precisions_cholesky, strict=True
                )
            ],
            dim=1,
        )

    def _tied_distances(self, t: Tensor) -> Tensor:
        white = (t - self.centre) @ self.precisions_cholesky
        lengths = white.square().sum(dim=1, keepdim=True)
        n_classes = len(self.white_means)
        blocks = [*_equal_blocks(self.white_means)]
        distances = white.new_empty(len(t), len(blocks) * CLASSES_AT_ONCE)
        places = distances.split(CLASSES_AT_ONCE, dim=1)
        for means, place in zip(blocks, places, strict=True):
            torch.addmm(lengths, white, means.T, alpha=-2, out=place)
        return distances[:, :n_classes].add_(self.white_lengths).clamp_min_(0)

    def _diag_distances(self, t: Tensor) -> Tensor:
        return torch.stack(
            [
                ((t - mean) * scale).square().sum(dim=1)
                for mean, scale in zip(
                    self.means, self.precisions_cholesky, strict=True
                )
            ],
            dim=1,
        )

    def half_log_precision(self) -> Tensor:
        """Half of the precisions' log determinants, (n_classes,). Of "tied", one."""
        if self.covariance_type == "diag":
            return self.precisions_cholesky.log().sum(dim=-1)
        diagonal = self.precisions_cholesky.diagonal(dim1=-2, dim2=-1)
        return diagonal.log().sum(dim=-1)


def _equal_blocks(means: Tensor) -> Iterator[Tensor]:
    """Means (n_classes, D) in blocks (CLASSES_AT_ONCE, D), the last filled with zeros.

    A product's rounding depends on its shape: of equal blocks, what comes out for a
    class does not depend on what others there are.
    """
    for block in means.split(CLASSES_AT_ONCE):
        yield nn.functional.pad(block, (0, 0, 0, CLASSES_AT_ONCE - len(block)))


def covariance_type_for(
    class_sizes: Sequence[int] | np.ndarray, n_features: int
) -> str:
    """Decide ``covariance_type="auto"`` of a part with so many columns.

    ``"full"`` where half of the classes have a row for every four columns, ``"tied"``
    with fewer, or where memory is too small for full ones. ``"diag"`` where no class
    has three rows, or for more than 4,096 columns.

    Examples
    --------
    >>> [covariance_type_for([n, n, n], 384) for n in (2, 18, 500)]
    ['diag', 'tied', 'full']
    """
    if max(class_sizes) < SMALLEST_CLASS or n_features > WIDEST_MATRIX:
        return "diag"
    has_enough = np.median(class_sizes) >= FULL_ROWS_PER_COLUMN * n_features
    fits = _bytes_of_fit("full", len(class_sizes), n_features) <= _memory()
    return "full" if has_enough and fits else "tied"


def check_memory(
    lengths: Mapping[str, int], class_sizes: np.ndarray, covariance_type: str
) -> None:
    """Raise a ValueError if Gaussians of parts with so many columns fit no memory."""
    n_classes = len(class_sizes)
    for name, n_features in lengths.items():
        kind = covariance_type
        if kind == "auto":
            kind = covariance_type_for(class_sizes, n_features)
        needed, there = _bytes_of_fit(kind, n_classes, n_features), _memory()
        if needed > there:
            raise ValueError(
                f"covariance_type={kind!r} of the part {name!r} with {n_features} "
                f"columns and {n_classes} classes takes {needed / 2**30:.0f} GiB, but "
                f"the machine has {there / 2**30:.0f} GiB. Use covariance_type='auto' "
                f"or 'diag', `features` without {name!r}, or fewer columns, for "
                "example by TruncatedSVD."
            )


def _bytes_of_fit(covariance_type: str, n_classes: int, n_features: int) -> int:
    """Bytes of the matrices that a fit holds: covariances, and their inverses."""
    if covariance_type == "diag":
        return 16 * n_classes * n_features
    n_matrices = n_classes if covariance_type == "full" else 1
    return 16 * n_matrices * n_features**2


def _memory() -> int:
    """Bytes of the machine's memory, or a usual number where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return USUAL_MEMORY


def check_class_sizes(class_sizes: np.ndarray, covariance_type: str) -> None:
    """Raise a ValueError if no class has the points that a covariance needs."""
    needed = 2 if covariance_type in ("auto", "diag") else SMALLEST_CLASS
    if max(class_sizes) < needed:
        hint = "" if needed == 2 else "covariance_type='diag', or "
        raise ValueError(
            f"covariance_type={covariance_type!r} needs a class with at least {needed} "
            "training points in addition to those held out, but the largest "
            f"has {max(class_sizes)}. Use {hint}more points a class."
        )


def fit_gaussians(
    class_batches: ClassBatches,
    classes: Sequence[Any],
    covariance_type: str,
    pooling: float = 0.0,
    known: Mapping[str, ClassGaussians] | None = None,
) -> dict[str, ClassGaussians]:
    """Fit each class's Gaussians, one for each block of features, as they stream by.

    A first pass takes running moments, which is all that ``"diag"`` needs. For
    ``"full"`` and ``"tied"``, a second pass estimates the covariances of one class at a
    time, in units of the features' pooled within-class standard deviation. ``"tied"``
    averages the class covariances by the classes' sizes, as scikit-learn's linear
    discriminant analysis does. Ledoit-Wolf shrinkage is computed from running sums, in
    memory that does not grow with the number of points. `pooling` draws each class's
    covariance towards that average, as regularised discriminant analysis does
    (J. H. Friedman, JASA 84, 1989).

    ``"auto"`` decides for each block (see :func:`covariance_type_for`).

    `class_batches` takes a class's position in `classes` and yields its features: dicts
    from a block's name to an array (at most a batch, D of the block). A class that is
    too small for a covariance of its own gets the pooled one, with a warning. Where
    that is singular too, a ValueError says what to do.

    Classes that join `known` ones have their type of covariance. They are fitted in
    these ones' scale, and take their
    pooled covariance in with `pooling` or as that of :data:`PRIOR_POINTS` points more,
    whichever is the larger share: the covariance of a few points fits these far too
    well.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def class_batches(label):
    ...     yield {"t1": rng.normal(label, 1, (50, 3))}
    >>> gaussians = fit_gaussians(class_batches, "ab", "full")["t1"]
    >>> gaussians.means.shape, gaussians.precisions_cholesky.shape
    (torch.Size([2, 3]), torch.Size([2, 3, 3]))
    """
    moments = [_moments(class_batches(label)) for label in range(len(classes))]
    blocks = {
        name: _Block(
            name,
            [of_class[name] for of_class in moments],
            None if known is None else known[name],
            covariance_type,
        )
        for name in moments[0]
    }
    if second := {name: block for name, block in blocks.items() if block.needs_rows}:
        for label, of_class in enumerate(moments):
            _take_class(second, label, class_batches(label), of_class)
    with _pooled_named_once(classes) as pooled_instead:
        return {
            name: block.gaussians(pooling, pooled_instead)
            for name, block in blocks.items()
        }


def cache_features(class_batches: ClassBatches, budget: int = 2**26) -> ClassBatches:
    """Keep the features of classes for the next pass, while they fit in `budget` bytes.

    Those of the other classes are computed again in each pass.

    Examples
    --------
    >>> import numpy as np
    >>> passes = []
    >>> def class_batches(label):
    ...     passes.append(label)
    ...     yield {"t1": np.ones((2, 3))}
    >>> kept = cache_features(class_batches)
    >>> [len(list(kept(label))) for label in (0, 1, 0, 1)], passes
    ([1, 1, 1, 1], [0, 1])
    """
    kept: dict[int, list[Features]] = {}
    left = budget

    def batches(label: int) -> Iterator[Features]:
        nonlocal left
        if label in kept:
            yield from kept[label]
            return
        own: list[Features] = []
        size = 0
        for features in class_batches(label):
            size += sum(block.nbytes for block in features.values())
            if size <= left:
                own.append(features)
            else:
                own.clear()
            yield features
        if size <= left:
            kept[label] = own
            left -= size

    return batches


class _Block:
    """Moments, means and covariances of one block of features, class by class.

    Of classes that join known ones, in the scale (D,) and with the pooled covariance
    (D, D) of these. It keeps each class's own covariance, or the pooled one alone.
    """

    def __init__(
        self,
        name: str,
        moments: list[StandardScaler],
        known: ClassGaussians | None,
        covariance_type: str,
    ) -> None:
        self.moments = moments
        self.sizes = [class_moments.n_samples_seen_ for class_moments in moments]
        self.known = known
        if known is not None:
            covariance_type = known.covariance_type
        elif covariance_type == "auto":
            n_features = len(moments[0].mean_)
            covariance_type = covariance_type_for(self.sizes, n_features)
        self.covariance_type = covariance_type
        self.means = [class_moments.mean_ for class_moments in moments]
        self.covariances: list[np.ndarray] = []
        if known is None:
            self.scale = _within_class_scale(name, moments)
            n_pooled = len(self.scale) if self.needs_rows else 0
            self.pooled = np.zeros((n_pooled, n_pooled))
            return
        common = known.common()
        n_features = known.means.shape[1]
        self.scale = common.get("scale", np.ones(n_features))
        self.pooled = common.get("pooled", np.empty((0, 0)))

    @property
    def needs_rows(self) -> bool:
        """Whether covariances are estimated, by a second pass over the rows."""
        is_new = self.known is None
        return self.covariance_type == "full" or (
            self.covariance_type == "tied" and is_new
        )

    def take(self, label: int, mean: np.ndarray, covariance: np.ndarray) -> None:
        """Take a class's mean and covariance, in units of the scale."""
        if self.known is None:
            self.pooled += self.sizes[label] / sum(self.sizes) * covariance
        self.means[label] = mean * self.scale
        if self.covariance_type == "full":
            self.covariances.append(covariance)

    def gaussians(
        self, pooling: float, pooled_instead: PooledInstead
    ) -> ClassGaussians:
        """Gaussians of the classes whose moments, and covariances, were taken."""
        means = np.stack(self.means)
        if self.covariance_type == "tied":
            if self.known is not None:
                precisions = self.known.precisions_cholesky.cpu().numpy()
                return ClassGaussians(means, precisions, "tied", self.known.common())
            whitening = _whitening_of_pooled(self.pooled)
            return ClassGaussians(means, whitening / self.scale[:, None], "tied")
        shares = [pooling] * len(means)
        if self.known is not None:
            shares = [
                max(pooling, PRIOR_POINTS / (n + PRIOR_POINTS)) for n in self.sizes
            ]
        if self.covariance_type == "diag":
            deviations = _deviations(self.moments, self.scale, shares, pooled_instead)
            common = {"scale": self.scale}
            return ClassGaussians(means, 1 / np.stack(deviations), "diag", common)
        whitenings = _whitenings(self.covariances, self.pooled, shares, pooled_instead)
        common = {"scale": self.scale, "pooled": self.pooled}
        return ClassGaussians(means, whitenings / self.scale[:, None], "full", common)


class _Estimate:
    """Mean and covariance of one class, from batches of (n, D) as they come.

    It equals :class:`~sklearn.covariance.LedoitWolf`. Besides the empirical covariance,
    the shrinkage needs only the sum of the fourth powers of the points' distances to
    their mean (Ledoit and Wolf, 2004, section 3.3).
    """

    def __init__(self, scale: np.ndarray, moments: StandardScaler) -> None:
        self.scale = scale
        self.mean = moments.mean_ / scale
        self.n_samples = moments.n_samples_seen_
        self.scatter = np.zeros((len(scale), len(scale)))
        self.fourth_powers = 0.0

    def add(self, features: np.ndarray) -> None:
        centred = features / self.scale - self.mean
        self.scatter += centred.T @ centred
        self.fourth_powers += np.square(np.square(centred).sum(axis=1)).sum()

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        empirical = self.scatter / self.n_samples
        square_norm = np.square(empirical).sum()
        variance_of_entries = (
            self.fourth_powers / self.n_samples - square_norm
        ) / self.n_samples
        distance_to_target = square_norm - np.trace(empirical) ** 2 / len(self.mean)
        shrinkage = (
            min(max(variance_of_entries / distance_to_target, 0.0), 1.0)
            if distance_to_target > 0
            else 0.0
        )
        # Imported where it is used: it takes scikit-learn's linear models along.
        from sklearn.covariance import shrunk_covariance

        return self.mean, shrunk_covariance(empirical, shrinkage)


def _take_class(
    blocks: Mapping[str, _Block],
    label: int,
    batches: Iterable[Features],
    moments: Mapping[str, StandardScaler],
) -> None:
    """Estimate one class's mean (D,) and covariance (D, D) for each block."""
    estimates = {
        name: _Estimate(block.scale, moments[name]) for name, block in blocks.items()
    }
    for features in batches:
        for name, estimate in estimates.items():
            estimate.add(features[name])
    for name, estimate in estimates.items():
        blocks[name].take(label, *estimate.finish())


def _moments(batches: Iterable[Features]) -> dict[str, StandardScaler]:
    scalers: dict[str, StandardScaler] = {}
    for features in batches:
        for name, block in features.items():
            scaler = scalers.setdefault(name, StandardScaler())
            scaler.partial_fit(block.astype(np.float64))
    return scalers


def _within_class_scale(name: str, moments: list[StandardScaler]) -> np.ndarray:
    """Pool the standard deviation of each feature about its class's mean.

    Shrinkage pulls a covariance towards a multiple of the identity. In units of this
    scale that treats the parts of the ensemble alike, however large their activations.
    """
    sizes = [class_moments.n_samples_seen_ for class_moments in moments]
    variances = [class_moments.var_ for class_moments in moments]
    pooled = np.average(variances, axis=0, weights=sizes)
    smallest = SMALLEST_RELATIVE_SCALE**2 * pooled.mean()
    if not smallest > 0:
        raise ValueError(
            f"The part {name!r} of the features is the same for every training point "
            "of a class, so that no Gaussian can be fitted. Check that the inputs of a "
            "class differ, or leave the part out of `features`."
        )
    return np.sqrt(np.maximum(pooled, smallest))


def _deviations(
    moments: list[StandardScaler],
    pooled: np.ndarray,
    shares: list[float],
    pooled_instead: PooledInstead,
) -> list[np.ndarray]:
    is_small = [m.n_samples_seen_ < SMALLEST_CLASS for m in moments]
    pooled_instead["too few points"] |= set(np.flatnonzero(is_small))
    # A channel that is dead within a class must not make the density infinite.
    usual = np.sqrt(np.square(pooled).mean())
    smallest = SMALLEST_RELATIVE_SCALE * np.maximum(pooled, usual)
    return [
        pooled
        if small
        else np.maximum(np.sqrt((1 - share) * m.var_ + share * pooled**2), smallest)
        for m, share, small in zip(moments, shares, is_small, strict=True)
    ]


@contextmanager
def _pooled_named_once(classes: Sequence[Any]) -> Iterator[PooledInstead]:
    """Warn of the classes that take the pooled covariance, in whichever block."""
    pooled_instead: PooledInstead = defaultdict(set)
    yield pooled_instead
    for reason, labels in pooled_instead.items():
        if labels:
            names = [repr(classes[label]) for label in sorted(labels)]
            warn(
                f"{len(names)} of {len(classes)} classes ([{listed(names)}]) have no "
                "covariance of their own: "
                f"{reason}. They take the one pooled over all classes. "
                "covariance_type='tied' does so for every class."
            )


def _regular_cholesky(covariance: np.ndarray) -> np.ndarray | None:
    """Lower Cholesky factor, or None where rounding would decide the inverse."""
    try:
        lower = cholesky(covariance, lower=True)
    except (LinAlgError, ValueError):
        return None
    smallest = len(covariance) * np.finfo(np.float64).eps * covariance.diagonal().max()
    return lower if lower.diagonal().min() ** 2 > smallest else None


def _whitening(lower: np.ndarray) -> np.ndarray:
    """``W`` with ``W W^T`` the inverse of the covariance ``lower lower^T``."""
    return np.ascontiguousarray(
        solve_triangular(lower, np.eye(len(lower)), lower=True).T
    )


def _whitenings(
    covariances: list[np.ndarray],
    pooled: np.ndarray,
    shares: list[float],
    pooled_instead: PooledInstead,
) -> np.ndarray:
    """Whiten by each class's covariance with its share of the pooled one in it."""
    whitenings = np.empty((len(covariances), *pooled.shape))
    borrowing = []
    for label, covariance in enumerate(covariances):
        if _regular_cholesky(covariance) is None:
            borrowing.append(label)
        else:
            mixed = (1 - shares[label]) * covariance + shares[label] * pooled
            whitenings[label] = _whitening(cholesky(mixed, lower=True))
    if borrowing:
        whitenings[borrowing] = _whitening_of_pooled(pooled)
        pooled_instead["too few or too similar points"] |= set(borrowing)
    return whitenings


def _whitening_of_pooled(pooled: np.ndarray) -> np.ndarray:
    lower = _regular_cholesky(pooled)
    if lower is None:
        raise ValueError(
            f"The covariance of the feature ensemble is singular ({len(pooled)} "
            "dimensions), even after Ledoit-Wolf shrinkage. Use more training "
            "points a class, fewer `features`, or covariance_type='diag'."
        )
    return _whitening(lower)

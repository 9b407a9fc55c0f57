"""Classes that a fitted detector learns or forgets, on the net as it is.

The Gaussians of the classes that stay are the same arrays as before, and so are their
likelihoods, bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skvmdls._labels import as_labels, positions
from skvmdls.gaussians import (
    ClassBatches,
    ClassGaussians,
    _borrowing_named_once,
    _deviations,
    _Estimate,
    _moments,
    _whitenings,
)
from skvmdls.inputs import check_labels

__all__ = [
    "check_dropped",
    "check_new_labels",
    "fit_new_classes",
    "rearranged",
]

# By name of the block, means and precisions of some classes.
Fitted = dict[str, tuple[np.ndarray, np.ndarray]]


def check_new_labels(known: np.ndarray, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Find the new classes (k,), sorted, and encode their labels, (n,).

    A ValueError says so if labels are known already, or break the rules of `fit`.

    Examples
    --------
    >>> check_new_labels(np.array(["ant", "bee"]), ["cow", "cow"])
    (array(['cow'], dtype='<U3'), array([0, 0]))
    """
    y = as_labels(y)
    is_known = positions(y, known) < len(known)
    if common := sorted(set(y[is_known].tolist())):
        raise ValueError(
            f"y holds labels that the detector knows already: {common[:5]}"
            f"{'...' * (len(common) > 5)}. add_classes takes rows of new classes only. "
            "To learn a class anew, drop_classes it first; to widen it, fit again with "
            "all rows."
        )
    if known.dtype.kind in "iu" and y.dtype.kind == "f":
        y = y.astype(np.int64)
    together = as_labels([*known.tolist(), *y.tolist()])
    old, y = together[: len(known)], together[len(known) :]
    # The rules for labels are those of `fit`, as if all had been given together.
    check_labels(np.concatenate([old, old, y]))
    return np.unique(y, return_inverse=True)


def fit_new_classes(
    fitted: Mapping[str, ClassGaussians],
    class_batches: ClassBatches,
    classes: Sequence[Any],
    covariance_estimator: Any = None,
    pooling: float = 0.0,
) -> Fitted:
    """Fit Gaussians of new classes, in the units and with the pooled covariance of old.

    `class_batches` yields their features, as for
    :func:`~skvmdls.gaussians.fit_gaussians`. Of ``"tied"``, which shares its precision,
    that is an empty array. A class that is too small for a covariance of its own gets
    the pooled one, with a warning.

    Examples
    --------
    >>> from skvmdls.gaussians import fit_gaussians
    >>> rng = np.random.default_rng(0)
    >>> def class_batches(label):
    ...     yield {"t1": rng.normal(label, 1, (50, 3))}
    >>> old = fit_gaussians(class_batches, "ab", "full")
    >>> means, precisions = fit_new_classes(old, class_batches, "c")["t1"]
    >>> means.shape, precisions.shape
    ((1, 3), (1, 3, 3))
    """
    if not fitted:
        raise ValueError(
            "The detector has no Gaussians, with features=('logit',) alone, and the "
            "head knows nothing of new classes. Fit again with all rows, or with more "
            "parts."
        )
    moments = [_moments(class_batches(label)) for label in range(len(classes))]
    covariance_type = next(iter(fitted.values())).covariance_type
    means = {
        name: np.stack([of_class[name].mean_ for of_class in moments])
        for name in fitted
    }
    if covariance_type == "tied":
        return {name: (means[name], np.empty((0, 0))) for name in fitted}
    common = {name: gaussians.common() for name, gaussians in fitted.items()}
    covariances: dict[str, list[np.ndarray]] = {name: [] for name in fitted}
    if covariance_type == "full":
        for label, of_class in enumerate(moments):
            estimates = {
                name: _Estimate(
                    common[name]["scale"], of_class[name], covariance_estimator
                )
                for name in fitted
            }
            for features in class_batches(label):
                for name, estimate in estimates.items():
                    estimate.add(features[name])
            for name, estimate in estimates.items():
                covariances[name].append(estimate.finish()[1])
    precisions = {}
    with _borrowing_named_once(classes) as borrowers:
        for name in fitted:
            scale = common[name]["scale"]
            if covariance_type == "diag":
                own = [of_class[name] for of_class in moments]
                precisions[name] = 1 / np.stack(
                    _deviations(own, scale, pooling, borrowers)
                )
            else:
                pooled = common[name]["pooled"]
                whitenings = _whitenings(
                    covariances[name], pooled, pooling, borrowers, covariance_estimator
                )
                precisions[name] = whitenings / scale[:, None]
    return {name: (means[name], precisions[name]) for name in fitted}


def rearranged(
    fitted: Mapping[str, ClassGaussians], order: np.ndarray, new: Fitted | None = None
) -> dict[str, ClassGaussians]:
    """Take Gaussians of some of the classes, old and new, in another order.

    The order gives positions, in the old classes followed by the new ones.

    Examples
    --------
    >>> old = {"g": ClassGaussians(np.array([[1.0], [2.0]]), np.ones((2, 1)), "diag")}
    >>> rearranged(old, np.array([1]))["g"].means
    tensor([[2.]], dtype=torch.float64)
    """
    changed = {}
    for name, gaussians in fitted.items():
        means = gaussians.means.cpu().numpy()
        precisions = gaussians.precisions_cholesky.cpu().numpy()
        is_tied = gaussians.covariance_type == "tied"
        if new is not None:
            means = np.concatenate([means, new[name][0]])
            if not is_tied:
                precisions = np.concatenate([precisions, new[name][1]])
        changed[name] = ClassGaussians(
            means[order],
            precisions if is_tied else precisions[order],
            gaussians.covariance_type,
            gaussians.common(),
        )
    return changed


def check_dropped(known: np.ndarray, labels: Any) -> np.ndarray:
    """Mask (n_classes,) of the classes that stay when some are dropped.

    A ValueError says so if a label is not known, or fewer than two would stay.

    Examples
    --------
    >>> check_dropped(np.array([3, 5, 7]), [5])
    array([ True, False,  True])
    """
    if np.ndim(labels) == 0:
        labels = [labels]
    dropped = positions(labels, known, "labels")
    if (dropped == len(known)).any():
        unknown = np.asarray(labels)[dropped == len(known)].tolist()
        raise ValueError(
            f"labels holds {unknown[:5]}{'...' * (len(unknown) > 5)}, which the "
            f"detector does not know: its classes are {known.tolist()[:20]}."
        )
    stays = ~np.isin(np.arange(len(known)), dropped)
    if stays.sum() < 2:
        raise ValueError(
            f"labels holds {len(known) - stays.sum()} of {len(known)} classes, which "
            f"would leave {stays.sum()}; at least 2 must stay. Fit a detector of other "
            "classes instead."
        )
    return stays

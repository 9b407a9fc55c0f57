"""Classes that a fitted detector learns or forgets, on the net as it is.

The Gaussians of the classes that stay are the same arrays as before, and so are their
likelihoods, bit for bit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from skvmdls._support.values import listed
from skvmdls.inputs.labels import as_labels, check_labels, positions
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = ["check_dropped", "check_has_gaussians", "check_new_labels", "rearranged"]


def check_has_gaussians(fitted: Mapping[str, ClassGaussians]) -> None:
    """Raise a ValueError unless there are Gaussians that new classes may join."""
    if not fitted:
        raise ValueError(
            "The detector has no Gaussians, with features=('logit',) alone, and the "
            "head knows nothing of new classes. Fit again with all rows, or with more "
            "parts."
        )


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
            "y holds labels that the detector knows already: "
            f"[{listed(map(repr, common))}]. add_classes takes rows of new classes "
            "only. To learn a class anew, drop_classes it first; to widen it, fit "
            "again with all rows."
        )
    if known.dtype.kind in "iu" and y.dtype.kind == "f":
        y = y.astype(np.int64)
    together = as_labels([*known.tolist(), *y.tolist()])
    old, y = together[: len(known)], together[len(known) :]
    # The rules for labels are those of `fit`, as if all had been given together.
    check_labels(np.concatenate([old, old, y]))
    return np.unique(y, return_inverse=True)


def rearranged(
    fitted: Mapping[str, ClassGaussians],
    order: np.ndarray,
    new: Mapping[str, ClassGaussians] | None = None,
) -> dict[str, ClassGaussians]:
    """Take Gaussians of some of the classes, old and new, in another order.

    The order (k,) gives positions, in the old classes followed by the new ones.

    Examples
    --------
    >>> old = {"g": ClassGaussians(np.array([[1.0], [2.0]]), np.ones((2, 1)), "diag")}
    >>> rearranged(old, np.array([1]))["g"].means
    tensor([[2.]], dtype=torch.float64)
    """
    changed = {}
    for name, gaussians in fitted.items():
        together = [gaussians] if new is None else [gaussians, new[name]]
        means, precisions = (
            [getattr(some, array).cpu().numpy() for some in together]
            for array in ("means", "precisions_cholesky")
        )
        changed[name] = ClassGaussians(
            np.concatenate(means)[order],
            precisions[0]
            if gaussians.covariance_type == "tied"
            else np.concatenate(precisions)[order],
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
            f"labels holds [{listed(map(repr, unknown))}], which the "
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

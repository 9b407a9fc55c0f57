"""Classes that a fitted detector learns or forgets, on the net as it is.

The Gaussians of the classes that stay are the same arrays as before, and so are their
likelihoods, bit for bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


def check_new_labels(known: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the classes that are new, and encode their labels.

    Parameters
    ----------
    known : ndarray of shape (n_classes,)
        Labels of the detector.
    y : ndarray of shape (n,)

    Returns
    -------
    classes : ndarray of shape (k,)
        New labels, sorted.
    encoded : ndarray of shape (n,), int64
        Position of each label in `classes`.

    Raises
    ------
    ValueError
        If labels are of another type than the known ones, or known already; or as of
        :func:`~skvmdls.inputs.check_labels`.

    Examples
    --------
    >>> check_new_labels(np.array(["ant", "bee"]), np.array(["cow", "cow"]))
    (array(['cow'], dtype='<U3'), array([0, 0]))
    """
    y = _of_one_kind(known, y)
    # The rules for labels are those of `fit`, as if all had been given together.
    check_labels(np.concatenate([np.repeat(known, 2), y]))
    classes, encoded = np.unique(y, return_inverse=True)
    if common := sorted(set(classes.tolist()) & set(known.tolist())):
        raise ValueError(
            f"y holds labels that the detector knows already: {common[:5]}"
            f"{'...' * (len(common) > 5)}. add_classes takes rows of new classes "
            "only. To learn a class anew, drop_classes it first; to widen it, fit "
            "again with all rows."
        )
    return classes, encoded


def _of_one_kind(known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bring labels to the kind of the known ones, if they are of one type."""
    is_text = [
        labels.dtype.kind == "U"
        or (labels.dtype.kind == "O" and all(isinstance(v, str) for v in labels))
        for labels in (known, y)
    ]
    if all(is_text):
        return y.astype(known.dtype if known.dtype.kind == "O" else str)
    kinds = [labels.dtype.kind.replace("u", "i") for labels in (known, y)]
    if any(is_text) or kinds[0] != kinds[1]:
        raise ValueError(
            f"y holds labels of dtype {y.dtype}, but those of the detector are of "
            f"dtype {known.dtype}, such as {known.tolist()[0]!r}. Give new labels of "
            "that type."
        )
    # Together with signed integers, large unsigned ones would become floats.
    return y.astype(known.dtype) if np.can_cast(y.dtype, known.dtype) else y


def fit_new_classes(
    fitted: Mapping[str, ClassGaussians],
    class_batches: ClassBatches,
    classes: Sequence[Any],
    covariance_estimator: Any = None,
    pooling: float = 0.0,
) -> Fitted:
    """Fit Gaussians of new classes, in the units and with the pooled covariance of old.

    Parameters
    ----------
    fitted : mapping of str to ClassGaussians
        Of each block, with what its classes have in common.
    class_batches : callable
        As of :func:`~skvmdls.gaussians.fit_gaussians`, of the new classes.
    classes : sequence
        New labels, for messages.
    covariance_estimator, pooling
        As of :func:`~skvmdls.gaussians.fit_gaussians`.

    Returns
    -------
    gaussians : dict of str to (means, precisions)
        Of each block; of ``"tied"``, which shares its precision, an empty array.

    Warns
    -----
    UserWarning
        If a class is too small for a covariance of its own: it gets the pooled one.

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

    Parameters
    ----------
    fitted : mapping of str to ClassGaussians
    order : ndarray of int
        Positions, in the old classes followed by the new ones.
    new : dict of str to (means, precisions), optional
        As of :func:`fit_new_classes`.

    Returns
    -------
    gaussians : dict of str to ClassGaussians

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
    """Find the classes that stay when some are dropped.

    Parameters
    ----------
    known : ndarray of shape (n_classes,)
    labels : array-like of shape (k,)

    Returns
    -------
    stays : ndarray of shape (n_classes,), bool

    Raises
    ------
    ValueError
        If a label is not known, or fewer than two classes would be left.

    Examples
    --------
    >>> check_dropped(np.array([3, 5, 7]), [5])
    array([ True, False,  True])
    """
    dropped = np.atleast_1d(np.asarray(labels)).tolist()
    if unknown := [label for label in dropped if label not in known.tolist()]:
        raise ValueError(
            f"labels holds {unknown[:5]}{'...' * (len(unknown) > 5)}, which the "
            f"detector does not know: its classes are {known.tolist()[:20]}."
        )
    stays = np.array([label not in dropped for label in known.tolist()])
    if stays.sum() < 2:
        raise ValueError(
            f"labels holds {len(set(dropped))} of {len(known)} classes, which would "
            f"leave {stays.sum()}; at least 2 must stay. Fit a detector of other "
            "classes instead."
        )
    return stays

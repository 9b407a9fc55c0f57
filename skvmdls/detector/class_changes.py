"""Classes that a fitted detector learns or forgets, on the net as it is.

The Gaussians of the classes that stay are the same arrays as before, and so are their
likelihoods, bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn

from skvmdls._support.values import listed, warn
from skvmdls.calibration.hold_out import hold_out
from skvmdls.calibration.verdicts import Calibration
from skvmdls.detector.fitting import calibrate, held_out_fraction, images_in_grid
from skvmdls.detector.parameters import Settings
from skvmdls.direct.parts import DirectParts
from skvmdls.inputs.groups import group_ids
from skvmdls.inputs.labels import as_labels, check_labels, positions
from skvmdls.inputs.rows import Rows
from skvmdls.scoring.expected_images import class_means
from skvmdls.scoring.features import block_features
from skvmdls.scoring.gaussians import (
    ClassGaussians,
    Features,
    cache_features,
    fit_gaussians,
)
from skvmdls.scoring.model import FittedModel, Measured, standardized_batches

__all__ = [
    "ChangedClasses",
    "check_dropped",
    "check_has_gaussians",
    "check_new_labels",
    "rearranged",
    "warn_of_close_classes",
    "with_classes",
    "without_classes",
]

# A new class is too close to a known one that accepts more than half of its rows,
# within the range of 95 % of the known points.
CLOSE_SHARE, CLOSE_P_VALUE = 0.5, 0.05


@dataclass(frozen=True, eq=False)
class ChangedClasses:
    """A model that knows other classes, with its calibration and its labels."""

    model: FittedModel
    calibration: Calibration
    classes: np.ndarray


def with_classes(
    model: FittedModel,
    calibration: Calibration,
    classes: np.ndarray,
    X: Rows,
    new: np.ndarray,
    labels: np.ndarray,
    settings: Settings,
) -> ChangedClasses:
    """Add classes `new` (k,), of rows X whose labels (n,) are positions in `new`."""
    rng = check_random_state(settings.random_state)
    fraction = held_out_fraction(settings, len(labels), len(new))
    split = hold_out(labels, fraction, 0.0, rng, group_ids(X, None))
    X_train, y_train = X.take(split.training), labels[split.training]

    def features(label: int) -> Iterable[Features]:
        own = X_train.take(np.flatnonzero(y_train == label))
        batches = standardized_batches(
            own, model, batch_size=settings.batch_size, device=settings.device
        )
        return block_features(
            model.network, model.autoencoder, batches, model.selection
        )

    known = model.blocks
    gaussians: dict[str, ClassGaussians] = {}
    if known:
        gaussians = fit_gaussians(
            cache_features(features),
            new.tolist(),
            settings.covariance_type,
            settings.covariance_pooling,
            known,
        )
    all_classes = np.concatenate([classes.astype(new.dtype), new])
    order = np.argsort(all_classes, kind="stable")
    position = np.argsort(order)  # of old and new classes, in the order to come
    fit_positions = np.concatenate([model.fit_positions, np.full(len(new), -1)])
    expected = model.expected_images
    if expected is not None:
        means = class_means(images_in_grid(model, X_train, settings), y_train)
        expected = expected.rearranged(order, means)
    changed = replace(
        model,
        gaussians=nn.ModuleDict(rearranged(known, order, gaussians)),
        fit_positions=fit_positions[order],
        expected_images=expected,
        evidence=model.evidence.of_classes(np.where(order < len(classes), order, -1)),
        direct=_with_direct_classes(model, X_train, y_train, order),
    )
    own = position[len(classes) + labels[split.threshold]]
    held_out = calibrate(changed, X.take(split.threshold), own, settings)
    joined = calibration.moved(position[: len(classes)]).joined(held_out)
    return ChangedClasses(changed, joined, all_classes[order])


def _with_direct_classes(
    model: FittedModel, X: Rows, labels: np.ndarray, order: np.ndarray
) -> DirectParts | None:
    """Add classes of rows X, by labels (n,) from 0, to the parts without a net."""
    if model.direct is None:
        return None
    chunks = list(X.in_chunks())
    if not model.selection.unit_rows:
        chunks = [model.standardizer.transform(c, torch.float64) for c in chunks]
    rows = torch.cat(chunks).numpy()
    return model.direct.with_classes(rows, labels).of_classes(order)


def without_classes(
    model: FittedModel, calibration: Calibration, classes: np.ndarray, stays: np.ndarray
) -> ChangedClasses:
    """Keep the classes that stay, by a mask (n_classes,)."""
    if not stays[calibration.labels].any():
        raise ValueError(
            "The classes that would stay have no held-out points, so that there would "
            "be no threshold. Drop fewer classes, or fit again."
        )
    order = np.flatnonzero(stays)
    known = model.blocks
    expected = model.expected_images
    changed = replace(
        model,
        gaussians=nn.ModuleDict(rearranged(known, order)),
        fit_positions=model.fit_positions[stays],
        expected_images=None if expected is None else expected.rearranged(order),
        evidence=model.evidence.of_classes(order),
        direct=model.direct and model.direct.of_classes(order),
    )
    return ChangedClasses(changed, calibration.without_classes(stays), classes[stays])


def warn_of_close_classes(
    measured: Measured,
    labels: np.ndarray,
    calibration: Calibration,
    classes: np.ndarray,
) -> None:
    """Warn of new classes, by labels (n,), whose points are accepted as known ones.

    The points were measured before their classes were added.
    """
    p_values = calibration.p_values(measured.score)
    is_usual = p_values > CLOSE_P_VALUE
    close = []
    for label in np.unique(labels).tolist():
        taken = measured.most_likely[is_usual & (labels == label)]
        counts = np.bincount(taken, minlength=len(classes))
        share = counts.max() / np.sum(labels == label)
        if share > CLOSE_SHARE:
            old = classes.tolist()[counts.argmax()]
            close.append(f"{label!r} to {old!r} ({share:.0%})")
    if close:
        warn(
            f"New classes that are too close to a known one: {', '.join(close)}; in "
            "brackets the share of their rows that it accepts. This net will not "
            "separate them well. Fit again with all rows, or give both one label."
        )


def check_has_gaussians(model: FittedModel) -> None:
    """Raise a ValueError unless there are parts that new classes may join."""
    if not model.blocks and model.direct is None:
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
            "only. To learn a class again, drop_classes it first; to widen it, fit "
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

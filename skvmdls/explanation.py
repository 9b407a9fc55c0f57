"""Explain scores: columns of a table, places of an image, nearest classes."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.utils import Bunch
from torch import Tensor

from skvmdls.calibration.verdicts import Calibration, Verdicts
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.inputs.rows import Rows
from skvmdls.scoring.evidence import INPUT
from skvmdls.scoring.gaussians import ClassGaussians
from skvmdls.scoring.model import FittedModel, Measured, standardized_batches

__all__ = ["column_contributions", "nearest_classes"]

# Of tables, the first of these parts that is used is shared among the columns.
EXPLAINED_PARTS = (INPUT, "separate", "shared", "relative", "neighbours", "linear")


def explain(
    X: Rows,
    measured: Measured,
    verdicts: Verdicts,
    model: FittedModel,
    calibration: Calibration,
    classes: np.ndarray,
    *,
    batch_size: int,
    device: str | torch.device,
    places: bool = True,
) -> Bunch:
    """Collect why rows X (n, ...) score as they do.

    The fields are those of :meth:`skvmdls.VMDLSDetector.explain`. The rows are measured
    by class.
    """
    assert measured.class_scores is not None
    nearest = nearest_classes(measured.class_scores, measured.most_likely)
    explanation = Bunch(
        label=verdicts.labels,
        margin=verdicts.margins,
        p_value=calibration.p_values(measured.score),
        evidence=model.evidence.standardize(measured.raw),
        nearest=labels_with_unknown(classes)[nearest],
    )
    if not places:
        return explanation
    batches = standardized_batches(X, model, batch_size=batch_size, device=device)
    part = _explained_part(model)
    if part is not None:
        raw = X.in_order(batch_size)
        contributions = [
            _contributions(part, given, x, rows, measured, model)
            for given, (rows, x) in zip(raw, _with_rows(batches), strict=True)
        ]
        explanation.contributions = np.concatenate(contributions)
        explanation.explained_part = part
    if model.expected_images is not None:
        classes_of = torch.from_numpy(measured.most_likely)
        maps = [
            model.expected_images.residual_map(x, classes_of[rows])
            for rows, x in _with_rows(batches)
        ]
        explanation.residual_map = torch.cat(maps).numpy()
    return explanation


def _with_rows(batches: Iterator[Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """Give each batch with the rows (k,) that it holds."""
    end = 0
    for x in batches:
        start, end = end, end + len(x)
        yield slice(start, end), x


def _explained_part(model: FittedModel) -> str | None:
    """Name the part whose score is shared among the columns, if there is one."""
    if model.direct is not None and not model.direct.has_column_terms:
        return None
    names = (name for name in EXPLAINED_PARTS if name in model.evidence.names)
    return next(names, None)


@torch.inference_mode()
def _contributions(
    name: str,
    given: Tensor,
    x: Tensor,
    rows: slice,
    measured: Measured,
    model: FittedModel,
) -> np.ndarray:
    """Share a part's score among the columns of rows, (k, features)."""
    assert measured.winners is not None
    part = model.evidence.names.index(name)
    raw = measured.raw[rows]
    excess = torch.from_numpy(raw[:, part] - model.evidence.typical[part])
    winners = torch.from_numpy(measured.winners[rows, part]).to(x.device)
    if name == INPUT:
        contributions = column_contributions(model.blocks[INPUT], x, winners, excess)
    else:
        assert model.direct is not None
        taken = given if model.selection.unit_rows else x
        terms = model.direct.column_terms(taken.cpu(), winners.cpu())
        terms = terms[:, :, model.direct.names.index(name)]
        left_over = excess - terms.sum(dim=1)
        contributions = terms + left_over[:, None] / terms.shape[1]
    # Far out, where the scale of the evidence is logarithmic, they shrink alike.
    linear = model.evidence.in_spreads(raw)[:, part]
    scaled = model.evidence.standardize(raw)[:, part]
    kept = np.divide(scaled, linear, out=np.ones_like(linear), where=linear != 0)
    return contributions.cpu().numpy() * kept[:, None]


def column_contributions(
    gaussians: ClassGaussians, x: Tensor, classes: Tensor, excess: Tensor
) -> Tensor:
    """Split the log-likelihood under a class's Gaussian into one term a column.

    A Gaussian's squared Mahalanobis distance is ``sum_j d_j (P d)_j``, with ``d = x -
    mean`` and ``P`` the precision matrix: column ``j`` contributes ``-d_j (P d)_j /
    2``. For points of the class this is -1/2 on average in every column, so that what
    is left over (the Gaussian's constant, less what is typical) is shared by all alike.
    A column's term counts its own deviation and how it fails to go along with others.
    It may be positive.

    Parameters
    ----------
    gaussians : ClassGaussians
        Of the rows themselves.
    x : Tensor of shape (n, features)
        Standardised rows.
    classes : Tensor of shape (n,), int64
        Under which class to look at each row.
    excess : Tensor of shape (n,), float64
        Log-likelihood under that class, less its typical value.

    Returns
    -------
    contributions : Tensor of shape (n, features), float64
        In nats. Each row sums to its `excess`.

    Examples
    --------
    >>> gaussians = ClassGaussians(np.zeros((1, 2)), np.ones((1, 2)), "diag")
    >>> x = torch.tensor([[3.0, 0.0]])
    >>> column_contributions(
    ...     gaussians, x, torch.tensor([0]), torch.tensor([-4.0]).double()
    ... )
    tensor([[-4.2500,  0.2500]], dtype=torch.float64)
    """
    t = x.to(gaussians.means)
    quadratic = torch.empty_like(t)
    for label in classes.unique():
        rows = classes == label
        deviations = t[rows] - gaussians.means[label]
        precision = gaussians.precisions_cholesky
        if gaussians.covariance_type == "diag":
            pulled = deviations * precision[label].square()
        else:
            whitening = precision if precision.ndim == 2 else precision[label]
            pulled = deviations @ whitening @ whitening.T
        quadratic[rows] = -0.5 * deviations * pulled
    left_over = excess.to(t) - quadratic.sum(dim=1)
    return quadratic + left_over[:, None] / t.shape[1]


def nearest_classes(
    class_scores: np.ndarray, most_likely: np.ndarray, n_nearest: int = 3
) -> np.ndarray:
    """Rank the classes of each point, the one that it is given first.

    Parameters
    ----------
    class_scores : ndarray of shape (n, n_classes)
        Higher is nearer.
    most_likely : ndarray of shape (n,), int
        Position of the class that each point is given.
    n_nearest : int, default=3

    Returns
    -------
    positions : ndarray of shape (n, n_nearest), int64
        ``n_classes``, which is "unknown", where there are no more classes.

    Examples
    --------
    >>> nearest_classes(np.array([[1.0, 2.0]]), np.array([0]))
    array([[0, 1, 2]])
    """
    scores = class_scores.copy()
    scores[np.arange(len(scores)), most_likely] = np.inf
    nearest = np.argsort(-scores, axis=1, kind="stable")[:, :n_nearest]
    missing = max(0, n_nearest - nearest.shape[1])
    return np.pad(
        nearest, [(0, 0), (0, missing)], constant_values=class_scores.shape[1]
    )

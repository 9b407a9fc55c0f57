"""Why a point scores as it does: columns of a table, places of an image.

Of standardised inputs; :meth:`skvmdls.VMDLSDetector.explain` asks.
"""

import numpy as np
import torch
from torch import Tensor

from skvmdls.scoring.gaussians import ClassGaussians

__all__ = ["column_contributions", "nearest_classes"]


def column_contributions(
    gaussians: ClassGaussians, x: Tensor, classes: Tensor, excess: Tensor
) -> Tensor:
    """Split the log-likelihood under a class's Gaussian into one term a column.

    A Gaussian's squared Mahalanobis distance is ``sum_j d_j (P d)_j``, with ``d = x -
    mean`` and ``P`` the precision matrix: column ``j`` contributes ``-d_j (P d)_j /
    2``. For points of the class this is -1/2 on average in every column, so that what
    is left over (the Gaussian's constant, less what is typical) is shared by all alike.
    A column's term counts its own deviation and how it fails to go along with others;
    it may be positive.

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
        In nats; each row sums to its `excess`.

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

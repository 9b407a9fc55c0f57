"""The losses that shape the latent space: pure functions of tensors.

The metric loss (Dinari & Freifeld 2022, eqs. 2-4) works on squared Euclidean distances
between the generator's stochastic outputs and averages over *all* triplets of a batch.
The KL loss (eqs. 5-7) pulls each point's Gaussian towards its class's prior.
"""

import math

import torch
from torch import Tensor

__all__ = ["distancing_loss", "kl_loss", "squared_distances", "triplet_loss"]

# Triplets are counted in pieces that stay in the cache of a processor core;
# accelerators want few large pieces instead.
CACHED_NUMBERS = 2**18
LAUNCHED_NUMBERS = 2**24


def squared_distances(outputs: Tensor) -> Tensor:
    """Squared Euclidean distances between all rows.

    Parameters
    ----------
    outputs : Tensor of shape (batch, latent_dim)
        Generator outputs ``f``.

    Returns
    -------
    distances : Tensor of shape (batch, batch)
        Non-negative, zero on the diagonal, same dtype as `outputs`.

    Examples
    --------
    >>> import torch
    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    # Distances do not change with the origin; the rounding error of the expanded
    # square does, and is smallest about the mean.
    centred = outputs - outputs.mean(dim=0).detach()
    square_norms = centred.square().sum(dim=1)
    sums = square_norms[:, None] + square_norms
    distances = torch.addmm(sums, centred, centred.T, alpha=-2)
    return distances.clamp_min(0).fill_diagonal_(0)


def triplet_loss(
    distances: Tensor, labels: Tensor, margin: float, largest_class: int | None = None
) -> Tensor:
    """Mean triplet loss of each point as the anchor (eq. 2).

    A triplet is (anchor, positive, negative): two different points of one class and a
    point of another. Its loss is ``max(0, margin + d(a, p) - d(a, n))``. The sum over
    triplets is that of the distances, each times how often it is in an active one. So
    triplets are only counted, and gradients never pass through more than the batch^2
    distances. That is exact. In memory it is O(batch^2).

    Parameters
    ----------
    distances : Tensor of shape (batch, batch)
        Squared distances (see :func:`squared_distances`).
    labels : Tensor of shape (batch,)
        Integer class of each point.
    margin : float
        ``M_t``, in units of squared distance.
    largest_class : int, optional
        Points of the largest class in the batch. If it is not known, the labels are
        counted, for which the host waits on a GPU.

    Returns
    -------
    loss : Tensor of shape (batch,)
        Mean over the anchor's triplets. 0 for an anchor that has none.

    Examples
    --------
    >>> import torch
    >>> distances = squared_distances(torch.tensor([[0.0], [1.0], [1.1]]))
    >>> triplet_loss(distances, torch.tensor([0, 0, 1]), margin=0.1)
    tensor([0.0000, 1.0900, 0.0000])
    """
    if largest_class is None:
        largest_class = int(labels.unique(return_counts=True)[1].max())
    same_class = labels[:, None] == labels
    positives, is_positive = _own_class(labels, largest_class)
    reach = distances.gather(1, positives) + margin
    n_active, n_uses = _active_triplets(
        reach.detach().masked_fill(~is_positive, -math.inf),
        distances.detach().masked_fill(same_class, math.inf),
    )
    hinge_sums = (reach * n_uses).sum(dim=1) - (distances * n_active).sum(dim=1)
    n_triplets = is_positive.sum(dim=1) * (~same_class).sum(dim=1)
    return hinge_sums / n_triplets.clamp_min(1)


def _active_triplets(reach: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Of each anchor, count the positives that reach beyond each negative.

    And for each positive the negatives that it reaches beyond: both sums of one
    comparison, made for a few anchors at a time.
    """
    n_active, n_uses = torch.empty_like(distances), torch.empty_like(reach)
    largest = CACHED_NUMBERS if distances.device.type == "cpu" else LAUNCHED_NUMBERS
    n_anchors = max(1, largest // (reach.shape[1] * len(distances)))
    n_anchors = min(n_anchors, len(distances))
    # Compared into numbers, not booleans: those are added up many times faster.
    is_active = reach.new_empty(n_anchors, reach.shape[1], len(distances))
    for start in range(0, len(distances), n_anchors):
        anchors = slice(start, start + n_anchors)
        near, far = reach[anchors, :, None], distances[anchors, None, :]
        active = torch.gt(near, far, out=is_active[: len(near)])
        torch.sum(active, dim=1, out=n_active[anchors])
        torch.sum(active, dim=2, out=n_uses[anchors])
    return n_active, n_uses


def _own_class(labels: Tensor, largest_class: int) -> tuple[Tensor, Tensor]:
    """Positions of each point's own class, padded, and which are other points of it."""
    order = labels.argsort()
    sorted_labels = labels[order]
    first = torch.searchsorted(sorted_labels, labels)
    end = torch.searchsorted(sorted_labels, labels, right=True)
    places = first[:, None] + torch.arange(largest_class, device=labels.device)
    members = order[places.clamp_max(len(labels) - 1)]
    itself = torch.arange(len(labels), device=labels.device)[:, None]
    return members, (places < end[:, None]) & (members != itself)


def distancing_loss(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Mean distancing loss of each point as the anchor (eq. 3).

    The loss of a negative is ``max(0, margin - d(a, n))``. It does not depend on the
    positive, so its mean over an anchor's triplets is its mean over the negatives.

    Parameters
    ----------
    distances : Tensor of shape (batch, batch)
        Squared distances (see :func:`squared_distances`).
    labels : Tensor of shape (batch,)
        Integer class of each point.
    margin : float
        ``M_d``, in units of squared distance.

    Returns
    -------
    loss : Tensor of shape (batch,)
        Mean over the anchor's triplets. 0 for an anchor that has none.

    Examples
    --------
    >>> import torch
    >>> distances = squared_distances(torch.tensor([[0.0], [1.0], [2.0]]))
    >>> distancing_loss(distances, torch.tensor([0, 0, 1]), margin=3.0)
    tensor([0., 2., 0.])
    """
    same_class = labels[:, None] == labels
    n_negatives = (~same_class).sum(dim=1)
    has_triplets = (same_class.sum(dim=1) > 1) & (n_negatives > 0)
    hinge_sums = (margin - distances).clamp_min(0).masked_fill(same_class, 0).sum(dim=1)
    return hinge_sums / n_negatives.clamp_min(1) * has_triplets


def kl_loss(
    mu: Tensor, log_sigma: Tensor, prior_means: Tensor, prior_variance: float
) -> Tensor:
    """Divergence of each point's Gaussian from its class's prior.

    ``KL(N(mu, diag(sigma^2)) || N(m(y), s^2 I))``, non-negative, to be *minimised*:
    the paper's eqs. 5-7 define the term with the opposite sign, which taken literally
    would drive the divergence up.

    Parameters
    ----------
    mu, log_sigma : Tensor of shape (batch, latent_dim)
        Mean and log standard deviation of each point's Gaussian.
    prior_means : Tensor of shape (batch, latent_dim)
        ``m(y)`` of each point's own class.
    prior_variance : float
        ``s^2``.

    Returns
    -------
    loss : Tensor of shape (batch,)
        In nats.

    Examples
    --------
    >>> import torch
    >>> kl_loss(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2), 1.0)
    tensor([1.])
    """
    log_ratio = 0.5 * math.log(prior_variance) - log_sigma
    spread = (2 * log_sigma).exp() + (mu - prior_means).square()
    return (log_ratio + spread / (2 * prior_variance) - 0.5).sum(dim=1)

"""The losses against plain enumeration, their gradients, and their properties."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from skvmdls.training.losses import (
    distancing_loss,
    kl_loss,
    squared_distances,
    triplet_loss,
)

UNEVEN = torch.tensor([0, 1, 1, 2, 0, 1, 2, 2, 2, 3])


def outputs_like(labels, latent_dim=4, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(labels), latent_dim)
    return spread * torch.randn(shape, generator=generator, dtype=torch.float64)


def enumerated(outputs, labels, triplet_margin, distancing_margin):
    """Mean triplet and distancing loss of each anchor, one triplet at a time."""
    n = len(outputs)
    triplet, distancing = [], []
    for anchor in range(n):
        terms = []
        for positive, negative in itertools.product(range(n), repeat=2):
            is_triplet = (
                positive != anchor
                and labels[positive] == labels[anchor]
                and labels[negative] != labels[anchor]
            )
            if is_triplet:
                near = ((outputs[anchor] - outputs[positive]) ** 2).sum()
                far = ((outputs[anchor] - outputs[negative]) ** 2).sum()
                zero = torch.zeros(())
                terms.append(
                    (
                        torch.maximum(zero, triplet_margin + near - far),
                        torch.maximum(zero, distancing_margin - far),
                    )
                )
        means = [sum(column) / len(terms) for column in zip(*terms, strict=True)]
        triplet.append(means[0] if terms else torch.zeros(()))
        distancing.append(means[1] if terms else torch.zeros(()))
    return torch.stack(triplet), torch.stack(distancing)


def metric_losses(outputs, labels, triplet_margin, distancing_margin):
    distances = squared_distances(outputs)
    return (
        triplet_loss(distances, labels, triplet_margin),
        distancing_loss(distances, labels, distancing_margin),
    )


@pytest.mark.parametrize(
    "labels",
    [
        UNEVEN,
        torch.tensor([0, 0, 0, 1, 1, 1]),
        torch.tensor([1, 0]),
        torch.tensor([2, 2, 2]),
    ],
    ids=["uneven", "balanced", "no positives", "no negatives"],
)
@pytest.mark.parametrize("margins", [(0.1, 4.0), (0.0, 0.0), (5.0, 100.0)])
@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_metric_losses_equal_enumeration(labels, margins, spread):
    outputs = outputs_like(labels, spread=spread).requires_grad_()
    fast = metric_losses(outputs, labels, *margins)
    slow = enumerated(outputs, labels, *margins)
    weights = torch.arange(1.0, len(labels) + 1, dtype=torch.float64)
    for fast_loss, slow_loss in zip(fast, slow, strict=True):
        torch.testing.assert_close(fast_loss, slow_loss, check_dtype=False)
        if not slow_loss.requires_grad:
            assert torch.all(fast_loss == 0)
            continue
        fast_gradient, slow_gradient = (
            torch.autograd.grad((loss * weights).sum(), outputs, retain_graph=True)[0]
            for loss in (fast_loss, slow_loss)
        )
        torch.testing.assert_close(fast_gradient, slow_gradient)


def test_metric_losses_pass_gradcheck():
    outputs = outputs_like(UNEVEN).requires_grad_()
    for loss in (0, 1):
        assert torch.autograd.gradcheck(
            lambda outputs, loss=loss: metric_losses(outputs, UNEVEN, 0.3, 6.0)[loss],
            outputs,
        )


def test_metric_losses_do_not_change_under_rotation_shift_and_reordering():
    outputs = outputs_like(UNEVEN)
    expected = metric_losses(outputs, UNEVEN, 0.1, 4.0)
    rotation = torch.linalg.qr(outputs_like(torch.arange(4), seed=1)).Q
    order = torch.randperm(len(UNEVEN), generator=torch.Generator().manual_seed(2))
    moved = metric_losses(outputs @ rotation + 100, UNEVEN, 0.1, 4.0)
    reordered = metric_losses(outputs[order], UNEVEN[order], 0.1, 4.0)
    for loss, after_move, after_reordering in zip(
        expected, moved, reordered, strict=True
    ):
        torch.testing.assert_close(after_move, loss)
        torch.testing.assert_close(after_reordering, loss[order])


def test_far_apart_classes_cost_nothing_and_margins_raise_the_loss():
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[0.0], [0.1], [50.0], [50.1]])
    assert all(loss.sum() == 0 for loss in metric_losses(apart, labels, 0.1, 32.0))
    outputs = outputs_like(UNEVEN)
    smaller = metric_losses(outputs, UNEVEN, 0.1, 1.0)
    larger = metric_losses(outputs, UNEVEN, 0.2, 2.0)
    assert all(
        torch.all(more >= less) for less, more in zip(smaller, larger, strict=True)
    )


def test_distances_of_equal_rows_are_zero_with_finite_gradients():
    outputs = torch.full((3, 4), 1e3).requires_grad_()
    distances = squared_distances(outputs)
    assert torch.all(distances == 0)
    triplet_loss(distances, torch.tensor([0, 0, 1]), 0.1).sum().backward()
    assert torch.isfinite(outputs.grad).all()


def test_kl_loss_equals_torch_distributions():
    mu, log_sigma, prior = (outputs_like(UNEVEN, seed=seed) for seed in range(3))
    expected = kl_divergence(
        Normal(mu, log_sigma.exp()), Normal(prior, math.sqrt(0.1))
    ).sum(dim=1)
    torch.testing.assert_close(kl_loss(mu, log_sigma, prior, 0.1), expected)


def test_kl_loss_passes_gradcheck():
    mu, log_sigma, prior = (outputs_like(UNEVEN, seed=seed) for seed in range(3))
    assert torch.autograd.gradcheck(
        lambda mu, log_sigma: kl_loss(mu, log_sigma, prior, 0.1),
        (mu.requires_grad_(), log_sigma.requires_grad_()),
    )


def test_minimising_the_kl_loss_reaches_the_prior():
    """Regression: the paper's eqs. 5-7, taken literally, run away from it."""
    mu = torch.full((1, 3), 2.0, requires_grad=True)
    log_sigma = torch.zeros(1, 3, requires_grad=True)
    prior = torch.tensor([[0.0, 1.0, -1.0]])
    optimizer = torch.optim.Adam([mu, log_sigma], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        loss = kl_loss(mu, log_sigma, prior, 0.1).sum()
        loss.backward()
        optimizer.step()
    assert -1e-6 < loss.item() < 1e-3
    torch.testing.assert_close(mu.detach(), prior, atol=0.02, rtol=0)
    torch.testing.assert_close(
        log_sigma.detach().exp(), torch.full((1, 3), math.sqrt(0.1)), atol=0.02, rtol=0
    )

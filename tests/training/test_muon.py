"""Muon: against a singular value decomposition, and against torch's own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skvmdls import VMDLSbDetector
from skvmdls.nets.backbones import mlp, photo_cnn
from skvmdls.training.muon import Muon, hidden_weights, orthogonalized

SETTINGS = {"lr": 0.01, "weight_decay": 0.1}


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3),
        nn.Flatten(),
        nn.Linear(256, 5),
    ).to(memory_format=torch.channels_last)


def others_than(weights, net):
    chosen = set(map(id, weights))
    return [p for p in net.parameters() if id(p) not in chosen]


def steps(net, optimizer, n_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        optimizer.zero_grad()
        net(torch.randn(16, 3, 8, 8, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (5, 5), (1, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalized_keeps_directions_and_evens_out_their_sizes(shape, dtype):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, sizes, v = torch.linalg.svd(matrix, full_matrices=False)
    made = orthogonalized(matrix.to(dtype)).float()
    in_these_directions = u.T @ made @ v.T
    along = in_these_directions.diagonal()
    beside = in_these_directions - along.diag()
    assert ((along > 0.6) & (along < 1.25)).all()
    assert beside.abs().max() < 0.05
    assert sizes.max() / sizes.min() >= along.max() / along.min() - 1e-3


def test_orthogonalized_of_nothing_is_nothing():
    assert orthogonalized(torch.zeros(3, 4)).equal(torch.zeros(3, 4))


@pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="this torch has no Muon of its own"
)
def test_steps_are_those_of_torchs_muon():
    """Which takes matrices alone, and computes in bfloat16: rounding tells them apart.

    Drawn gradients have no direction so weak that rounding alone would decide it.
    """
    generator = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(16, 8, 3, 3, generator=generator))
    before = kernel.detach().clone()
    matrix = nn.Parameter(before.flatten(1).clone())
    scalar = nn.Parameter(torch.zeros(1))
    ours = Muon([kernel], [scalar], dtype=torch.bfloat16, **SETTINGS)
    theirs = torch.optim.Muon([matrix], adjust_lr_fn="match_rms_adamw", **SETTINGS)
    for _ in range(5):
        kernel.grad = torch.randn(kernel.shape, generator=generator)
        matrix.grad = kernel.grad.flatten(1).clone()
        ours.step()
        theirs.step()
    apart = kernel.flatten(1) - matrix
    assert apart.norm() < 0.03 * (kernel - before).norm()


def test_all_but_the_matrices_are_adamws():
    net = small_net()
    other = copy.deepcopy(net)
    optimizer = Muon([], net.parameters(), **SETTINGS)
    steps(net, optimizer, 3)
    steps(other, torch.optim.AdamW(other.parameters(), **SETTINGS), 3)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert ours.equal(theirs)


def test_steps_are_as_large_as_adamws_and_decay_is_decoupled():
    weight = nn.Parameter(torch.randn(64, 576))
    before = weight.detach().clone()
    optimizer = Muon([weight], [nn.Parameter(torch.zeros(1))], **SETTINGS)
    weight.grad = torch.randn(64, 576)
    optimizer.step()
    step = weight - before * (1 - 0.01 * 0.1)
    size = step.square().mean().sqrt() / 0.01
    assert 0.1 < size < 0.3
    optimizer.zero_grad()
    held = weight.detach().clone()
    optimizer.step()
    assert weight.equal(held)


def test_a_state_that_is_taken_up_goes_on_as_if_never_stopped():
    net = small_net()
    weights = hidden_weights(net)
    optimizer = Muon(weights, others_than(weights, net), **SETTINGS)
    steps(net, optimizer, 2)
    other = copy.deepcopy(net)
    weights = hidden_weights(other)
    second = Muon(weights, others_than(weights, other), **SETTINGS)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(net, optimizer, 2, seed=1)
    steps(other, second, 2, seed=1)
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert ours.equal(theirs)


def test_hidden_weights_are_all_layers_but_the_first():
    of_mlp = [tuple(weight.shape) for weight in hidden_weights(mlp((6,)))]
    assert of_mlp == [(128, 128)] * 3
    of_photos = hidden_weights(photo_cnn((3, 32, 32)))
    assert [weight.shape[0] for weight in of_photos] == [64, 64, 192, 192, 256, 256]
    shared = nn.Linear(4, 4)
    assert len(hidden_weights(nn.Sequential(nn.Linear(4, 4), shared, shared))) == 1


@pytest.mark.slow
def test_a_detector_trains_by_it_and_repeats_itself(digits):
    X, y = digits.X_train, digits.y_train
    fit = {"max_epochs": 3, "random_state": 0}
    one, again = (VMDLSbDetector(**fit).fit(X, y) for _ in range(2))
    adamw = VMDLSbDetector(optimizer="adamw", **fit).fit(X, y)
    scores = one.score_samples(digits.X_test)
    np.testing.assert_array_equal(scores, again.score_samples(digits.X_test))
    assert not np.allclose(scores, adamw.score_samples(digits.X_test))
    assert np.mean(one.predict_known(X) == y) > 0.9

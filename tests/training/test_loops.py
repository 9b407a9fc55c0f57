"""The training loops, and the ways in which the paper's recipe is known to fail."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skvmdls import VMDLSDetector
from skvmdls._support.torch_state import seeded
from skvmdls.nets.backbones import mlp
from skvmdls.nets.network import build_network
from skvmdls.training.choices import TrainingChoices
from skvmdls.training.loops import (
    _losses,
    _metric_terms,
    backbone_share,
    joint_loss,
    train_autoencoder,
    train_network,
)
from skvmdls.training.plans import AutoencoderPlan, network_plan
from skvmdls.training.progress import ClassMeans
from speed import Held

CPU = torch.device("cpu")
PLAN = network_plan(
    VMDLSDetector(
        classification_weight=0.0,
        precision="float32",
        classes_per_batch=10,
        samples_per_class=16,
        distancing_margin=8.0,
    ).resolved(),
    TrainingChoices("adamw", 2e-3, 0.0, augmentation=None, max_epochs=20),
    input_shape=(8, 8),
    n_classes=10,
    device=CPU,
)
# Whatever the defaults are: both kinds of losses count.
BESIDE_A_HEAD = dataclasses.replace(PLAN, classification_weight=1.0)


@pytest.fixture(scope="module")
def data():
    X, y = load_digits(return_X_y=True)
    X = torch.from_numpy(X).float()
    return (X - X.mean()) / X.std(), torch.from_numpy(y)


def trained(data, plan=PLAN, seed=0):
    with seeded(seed, CPU):
        n_logits = 10 if plan.classification_weight > 0 else 0
        network = build_network(mlp, tuple(data[0].shape[1:]), 8, n_logits)
        return network, train_network(network, Held(data[0]), data[1], plan, seed)


@pytest.fixture(scope="module")
def usual(data):
    return trained(data)


def test_history_has_a_figure_of_each_kind_for_each_epoch(usual):
    _, history = usual
    assert set(history) == {
        "loss",
        "triplet",
        "distancing",
        "kl",
        "divergence",
        "sigma",
        "accuracy",
        "separation",
        "learning_rate",
    }
    assert {len(values) for values in history.values()} == {PLAN.epochs}
    assert np.isfinite(list(history.values())).all()


def test_without_a_head_the_loss_is_the_papers_sum(usual, data):
    _, history = usual
    terms = [np.array(history[name]) for name in ("triplet", "distancing", "kl")]
    np.testing.assert_allclose(history["loss"], sum(terms), rtol=1e-5)


@pytest.fixture(scope="module")
def beside_a_head(data):
    return trained(data, BESIDE_A_HEAD)


def test_a_head_has_its_figures_and_learns(beside_a_head, usual, data):
    network, history = beside_a_head
    assert set(history) == {*usual[1], "cross_entropy", "head_accuracy"}
    assert {len(values) for values in history.values()} == {PLAN.epochs}
    assert np.isfinite(list(history.values())).all()
    assert history["cross_entropy"][0] > 10 * history["cross_entropy"][-1]
    assert history["head_accuracy"][0] < 0.9 < 0.99 < history["head_accuracy"][-1]
    X, y = data
    with torch.no_grad():
        logits = network(X).logits
    assert (logits.argmax(dim=1) == y).float().mean() > 0.99


def test_beside_a_head_the_latent_space_keeps_its_shape(beside_a_head):
    _, history = beside_a_head
    assert history["separation"][-1] > 0.6 * np.sqrt(PLAN.distancing_margin)
    assert history["accuracy"][-1] > 0.98
    assert history["divergence"][-1] < history["divergence"][9]


def test_a_head_alone_trains_no_latent_space(data):
    alone = dataclasses.replace(BESIDE_A_HEAD, metric_weight=0.0, epochs=5)
    _, history = trained(data, alone)
    np.testing.assert_allclose(history["loss"], history["cross_entropy"], rtol=1e-5)
    assert history["head_accuracy"][-1] > 0.95
    np.testing.assert_allclose(history["sigma"], 0.1, rtol=1e-4)


def terms(triplet, distancing, kl, cross_entropy=None):
    values = {"triplet": triplet, "distancing": distancing, "kl": kl}
    if cross_entropy is not None:
        values["cross_entropy"] = cross_entropy
    return {
        name: torch.tensor(value, requires_grad=True) for name, value in values.items()
    }


def weighed(classification_weight=1.0, metric_weight=1.0):
    return dataclasses.replace(
        PLAN, classification_weight=classification_weight, metric_weight=metric_weight
    )


def test_joint_loss_without_a_head_is_the_weighted_sum():
    for metric_weight in (0.0, 0.25, 1.0):
        loss = joint_loss(terms(0.5, 3.0, 0.25), weighed(0.0, metric_weight))
        assert loss.item() == pytest.approx(3.75 * metric_weight)


def test_the_backbone_hears_less_of_margins_the_further_they_are_missed():
    shares = [
        backbone_share(terms(missed, 0.1 * missed, 5.0)).item()
        for missed in (0.0, 0.01, 0.3, 2.0, 7.0, 1e6)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1
    assert shares[1] > 0.9
    assert 0 <= shares[-1] < shares[3] < 0.01


@pytest.mark.parametrize("classification_weight", [0.0, 1.0])
def test_beside_a_head_only_the_backbone_hears_a_share(classification_weight):
    """Gradients of one batch against those of the losses taken one by one."""
    torch.manual_seed(0)
    n_classes = 5 if classification_weight else 0
    network = build_network(mlp, (6,), latent_dim=4, n_classes=n_classes)
    plan = dataclasses.replace(PLAN, classification_weight=classification_weight)
    x, y = torch.randn(80, 6), torch.arange(5).repeat_interleave(16)
    means = ClassMeans(5, 4, CPU)

    def gradients(loss):
        network.zero_grad()
        loss.backward(retain_graph=True)
        return {
            name: torch.zeros_like(weight) if weight.grad is None else weight.grad
            for name, weight in network.named_parameters()
        }

    # A batch norm's running figures are not used in training: both passes are equal.
    torch.manual_seed(1)
    together = gradients(_losses(network, x, y, means, plan, 8.0, 0.1)["loss"])
    torch.manual_seed(1)
    made = network(x)
    _, metric = _metric_terms(made.mu, made.log_sigma, y, 8.0, plan)
    expected = gradients(metric["triplet"] + metric["distancing"])
    if n_classes:
        share = backbone_share(metric)
        assert 0 < share < 0.9
        of_head = gradients(torch.nn.functional.cross_entropy(made.logits, y))
        for name, gradient in gradients(
            metric["triplet"] + metric["distancing"]
        ).items():
            heard = share if name.startswith("backbone") else 1
            expected[name] = heard * gradient + of_head[name]
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_joint_loss_scales_with_its_weights():
    given = terms(0.2, 0.3, 0.1, 0.7)
    one, metric, both = (
        joint_loss(given, weighed(*pair)).item() for pair in ((1, 0), (0, 1), (3, 0.5))
    )
    assert one == pytest.approx(0.7)
    assert both == pytest.approx(3 * one + 0.5 * metric)


def test_the_divergence_falls_once_kl_is_on(usual):
    """Regression: with the sign of the paper's eqs. 5-7 it would rise."""
    _, history = usual
    divergence = history["divergence"]
    assert history["kl"][9] == 0 < history["kl"][10]
    assert divergence[-1] < divergence[10] / 3
    assert divergence[-1] < divergence[9] / 3


def test_classes_separate_without_noise_inflation(usual):
    """Regression: with sigma in the metric loss, noise satisfies the margins."""
    _, history = usual
    assert history["separation"][-1] > 0.7 * np.sqrt(PLAN.distancing_margin)
    assert history["accuracy"][-1] > 0.98
    assert max(history["sigma"]) < 2 * np.sqrt(PLAN.prior_variance)


def test_kl_alone_shapes_sigma(usual, data):
    _, history = usual
    np.testing.assert_allclose(history["sigma"][:10], 0.1, rtol=1e-4)
    assert history["sigma"][-1] == pytest.approx(np.sqrt(0.1), rel=0.2)
    _, without = trained(data, dataclasses.replace(PLAN, epochs=4, kl_weight=0.0))
    np.testing.assert_allclose(without["sigma"], 0.1, rtol=1e-4)


def test_kl_waits_for_the_first_class_means(data):
    _, history = trained(data, dataclasses.replace(PLAN, epochs=3, kl_warmup=0.0))
    assert history["kl"][0] == history["divergence"][0] == 0
    assert history["kl"][1] == pytest.approx(0.1 * history["divergence"][1])
    assert history["kl"][1] > 0


def test_a_class_that_was_not_drawn_yet_is_not_pulled_to_the_origin():
    means = ClassMeans(n_classes=3, latent_dim=2, device=CPU)
    means.add(
        torch.tensor([[1.0, 0.0], [3.0, 0.0], [5.0, 5.0]]), torch.tensor([0, 0, 2])
    )
    means.finish_epoch()
    assert means.was_drawn.tolist() == [1, 0, 1]
    assert means.means.tolist() == [[2, 0], [0, 0], [5, 5]]
    assert means.separation() == pytest.approx(np.hypot(3, 5))
    means.add(torch.tensor([[4.0, 4.0]]), torch.tensor([1]))
    means.finish_epoch()
    assert means.was_drawn.tolist() == [1, 1, 1]
    assert means.means.tolist() == [[2, 0], [4, 4], [5, 5]]


def test_the_margin_rises_from_near_zero(data):
    long, short = (
        trained(data, dataclasses.replace(PLAN, epochs=2, margin_warmup=share))[1]
        for share in (1.0, 0.0)
    )
    assert long["distancing"][0] < short["distancing"][0] / 2


def test_the_same_seed_trains_the_same_network_bit_for_bit(data):
    plan = dataclasses.replace(PLAN, epochs=2, augmentation=nn.Dropout(0.1))
    states = [trained(data, plan, seed)[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["mu.weight"], states[2]["mu.weight"])


def test_the_callers_random_numbers_go_on_as_if_nothing_had_happened(data):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(data, dataclasses.replace(PLAN, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_frozen_epochs_leave_the_backbone_as_it_came(data):
    plan = dataclasses.replace(PLAN, epochs=2, freeze_epochs=2)
    with seeded(0, CPU):
        network = build_network(mlp, (64,), latent_dim=8)
        network.backbone.stage1[0].weight.requires_grad_(False)
        before = {k: v.clone() for k, v in network.state_dict().items()}
        train_network(network, Held(data[0]), data[1], plan, 0)
        after = network.state_dict()
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved == {"mu.weight", "mu.bias", "log_sigma.weight", "log_sigma.bias"}
        plan = dataclasses.replace(plan, freeze_epochs=1)
        train_network(network, Held(data[0]), data[1], plan, 0)
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.stage1.0.weight"]
    assert not torch.equal(
        before["backbone.stage2.0.weight"],
        network.state_dict()["backbone.stage2.0.weight"],
    )


def test_unequal_classes_and_more_classes_than_a_batch_holds(data):
    X, y = data
    rows = torch.cat([torch.where(y == c)[0][: 3 + 12 * c] for c in range(10)])
    plan = dataclasses.replace(
        PLAN, classes_per_batch=3, epochs=30, margin_warmup=0.3, kl_warmup=0.6
    )
    network, _ = trained((X[rows], y[rows]), plan)
    with torch.no_grad():
        mu = network(X[rows]).mu
    means = torch.stack([mu[y[rows] == c].mean(dim=0) for c in range(10)])
    nearest = torch.cdist(mu, means).argmin(dim=1)
    assert (nearest == y[rows]).float().mean() > 0.9


def test_bfloat16_trains_to_the_same_place(data):
    _, history = trained(data, dataclasses.replace(PLAN, dtype=torch.bfloat16))
    assert history["accuracy"][-1] > 0.98


def test_progress_shows_loss_separation_and_accuracy(data, capsys):
    trained(data, dataclasses.replace(PLAN, epochs=1, verbose=1))
    shown = capsys.readouterr().err
    for word in ("network", "loss=", "separation=", "accuracy="):
        assert word in shown
    trained(data, dataclasses.replace(PLAN, epochs=1))
    assert capsys.readouterr().err == ""


def test_divergence_names_the_epoch_the_term_and_a_way_out(data):
    plan = dataclasses.replace(PLAN, learning_rate=1e30, epochs=3)
    with pytest.raises(
        FloatingPointError, match=r"diverged: .*epoch \d.*learning_rate"
    ):
        trained(data, plan)


def test_the_autoencoder_learns(data):
    X, _ = data
    autoencoder = nn.Sequential(nn.Linear(64, 10), nn.Linear(10, 64))
    plan = AutoencoderPlan(
        epochs=10, learning_rate=1e-2, weight_decay=0.0, verbose=0, batch_size=64
    )
    history = train_autoencoder(autoencoder, Held(X), plan, seed=0)
    singular_values = torch.linalg.svdvals(X - X.mean(dim=0))
    best = singular_values[10:].square().sum().item() / X.numel()
    assert best < history["loss"][-1] < 1.3 * best
    assert not autoencoder.training

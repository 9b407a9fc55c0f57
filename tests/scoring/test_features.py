"""Forward passes over batches."""

import numpy as np
import pytest
import torch
from torch import nn

from skvmdls.inputs.rows import ArrayRows
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.autoencoder import cnn as cnn_autoencoder
from skvmdls.nets.backbones import cnn
from skvmdls.nets.network import build_network
from skvmdls.scoring.evidence import (
    Evidence,
    PartSelection,
    residual_features,
    unit_and_length,
)
from skvmdls.scoring.features import (
    block_features,
    ensembles,
    map_batches,
    reconstructions,
)
from skvmdls.scoring.gaussians import fit_gaussians
from skvmdls.scoring.model import FittedModel, Measured, measure

N_POINTS = 20
VIEWS = {
    "late": PartSelection(
        ("x", "t1", "mu", "logit"), "late", normalize=True, residual=True
    ),
    "raw": PartSelection(("logit", "g", "t2"), "late", normalize=False, residual=False),
    "early": PartSelection(
        ("mu", "t1", "logit"), "early", normalize=True, residual=True
    ),
    "paper": PartSelection(("mu", "t1"), "early", normalize=False, residual=False),
    "flips": PartSelection(
        ("x", "t1", "mu", "logit"),
        "late",
        normalize=True,
        residual=True,
        average_flips=True,
    ),
}


def nets():
    torch.manual_seed(0)
    network = build_network(cnn, (1, 8, 8), latent_dim=3, n_classes=2).eval()
    return network, cnn_autoencoder((1, 8, 8)).eval()


def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(N_POINTS, 1, 8, 8, generator=generator).split(7))


def fitted_gaussians(network, autoencoder, view):
    features = list(block_features(network, autoencoder, batches(), view))
    classes = [features[:2], features[1:]]
    return fit_gaussians(lambda label: classes[label], "ab", "full")


def measured_by(network, gaussians, autoencoder, view):
    """Measure by a model whose standardizer leaves inputs as they are."""
    unchanged = {"mean": np.zeros((1, 1, 1)), "scale": np.ones((1, 1, 1))}
    model = FittedModel(
        input_shape=(1, 8, 8),
        standardizer=Standardizer.from_state(
            {**unchanged, "range": [-9.0, 9.0], "were_bytes": False}, (1, 8, 8)
        ),
        network=network,
        autoencoder=autoencoder,
        selection=view,
        gaussians=nn.ModuleDict(gaussians),
        evidence=Evidence.unfitted(view.names),
        fit_positions=np.arange(2),
    )
    rows = ArrayRows(torch.cat(batches()).numpy())
    return measure(rows, model, batch_size=7, device="cpu")


def slow_parts(network, x, view):
    parts = network.ensemble(x)
    if view.average_flips:
        mirrored = network.ensemble(torch.from_numpy(x.numpy()[..., ::-1].copy()))
        both = {name: torch.stack([parts[name], mirrored[name]]) for name in mirrored}
        parts = {name: two.mean(dim=0) for name, two in both.items()} | {
            "t1 map": parts["t1 map"]
        }
    return {"x": x.flatten(1), **parts}


def slow_blocks(network, autoencoder, view):
    """All at once, block by block, as the docstring of PartSelection says it."""
    x = torch.cat(batches())
    with torch.no_grad():
        parts = slow_parts(network, x, view)
        rebuilt = network.ensemble(autoencoder(x))
    seen = {
        name: unit_and_length(part) if view.normalize and name != "x" else part
        for name, part in parts.items()
        if name in view.features
    }
    blocks = (
        {"ensemble": torch.cat([seen[name] for name in view.features], dim=1)}
        if view.fusion == "early"
        else {name: seen[name] for name in view.features if name != "logit"}
    )
    if view.residual:
        blocks["residual"] = residual_features(parts["t1 map"], rebuilt["t1 map"])
    return parts, rebuilt, blocks


@pytest.mark.parametrize("view", [VIEWS["late"], VIEWS["flips"]])
def test_ensembles_give_every_part_and_the_input(view):
    network, _ = nets()
    found = list(ensembles(network, batches(), view))
    expected = slow_parts(network, torch.cat(batches()), view)
    del expected["t1 map"]
    assert set(found[0]) == set(expected)
    for name, part in expected.items():
        together = np.concatenate([parts[name] for parts in found])
        np.testing.assert_allclose(
            together, part.detach().numpy(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_block_features_are_the_views_blocks_with_its_lengths(view):
    network, autoencoder = nets()
    found = list(block_features(network, autoencoder, batches(), view))
    _, _, blocks = slow_blocks(network, autoencoder, view)
    assert set(found[0]) == set(blocks)
    sizes = {"x": 64, **network.ensemble_sizes}
    lengths = view.lengths(sizes, network.first_places)
    for name, block in blocks.items():
        together = np.concatenate([features[name] for features in found])
        assert together.shape == (N_POINTS, lengths[name])
        np.testing.assert_allclose(together, block, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_measure_agrees_with_doing_it_step_by_step(view):
    network, autoencoder = nets()
    gaussians = fitted_gaussians(network, autoencoder, view)
    measured = measured_by(network, gaussians, autoencoder, view)
    parts, rebuilt, blocks = slow_blocks(network, autoencoder, view)
    scores = {name: gaussians[name].log_likelihood(blocks[name]) for name in blocks}
    likelihood = sum(scores[name] for name in scores if name != "residual")
    np.testing.assert_allclose(
        measured.class_log_likelihood, likelihood, rtol=1e-3, atol=1e-2
    )
    scores["logit"] = parts["logit"]
    largest = [scores[name].amax(dim=1).numpy() for name in view.names]
    np.testing.assert_allclose(
        measured.raw, np.column_stack(largest), rtol=1e-3, atol=1e-2
    )
    # The evidence leaves raw scores as they are: one spread is 1.
    label_scores = parts["logit"] + 0.5 * likelihood
    np.testing.assert_array_equal(measured.most_likely, label_scores.argmax(dim=1))
    gap = (parts["t1 map"].mean(dim=2) - rebuilt["t1"]).square().sum(dim=1)
    np.testing.assert_allclose(measured.weight, gap, rtol=1e-3)


def test_without_a_head_the_likelihood_says_which_class():
    torch.manual_seed(0)
    network, view = build_network(cnn, (1, 8, 8), latent_dim=3).eval(), VIEWS["paper"]
    gaussians = fitted_gaussians(network, None, view)
    measured = measured_by(network, gaussians, None, view)
    likelihood = measured.class_log_likelihood
    np.testing.assert_array_equal(measured.most_likely, likelihood.argmax(axis=1))
    assert set(measured.most_likely) == {0, 1}
    assert np.all(measured.weight == 0)


def test_the_logits_alone_need_no_gaussians():
    """Regression: the number of classes was that of the first Gaussians."""
    network, _ = nets()
    view = PartSelection(("logit",), "late", normalize=True, residual=False)
    measured = measured_by(network, {}, None, view)
    logits = network(torch.cat(batches())).logits.detach().numpy()
    np.testing.assert_allclose(measured.class_log_likelihood, logits, rtol=1e-4)
    np.testing.assert_allclose(measured.raw[:, 0], logits.max(axis=1), rtol=1e-4)


def test_reconstructions_are_the_autoencoders():
    _, autoencoder = nets()
    torch.testing.assert_close(
        reconstructions(autoencoder, batches()),
        autoencoder(torch.cat(batches())).detach(),
        rtol=1e-4,
        atol=1e-5,
    )


def small_memory(function, limit):
    calls = []

    def limited(batch):
        calls.append(len(batch))
        if len(batch) > limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return function(batch)

    return limited, calls


def test_out_of_memory_halves_the_batch_and_goes_on():
    X = torch.arange(34.0).reshape(17, 2)
    function, calls = small_memory(lambda x: x * 2, limit=3)
    found = torch.cat(list(map_batches(function, X.split(10))))
    assert torch.equal(found, X * 2)
    # 10 fails, 5 fails; the smaller size is kept for what follows.
    assert calls == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 1]


def test_not_even_a_row_fits():
    function, calls = small_memory(lambda x: x, limit=0)
    with pytest.raises(MemoryError, match=r"single row of shape \(2,\).*device='cpu'"):
        list(map_batches(function, [torch.zeros(4, 2)]))
    assert calls == [4, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(map_batches(broken, [torch.zeros(4, 2)]))


def test_scores_in_halves_are_those_of_whole_batches():
    network, autoencoder = nets()
    view = VIEWS["late"]
    gaussians = fitted_gaussians(network, autoencoder, view)
    args = network, gaussians, autoencoder, view
    usual = measured_by(*args)
    network.ensemble, calls = small_memory(network.ensemble, limit=4)
    halved = measured_by(*args)
    assert max(calls[1:]) <= 3
    for name in ("class_log_likelihood", "raw", "weight"):
        np.testing.assert_allclose(
            getattr(halved, name), getattr(usual, name), rtol=1e-3, atol=1e-2
        )
    np.testing.assert_array_equal(halved.most_likely, usual.most_likely)


def test_a_perfect_reconstruction_weighs_nothing_and_stays_finite():
    network, autoencoder = nets()
    gaussians = fitted_gaussians(network, autoencoder, VIEWS["late"])
    measured = measured_by(network, gaussians, nn.Identity(), VIEWS["late"])
    np.testing.assert_allclose(measured.weight, 0, atol=1e-9)
    assert np.isfinite(measured.raw).all()


def test_measured_knows_the_largest_likelihood():
    likelihood = np.array([[1.0, 3.0], [5.0, 2.0]])
    zeros, first = np.zeros(2), np.array([0, 0])
    measured = Measured(likelihood, np.zeros((2, 1)), zeros, first, zeros)
    assert measured.log_likelihood.tolist() == [3.0, 5.0]

"""Forward passes over batches."""

import numpy as np
import pytest
import torch
from torch import nn

from skvmdls.autoencoder import cnn as cnn_autoencoder
from skvmdls.backbones import cnn
from skvmdls.gaussians import fit_gaussians
from skvmdls.network import build_network
from skvmdls.scoring import (
    Measured,
    ensembles,
    map_batches,
    measure,
    reconstruction_weights,
    reconstructions,
)

FEATURES = ("mu", "t1")
N_POINTS = 20


def nets():
    torch.manual_seed(0)
    network = build_network(cnn, (1, 8, 8), latent_dim=3).eval()
    return network, cnn_autoencoder((1, 8, 8)).eval()


def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(N_POINTS, 1, 8, 8, generator=generator).split(7))


def test_ensembles_join_the_chosen_parts_in_their_order():
    network, _ = nets()
    found = np.concatenate(list(ensembles(network, batches(), FEATURES)))
    parts = network.ensemble(torch.cat(batches()))
    expected = torch.cat([parts["mu"], parts["t1"]], dim=1).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_measure_agrees_with_doing_it_step_by_step():
    network, autoencoder = nets()
    features = list(ensembles(network, batches(), FEATURES))
    gaussians = fit_gaussians(lambda label: features, "ab", "full")
    measured = measure(network, gaussians, autoencoder, batches(), N_POINTS, FEATURES)
    likelihood = gaussians.log_likelihood(torch.from_numpy(np.concatenate(features)))
    np.testing.assert_allclose(measured.class_log_likelihood, likelihood, rtol=1e-6)
    x = torch.cat(batches())
    with torch.no_grad():
        rebuilt = autoencoder(x)
        gap = network.ensemble(x)["t1"] - network.ensemble(rebuilt)["t1"]
    np.testing.assert_allclose(measured.weight, gap.square().sum(dim=1), rtol=1e-3)
    torch.testing.assert_close(
        reconstructions(autoencoder, batches()), rebuilt, rtol=1e-4, atol=1e-5
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
    features = list(ensembles(network, batches(), FEATURES))
    gaussians = fit_gaussians(lambda label: features, "ab", "full")
    usual = measure(network, gaussians, autoencoder, batches(), N_POINTS, FEATURES)
    network.ensemble, calls = small_memory(network.ensemble, limit=4)
    halved = measure(network, gaussians, autoencoder, batches(), N_POINTS, FEATURES)
    assert max(calls[1:]) <= 3
    np.testing.assert_allclose(
        halved.class_log_likelihood, usual.class_log_likelihood, rtol=1e-5
    )
    np.testing.assert_allclose(halved.weight, usual.weight, rtol=1e-3)


def test_a_perfect_reconstruction_weighs_nothing():
    network, _ = nets()
    x = torch.cat(batches())
    weights = reconstruction_weights(
        network, nn.Identity(), x, network.ensemble(x)["t1"]
    )
    assert torch.all(weights == 0)


def test_measured_names_the_most_likely_class():
    measured = Measured(np.array([[1.0, 3.0], [5.0, 2.0]]), np.zeros(2))
    assert measured.log_likelihood.tolist() == [3.0, 5.0]
    assert measured.most_likely.tolist() == [1, 0]

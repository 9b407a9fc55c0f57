"""Forward passes over batches."""

import numpy as np
import torch
from torch import nn

from skvmdls.autoencoder import cnn as cnn_autoencoder
from skvmdls.backbones import cnn
from skvmdls.gaussians import fit_gaussians
from skvmdls.network import build_network
from skvmdls.scoring import (
    Measured,
    ensembles,
    measure,
    reconstruction_weights,
    reconstructions,
)

FEATURES = ("mu", "t1")


def nets():
    torch.manual_seed(0)
    network = build_network(cnn, (1, 8, 8), latent_dim=3).eval()
    return network, cnn_autoencoder((1, 8, 8)).eval()


def batches():
    generator = torch.Generator().manual_seed(1)
    return list(torch.randn(20, 1, 8, 8, generator=generator).split(7))


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
    measured = measure(network, gaussians, autoencoder, batches(), FEATURES)
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

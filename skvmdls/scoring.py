"""From batches of inputs to features, likelihoods and weights: forward passes only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls.gaussians import ClassGaussians
from skvmdls.network import VariationalNetwork

__all__ = [
    "Measured",
    "ensembles",
    "measure",
    "reconstruction_weights",
    "reconstructions",
]


@dataclass(frozen=True)
class Measured:
    """What the nets and the Gaussians say of each point.

    Parameters
    ----------
    class_log_likelihood : ndarray of shape (n, n_classes), float64
        In nats.
    weight : ndarray of shape (n,), float64
        Reconstruction weight; zero without an autoencoder.

    Examples
    --------
    >>> measured = Measured(np.array([[-3.0, -1.0]]), np.zeros(1))
    >>> measured.log_likelihood, measured.most_likely
    (array([-1.]), array([1]))
    """

    class_log_likelihood: np.ndarray
    weight: np.ndarray

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)

    @property
    def most_likely(self) -> np.ndarray:
        """``c_max``: position of the most likely class, shape (n,)."""
        return self.class_log_likelihood.argmax(axis=1)


@torch.inference_mode()
def ensembles(
    network: VariationalNetwork, batches: Iterable[Tensor], features: Sequence[str]
) -> Iterator[np.ndarray]:
    """Feature ensemble ``t(x)`` of each batch.

    Parameters
    ----------
    network : VariationalNetwork
    batches : iterable of Tensor of shape (batch, *input_shape)
    features : sequence of str
        Parts of the ensemble, in this order.

    Yields
    ------
    features : ndarray of shape (batch, D), dtype of the network

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> [part.shape for part in ensembles(network, [torch.zeros(4, 20)], ("g", "mu"))]
    [(4, 136)]
    """
    for x in batches:
        yield _joined(network.ensemble(x), features).cpu().numpy()


@torch.inference_mode()
def measure(
    network: VariationalNetwork,
    gaussians: ClassGaussians,
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    features: Sequence[str],
) -> Measured:
    """Likelihoods and reconstruction weights, one forward pass a batch.

    Parameters
    ----------
    network : VariationalNetwork
    gaussians : ClassGaussians
        Of the ensemble made of `features`.
    autoencoder : nn.Module or None
    batches : iterable of Tensor of shape (batch, *input_shape)
    features : sequence of str

    Returns
    -------
    measured : Measured

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> gaussians = ClassGaussians(np.zeros((3, 8)), np.ones((3, 8)), "diag")
    >>> x = torch.zeros(4, 20)
    >>> measure(network, gaussians, None, [x], ("mu",)).class_log_likelihood.shape
    (4, 3)
    """
    likelihoods, weights = [], []
    for x in batches:
        parts = network.ensemble(x)
        likelihood = gaussians.log_likelihood(
            _joined(parts, features).to(gaussians.means.device)
        )
        likelihoods.append(likelihood.cpu().numpy())
        if autoencoder is None:
            weights.append(np.zeros(len(x)))
        else:
            weight = reconstruction_weights(network, autoencoder, x, parts["t1"])
            weights.append(weight.cpu().double().numpy())
    return Measured(np.concatenate(likelihoods), np.concatenate(weights))


def reconstruction_weights(
    network: VariationalNetwork, autoencoder: nn.Module, x: Tensor, t1: Tensor
) -> Tensor:
    """``w(x) = ||t1(x) - t1(x_hat)||^2`` (Dinari & Freifeld 2022, section 3.4).

    Parameters
    ----------
    network : VariationalNetwork
        Only the backbone's first stage runs, on the reconstructions.
    autoencoder : nn.Module
    x : Tensor of shape (batch, *input_shape)
    t1 : Tensor of shape (batch, length of t1)
        First tap of `x`.

    Returns
    -------
    weights : Tensor of shape (batch,)

    Examples
    --------
    >>> from skvmdls.backbones import mlp
    >>> from skvmdls.network import build_network
    >>> network = build_network(mlp, (20,), latent_dim=8).eval()
    >>> x = torch.zeros(4, 20)
    >>> t1 = network.first_tap(x).detach()
    >>> reconstruction_weights(network, nn.Identity(), x, t1).detach()
    tensor([0., 0., 0., 0.])
    """
    return (t1 - network.first_tap(autoencoder(x))).square().sum(dim=1)


@torch.inference_mode()
def reconstructions(autoencoder: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Reconstruct batches, in standardised units.

    Parameters
    ----------
    autoencoder : nn.Module
    batches : iterable of Tensor of shape (batch, *input_shape)

    Returns
    -------
    reconstructions : Tensor of shape (n, *input_shape), on the CPU

    Examples
    --------
    >>> reconstructions(nn.Identity(), [torch.zeros(2, 3), torch.zeros(1, 3)]).shape
    torch.Size([3, 3])
    """
    return torch.cat([autoencoder(x).cpu() for x in batches])


def _joined(parts: dict[str, Tensor], features: Sequence[str]) -> Tensor:
    return torch.cat([parts[name] for name in features], dim=1)

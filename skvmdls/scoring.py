"""From batches of inputs to features, likelihoods and weights: forward passes only."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._devices import is_out_of_memory
from skvmdls.gaussians import ClassGaussians
from skvmdls.network import VariationalNetwork

__all__ = [
    "Measured",
    "ensembles",
    "map_batches",
    "measure",
    "reconstruction_weights",
    "reconstructions",
]

Result = TypeVar("Result")


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

    def ensemble(x: Tensor) -> np.ndarray:
        return _joined(network.ensemble(x), features).cpu().numpy()

    yield from map_batches(ensemble, batches)


@torch.inference_mode()
def measure(
    network: VariationalNetwork,
    gaussians: ClassGaussians,
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    n_points: int,
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
    n_points : int
        Rows of all batches together.
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
    >>> measure(network, gaussians, None, [x], 4, ("mu",)).class_log_likelihood.shape
    (4, 3)
    """

    def likelihoods_and_weights(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
        parts = network.ensemble(x)
        likelihood = gaussians.log_likelihood(
            _joined(parts, features).to(gaussians.means.device)
        )
        if autoencoder is None:
            return likelihood.cpu().numpy(), np.zeros(len(x))
        weight = reconstruction_weights(network, autoencoder, x, parts["t1"])
        return likelihood.cpu().numpy(), weight.cpu().double().numpy()

    # Filled in place: many small arrays, kept between the large ones that each batch
    # needs for a moment, would keep the allocator from using their memory again.
    measured = Measured(np.empty((n_points, len(gaussians.means))), np.empty(n_points))
    start = 0
    for likelihood, weight in map_batches(likelihoods_and_weights, batches):
        end = start + len(weight)
        measured.class_log_likelihood[start:end] = likelihood
        measured.weight[start:end] = weight
        start = end
    return measured


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
    return torch.cat(list(map_batches(lambda x: autoencoder(x).cpu(), batches)))


def map_batches(
    function: Callable[[Tensor], Result], batches: Iterable[Tensor]
) -> Iterator[Result]:
    """Apply a function to each batch, in halves once the device runs out of memory.

    Parameters
    ----------
    function : callable
        Of a batch; row by row, so that halves together give what the whole would.
    batches : iterable of Tensor

    Yields
    ------
    result
        Of each batch or, where memory was short, of each of its parts, in order.

    Raises
    ------
    MemoryError
        If not even a single row fits.

    Examples
    --------
    >>> list(map_batches(len, [torch.zeros(3, 2), torch.zeros(1, 2)]))
    [3, 1]
    """
    largest = None
    for batch in batches:
        waiting = list(batch.split(largest or len(batch)))
        while waiting:
            part = waiting.pop(0)
            result = _unless_out_of_memory(function, part)
            if result is not None:
                yield result
                continue
            if len(part) == 1:
                raise MemoryError(
                    "The device ran out of memory scoring a single row of shape "
                    f"{tuple(part.shape[1:])}. Free memory, or use device='cpu'."
                )
            largest = len(part) // 2
            waiting = list(torch.cat([part, *waiting]).split(largest))


def _unless_out_of_memory(
    function: Callable[[Tensor], Result], batch: Tensor
) -> Result | None:
    try:
        return function(batch)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    # Beyond the handler, the error holds on to no tensors any more.
    torch.cuda.empty_cache()
    return None


def _joined(parts: dict[str, Tensor], features: Sequence[str]) -> Tensor:
    return torch.cat([parts[name] for name in features], dim=1)

"""From batches of inputs to features and raw evidence: forward passes only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._devices import is_out_of_memory
from skvmdls.evidence import (
    INPUT,
    LOGIT,
    RESIDUAL,
    Evidence,
    View,
    residual_features,
    unit_and_length,
)
from skvmdls.gaussians import ClassGaussians
from skvmdls.network import FIRST_MAP, VariationalNetwork

__all__ = [
    "Measured",
    "block_features",
    "ensembles",
    "map_batches",
    "measure",
    "reconstructions",
]

Result = TypeVar("Result")

# How much the parts count beside the head in choosing the class; see docs/recipe.md.
PARTS_IN_LABEL = 0.5


@dataclass(frozen=True)
class Measured:
    """What the nets and the Gaussians say of each point.

    `class_log_likelihood` (n, n_classes), in nats; `raw` (n, n_parts) scores of the
    evidence; `most_likely` (n,), the position of the class that each point is given;
    the reconstruction `weight` (n,), zero without an autoencoder.
    """

    class_log_likelihood: np.ndarray
    raw: np.ndarray
    most_likely: np.ndarray
    weight: np.ndarray

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)


@torch.inference_mode()
def ensembles(
    network: VariationalNetwork, batches: Iterable[Tensor]
) -> Iterator[dict[str, np.ndarray]]:
    """Feature ensemble of each batch, by part, and the input itself as ``x``."""

    def ensemble(x: Tensor) -> dict[str, np.ndarray]:
        return _numpy(_parts(network, x))

    yield from map_batches(ensemble, batches)


@torch.inference_mode()
def block_features(
    network: VariationalNetwork,
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    view: View,
) -> Iterator[dict[str, np.ndarray]]:
    """Features (batch, D of the block) that the Gaussians are fitted to, by block."""

    def features(x: Tensor) -> dict[str, np.ndarray]:
        parts = _parts(network, x)
        reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
        return _numpy(_blocks(parts, reconstructed, view))

    yield from map_batches(features, batches)


@torch.inference_mode()
def measure(
    network: VariationalNetwork,
    gaussians: Mapping[str, ClassGaussians],
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    n_points: int,
    view: View,
    evidence: Evidence | None = None,
) -> Measured:
    """Likelihoods, raw evidence and reconstruction weights, one forward pass a batch.

    `gaussians` are of each block of the view, and of the residual if it has one;
    `n_points` are the rows of all batches together. The evidence brings the parts to
    one unit where head and parts choose the class together.
    """
    n_classes = (
        network.head.out_features
        if network.head is not None
        else len(next(iter(gaussians.values())).means)
    )
    # Filled in place: many small arrays, kept between the large ones that each batch
    # needs for a moment, would keep the allocator from using their memory again.
    measured = Measured(
        np.empty((n_points, n_classes)),
        np.empty((n_points, len(view.names))),
        np.empty(n_points, dtype=np.int64),
        np.zeros(n_points),
    )

    def batch_measured(x: Tensor) -> Measured:
        return _measured(network, gaussians, autoencoder, x, view, evidence)

    start = 0
    for part in map_batches(batch_measured, batches):
        end = start + len(part.weight)
        for field in fields(Measured):
            getattr(measured, field.name)[start:end] = getattr(part, field.name)
        start = end
    return measured


def _measured(
    network: VariationalNetwork,
    gaussians: Mapping[str, ClassGaussians],
    autoencoder: nn.Module | None,
    x: Tensor,
    view: View,
    evidence: Evidence | None,
) -> Measured:
    parts = _parts(network, x)
    reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
    scores = {
        name: gaussians[name].log_likelihood(block)
        for name, block in _blocks(parts, reconstructed, view).items()
    }
    # Of the logits alone there are no Gaussians: they take the likelihoods' place.
    likelihood = (
        torch.stack([scores[name] for name in view.blocks]).sum(dim=0)
        if view.blocks
        else parts[LOGIT].double()
    )
    if LOGIT in view.names:
        scores[LOGIT] = parts[LOGIT]
    raw = [scores[name].amax(dim=1).cpu().double() for name in view.names]
    weight = torch.zeros(len(x))
    if reconstructed is not None:
        difference = parts["t1"] - reconstructed.mean(dim=2)
        weight = difference.square().sum(dim=1)
    classes = likelihood
    if LOGIT in parts:
        by_head = parts[LOGIT].to(likelihood).log_softmax(dim=1)
        classes = _by_head_and_parts(by_head, scores, view, evidence)
    return Measured(
        likelihood.cpu().numpy(),
        torch.stack(raw, dim=1).numpy(),
        classes.argmax(dim=1).cpu().numpy(),
        weight.cpu().double().numpy(),
    )


def _by_head_and_parts(
    by_head: Tensor, scores: dict[str, Tensor], view: View, evidence: Evidence | None
) -> Tensor:
    """Log-probability of each class, but for a constant, shape (n, n_classes)."""
    if evidence is None or not view.blocks:
        return by_head
    under_classes = [evidence.under_classes(name, scores[name]) for name in view.blocks]
    by_parts = torch.stack(under_classes).sum(dim=0).log_softmax(dim=1)
    return by_head + PARTS_IN_LABEL * by_parts


def _parts(network: VariationalNetwork, x: Tensor) -> dict[str, Tensor]:
    return {INPUT: x.flatten(start_dim=1), **network.ensemble(x)}


def _first_map_of_reconstruction(
    network: VariationalNetwork, autoencoder: nn.Module | None, x: Tensor
) -> Tensor | None:
    """Only the backbone's first stage runs on the reconstructions."""
    return None if autoencoder is None else network.first_map(autoencoder(x))


def _blocks(
    parts: dict[str, Tensor], reconstructed: Tensor | None, view: View
) -> dict[str, Tensor]:
    def seen(name: str) -> Tensor:
        # The input's columns are the user's: their length means nothing by itself.
        is_as_it_is = name == INPUT or not view.normalize
        return parts[name] if is_as_it_is else unit_and_length(parts[name])

    blocks = {
        block: torch.cat([seen(name) for name in names], dim=1)
        for block, names in view.blocks.items()
    }
    if view.residual:
        assert reconstructed is not None
        blocks[RESIDUAL] = residual_features(parts[FIRST_MAP], reconstructed)
    return blocks


def _numpy(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}


@torch.inference_mode()
def reconstructions(autoencoder: nn.Module, batches: Iterable[Tensor]) -> Tensor:
    """Reconstruct batches into one tensor (n, *input_shape), in standardised units."""
    return torch.cat(list(map_batches(lambda x: autoencoder(x).cpu(), batches)))


def map_batches(
    function: Callable[[Tensor], Result], batches: Iterable[Tensor]
) -> Iterator[Result]:
    """Apply a function to each batch, in halves once the device runs out of memory.

    It must work row by row, so that halves together give what the whole would; a
    MemoryError says that not even a single row fits.

    Examples
    --------
    >>> list(map_batches(len, [torch.zeros(3, 2), torch.zeros(1, 2)]))
    [3, 1]
    """
    largest = None
    for batch in batches:
        waiting = list(batch.split(largest or len(batch)))
        while waiting:
            piece = waiting.pop(0)
            result = _unless_out_of_memory(function, piece)
            if result is not None:
                yield result
                continue
            if len(piece) == 1:
                raise MemoryError(
                    "The device ran out of memory scoring a single row of shape "
                    f"{tuple(piece.shape[1:])}. Free memory, or use device='cpu'."
                )
            largest = len(piece) // 2
            waiting = list(torch.cat([piece, *waiting]).split(largest))


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

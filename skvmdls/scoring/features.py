"""From batches of inputs to features and raw evidence: forward passes only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from functools import reduce
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support.devices import is_out_of_memory
from skvmdls.nets.network import FIRST_MAP, VariationalNetwork
from skvmdls.scoring.decisions import ByClass, KnownClasses, Measured
from skvmdls.scoring.evidence import (
    INPUT,
    LOGIT,
    RESIDUAL,
    View,
    residual_features,
    unit_and_length,
)
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = [
    "OWN_FIRST",
    "block_features",
    "blocks_of",
    "ensembles",
    "map_batches",
    "measure",
    "parts_of",
    "reconstructions",
]

Result = TypeVar("Result")

# The first tap of the points themselves, averaged over space, (n, channels).
OWN_FIRST = "t1 of the point itself"


@torch.inference_mode()
def ensembles(
    network: VariationalNetwork, batches: Iterable[Tensor], view: View
) -> Iterator[dict[str, np.ndarray]]:
    """Feature ensemble of each batch, by part, and the input itself as ``x``."""

    def ensemble(x: Tensor) -> dict[str, np.ndarray]:
        return _numpy(_parts(network, x, view))

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
        parts = _parts(network, x, view)
        reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
        return _numpy(blocks_of(parts, reconstructed, view))

    yield from map_batches(features, batches)


@torch.inference_mode()
def measure(
    network: VariationalNetwork,
    gaussians: Mapping[str, ClassGaussians],
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    n_points: int,
    view: View,
    known: KnownClasses | None = None,
    *,
    by_class: bool = False,
) -> Measured:
    """Likelihoods, raw evidence and reconstruction weights, one forward pass a batch.

    `gaussians` are of each block of the view, and of the residual if it has one;
    `n_points` are the rows of all batches together. The known classes are by default
    those of the network; `by_class` asks for the scores under each of them.
    """
    if known is None:
        means = [block.means for block in gaussians.values()]
        head = [] if network.head is None else [network.head.weight]
        known = KnownClasses.of_fit(len([*means, *head][0]))
    n_classes, n_parts = len(known.positions), len(view.names)
    # Filled in place: many small arrays, kept between the large ones that each batch
    # needs for a moment, would keep the allocator from using their memory again.
    measured = Measured(
        np.empty((n_points, n_classes)),
        np.empty((n_points, n_parts)),
        np.empty(n_points, dtype=np.int64),
        np.zeros(n_points),
        np.empty((n_points, n_parts if by_class else 0), dtype=np.int64),
        np.empty((n_points, n_classes if by_class else 0)),
    )

    def batch_measured(x: Tensor) -> Measured:
        return _measured(network, gaussians, autoencoder, x, view, known, by_class)

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
    known: KnownClasses,
    by_class: bool,
) -> Measured:
    parts = _parts(network, x, view)
    reconstructed = _first_map_of_reconstruction(network, autoencoder, x)
    scores = {
        name: gaussians[name].log_likelihood(block).cpu().numpy()
        for name, block in blocks_of(parts, reconstructed, view).items()
    }
    logits = None
    if LOGIT in parts:
        logits = known.of_head(parts[LOGIT].cpu().double().numpy())
        scores[LOGIT] = logits
    raw = np.stack([scores[name] for name in view.names], axis=2)
    # One by one: a sum's rounding is not to depend on how many classes there are.
    # Of the logits alone there are no Gaussians: they take the likelihoods' place.
    likelihood = reduce(np.add, [scores[name] for name in view.blocks or [LOGIT]])
    weight = torch.zeros(len(x))
    if reconstructed is not None:
        difference = parts[OWN_FIRST] - reconstructed.mean(dim=2)
        weight = difference.square().sum(dim=1)
    found = ByClass(likelihood, raw, logits, weight.cpu().double().numpy())
    return known.decide(found, len(view.blocks), by_class=by_class)


def _parts(network: VariationalNetwork, x: Tensor, view: View) -> dict[str, Tensor]:
    return {INPUT: x.flatten(start_dim=1), **parts_of(network, x, view)}


def parts_of(network: VariationalNetwork, x: Tensor, view: View) -> dict[str, Tensor]:
    """Parts (n, length of the part) of a batch, as the view looks at them.

    And the first tap of the points themselves, which is compared with that of their
    reconstructions: ``t1 map``, and its mean over space.
    """
    parts = network.ensemble(x)
    own = {FIRST_MAP: parts[FIRST_MAP], OWN_FIRST: parts["t1"]}
    if view.average_flips:
        mirrored = network.ensemble(x.flip(dims=[-1]))
        averaged = parts.keys() - own.keys()
        parts = {name: (parts[name] + mirrored[name]) / 2 for name in averaged}
    return parts | own


def _first_map_of_reconstruction(
    network: VariationalNetwork, autoencoder: nn.Module | None, x: Tensor
) -> Tensor | None:
    """Only the backbone's first stage runs on the reconstructions."""
    return None if autoencoder is None else network.first_map(autoencoder(x))


def blocks_of(
    parts: dict[str, Tensor], reconstructed: Tensor | None, view: View
) -> dict[str, Tensor]:
    """Join and normalise parts (n, D) to the blocks (n, D) that have Gaussians."""

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

"""From batches of inputs to features and raw evidence: forward passes only."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support.devices import is_out_of_memory
from skvmdls.nets.network import FIRST_MAP, VariationalNetwork
from skvmdls.scoring.evidence import (
    INPUT,
    RESIDUAL,
    TEXTURE,
    PartSelection,
    residual_features,
    unit_and_length,
)
from skvmdls.scoring.texture import texture_features, texture_length

__all__ = [
    "PointFeatures",
    "block_features",
    "block_lengths",
    "blocks_of",
    "ensembles",
    "map_batches",
    "point_features",
    "reconstructions",
]

Result = TypeVar("Result")


class PointFeatures(NamedTuple):
    """Features of a batch of points, as the detector selects them.

    `parts` by name (n, length of the part): the input itself as ``x``, the taps, ``g``,
    ``mu`` and, if they are there, ``logit`` and ``texture``. `first_map` (n, channels,
    places), the first tap of the points themselves, never averaged over flips; `first`
    (n, channels), its mean over the places. `reconstructed` (n, channels, places), the
    first tap of the reconstructions; None without an autoencoder.
    """

    parts: dict[str, Tensor]
    first_map: Tensor
    first: Tensor
    reconstructed: Tensor | None

    def weight(self) -> Tensor | None:
        """Compute the reconstruction weight (n,), if there is one."""
        if self.reconstructed is None:
            return None
        difference = self.first - self.reconstructed.mean(dim=2)
        return difference.square().sum(dim=1)


@torch.inference_mode()
def ensembles(
    network: VariationalNetwork | None,
    batches: Iterable[Tensor],
    selection: PartSelection,
) -> Iterator[dict[str, np.ndarray]]:
    """Compute the feature ensemble of each batch, by part, with the input as ``x``."""

    def ensemble(x: Tensor) -> dict[str, np.ndarray]:
        return _numpy(point_features(network, None, x, selection).parts)

    yield from map_batches(ensemble, batches)


@torch.inference_mode()
def block_features(
    network: VariationalNetwork | None,
    autoencoder: nn.Module | None,
    batches: Iterable[Tensor],
    selection: PartSelection,
) -> Iterator[dict[str, np.ndarray]]:
    """Compute the features (batch, D of the block) that Gaussians are fitted to."""

    def features(x: Tensor) -> dict[str, np.ndarray]:
        found = point_features(network, autoencoder, x, selection)
        return _numpy(blocks_of(found, selection))

    yield from map_batches(features, batches)


def point_features(
    network: VariationalNetwork | None,
    autoencoder: nn.Module | None,
    x: Tensor,
    selection: PartSelection,
) -> PointFeatures:
    """Run the nets, if there are any, on a batch of standardised points."""
    if network is None:
        return PointFeatures({INPUT: x.flatten(start_dim=1)}, x, x, None)
    reconstructed = None
    if autoencoder is not None:
        # Only the first stage of the backbone runs on the reconstructions.
        reconstructed = network.first_map(autoencoder(x))
    found = network.ensemble(x)
    first_map, first = found.pop(FIRST_MAP), found["t1"]
    if selection.average_flips:
        mirrored = network.ensemble(x.flip(dims=[-1]))
        found = {name: (part + mirrored[name]) / 2 for name, part in found.items()}
    parts = {INPUT: x.flatten(start_dim=1), **found}
    if selection.has_texture:
        parts[TEXTURE] = texture_features(x)
    return PointFeatures(parts, first_map, first, reconstructed)


def blocks_of(found: PointFeatures, selection: PartSelection) -> dict[str, Tensor]:
    """Join and normalise parts (n, D) to the blocks (n, D) that have Gaussians."""

    def scaled(name: str) -> Tensor:
        # The length of a row of the user's own columns means nothing by itself.
        if name == INPUT or not selection.normalize:
            return found.parts[name]
        return unit_and_length(found.parts[name])

    blocks = {
        block: torch.cat([scaled(name) for name in names], dim=1)
        for block, names in selection.blocks.items()
    }
    if selection.residual:
        assert found.reconstructed is not None
        blocks[RESIDUAL] = residual_features(found.first_map, found.reconstructed)
    if selection.has_texture:
        blocks[TEXTURE] = found.parts[TEXTURE]
    return blocks


def block_lengths(
    selection: PartSelection, network: VariationalNetwork, input_shape: tuple[int, ...]
) -> dict[str, int]:
    """Count the columns of each block that has Gaussians."""
    sizes = {INPUT: math.prod(input_shape), **network.ensemble_sizes}
    if selection.has_texture:
        sizes[TEXTURE] = texture_length(input_shape)
    return selection.lengths(sizes, network.first_places)


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

"""A fitted model as plain values and arrays, and back."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from skvmdls._support.stored_arrays import (
    check_shape,
    expected,
    is_finite,
    with_prefix,
    without_prefix,
)
from skvmdls._support.torch_state import seeded
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.direct.parts import DirectParts
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import BACKBONES, BackboneFactory, resolve_factory
from skvmdls.nets.network import VariationalNetwork, build_autoencoder, build_network
from skvmdls.scoring.evidence import Evidence, PartSelection
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.features import block_lengths
from skvmdls.scoring.gaussians import ClassGaussians
from skvmdls.scoring.model import FittedModel

__all__ = ["Arrays", "Head", "NetChoices", "model_arrays", "model_from", "model_head"]

Head = dict[str, Any]
Arrays = dict[str, np.ndarray]
Net = TypeVar("Net", bound=nn.Module)

CPU = torch.device("cpu")
LARGEST_INPUT = 2**22


@dataclass(frozen=True)
class NetChoices:
    """The parameters of a detector that its nets are built by."""

    backbone: str | BackboneFactory
    latent_dim: int
    has_head: bool
    autoencoder: str | BackboneFactory | None


def model_head(model: FittedModel) -> Head:
    """Return what a model learned, but for its arrays, in types of JSON."""
    standardizer = model.standardizer.state_dict()
    weighting = model.weight_calibration
    kinds = {name: block.covariance_type for name, block in model.blocks.items()}
    return {
        "fit_positions": model.fit_positions.tolist(),
        "input_shape": list(model.input_shape),
        "view": model.selection.state_dict(),
        "covariance_type": kinds,
        "range": standardizer["range"],
        "were_bytes": standardizer["were_bytes"],
        "weighting": None
        if weighting is None
        else {"shift": weighting.shift, "scale": weighting.scale},
    }


def model_arrays(model: FittedModel) -> Arrays:
    """Return the arrays of a model, by name."""
    standardizer = model.standardizer.state_dict()
    plain = ("range", "were_bytes")
    of_inputs = {k: v for k, v in standardizer.items() if k not in plain}
    arrays = {
        **with_prefix("standardizer", of_inputs),
        **with_prefix("evidence", model.evidence.state_dict()),
        **with_prefix("gaussians", _as_arrays(model.gaussians)),
    }
    if model.network is not None:
        weights = _as_arrays(model.network, weights=True)
        arrays |= with_prefix("network", weights)
    if model.autoencoder is not None:
        weights = _as_arrays(model.autoencoder, weights=True)
        arrays |= with_prefix("autoencoder", weights)
    if model.expected_images is not None:
        arrays |= with_prefix("expected", _as_arrays(model.expected_images))
    if model.direct is not None:
        arrays |= with_prefix("direct", model.direct.state_dict())
    return arrays


def model_from(
    head: Head, arrays: Arrays, choices: NetChoices, n_classes: int
) -> FittedModel:
    """Rebuild a model from its head and arrays.

    A ValueError, or another error of what does not fit together, refuses others.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not is_finite(array):
            raise ValueError(f"{name} holds numbers that are not finite")
    input_shape = _input_shape(head["input_shape"])
    is_table = len(input_shape) == 1
    selection = PartSelection.from_state(
        head["view"], is_table=is_table, has_head=choices.has_head
    )
    fit_positions = _fit_positions(head["fit_positions"], n_classes)
    standardizer = Standardizer.from_state(
        {
            **without_prefix("standardizer", arrays),
            "range": head["range"],
            "were_bytes": head["were_bytes"],
        },
        input_shape,
    )
    network, autoencoder = None, None
    lengths: dict[str, int] = {}
    if selection.needs_net:
        network = _network(choices, input_shape, fit_positions, arrays)
        lengths = block_lengths(selection, network, input_shape)
        if choices.autoencoder is not None:
            autoencoder = _autoencoder(choices.autoencoder, input_shape, arrays)
    direct = None
    if selection.direct:
        stored = without_prefix("direct", arrays)
        direct = DirectParts.from_state(stored, selection.direct)
        check_shape("direct parts", (direct.n_classes,), (n_classes,))
    stored_images = without_prefix("expected", arrays)
    return FittedModel(
        input_shape=input_shape,
        standardizer=standardizer,
        network=network,
        autoencoder=autoencoder,
        selection=selection,
        gaussians=_gaussians(head["covariance_type"], arrays, lengths, n_classes),
        evidence=Evidence.from_state(
            without_prefix("evidence", arrays), selection.names, n_classes
        ),
        fit_positions=fit_positions,
        weight_calibration=_weighting(head["weighting"]),
        expected_images=None
        if is_table or not stored_images
        else ExpectedImages.from_state(stored_images, input_shape, n_classes),
        direct=direct,
    )


def _as_arrays(module: nn.Module, *, weights: bool = False) -> Arrays:
    """Copy the state of a module; weights as float32, as they were trained.

    Tables score in float64, by weights that were trained in float32.
    """
    arrays = {}
    for name, tensor in module.state_dict().items():
        value = tensor.float() if weights and tensor.is_floating_point() else tensor
        arrays[name] = value.cpu().numpy()
    return arrays


def _input_shape(stored: Any) -> tuple[int, ...]:
    shape = tuple(expected(size, int) for size in expected(stored, list))
    if len(shape) not in (1, 3) or min(shape) < 1 or math.prod(shape) > LARGEST_INPUT:
        raise ValueError(f"inputs of shape {shape}")
    return shape


def _fit_positions(stored: Any, n_classes: int) -> np.ndarray:
    positions = np.array([expected(p, int) for p in expected(stored, list)])
    check_shape("fit_positions", positions.shape, (n_classes,))
    of_fit = positions[positions >= 0]
    if positions.min() < -1 or len(np.unique(of_fit)) < len(of_fit):
        raise ValueError(f"classes at the positions {stored} of fit")
    return positions


def _network(
    choices: NetChoices,
    input_shape: tuple[int, ...],
    fit_positions: np.ndarray,
    arrays: Arrays,
) -> VariationalNetwork:
    rows = arrays["network.mu.weight"].shape
    latent_dim = choices.latent_dim
    if len(rows) != 2 or rows[0] != latent_dim:
        raise ValueError(f"latent_dim={latent_dim}, but mu has shape {rows}")
    n_logits = 0
    if choices.has_head:
        # Classes may have been added and dropped since: the head is that of `fit`.
        n_logits = len(arrays["network.head.bias"])
        if n_logits <= fit_positions.max():
            raise ValueError(f"a head of {n_logits} classes")
    factory = resolve_factory(choices.backbone, BACKBONES, input_shape, "backbone")
    network = _laid_out(
        choices.backbone,
        lambda: build_network(factory, input_shape, latent_dim, n_logits),
    )
    return _filled(network, without_prefix("network", arrays), "network")


def _autoencoder(
    choice: str | BackboneFactory, input_shape: tuple[int, ...], arrays: Arrays
) -> nn.Module:
    factory = resolve_factory(choice, AUTOENCODERS, input_shape, "autoencoder")
    net = _laid_out(choice, lambda: build_autoencoder(factory, input_shape))
    return _filled(net, without_prefix("autoencoder", arrays), "autoencoder")


def _laid_out(choice: str | BackboneFactory, build: Callable[[], Net]) -> Net:
    """Build a net for its shapes; its initial weights are never used.

    A file may claim inputs of any size: our own nets are built without memory. The
    caller's random numbers must not move.
    """
    with seeded(0, CPU), torch.device("cpu" if callable(choice) else "meta"):
        return build()


def _filled(net: Net, stored: Arrays, role: str) -> Net:
    state = net.state_dict()
    if different := set(state) ^ set(stored):
        raise ValueError(
            f"the {role} differs from the one that was saved in {sorted(different)[:5]}"
        )
    for name, tensor in state.items():
        check_shape(f"{role}.{name}", stored[name].shape, tuple(tensor.shape))
    if any(tensor.is_meta for tensor in state.values()):
        net.to_empty(device=CPU)
    net.load_state_dict(
        {name: torch.from_numpy(array) for name, array in stored.items()}
    )
    return net.eval()


def _gaussians(
    covariance_type: Any, arrays: Arrays, lengths: Mapping[str, int], n_classes: int
) -> nn.ModuleDict:
    stored = without_prefix("gaussians", arrays)
    if different := {name.partition(".")[0] for name in stored} ^ set(lengths):
        raise ValueError(f"the Gaussians of {sorted(different)} are not those expected")
    if isinstance(covariance_type, str):
        # Older files have one for all blocks.
        covariance_type = dict.fromkeys(lengths, covariance_type)
    kinds = expected(covariance_type, dict)
    gaussians = {}
    for block, length in lengths.items():
        gaussians[block] = ClassGaussians.from_state(
            without_prefix(block, stored), expected(kinds[block], str)
        )
        found = tuple(gaussians[block].means.shape)
        check_shape(f"gaussians.{block}.means", found, (n_classes, length))
    return nn.ModuleDict(gaussians)


def _weighting(stored: Any) -> WeightCalibration | None:
    if stored is None:
        return None
    shift, scale = (expected(stored[name], float) for name in ("shift", "scale"))
    if scale <= 0:
        raise ValueError(f"a weighting of {stored}")
    return WeightCalibration(shift, scale)

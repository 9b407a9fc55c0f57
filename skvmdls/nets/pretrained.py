"""Pretrained nets as backbones, with the transform that brings images to their size.

The weights are fetched by torchvision or timm, into their own caches. Nothing is
fetched where these have them already, or where a file is given.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import nn

from skvmdls.nets.backbones import ModuleFactory, from_module

__all__ = ["pretrained"]


class _Places(NamedTuple):
    """Where a net is tapped, what is taken off, and where its taps' channels are."""

    taps: tuple[str, str, str]
    classifier: str | None
    channel_axis: int = 1


# By torchvision's classes.
PLACES = {
    "ConvNeXt": _Places(("features.1", "features.3", "features.5"), "classifier.2"),
    "DenseNet": _Places(
        ("features.transition1", "features.transition2", "features.transition3"),
        "classifier",
    ),
    "EfficientNet": _Places(("features.2", "features.3", "features.5"), "classifier.1"),
    "MobileNetV2": _Places(("features.3", "features.6", "features.13"), "classifier.1"),
    "RegNet": _Places(
        ("trunk_output.block1", "trunk_output.block2", "trunk_output.block3"), "fc"
    ),
    "ResNet": _Places(("layer1", "layer2", "layer3"), "fc"),
    "SwinTransformer": _Places(
        ("features.1", "features.3", "features.5"), "head", channel_axis=-1
    ),
    "VisionTransformer": _Places(
        (
            "encoder.layers.encoder_layer_2",
            "encoder.layers.encoder_layer_5",
            "encoder.layers.encoder_layer_8",
        ),
        "heads",
        channel_axis=-1,
    ),
}

TIMM = "timm/"


def pretrained(name: str, weights: Any = "DEFAULT") -> ModuleFactory:
    """Make a backbone factory of a net of torchvision or timm, by its name.

    Parameters
    ----------
    name : str
        A model of torchvision, as ``"resnet50"``, ``"convnext_tiny"`` or
        ``"vit_b_16"``, or of timm, if that is installed, as ``"timm/resnet10t"``.
    weights : str, path, WeightsEnum or None, default="DEFAULT"
        Of torchvision, a weights object or the name of one, such as
        ``"IMAGENET1K_V1"``. ``"DEFAULT"`` is the best of torchvision's, and timm's of
        the model's name. Or the path of a file that holds a `state_dict` of torch or
        safetensors. Its classifier may be another. None is random weights.

    Returns
    -------
    factory : ModuleFactory
        Goes in as ``backbone=...``. Its attribute ``transform`` turns a PIL image,
        of any size, into the tensor that these weights were trained on: for
        :func:`skvmdls.datasets.image_folder` and :class:`skvmdls.datasets.ImageFiles`.

    Raises
    ------
    ValueError
        If there is no such model or no such weights, or its taps are not known.
    ImportError
        If timm is asked for and not installed.
    ConnectionError
        If the weights are to be fetched, and there is no network.

    See Also
    --------
    skvmdls.nets.from_module : The same of a module, with the taps named.

    Examples
    --------
    >>> factory = pretrained("resnet18", weights=None)
    >>> factory
    from_module(ResNet, taps=('layer1', 'layer2', 'layer3'))
    >>> from PIL import Image
    >>> factory.transform(Image.new("RGB", (640, 480))).shape
    torch.Size([3, 224, 224])
    """
    is_file = isinstance(weights, str | os.PathLike) and Path(weights).is_file()
    try:
        net = _made(name, None if is_file else weights)
    except (URLError, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"The weights of {name!r} cannot be fetched: {error}. Without a network, "
            "give them as a file: weights=FILE, a state_dict that torch.save wrote, "
            "such as a copy of the one in torch.hub.get_dir()."
        ) from error
    if is_file:
        _load_weights(net.module, Path(weights), name, net.places.classifier)
    return _factory(name, net)


def stored_net(name: str, weights: str | None, most_numbers: int) -> ModuleFactory:
    """Make the factory of a net whose weights are stored, and fetch none.

    A file may claim any net: one of more than `most_numbers` weights is refused.
    """
    with torch.device("meta"):
        laid_out = _made(name, weights, filled=False).module.state_dict()
    n_numbers = sum(tensor.numel() for tensor in laid_out.values())
    if n_numbers > most_numbers:
        raise ValueError(f"{name} has {n_numbers} weights, more than the file holds")
    return _factory(name, _made(name, weights, filled=False))


class _Net(NamedTuple):
    """A net of a library, the transform for it, and the name of its weights."""

    module: nn.Module
    places: _Places
    transform: Any
    weights: str | None


def _made(name: str, weights: Any, *, filled: bool = True) -> _Net:
    """Make a net by its name; its weights are random if it is not filled."""
    make = _of_timm if name.startswith(TIMM) else _of_torchvision
    return make(name, weights, filled)


def _factory(name: str, net: _Net) -> ModuleFactory:
    taps, classifier, channel_axis = net.places
    # timm makes nets without one.
    removed = None if name.startswith(TIMM) else classifier
    factory = from_module(
        net.module, taps, classifier=removed, channel_axis=channel_axis
    )
    factory.transform, factory.name, factory.weights = net.transform, name, net.weights
    return factory


def _load_weights(
    module: nn.Module, path: Path, name: str, classifier: str | None
) -> None:
    """Load a file of weights, in which those of the classifier do not matter."""
    given = f"weights={os.fspath(path)!r}"
    state = _read_state(path, given)
    if classifier is not None:
        head = f"{classifier}."
        state = {key: value for key, value in state.items() if not key.startswith(head)}
        own = module.state_dict()
        state |= {key: own[key] for key in own if key.startswith(head)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{given} are of another net than {name!r}: {error}"
        ) from error


def _read_state(path: Path, given: str) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Files of other kinds lead the readers into errors of any kind.
        first_line = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{given} cannot be read: {type(error).__name__}: {first_line} Expected a "
            "state_dict that torch.save or safetensors wrote: "
            "torch.save(net.state_dict(), FILE)."
        ) from error
    is_state = isinstance(state, Mapping) and all(
        isinstance(value, torch.Tensor) for value in state.values()
    )
    if not is_state:
        entries = list(map(str, state))[:5] if isinstance(state, Mapping) else []
        found = f" with {', '.join(entries)}" * bool(entries)
        raise ValueError(
            f"{given} holds a {type(state).__name__}{found}; expected a state_dict, "
            "in which each entry is a tensor. If one of its entries is that: "
            "torch.save(torch.load(FILE)['state_dict'], FILE)."
        )
    return dict(state)


def _of_torchvision(name: str, weights: Any, filled: bool) -> _Net:
    from torchvision import models

    if name not in models.list_models():
        raise ValueError(
            f"torchvision has no model named {name!r}; there are "
            f"{', '.join(models.list_models(module=models))}. Those of timm are "
            f"'{TIMM}NAME'."
        )
    known = models.get_model_weights(name)
    try:
        chosen = known[weights] if isinstance(weights, str) else weights
        module = models.get_model(name, weights=chosen if filled else None)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"weights={weights!r} are none of {name!r}, nor a file; it has "
            f"{[each.name for each in known]}."
        ) from error
    kind = type(module).__name__
    if kind not in PLACES:
        raise ValueError(
            f"The taps of {name!r}, a {kind}, are not known; those of "
            f"{', '.join(PLACES)} are. Name them: skvmdls.nets.from_module("
            "module, taps=(...), classifier=...)."
        )
    # Of random weights too, or of a file: the size that the best were trained on.
    transform = (chosen or known.DEFAULT).transforms()
    return _Net(module, PLACES[kind], transform, chosen and chosen.name)


def _of_timm(name: str, weights: Any, filled: bool) -> _Net:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"{name!r} is a model of timm, which is not installed: pip install timm."
        ) from error
    name = name.removeprefix(TIMM)
    if weights not in (None, "DEFAULT"):
        raise ValueError(
            f"weights={weights!r}: timm's are a part of the model's name, as in "
            "'timm/resnet50.a1_in1k'. Use 'DEFAULT', None, or the path of a file."
        )
    try:
        module: Any = timm.create_model(
            name, pretrained=filled and weights is not None, num_classes=0
        )
    except RuntimeError as error:
        raise ValueError(f"timm has no model {name!r}: {error}") from error
    stages = [stage["module"] for stage in module.feature_info]
    if len(stages) < 4:
        raise ValueError(
            f"timm names {len(stages)} stages of {name!r}; three taps before the last "
            "are needed. Name them: skvmdls.nets.from_module(module, taps=(...))."
        )
    # A quarter, a half and three quarters of the way, as far as there are so many.
    taps = tuple(stages[len(stages) * quarter // 4] for quarter in (1, 2, 3))
    is_transformer = stages[0].startswith("blocks")
    data = timm.data.resolve_model_data_config(module)
    transform = timm.data.create_transform(**data)
    head = module.pretrained_cfg.get("classifier")
    places = _Places(
        taps, head if isinstance(head, str) else None, -1 if is_transformer else 1
    )
    return _Net(module, places, transform, None)

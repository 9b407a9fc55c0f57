"""The network: backbone, stochastic generator, head, and the feature ensemble."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from skvmdls.nets.backbones import BackboneFactory

__all__ = [
    "ENSEMBLE_PARTS",
    "FIRST_MAP",
    "Outputs",
    "VariationalNetwork",
    "build_autoencoder",
    "build_network",
]

ENSEMBLE_PARTS = ("t1", "t2", "t3", "g", "mu")

# What the first tap gave before it was averaged over space, (batch, channels, places).
FIRST_MAP = "t1 map"

# Early noise must not drown the class structure that the metric loss is to find.
INITIAL_SIGMA = 0.1


class Outputs(NamedTuple):
    """What the network makes of a batch, for the losses.

    `mu` and `log_sigma` (batch, latent_dim) of each point's Gaussian in the latent
    space; `logits` (batch, n_classes) of the classification head, or None; `g` (batch,
    backbone_features) as `mu` and `log_sigma` read it, apart from the head.
    """

    mu: Tensor
    log_sigma: Tensor
    logits: Tensor | None
    g: Tensor


class VariationalNetwork(nn.Module):
    """Generator ``f(g(x)) = mu(g(x)) + sigma(g(x)) * eps`` on a backbone ``g``.

    Dinari & Freifeld 2022, section 3.1: ``mu`` and ``log sigma`` are one fully
    connected layer each on the backbone's output (batch, backbone_features). A third
    one, the classification head, is not the paper's. `ensemble_sizes`, the length of
    each part of the feature ensemble, and `first_places`, the places of the first tap,
    are set by :func:`build_network`.

    Examples
    --------
    >>> import torch
    >>> from skvmdls.nets import mlp
    >>> network = build_network(mlp, (20,), latent_dim=8)
    >>> network(torch.zeros(4, 20)).mu.shape
    torch.Size([4, 8])
    >>> network.ensemble_sizes
    {'t1': 128, 't2': 128, 't3': 128, 'g': 128, 'mu': 8}
    """

    def __init__(
        self,
        backbone: nn.Module,
        backbone_features: int,
        latent_dim: int,
        n_classes: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.mu = nn.Linear(backbone_features, latent_dim)
        self.log_sigma = nn.Linear(backbone_features, latent_dim)
        nn.init.zeros_(self.log_sigma.weight)
        nn.init.constant_(self.log_sigma.bias, math.log(INITIAL_SIGMA))
        self.head = nn.Linear(backbone_features, n_classes) if n_classes else None
        self.ensemble_sizes: dict[str, int] = {}
        self.first_places = 0
        _remove_taps(backbone)
        channel_axis = getattr(backbone, "channel_axis", 1)
        for name, module_name in zip(ENSEMBLE_PARTS, _taps(backbone), strict=False):
            tap = _Tap(name, channel_axis)
            backbone.get_submodule(module_name).register_forward_hook(tap)

    def forward(self, x: Tensor) -> Outputs:
        """Parameters of each point's Gaussian, and the head's logits."""
        # In training, some nets answer otherwise than in evaluation.
        g = _checked_output(self.backbone, self.backbone(x), len(x))
        logits = None if self.head is None else self.head(g)
        # A node of its own: only the gradient that comes from the latent space passes.
        g = g.view_as(g)
        return Outputs(self.mu(g), self.log_sigma(g), logits, g)

    def ensemble(self, x: Tensor) -> dict[str, Tensor]:
        """All parts of the feature ensemble ``t(x)``, in one forward pass.

        ``t1``, ``t2``, ``t3`` (averaged over space), ``g``, ``mu`` and, with a head,
        ``logit``, each (batch, length of the part); and ``t1 map``, the first tap
        before averaging, (batch, channels, places).
        """
        with _recorded() as parts:
            g = self.backbone(x)
        parts |= {"g": g, "mu": self.mu(g)}
        return parts if self.head is None else {**parts, "logit": self.head(g)}

    def first_map(self, x: Tensor) -> Tensor:
        """First tap (batch, channels, places): only the first stage runs."""
        with _recorded(stop_at="t1") as parts:
            self.backbone(x)
        return parts[FIRST_MAP]


def build_network(
    factory: BackboneFactory,
    input_shape: tuple[int, ...],
    latent_dim: int,
    n_classes: int = 0,
) -> VariationalNetwork:
    """Build the network, in training mode, and check what the backbone's factory gave.

    Examples
    --------
    >>> from skvmdls.nets import cnn
    >>> build_network(cnn, (1, 8, 8), latent_dim=2).ensemble_sizes
    {'t1': 32, 't2': 64, 't3': 128, 'g': 128, 'mu': 2}
    """
    backbone = _own_module(factory, input_shape, "backbone")
    taps = _taps(backbone)
    example = torch.zeros(2, *input_shape)
    g = _checked_output(backbone, _tried("backbone", backbone.eval(), example), 2)
    network = VariationalNetwork(backbone, g.shape[1], latent_dim, n_classes).eval()
    with torch.no_grad():
        parts = network.ensemble(example)
    if silent := [name for name in ENSEMBLE_PARTS if name not in parts]:
        names = [taps[ENSEMBLE_PARTS.index(name)] for name in silent]
        raise ValueError(
            f"The backbone's taps {names} were not called in its forward pass. "
            "Name submodules that run, in the order in which they run."
        )
    network.first_places = parts.pop(FIRST_MAP).shape[2]
    network.ensemble_sizes = {name: part.shape[1] for name, part in parts.items()}
    return network.train()


def build_autoencoder(
    factory: BackboneFactory, input_shape: tuple[int, ...]
) -> nn.Module:
    """Build the autoencoder, in training mode, and check what its factory gave."""
    autoencoder = _own_module(factory, input_shape, "autoencoder")
    if not any(parameter.requires_grad for parameter in autoencoder.parameters()):
        raise ValueError(
            f"The autoencoder {type(autoencoder).__name__} has no parameters to train."
        )
    example = torch.zeros(2, *input_shape)
    output = _tried("autoencoder", autoencoder.eval(), example)
    if not isinstance(output, Tensor) or output.shape != example.shape:
        found, way = (
            (str(tuple(output.shape)), "")
            if isinstance(output, Tensor)
            else (_described(output), f" {_way_to_one_tensor(output)}")
        )
        raise ValueError(
            f"The autoencoder turned a batch of shape {tuple(example.shape)} into "
            f"{found}; expected the same shape.{way}"
        )
    return autoencoder.train()


def _own_module(
    factory: BackboneFactory, input_shape: tuple[int, ...], role: str
) -> nn.Module:
    """Build a float32 module that no other detector holds, on the default device."""
    module = factory(input_shape)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The {role} factory {factory!r} returned {type(module).__name__}; "
            "expected a torch.nn.Module."
        )
    # A factory may hand out one loaded module again and again. Convolutions follow the
    # layout of their weights, and this layout is the fastest.
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        # Widths that wait for a first input; until then it cannot be copied either.
        _tried(role, module.eval(), torch.zeros(2, *input_shape))
        module.train()
    own = deepcopy(module).to(torch.get_default_device(), torch.float32)
    return own.to(memory_format=torch.channels_last)


def _tried(role: str, module: nn.Module, example: Tensor) -> Any:
    """Run a module of the user's; whatever goes wrong is explained."""
    try:
        with torch.no_grad():
            return module(example)
    except Exception as error:
        raise ValueError(
            f"The {role} {type(module).__name__} cannot take a batch of shape "
            f"{tuple(example.shape)}: {type(error).__name__}: {error}"
        ) from error


def _checked_output(backbone: nn.Module, g: Any, n: int) -> Tensor:
    is_vectors = isinstance(g, Tensor) and g.ndim == 2 and len(g) == n
    if is_vectors and g.is_floating_point():
        return g
    mode = "in training, " if backbone.training else ""
    if isinstance(g, Tensor):
        kind = "" if g.is_floating_point() else f"{g.dtype} of shape "
        found = f"{kind}{tuple(g.shape)}"
        way = (
            "Leave out its argmax or rounding."
            if is_vectors
            else "End it with nn.Flatten(), or take its classifier off."
        )
    else:
        found, way = _described(g), _way_to_one_tensor(g)
    raise ValueError(
        f"The backbone {type(backbone).__name__} turned a batch of {n} inputs "
        f"{mode}into {found}; expected a tensor of floats of shape ({n}, k). {way}"
    )


def _described(output: Any) -> str:
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"a {name} with the keys {list(output)}"
    return f"a {name} of {len(output)}" if isinstance(output, tuple | list) else name


def _way_to_one_tensor(output: Any) -> str:
    if isinstance(output, Mapping):
        part = f"[{next(iter(output), 0)!r}]"
    elif isinstance(output, tuple | list):
        part = "[0]"
    else:
        part = ".logits"
    return (
        "Wrap it in a module with `def forward(self, x): return "
        f"self.net(x){part}`, whichever part is the one."
    )


def _taps(backbone: nn.Module) -> Sequence[str]:
    """Names of the three taps, checked."""
    kind = type(backbone).__name__
    submodules = [name for name, _ in backbone.named_modules() if name]
    taps: Any = getattr(backbone, "taps", None)
    if not (
        isinstance(taps, tuple | list)
        and len(taps) == 3
        and all(isinstance(tap, str) for tap in taps)
    ):
        raise ValueError(
            f"The backbone {kind} must name its three taps, but its attribute `taps` "
            f"is {taps!r}. Set `module.taps` to the names of three submodules, in the "
            f"order in which they run; it has {', '.join(submodules) or 'none'}."
        )
    if unknown := [tap for tap in taps if tap not in submodules]:
        raise ValueError(
            f"The backbone {kind} names the taps {unknown}, which are not among its "
            f"submodules: {', '.join(submodules)}."
        )
    return taps


class _FirstTapReached(Exception):
    """Ends a forward pass of which only the first stage is wanted."""


# Taps write into the recording of their own thread's forward pass, if there is one, so
# that one fitted network can be used from several threads at once.
_recording: ContextVar[tuple[dict[str, Tensor], str | None] | None] = ContextVar(
    "skvmdls_recording", default=None
)


class _Tap:
    """Forward hook that records a stage's output, averaged over space.

    Hooks take any module that runs, and leave its forward pass as it is; a module
    traced by ``create_feature_extractor`` would have to be traceable, and neither
    pickles nor switches between training and evaluation as a plain module does.
    """

    def __init__(self, name: str, channel_axis: int) -> None:
        self.name = name
        self.channel_axis = channel_axis

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        recording = _recording.get()
        if recording is None:
            return
        if not isinstance(output, Tensor):
            raise ValueError(
                f"The tap {self.name}, a {type(module).__name__}, gives a "
                f"{type(output).__name__}; expected a tensor. Tap a submodule whose "
                "output is one tensor."
            )
        parts, stop_at = recording
        by_place = (
            output[:, :, None]
            if output.ndim == 2
            else output.movedim(self.channel_axis, 1).flatten(start_dim=2)
        )
        if self.name == "t1":
            parts[FIRST_MAP] = by_place
        parts[self.name] = output if output.ndim == 2 else by_place.mean(dim=2)
        if self.name == stop_at:
            raise _FirstTapReached


def _remove_taps(backbone: nn.Module) -> None:
    """Take off the hooks of a network that the backbone was part of before."""
    for module in backbone.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(hook, _Tap):
                del module._forward_hooks[key]


@contextmanager
def _recorded(stop_at: str | None = None) -> Iterator[dict[str, Tensor]]:
    parts: dict[str, Tensor] = {}
    token = _recording.set((parts, stop_at))
    try:
        yield parts
    except _FirstTapReached:
        pass
    finally:
        _recording.reset(token)

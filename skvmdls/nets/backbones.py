"""Backbones: the deterministic part ``g`` of the network, and their taps.

A backbone is any :class:`torch.nn.Module` that maps a batch of inputs to a batch of
vectors ``g`` of shape (batch, k), and that names its three taps: an attribute ``taps``
with the names of three of its submodules (as in ``named_modules()``), in the order in
which they run. Their outputs, averaged over all but the first two axes, are ``t1``,
``t2`` and ``t3`` of the feature ensemble.

A factory is any callable that takes the input shape, (channels, height, width) or
(features,), and returns a backbone:

>>> from torchvision.models import resnet18
>>> def small_resnet(input_shape):
...     module = resnet18(num_classes=128)
...     module.taps = ("layer1", "layer2", "layer3")
...     return module
>>> len(small_resnet((3, 32, 32)).taps)
3

The factories here take images (channels, height, width), `mlp` tables (features,), and
raise a ValueError for the other kind and for images that are too small. The page of
each has the lengths of ``g`` and of the three taps. Images must have at least 8x8
pixels, and 16x16 for :func:`photo_cnn`.

:func:`from_module` makes a factory of a module that is there already, pretrained or
not. An optional attribute ``channel_axis`` is the axis of the taps' channels, if it is
not axis 1: -1 for vision transformers, whose stages give (batch, tokens, channels). An
optional attribute ``whitened`` names a first convolution, whose filters `fit` sets from
patches of the training images and leaves as they are.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from skvmdls.nets.residual import residual_mlp

__all__ = [
    "BACKBONES",
    "BackboneFactory",
    "ModuleFactory",
    "check_image",
    "check_table",
    "cnn",
    "densenet_bc100",
    "from_module",
    "mlp",
    "photo_cnn",
    "plain_cnn",
    "proposed_call",
    "resnet18",
    "resnet34",
    "resolve_factory",
    "vgg_crosr",
    "wide_resnet28_10",
]

BackboneFactory = Callable[[tuple[int, ...]], nn.Module]

SMALLEST_IMAGE = 8


class Staged(nn.Sequential):
    """Stages one behind the other, then a head; the taps are after the stages."""

    taps = ("stage1", "stage2", "stage3")
    whitened: str | None = None


def mlp(input_shape: tuple[int, ...]) -> nn.Module:
    """Three batch-normed hidden layers, for tables: ``g`` of 128, taps of 128.

    Examples
    --------
    >>> import torch
    >>> mlp((20,))(torch.zeros(2, 20)).shape
    torch.Size([2, 128])
    """
    check_table(input_shape, "mlp")
    width = 128
    backbone = Staged()
    n_inputs = input_shape[0]
    for name in ("stage1", "stage2", "stage3"):
        backbone.add_module(
            name,
            nn.Sequential(
                nn.Linear(n_inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
            ),
        )
        n_inputs = width
    backbone.add_module("head", nn.Sequential(nn.Linear(width, width), nn.ReLU()))
    return backbone


def cnn(input_shape: tuple[int, ...]) -> nn.Module:
    """Small batch-normed net, from 8x8 up: ``g`` of 128, taps of 32, 64 and 128.

    Four 3x3 convolutions in three stages, max-pooling after the first two, then one
    fully connected layer on a 4x4 grid of averages (fewer where the image is small).

    Examples
    --------
    >>> import torch
    >>> cnn((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 128])
    """
    check_image(input_shape, "cnn")
    channels, height, width = input_shape
    grid = (min(4, height // 4), min(4, width // 4))
    backbone = Staged()
    backbone.add_module("stage1", nn.Sequential(*_convolution(channels, 32)))
    backbone.add_module(
        "stage2",
        nn.Sequential(nn.MaxPool2d(2), *_convolution(32, 64), *_convolution(64, 64)),
    )
    backbone.add_module(
        "stage3", nn.Sequential(nn.MaxPool2d(2), *_convolution(64, 128))
    )
    backbone.add_module(
        "head",
        nn.Sequential(
            nn.AdaptiveAvgPool2d(grid),
            nn.Flatten(),
            nn.Linear(128 * grid[0] * grid[1], 128),
            nn.ReLU(),
        ),
    )
    return backbone


def photo_cnn(input_shape: tuple[int, ...]) -> nn.Module:
    """For photographs, from 16x16 up: ``g`` of 256, taps of 64, 192 and 256.

    In the manner of [1]_: a 2x2 convolution of 24 channels, which `fit` sets from
    patches of the training images, then three stages: a 3x3 convolution, max-pooling,
    batch norm, GELU, and a second 3x3 convolution at the smaller size. The convolutions
    begin by handing their inputs on. ``g`` is the maximum over space of the last stage.

    References
    ----------
    .. [1] K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU",
       arXiv:2404.00498, 2024.

    Examples
    --------
    >>> import torch
    >>> photo_cnn((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 256])
    """
    check_image(input_shape, "photo_cnn", smallest=16)
    backbone = Staged()
    # An axis of the 2x2 patches and its negative; of many channels the first axes.
    n_inputs = 2 * min(12, 4 * input_shape[0])
    stem = nn.Conv2d(input_shape[0], n_inputs, kernel_size=2)
    backbone.add_module("stem", nn.Sequential(stem, nn.GELU()))
    backbone.whitened = "stem.0"
    for number, n_outputs in enumerate((64, 192, 256), start=1):
        stage = nn.Sequential(
            *_pooled_convolution(n_inputs, n_outputs, pooling=nn.MaxPool2d(2)),
            *_pooled_convolution(n_outputs, n_outputs, pooling=nn.Identity()),
        )
        backbone.add_module(f"stage{number}", stage)
        n_inputs = n_outputs
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    backbone.add_module("head", head)
    return backbone


def plain_cnn(input_shape: tuple[int, ...]) -> nn.Module:
    """Plain net of Yoshihashi et al., batch-normed: ``g`` of 500, taps of 100.

    Five 3x3 convolutions and a fully connected layer [1]_. Max-pooling follows the
    second, fourth and fifth convolution, where the taps are.

    References
    ----------
    .. [1] R. Yoshihashi et al., "Classification-Reconstruction Learning for Open-Set
       Recognition", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> plain_cnn((1, 28, 28))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 500])
    """
    check_image(input_shape, "plain_cnn")
    layers: list[str | int] = [100, 100, "M", 100, 100, "M", 100, "M"]
    return _plain(input_shape, layers, hidden=[500])


def vgg_crosr(input_shape: tuple[int, ...]) -> nn.Module:
    """VGG net of the same paper, batch-normed: ``g`` of 1024, taps of 128, 256, 256.

    Three groups of 3x3 convolutions, of ``64, 128``, ``256, 256`` and
    ``256, 256, 256, 256`` channels, and two fully connected layers. Max-pooling follows
    each group, where the taps are.

    Examples
    --------
    >>> import torch
    >>> vgg_crosr((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1024])
    """
    check_image(input_shape, "vgg_crosr")
    layers: list[str | int] = [64, 128, "M", 256, 256, "M", *[256] * 4, "M"]
    return _plain(input_shape, layers, hidden=[1024, 1024])


def resnet18(input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet18 for small images: ``g`` of 512, taps of 64, 128 and 256.

    The net of [1]_ with a stem of 3x3 and stride 1, without max-pooling. The taps are
    after the first three of the four stages.

    References
    ----------
    .. [1] K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> resnet18((1, 28, 28)).eval()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 512])
    """
    check_image(input_shape, "resnet18")
    return _resnet(input_shape, [2, 2, 2, 2])


def resnet34(input_shape: tuple[int, ...]) -> nn.Module:
    """ResNet34 for small images, with the stem and the sizes of :func:`resnet18`.

    Examples
    --------
    >>> resnet34((3, 32, 32)).taps
    ('layer1', 'layer2', 'layer3')
    """
    check_image(input_shape, "resnet34")
    return _resnet(input_shape, [3, 4, 6, 3])


def densenet_bc100(input_shape: tuple[int, ...]) -> nn.Module:
    """DenseNet-BC for small images: ``g`` of 342, taps of 108, 150 and 342.

    The net of [1]_ with 100 layers and a growth of 12: three blocks of 16 bottleneck
    layers, behind a 3x3 convolution.
    The taps are after the transitions and the last block.

    References
    ----------
    .. [1] G. Huang et al., "Densely Connected Convolutional Networks", CVPR 2017.

    Examples
    --------
    >>> densenet_bc100((3, 32, 32)).taps[0]
    'features.transition1'
    """
    check_image(input_shape, "densenet_bc100")
    from torchvision.models.densenet import DenseNet

    n_stem = 24
    backbone: Any = DenseNet(12, (16, 16, 16), num_init_features=n_stem)
    backbone.features.conv0 = _scaled_convolution(input_shape[0], n_stem)
    # Each dense layer begins with its own norm and activation.
    for name in ("norm0", "relu0", "pool0"):
        setattr(backbone.features, name, nn.Identity())
    backbone.classifier = nn.Identity()
    names = ("transition1", "transition2", "denseblock3")
    backbone.taps = tuple(f"features.{name}" for name in names)
    return backbone


def wide_resnet28_10(input_shape: tuple[int, ...]) -> nn.Module:
    """WideResNet-28-10 for small images: ``g`` of 640, taps of 160, 320 and 640.

    The net of [1]_, with its taps after the three stages.

    References
    ----------
    .. [1] S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016.

    Examples
    --------
    >>> wide_resnet28_10((3, 32, 32)).taps
    ('stage1', 'stage2', 'stage3')
    """
    check_image(input_shape, "wide_resnet28_10")
    n_blocks, width = 4, 160
    backbone = Staged()
    n_inputs = 16
    backbone.add_module("stem", _scaled_convolution(input_shape[0], n_inputs))
    for number, stride in enumerate((1, 2, 2)):
        n_outputs = width * 2**number
        group = nn.Sequential(
            _PreActivationBlock(n_inputs, n_outputs, stride),
            *[_PreActivationBlock(n_outputs, n_outputs) for _ in range(n_blocks - 1)],
        )
        backbone.add_module(f"stage{number + 1}", group)
        n_inputs = n_outputs
    head = [nn.BatchNorm2d(n_inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    backbone.add_module("head", nn.Sequential(*head))
    return backbone


class ModuleFactory:
    """Backbone factory made by :func:`from_module`, which hands out one module.

    Every network is built on a copy of the module, which itself never changes. Copies
    and clones of the factory share it.

    Parameters
    ----------
    module : nn.Module
        With its taps named.

    Attributes
    ----------
    transform : callable or None
        Of :func:`skvmdls.nets.pretrained`: from an image to the module's input.
    name : str or None
        Of :func:`skvmdls.nets.pretrained`: the name of the net, from which it can be
        built again.
    weights : str or None
        Of :func:`skvmdls.nets.pretrained`: the name of torchvision's weights.

    Examples
    --------
    >>> factory = from_module(mlp((20,)), ("stage1", "stage2", "stage3"))
    >>> factory
    from_module(Staged, taps=('stage1', 'stage2', 'stage3'))
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.transform: Any = None
        self.name: str | None = None
        self.weights: str | None = None

    def __call__(self, input_shape: tuple[int, ...]) -> nn.Module:
        """Give the module, whatever the input shape."""
        return self.module

    def __deepcopy__(self, memo: Any) -> "ModuleFactory":
        return self

    def __repr__(self) -> str:
        return f"from_module({type(self.module).__name__}, taps={self.module.taps})"


def from_module(
    module: nn.Module,
    taps: Sequence[str],
    *,
    classifier: str | None = None,
    channel_axis: int = 1,
) -> ModuleFactory:
    """Make a backbone factory of any module, with the weights it has.

    Parameters
    ----------
    module : nn.Module
        Left as it is: the factory keeps a copy, on the CPU.
    taps : sequence of three str
        Names of submodules, as in ``module.named_modules()``, in the order in which
        they run.
    classifier : str, default=None
        Name of the submodule to take off, so that the output is what was fed to it:
        ``"fc"`` of torchvision's ResNets, ``"classifier"`` of its DenseNets,
        ``"heads"`` of its vision transformers.
    channel_axis : int, default=1
        Axis of the channels in the taps' outputs: -1 where they come last, as in
        transformers. All others but the first are averaged over.

    Returns
    -------
    factory : ModuleFactory
        To be given as ``backbone=...``. It can be pickled if the module can.

    Raises
    ------
    ValueError
        If a name is not that of a submodule, or the module has no weights yet.

    Examples
    --------
    >>> from torchvision.models import resnet18
    >>> from skvmdls import VMDLSDetector
    >>> factory = from_module(
    ...     resnet18(), taps=("layer1", "layer2", "layer3"), classifier="fc"
    ... )
    >>> detector = VMDLSDetector(backbone=factory)
    """
    _check_module(module, [*taps] + ([] if classifier is None else [classifier]))
    own: Any = deepcopy(module).cpu()
    if classifier is not None:
        parent, _, name = classifier.rpartition(".")
        setattr(own.get_submodule(parent), name, nn.Identity())
    own.taps = tuple(taps)
    own.channel_axis = channel_axis
    return ModuleFactory(own)


def _check_module(module: nn.Module, asked: list[str]) -> None:
    """Raise a ValueError unless it has weights, and the submodules asked for."""
    submodules = [name for name, _ in module.named_modules() if name]
    if unknown := [name for name in asked if name not in submodules]:
        raise ValueError(
            f"{type(module).__name__} has no submodules named {unknown}. It has: "
            f"{', '.join(submodules)}."
        )
    if any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        raise ValueError(
            f"{type(module).__name__} is lazy: it has no weights until it has seen an "
            "input. Show it one first, module(torch.zeros(2, *input_shape)), or give a "
            "factory that makes it: backbone=lambda input_shape: module."
        )


def proposed_call(module: nn.Module, input_shape: Sequence[int]) -> str:
    """Write the call of :func:`from_module` for a module, from its own submodules.

    A batch of zeros shows which of them run, in which order, and whether the last one
    is a classifier.

    Examples
    --------
    >>> proposed_call(mlp((20,)), (20,))
    "from_module(net, taps=('stage1', 'stage2', 'stage3'))"
    """
    outputs = _outputs_in_order(module, input_shape)
    classifier = None
    names = list(outputs)
    if names and isinstance(module.get_submodule(names[-1]), nn.Linear):
        classifier = names[-1]
        names = names[:-1]
    stages = _stages(module, [name for name in names if outputs[name] >= 2])
    if len(stages) < 3:
        children = ", ".join(name for name, _ in module.named_modules() if name)
        if not children:
            return "from_module(net, taps=(...)), with three submodules; it has none"
        return f"from_module(net, taps=(...)), three of {children}"
    # A quarter, a half and three quarters of the way.
    last = len(stages) - 1
    places = (0, 1, 2) if last == 2 else [last * quarter // 4 for quarter in (1, 2, 3)]
    taps = tuple(stages[place] for place in places)
    removed = f", classifier={classifier!r}" if classifier else ""
    # Of transformers, (batch, tokens, channels).
    are_tokens = len(input_shape) == 3 and all(outputs[tap] == 3 for tap in taps)
    return f"from_module(net, taps={taps}{removed}{', channel_axis=-1' * are_tokens})"


def _outputs_in_order(module: nn.Module, input_shape: Sequence[int]) -> dict[str, int]:
    """Return the number of axes of each submodule's output, in the order of a run.

    Those that hold no weights are left out.
    """
    found: dict[str, int] = {}
    own = deepcopy(module).cpu().eval()

    def noted(name: str) -> Callable[..., None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                found.pop(name, None)
                found[name] = output.ndim

        return note

    for name, part in own.named_modules():
        if name and any(True for _ in part.parameters()):
            part.register_forward_hook(noted(name))
    try:
        with torch.inference_mode():
            own(torch.zeros(2, *input_shape))
    except Exception:
        # A net of other inputs: its submodules are listed instead.
        return {}
    return found


def _stages(module: nn.Module, names: list[str]) -> list[str]:
    """Keep submodules of one level: the first that has at least three.

    Those that are made of others come first, since layers of their own are rarely
    stages.
    """
    deepest = max((name.count(".") for name in names), default=0)
    for level in range(deepest + 1):
        stages = [name for name in names if name.count(".") == level]
        made_of_others = [
            name for name in stages if next(module.get_submodule(name).children(), None)
        ]
        if len(made_of_others) >= 3:
            return made_of_others
        if len(stages) >= 3:
            return stages
    return names


BACKBONES: dict[str, BackboneFactory] = {
    factory.__name__: factory
    for factory in (
        cnn,
        densenet_bc100,
        mlp,
        photo_cnn,
        plain_cnn,
        residual_mlp,
        resnet18,
        resnet34,
        vgg_crosr,
        wide_resnet28_10,
    )
}


def resolve_factory(
    choice: str | BackboneFactory,
    named: dict[str, BackboneFactory],
    input_shape: Sequence[int],
    parameter: str,
) -> BackboneFactory:
    """Turn the value of a parameter, a name or a factory, into a factory."""
    given: Any = choice
    if isinstance(given, type) and issubclass(given, nn.Module):
        return _class_as_factory(given, parameter)
    if isinstance(choice, nn.Module):
        if parameter != "backbone":
            raise ValueError(
                f"{parameter} is a {type(choice).__name__}, a module; expected a "
                f"factory: pass {parameter}=lambda input_shape: module."
            )
        raise ValueError(
            f"backbone is a {type(choice).__name__}, a module; expected a factory. To "
            "use the module with the weights that it has, pass "
            f"backbone=skvmdls.nets.{proposed_call(choice, input_shape)}."
        )
    if callable(choice):
        return choice
    if choice == "auto":
        choice = _usual(input_shape)
        if choice not in named:
            # An autoencoder.
            choice = "mlp" if len(input_shape) == 1 else "cnn"
    if choice not in named:
        raise ValueError(
            f"{parameter}={choice!r} is not known. Use 'auto', one of {sorted(named)}, "
            "or a factory: a callable that takes the input shape and returns a module."
        )
    return named[choice]


def _class_as_factory(module_class: type[nn.Module], parameter: str) -> BackboneFactory:
    """Take a class of modules for a factory, if it takes the input shape."""
    name = module_class.__name__

    def make(input_shape: tuple[int, ...]) -> nn.Module:
        try:
            return module_class(input_shape)
        except TypeError as error:
            raise ValueError(
                f"{parameter} is the class {name}, which cannot be made from the input "
                f"shape {input_shape}: {error}. Give a factory, which takes the shape: "
                f"{parameter}=lambda input_shape: {name}()."
            ) from error

    return make


def _usual(input_shape: Sequence[int]) -> str:
    if len(input_shape) == 1:
        return "residual_mlp"
    channels, *size = input_shape
    return "photo_cnn" if channels >= 3 and min(size) >= 32 else "cnn"


def check_table(input_shape: tuple[int, ...], name: str) -> None:
    """Raise a ValueError unless the inputs of a named net are rows of features."""
    if len(input_shape) != 1:
        raise ValueError(
            f"The net {name!r} takes tables, X of shape (n, features), but X holds "
            f"images of shape {input_shape}. Use 'auto' or 'cnn', or give the pixels "
            "as a table: X.reshape(len(X), -1)."
        )


def check_image(
    input_shape: tuple[int, ...], name: str, smallest: int = SMALLEST_IMAGE
) -> None:
    """Raise a ValueError unless the inputs of a named net are large enough images."""
    if len(input_shape) != 3:
        raise ValueError(
            f"The net {name!r} takes images, X of shape (n, channels, height, width) "
            f"or (n, height, width), but X has {input_shape[0]} features a row. "
            "Use 'auto' or 'mlp'."
        )
    if min(input_shape[1:]) < smallest:
        channels, height, width = input_shape
        # Only where the images would then be large enough.
        if width in (1, 3, 4) and min(channels, height) >= smallest:
            hint = " Channels come first: try X.transpose(0, 3, 1, 2)."
        elif channels == 1 and max(height, width) >= smallest:
            hint = (
                f" If these are series of {height} steps of {width} sensors, give them "
                "as a table, X.reshape(len(X), -1), or give a `backbone` of your own "
                "that convolves over the steps."
            )
        else:
            hint = (
                " Give the pixels as a table, X.reshape(len(X), -1), or larger images: "
                "X.repeat(2, axis=-1).repeat(2, axis=-2)."
            )
        raise ValueError(
            f"The net {name!r} takes images of at least {smallest}x"
            f"{smallest} pixels, but X holds images of (channels, height, "
            f"width) = {input_shape}.{hint}"
        )


def _convolution(n_inputs: int, n_outputs: int) -> list[nn.Module]:
    return [
        nn.Conv2d(n_inputs, n_outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(n_outputs),
        nn.ReLU(),
    ]


def _pooled_convolution(
    n_inputs: int, n_outputs: int, pooling: nn.Module
) -> list[nn.Module]:
    """Convolve, pool, norm and activate; the first outputs begin as the inputs."""
    convolution = nn.Conv2d(n_inputs, n_outputs, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight.data[:n_inputs])
    return [
        convolution,
        pooling,
        nn.BatchNorm2d(n_outputs),
        nn.GELU(),
    ]


def _scaled_convolution(
    n_inputs: int, n_outputs: int, stride: int = 1, kernel_size: int = 3
) -> nn.Conv2d:
    """Convolve without a bias, initialised as in torchvision's ResNets."""
    convolution = nn.Conv2d(
        n_inputs,
        n_outputs,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        bias=False,
    )
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _resnet(input_shape: tuple[int, ...], blocks: list[int]) -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    backbone: Any = ResNet(BasicBlock, blocks)
    backbone.conv1 = _scaled_convolution(input_shape[0], 64)
    backbone.maxpool = nn.Identity()
    backbone.fc = nn.Identity()
    backbone.taps = ("layer1", "layer2", "layer3")
    return backbone


def _plain(
    input_shape: tuple[int, ...], layers: list[str | int], hidden: list[int]
) -> nn.Module:
    """Convolutions as in VGG, with taps after the three max-poolings, then a head."""
    from torchvision.models.vgg import make_layers

    channels, height, width = input_shape
    features = make_layers(layers, batch_norm=True)
    features[0] = nn.Conv2d(channels, features[0].out_channels, 3, padding=1)
    n_inputs = int(layers[-2]) * (height // 8) * (width // 8)
    head: list[nn.Module] = [nn.Flatten()]
    for n_outputs in hidden:
        head += [nn.Linear(n_inputs, n_outputs), nn.ReLU()]
        n_inputs = n_outputs
    backbone: Any = nn.Sequential()
    backbone.add_module("features", features)
    backbone.add_module("head", nn.Sequential(*head))
    backbone.taps = tuple(
        f"features.{place}"
        for place, layer in enumerate(features)
        if isinstance(layer, nn.MaxPool2d)
    )
    return backbone


class _PreActivationBlock(nn.Module):
    """Two 3x3 convolutions, each behind its norm and activation, and a shortcut.

    The blocks of torchvision's ResNets have norm and activation behind convolutions.
    """

    def __init__(self, n_inputs: int, n_outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.activation = nn.Sequential(nn.BatchNorm2d(n_inputs), nn.ReLU())
        self.residual = nn.Sequential(
            _scaled_convolution(n_inputs, n_outputs, stride),
            nn.BatchNorm2d(n_outputs),
            nn.ReLU(),
            _scaled_convolution(n_outputs, n_outputs),
        )
        self.projection = (
            None
            if n_inputs == n_outputs
            else _scaled_convolution(n_inputs, n_outputs, stride, kernel_size=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        active = self.activation(x)
        shortcut = x if self.projection is None else self.projection(active)
        return shortcut + self.residual(active)

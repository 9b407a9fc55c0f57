"""The named nets, and nets that users bring."""

import pickle
import re
from copy import deepcopy
from itertools import pairwise

import joblib
import numpy as np
import pytest
import torch
import torchvision
from sklearn.base import clone
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from skvmdls import VMDLSDetector
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import (
    BACKBONES,
    cnn,
    from_module,
    mlp,
    photo_cnn,
    proposed_call,
    resolve_factory,
)
from skvmdls.nets.network import build_network
from skvmdls.nets.residual import residual_mlp

# Public parameter counts for 3x32x32 and ten classes, less those of the classifier.
PUBLISHED = {
    "resnet18": 11_173_962 - 10 * (512 + 1),
    "resnet34": 21_282_122 - 10 * (512 + 1),
    "densenet_bc100": 769_162 - 10 * (342 + 1),
    "wide_resnet28_10": 36_479_194 - 10 * (640 + 1),
}
# They train for seconds.
LARGE = {"resnet34", "wide_resnet28_10"}
ENSEMBLE_SIZES = {
    "plain_cnn": (100, 100, 100, 500),
    "vgg_crosr": (128, 256, 256, 1024),
    "resnet18": (64, 128, 256, 512),
    "resnet34": (64, 128, 256, 512),
    "densenet_bc100": (108, 150, 342, 342),
    "wide_resnet28_10": (160, 320, 640, 640),
}


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (28, 28), (65, 33)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_cnn_takes_any_size_and_number_of_channels(channels, size):
    network = build_network(cnn, (channels, *size), latent_dim=4)
    assert network.ensemble_sizes == {"t1": 32, "t2": 64, "t3": 128, "g": 128, "mu": 4}


@pytest.mark.parametrize("size", [(16, 16), (17, 40), (32, 32), (65, 33)])
@pytest.mark.parametrize("channels", [1, 3])
def test_photo_cnn_takes_any_size_from_16_up(channels, size):
    network = build_network(photo_cnn, (channels, *size), latent_dim=4)
    sizes = {"t1": 64, "t2": 192, "t3": 256, "g": 256, "mu": 4}
    assert network.ensemble_sizes == sizes
    halved = [(side - 1) // 2 for side in size]
    assert network.first_places == halved[0] * halved[1]


def test_mlp_takes_any_number_of_features():
    for features in (1, 2, 300):
        sizes = build_network(mlp, (features,), latent_dim=4).ensemble_sizes
        assert sizes == {"t1": 128, "t2": 128, "t3": 128, "g": 128, "mu": 4}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name):
    backbone = BACKBONES[name]((3, 32, 32))
    assert sum(p.numel() for p in backbone.parameters()) == PUBLISHED[name]


def test_parameter_counts_of_plain_nets_follow_from_their_layers():
    def convolutions(*channels):  # weights, bias, and the norm's two vectors
        return sum(9 * a * b + 3 * b for a, b in pairwise(channels))

    counts = {
        name: sum(p.numel() for p in BACKBONES[name]((3, 32, 32)).parameters())
        for name in ("plain_cnn", "vgg_crosr")
    }
    assert counts == {
        "plain_cnn": convolutions(3, *[100] * 5) + (100 * 16 + 1) * 500,
        "vgg_crosr": convolutions(3, 64, 128, *[256] * 6)
        + (256 * 16 + 1) * 1024
        + (1024 + 1) * 1024,
    }


@pytest.mark.parametrize("name", ENSEMBLE_SIZES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 9)])
def test_named_backbones_have_the_papers_taps(name, shape):
    network = build_network(BACKBONES[name], shape, latent_dim=4).eval()
    sizes = dict(zip(("t1", "t2", "t3", "g"), ENSEMBLE_SIZES[name], strict=True))
    assert network.ensemble_sizes == {**sizes, "mu": 4}
    with torch.no_grad():
        parts = network.ensemble(torch.zeros(3, *shape))
    del parts["t1 map"]
    assert {part: tuple(t.shape) for part, t in parts.items()} == {
        part: (3, size) for part, size in network.ensemble_sizes.items()
    }


@pytest.mark.parametrize(
    ("name", "resolutions"),
    [
        ("resnet18", (32, 16, 8)),
        ("densenet_bc100", (16, 8, 8)),
        ("wide_resnet28_10", (32, 16, 8)),
        ("vgg_crosr", (16, 8, 4)),
        ("plain_cnn", (16, 8, 4)),
    ],
)
def test_small_images_keep_their_resolution_through_the_stem(name, resolutions):
    backbone = BACKBONES[name]((3, 32, 32)).eval()
    found = []
    for tap in backbone.taps:
        backbone.get_submodule(tap).register_forward_hook(
            lambda module, inputs, output: found.append(output.shape[-1])
        )
    with torch.no_grad():
        backbone(torch.zeros(1, 3, 32, 32))
    assert tuple(found) == resolutions


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in ENSEMBLE_SIZES
    ],
)
def test_named_backbones_fit_score_load_and_clone(name, digits, tmp_path):
    rows = np.isin(digits.y_train, (0, 1))
    X, y = digits.X_train[rows][:64], digits.y_train[rows][:64]
    settings = {"max_epochs": 2, "autoencoder_epochs": 1, "calibration": "split"}
    detector = VMDLSDetector(backbone=name, **settings, random_state=0)
    with pytest.warns(UserWarning, match="calibration points are too few"):
        detector.fit(X, y)
    scores = detector.score_samples(digits.X_test[:20])
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 20
    joblib.dump(detector, tmp_path / "detector.joblib")
    loaded = joblib.load(tmp_path / "detector.joblib")
    np.testing.assert_array_equal(loaded.score_samples(digits.X_test[:20]), scores)
    assert clone(detector).backbone == name


def test_any_module_becomes_a_factory_with_its_weights():
    module = resnet18(num_classes=10)
    before = deepcopy(module.state_dict())
    factory = from_module(module, ["layer1", "layer2", "layer3"], classifier="fc")
    with torch.no_grad():
        module.conv1.weight.zero_()
    x = torch.randn(2, 3, 32, 32)
    for made in (factory, pickle.loads(pickle.dumps(factory))):
        network = build_network(made, (3, 32, 32), latent_dim=4).eval()
        assert network.ensemble_sizes["g"] == 512
        weights = network.backbone.state_dict()
        assert all(torch.equal(weights[key], before[key]) for key in weights)
        assert made.module.get_submodule("layer1") is not module.layer1
    assert module.fc.out_features == 10
    assert torch.isfinite(network(x)[0]).all()


def test_clones_of_a_detector_share_the_factorys_module():
    factory = from_module(mlp((6,)), ("stage1", "stage2", "stage3"))
    copied = clone(VMDLSDetector(backbone=factory))
    assert copied.backbone.module is factory.module


def test_transformers_are_averaged_over_their_tokens():
    vit = VisionTransformer(32, 8, num_layers=3, num_heads=2, hidden_dim=8, mlp_dim=16)
    taps = [f"encoder.layers.encoder_layer_{i}" for i in range(3)]
    factory = from_module(vit, taps, classifier="heads", channel_axis=-1)
    network = build_network(factory, (3, 32, 32), latent_dim=4).eval()
    assert network.ensemble_sizes == dict.fromkeys(("t1", "t2", "t3", "g"), 8) | {
        "mu": 4
    }
    recorded = []
    network.backbone.get_submodule(taps[0]).register_forward_hook(
        lambda module, inputs, output: recorded.append(output)
    )
    with torch.no_grad():
        x = torch.randn(2, 3, 32, 32)
        t1 = network.ensemble(x)["t1"]
        by_token = network.first_map(x)
    torch.testing.assert_close(t1, recorded[0].mean(dim=1))
    torch.testing.assert_close(by_token, recorded[0].transpose(1, 2))
    assert network.first_places == 17


def test_names_that_are_no_submodules_are_explained():
    with pytest.raises(ValueError, match=r"no submodules named \['layer9'\]. It has"):
        from_module(resnet18(), ("layer1", "layer2", "layer9"))
    with pytest.raises(ValueError, match=r"no submodules named \['head'\]"):
        from_module(resnet18(), ("layer1", "layer2", "layer3"), classifier="head")


def test_a_backbone_for_other_images_is_explained():
    factory = from_module(resnet18(), ("layer1", "layer2", "layer3"), classifier="fc")
    with pytest.raises(
        ValueError, match=r"ResNet cannot take .*\(2, 1, 28, 28\): .*3 "
    ):
        build_network(factory, (1, 28, 28), latent_dim=4)


def test_a_torchvision_model_becomes_a_backbone_by_naming_three_layers():
    def factory(input_shape):
        module = resnet18(num_classes=16)
        module.taps = ("layer1", "layer2", "layer3")
        return module

    sizes = build_network(factory, (3, 32, 32), latent_dim=4).ensemble_sizes
    assert sizes == {"t1": 64, "t2": 128, "t3": 256, "g": 16, "mu": 4}


@pytest.mark.parametrize(
    ("factory", "shape", "message"),
    [
        (mlp, (1, 8, 8), "'mlp' takes tables.*images of shape"),
        (cnn, (64,), "'cnn' takes images.*64 features"),
        (cnn, (1, 7, 8), "at least 8x8"),
        (photo_cnn, (3, 16, 15), r"'photo_cnn' takes images of at least 16x16 pixels"),
        (photo_cnn, (64,), "'photo_cnn' takes images.*64 features"),
        (photo_cnn, (32, 32, 3), r"Channels come first: try X.transpose\(0, 3, 1, 2\)"),
        (cnn, (32, 32, 3), r"Channels come first: try X.transpose\(0, 3, 1, 2\)"),
    ],
)
def test_wrong_inputs_are_explained(factory, shape, message):
    with pytest.raises(ValueError, match=message):
        factory(shape)


def test_factories_are_found_by_name_and_by_kind_of_input():
    assert resolve_factory("auto", BACKBONES, (5,), "backbone") is residual_mlp
    assert resolve_factory("auto", BACKBONES, (1, 8, 8), "backbone") is cnn
    for photo in ((3, 32, 32), (4, 64, 33), (3, 224, 224)):
        assert resolve_factory("auto", BACKBONES, photo, "backbone") is photo_cnn
        # An autoencoder of that name there is not.
        own = resolve_factory("auto", AUTOENCODERS, photo, "autoencoder")
        assert own is AUTOENCODERS["cnn"]
    for other in ((3, 31, 64), (1, 32, 32), (2, 64, 64), (1, 28, 28)):
        assert resolve_factory("auto", BACKBONES, other, "backbone") is cnn
    assert resolve_factory("cnn", BACKBONES, (5,), "backbone") is cnn
    assert resolve_factory(resnet18, BACKBONES, (5,), "backbone") is resnet18
    with pytest.raises(ValueError, match=r"backbone='rsnet' .*\['cnn', 'dense"):
        resolve_factory("rsnet", BACKBONES, (5,), "backbone")


def test_a_module_in_place_of_its_factory_is_explained():
    with pytest.raises(ValueError, match="backbone is a Staged, .*expected a factory"):
        resolve_factory(mlp((5,)), BACKBONES, (5,), "backbone")


def test_default_nets_learn_in_every_layer():
    for factory, shape in (
        (mlp, (6,)),
        (cnn, (2, 12, 12)),
        (photo_cnn, (3, 32, 32)),
    ):
        backbone = factory(shape)
        backbone(torch.randn(8, *shape)).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in backbone.parameters())


class Odd(nn.Module):
    """A net of the user's own, with names of its own."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.early = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.out = nn.Linear(8, 5)

    def forward(self, x):
        x = self.late(self.middle(self.early(self.stem(x))))
        return self.out(self.pool(x).flatten(1))


@pytest.mark.parametrize(
    ("make", "input_shape", "taps", "classifier"),
    [
        (Odd, (3, 32, 32), ("early", "middle", "late"), "out"),
        (
            lambda: torchvision.models.resnet18(weights=None),
            (3, 32, 32),
            ("layer1", "layer2", "layer3"),
            "fc",
        ),
        (lambda: mlp((6,)), (6,), ("stage1", "stage2", "stage3"), None),
        (
            lambda: nn.Sequential(
                nn.Linear(6, 8),
                nn.ReLU(),
                nn.Linear(8, 8),
                nn.Linear(8, 8),
                nn.Linear(8, 3),
            ),
            (6,),
            ("0", "2", "3"),
            "4",
        ),
    ],
    ids=["of the user", "resnet18", "mlp", "layers"],
)
def test_a_module_is_answered_with_the_call_that_takes_it(
    make, input_shape, taps, classifier
):
    net = make()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="expected a factory") as caught:
        resolve_factory(net, BACKBONES, input_shape, "backbone")
    call = re.search(r"from_module\(.*\)", str(caught.value))[0]
    factory = eval(call, {"from_module": from_module, "net": net})
    assert factory.module.taps == taps
    assert (f"classifier={classifier!r}" in call) is (classifier is not None)
    # The call is finished: what it makes is a backbone that works.
    network = build_network(factory, input_shape, 4)
    network.eval()(torch.zeros(2, *input_shape))
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_module_of_other_inputs_is_answered_with_its_submodules():
    call = proposed_call(Odd(), (1, 8, 8))
    assert call.startswith("from_module(net, taps=(...)), three of stem, early,")


class TakesNothing(nn.Module):
    def __init__(self):
        super().__init__()


class TakesShape(nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.shape = input_shape


def test_a_class_of_modules_is_a_factory_if_it_takes_the_shape():
    make = resolve_factory(TakesShape, BACKBONES, (6,), "backbone")
    assert make((6,)).shape == (6,)
    make = resolve_factory(TakesNothing, BACKBONES, (6,), "backbone")
    with pytest.raises(ValueError, match="class TakesNothing.*lambda input_shape: Tak"):
        make((6,))


def test_a_module_without_submodules_has_nothing_to_tap():
    with pytest.raises(ValueError, match="with three submodules; it has none"):
        resolve_factory(nn.Linear(6, 3), BACKBONES, (6,), "backbone")

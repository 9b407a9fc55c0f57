"""The default nets."""

import pytest
import torch
from torchvision.models import resnet18

from skvmdls.backbones import BACKBONES, cnn, mlp, resolve_factory
from skvmdls.network import build_network


@pytest.mark.parametrize("size", [(8, 8), (9, 30), (28, 28), (65, 33)])
@pytest.mark.parametrize("channels", [1, 3, 7])
def test_cnn_takes_any_size_and_number_of_channels(channels, size):
    network = build_network(cnn, (channels, *size), latent_dim=4)
    assert network.ensemble_sizes == {"t1": 32, "t2": 64, "t3": 128, "g": 128, "mu": 4}


def test_mlp_takes_any_number_of_features():
    for features in (1, 2, 300):
        sizes = build_network(mlp, (features,), latent_dim=4).ensemble_sizes
        assert sizes == {"t1": 128, "t2": 128, "t3": 128, "g": 128, "mu": 4}


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
        (cnn, (32, 32, 3), r"Channels come first: try X.transpose\(0, 3, 1, 2\)"),
    ],
)
def test_wrong_inputs_are_explained(factory, shape, message):
    with pytest.raises(ValueError, match=message):
        factory(shape)


def test_factories_are_found_by_name_and_by_kind_of_input():
    assert resolve_factory("auto", BACKBONES, (5,), "backbone") is mlp
    assert resolve_factory("auto", BACKBONES, (1, 8, 8), "backbone") is cnn
    assert resolve_factory("cnn", BACKBONES, (5,), "backbone") is cnn
    assert resolve_factory(resnet18, BACKBONES, (5,), "backbone") is resnet18
    with pytest.raises(ValueError, match=r"backbone='rsnet' .*\['cnn', 'mlp'\]"):
        resolve_factory("rsnet", BACKBONES, (5,), "backbone")


def test_a_module_in_place_of_its_factory_is_explained():
    with pytest.raises(ValueError, match="backbone is a Staged, .*expected a factory"):
        resolve_factory(mlp((5,)), BACKBONES, (5,), "backbone")


def test_default_nets_learn_in_every_layer():
    for factory, shape in ((mlp, (6,)), (cnn, (2, 12, 12))):
        backbone = factory(shape)
        backbone(torch.randn(8, *shape)).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in backbone.parameters())

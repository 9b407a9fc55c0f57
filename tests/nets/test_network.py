"""The network's parts, taps and complaints."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

import skvmdls
from skvmdls import VMDLSDetector
from skvmdls.nets.backbones import cnn, from_module, mlp
from skvmdls.nets.network import build_autoencoder, build_network


class Shaped(nn.Module):
    """A user's backbone, with control flow that no tracer follows."""

    def __init__(self, taps=("first", "second", "third")):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 6, 3)
        self.third = nn.Linear(6, 8)
        self.unused = nn.Linear(1, 1)
        if taps is not None:
            self.taps = taps
        self.calls = []

    def forward(self, x):
        x = self.first(x)
        self.calls.append("first")
        if x.sum().item() > 1e9:
            x = x * 0
        x = self.second(x).mean(dim=(2, 3))
        self.calls.append("second")
        return self.third(x)


def test_forward_gives_a_gaussian_and_ensemble_gives_all_parts():
    network = build_network(cnn, (3, 12, 9), latent_dim=5).eval()
    x = torch.randn(4, 3, 12, 9)
    mu, log_sigma, logits, g = network(x)
    assert mu.shape == log_sigma.shape == (4, 5)
    assert logits is None
    parts = network.ensemble(x)
    assert parts.pop("t1 map").shape == (4, 32, 12 * 9)
    assert {name: part.shape for name, part in parts.items()} == {
        name: (4, size) for name, size in network.ensemble_sizes.items()
    }
    torch.testing.assert_close(parts["mu"], mu)
    torch.testing.assert_close(parts["g"], g)


def test_a_head_gives_logits_of_g():
    network = build_network(cnn, (3, 12, 9), latent_dim=5, n_classes=7).eval()
    x = torch.randn(4, 3, 12, 9)
    parts = network.ensemble(x)
    assert network.ensemble_sizes["logit"] == 7
    torch.testing.assert_close(network(x).logits, parts["logit"])
    torch.testing.assert_close(parts["logit"], network.head(parts["g"]))


def test_a_head_leaves_the_other_initial_weights_as_they_are():
    torch.manual_seed(0)
    plain = build_network(mlp, (6,), latent_dim=3)
    torch.manual_seed(0)
    headed = build_network(mlp, (6,), latent_dim=3, n_classes=2)
    for name, weight in plain.state_dict().items():
        assert torch.equal(headed.state_dict()[name], weight)


def test_taps_are_the_stages_outputs_averaged_over_space():
    network = build_network(cnn, (1, 16, 16), latent_dim=2).eval()
    x = torch.randn(3, 1, 16, 16)
    parts = network.ensemble(x)
    for name, stage in zip(("t1", "t2", "t3"), network.backbone, strict=False):
        x = stage(x)
        torch.testing.assert_close(parts[name], x.mean(dim=(2, 3)))


def test_first_map_equals_the_ensembles_and_stops_there():
    network = build_network(lambda shape: Shaped(), (1, 8, 8), latent_dim=2).eval()
    x = torch.randn(3, 1, 8, 8)
    parts = network.ensemble(x)
    network.backbone.calls.clear()
    found = network.first_map(x)
    assert network.backbone.calls == []
    assert found.shape == (3, 4, 6 * 6)
    assert network.first_places == 36
    torch.testing.assert_close(found, network.backbone.first(x).flatten(start_dim=2))
    torch.testing.assert_close(found, parts["t1 map"])
    torch.testing.assert_close(found.mean(dim=2), parts["t1"])


def test_a_first_stage_that_gives_vectors_is_a_map_of_one_place():
    network = build_network(mlp, (6,), latent_dim=3).eval()
    x = torch.randn(5, 6)
    assert network.first_places == 1
    assert torch.equal(network.first_map(x)[:, :, 0], network.ensemble(x)["t1"])


def test_initial_sigma_is_small():
    log_sigma = build_network(mlp, (6,), latent_dim=3)(torch.randn(5, 6)).log_sigma
    torch.testing.assert_close(log_sigma.exp(), torch.full((5, 3), 0.1))


def test_a_pickled_network_answers_the_same():
    network = build_network(mlp, (6,), latent_dim=3).eval()
    x = torch.randn(5, 6)
    again = pickle.loads(pickle.dumps(network))
    for name, part in network.ensemble(x).items():
        assert torch.equal(again.ensemble(x)[name], part)


def test_threads_do_not_see_each_others_taps():
    network = build_network(mlp, (6,), latent_dim=3).eval()
    batches = [torch.randn(50 + i, 6) for i in range(64)]
    expected = [network.ensemble(x)["t1"] for x in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: network.ensemble(x)["t1"], batches))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_networks_never_share_the_weights_of_a_factory_that_repeats_itself():
    module = mlp((6,)).double()
    one, other = (build_network(lambda shape: module, (6,), 3) for _ in range(2))
    assert one.backbone is not other.backbone is not module
    ours, theirs = (next(n.backbone.parameters()) for n in (one, other))
    assert ours.dtype == torch.float32
    with torch.no_grad():
        ours.zero_()
    assert theirs.abs().sum() > 0

    net = nn.Linear(6, 6)
    assert build_autoencoder(lambda shape: net, (6,)) is not net


def test_a_backbone_from_another_network_is_tapped_afresh():
    fitted = build_network(lambda shape: Shaped(), (1, 8, 8), latent_dim=2).backbone
    fitted.taps = ("second", "first", "third")
    network = build_network(lambda shape: fitted, (1, 8, 8), latent_dim=2)
    assert network.ensemble_sizes["t1"] == 6
    assert network.ensemble_sizes["t2"] == 4


def test_a_tap_that_gives_no_tensor_is_explained():
    def factory(input_shape):
        net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.LSTM(6, 4), Last())
        net.taps = ("0", "1", "2")
        return net

    class Last(nn.Module):
        def forward(self, x):
            return x[0]

    with pytest.raises(ValueError, match="tap t3, a LSTM, gives a tuple; expected a"):
        build_network(factory, (6,), latent_dim=2)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda shape: "resnet", "returned str; expected a torch.nn.Module"),
        (lambda shape: Shaped(taps=None), r"`taps` is None.*first, second, third"),
        (lambda shape: Shaped(taps="abc"), r"`taps` is 'abc'"),
        (lambda shape: Shaped(taps=("first", "second")), "must name its three taps"),
        (
            lambda shape: Shaped(taps=("first", "second", "fourth")),
            r"names the taps \['fourth'\], which are not among its submodules",
        ),
        (
            lambda shape: Shaped(taps=("first", "second", "unused")),
            r"taps \['unused'\] were not called",
        ),
        (lambda shape: nn.Sequential(nn.Flatten()), "must name its three taps"),
    ],
)
def test_unusable_backbones_are_explained(factory, message):
    with pytest.raises(ValueError, match=message):
        build_network(factory, (1, 8, 8), latent_dim=2)


def test_a_backbone_that_returns_no_vectors_is_explained():
    def factory(input_shape):
        backbone = cnn(input_shape)
        backbone.head = nn.Identity()
        return backbone

    with pytest.raises(ValueError, match=r"into \(2, 128, 2, 2\); expected .*\(2, k\)"):
        build_network(factory, (1, 8, 8), latent_dim=2)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda shape: None, "autoencoder factory .* returned NoneType"),
        (lambda shape: nn.Identity(), "has no parameters to train"),
        (
            lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(64, 64)),
            r"into \(2, 64\); expected the same shape",
        ),
    ],
)
def test_unusable_autoencoders_are_explained(factory, message):
    with pytest.raises(ValueError, match=message):
        build_autoencoder(factory, (1, 8, 8))


class Lazy(nn.Module):
    """Its widths are unknown until it has seen an input."""

    taps = ("a", "b", "c")

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (
            nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU())
            for _ in range(3)
        )

    def forward(self, x):
        return self.c(self.b(self.a(x)))


class LazyConvolution(nn.Sequential):
    taps = ("0", "2", "5")

    def __init__(self):
        super().__init__(
            *(nn.LazyConv2d(4, 3), nn.ReLU(), nn.LazyConv2d(8, 3), nn.ReLU()),
            *(nn.Flatten(), nn.LazyLinear(6)),
        )


class OtherwiseInTraining(Lazy):
    """As torchvision's Inception and GoogLeNet, which add outputs in training."""

    def forward(self, x):
        g = super().forward(x)
        return (g, g) if self.training else g


@pytest.mark.parametrize("shape", [(5,), (1, 9, 8)])
def test_lazy_nets_get_their_widths_from_the_shape_of_the_input(shape):
    """Regression: raw words about uninitialized parameters."""
    make = Lazy if len(shape) == 1 else LazyConvolution
    shared = make()
    network = build_network(lambda input_shape: shared, shape, latent_dim=2)
    assert network.training
    assert network(torch.zeros(3, *shape))[0].shape == (3, 2)
    assert not any(map(is_lazy, network.parameters()))
    again = build_network(lambda input_shape: shared, shape, latent_dim=2)
    assert again.backbone is not network.backbone


def test_a_lazy_net_fits_saves_and_loads(table, tmp_path):
    X, y = table
    detector = VMDLSDetector(
        lambda shape: Lazy(),
        autoencoder=lambda shape: nn.Sequential(nn.LazyLinear(2), nn.LazyLinear(6)),
        max_epochs=2,
        autoencoder_epochs=1,
        contamination=0.1,
        random_state=0,
    ).fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(
        tmp_path / "a", backbone=detector.backbone, autoencoder=detector.autoencoder
    )
    np.testing.assert_array_equal(loaded.score_samples(X), detector.score_samples(X))


def test_a_lazy_module_without_weights_is_no_factory_yet():
    with pytest.raises(ValueError, match=r"Lazy is lazy.*module\(torch.zeros"):
        from_module(Lazy(), Lazy.taps)


def test_a_net_that_answers_otherwise_in_training_is_explained(table):
    with pytest.raises(ValueError, match=r"in training, into a tuple of 2.*\[0\]"):
        VMDLSDetector(lambda shape: OtherwiseInTraining(), max_epochs=1).fit(*table)


def test_an_autoencoder_with_other_outputs_is_explained():
    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ValueError, match=r"into a tuple of 2; .*self.net\(x\)\[0\]"):
        build_autoencoder(lambda shape: Pair(5, 5), (5,))
    with pytest.raises(ValueError, match="cannot take a batch.*RuntimeError"):
        build_autoencoder(lambda shape: nn.Linear(3, 5), (5,))

"""Pretrained nets by name, with weights that the test writes."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models
from torchvision.models._api import BUILTIN_MODELS, Weights, WeightsEnum
from torchvision.models.densenet import DenseNet
from torchvision.transforms._presets import ImageClassification

from skvmdls import VMDLSbDetector
from skvmdls.datasets import image_folder
from skvmdls.nets.network import build_network
from skvmdls.nets.pretrained import PLACES, pretrained


def net():
    return DenseNet(4, (1, 1, 1, 1), num_init_features=8, num_classes=5)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Register a small model with torchvision, whose weights are a file."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.pth"
    module = net()
    torch.save(module.state_dict(), path)

    class TinyWeights(WeightsEnum):
        ONLY = Weights(
            path.as_uri(), partial(ImageClassification, crop_size=40), {"num_params": 1}
        )
        DEFAULT = ONLY

    def tiny_net(*, weights: TinyWeights | None = None, progress: bool = True):
        made = net()
        if weights is not None:
            made.load_state_dict(weights.get_state_dict(progress=False))
        return made

    monkeypatch.setitem(BUILTIN_MODELS, "tiny_net", tiny_net)
    return TinyWeights, path, module.state_dict()


def test_weights_come_by_name_object_or_file(tiny):
    enum, path, state = tiny
    for weights in ("DEFAULT", "ONLY", enum.ONLY, path, str(path)):
        module = pretrained("tiny_net", weights).module
        found = module.state_dict()
        assert set(found) == {name for name in state if "classifier" not in name}
        for name, value in found.items():
            assert torch.equal(value, state[name])
    random = pretrained("tiny_net", None).module.state_dict()["features.conv0.weight"]
    assert not torch.equal(random, state["features.conv0.weight"])


def test_without_a_network_the_way_out_is_named(tiny):
    _, path, _ = tiny
    path.unlink()
    with pytest.raises(ConnectionError, match="tiny_net.*cannot be fetched.*weights=F"):
        pretrained("tiny_net")


def test_a_folder_of_pictures_of_all_sizes_is_fitted_and_scored(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        height, width = rng.integers(30, 90, 2)
        label = ("dark", "light")[i % 2]
        pixels = rng.integers(0, 90, (height, width, 3), dtype=np.uint8)
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels + np.uint8(150 * (i % 2))).save(folder / f"{i}.png")
    factory = pretrained("tiny_net")
    X, y = image_folder(tmp_path / "pictures", factory.transform)
    assert X.shape == (24, 3, 40, 40)
    detector = VMDLSbDetector(
        factory, max_epochs=1, contamination=0.4, device="cpu", random_state=0
    ).fit(X, y)
    scores = detector.score_samples(X)
    assert np.isfinite(scores).all()
    paths = [path for path, _ in X.dataset.samples]
    array = np.stack(
        [factory.transform(Image.open(path).convert("RGB")).numpy() for path in paths]
    )
    np.testing.assert_array_equal(detector.score_samples(array), scores)


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "densenet121",
        "efficientnet_b0",
        "mobilenet_v2",
        "regnet_y_400mf",
        "resnet18",
        "swin_t",
        pytest.param("vit_b_16", marks=pytest.mark.slow),
    ],
)
def test_the_nets_that_are_known_have_their_taps(name, monkeypatch):
    # Its weights are nobody's: drawing them takes most of the time.
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda w, *_, **__: w)
    factory = pretrained(name, weights=None)
    side = factory.transform.crop_size[0]
    network = build_network(factory, (3, side, side), 4)
    sizes = [network.ensemble_sizes[part] for part in ("t1", "t2", "t3", "g")]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 384


def test_every_kind_that_is_known_is_one_of_torchvisions():
    for name in PLACES:
        assert hasattr(models, name)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", None, "torchvision has no model named 'resnet19'.*resnet18"),
        ("resnet18", "IMAGENET", r"'IMAGENET' are none of.*\['IMAGENET1K_V1'\]"),
        ("alexnet", None, "taps of 'alexnet', a AlexNet, are not known.*from_module"),
    ],
)
def test_what_there_is_not_is_explained(name, weights, message):
    with pytest.raises(ValueError, match=message):
        pretrained(name, weights)


def test_weights_of_another_net_are_refused(tiny):
    _, path, _ = tiny
    with pytest.raises(ValueError, match=r"tiny.pth' are of another net than 'resnet"):
        pretrained("resnet18", path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("n_classes", [None, 9])
def test_weights_of_a_file_may_have_another_classifier_or_none(
    ending, n_classes, tiny, tmp_path
):
    state = {name: v for name, v in tiny[2].items() if "classifier" not in name}
    if n_classes is not None:
        own = net()
        own.classifier = torch.nn.Linear(own.classifier.in_features, n_classes)
        own.load_state_dict(state, strict=False)
        state = own.state_dict()
    path = tmp_path / f"own.{ending}"
    (torch.save if ending == "pth" else save_file)(state, path)
    found = pretrained("tiny_net", path).module.state_dict()
    expected = {name for name in tiny[2] if "classifier" not in name}
    assert set(found) == expected
    for name in expected:
        assert torch.equal(found[name], tiny[2][name])


def test_a_file_without_some_weights_is_refused(tiny, tmp_path):
    state = dict(tiny[2])
    del state["features.conv0.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"(?s)another net.*features.conv0"):
        pretrained("tiny_net", tmp_path / "part.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights", r"own.pth' cannot be read: .*torch.save\(net.state_dict"),
        (b"", r"own.pth' cannot be read"),
        ({"epoch": 3, "state_dict": {}}, r"a dict with epoch, state_dict; expected a"),
        ([1], "holds a list"),
    ],
)
def test_files_that_hold_no_weights_are_explained(content, message, tiny, tmp_path):
    path = tmp_path / "own.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message):
        pretrained("tiny_net", path)


def test_timms_nets_come_in_the_same_way(tmp_path):
    timm = pytest.importorskip("timm")
    # Files of timm hold the classifier too.
    state = timm.create_model("test_resnet", num_classes=7).state_dict()
    torch.save(state, tmp_path / "net.pth")
    for name in ("timm/test_resnet", "timm/test_vit"):
        is_resnet = name == "timm/test_resnet"
        factory = pretrained(name, tmp_path / "net.pth" if is_resnet else None)
        shape = factory.transform(Image.new("RGB", (333, 222))).shape
        network = build_network(factory, tuple(shape), 4)
        assert network.ensemble_sizes["t1"] > 1
        if is_resnet:
            for key, value in factory.module.state_dict().items():
                assert torch.equal(value, state[key])
    with pytest.raises(ValueError, match="part of the model's name"):
        pretrained("timm/test_resnet", "IMAGENET1K_V1")

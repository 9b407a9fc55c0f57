"""Files: what comes back, and what is refused."""

import json
import os
import pickle
import shutil
import tempfile
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import NotFittedError
from torchvision.models._api import BUILTIN_MODELS, Weights, WeightsEnum
from torchvision.models.densenet import DenseNet
from torchvision.transforms._presets import ImageClassification

import skvmdls
from bad_inputs import BAD_FILES
from children import peak_growth
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.nets.backbones import mlp
from skvmdls.nets.pretrained import pretrained
from skvmdls.persistence import CHECKSUM, FORMAT, KEY, _checksum
from skvmdls.scoring.gaussians import ClassGaussians

QUICK = {"max_epochs": 2, "contamination": 0.1, "random_state": 0, "augmentation": None}


def quick(detector=VMDLSDetector, **parameters):
    if detector is VMDLSDetector:
        parameters = {"autoencoder_epochs": 1} | parameters
    return detector(**QUICK | parameters)


@pytest.fixture(scope="module")
def saved(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    detector = quick().fit(*table)
    skvmdls.save(detector, path)
    return detector, path


def assert_same(loaded, detector, X):
    methods = ("score_samples", "predict", "predict_known", "p_value", "transform")
    for method in (*methods, "evidence", "class_log_likelihood"):
        np.testing.assert_array_equal(
            getattr(loaded, method)(X), getattr(detector, method)(X)
        )
    assert loaded.offset_ == detector.offset_
    assert loaded.history_ == detector.history_
    assert loaded.view_ == detector.view_
    assert loaded.evidence_names_ == detector.evidence_names_
    np.testing.assert_array_equal(
        loaded.get_feature_names_out(), detector.get_feature_names_out()
    )
    if isinstance(detector, VMDLSDetector):
        assert loaded.autoencoder_history_ == detector.autoencoder_history_
    for name in ("smallest_", "largest_", "were_bytes_"):
        assert getattr(loaded.standardizer_, name) == getattr(
            detector.standardizer_, name
        )
    assert loaded.classes_.tolist() == detector.classes_.tolist()
    assert loaded.n_features_in_ == detector.n_features_in_


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"covariance_type": "tied", "features": ["g", "mu"]},
        {"covariance_type": "diag", "threshold": -np.float64(50)},
        {"weighting": "paper"},
        {"fusion": "early", "normalize": np.True_},
        {
            "classification_weight": 0,
            "metric_weight": 1,
            "fusion": "early",
            "weighting": "paper",
        },
        {"classification_weight": 0},
        {"features": np.array(["x", "logit"])},
        {"features": ("logit",), "weighting": "paper"},
        {"features": ("logit", "mu"), "fusion": "early", "normalize": True},
        {"augmentation": torch.nn.Identity(), "latent_dim": np.int64(4)},
    ],
    ids=lambda parameters: "-".join(parameters),
)
def test_tables_come_back_bit_for_bit(parameters, table, tmp_path):
    X, y = table
    detector = quick(**parameters).fit(X, y)
    detector.score_samples(X)
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    assert_same(loaded, detector, X)
    np.testing.assert_array_equal(loaded.reconstruct(X), detector.reconstruct(X))
    np.testing.assert_array_equal(
        loaded.reconstruction_weight(X), detector.reconstruction_weight(X)
    )
    assert loaded.autoencoder_history_ == detector.autoencoder_history_
    assert loaded.set_params(contamination=0.2).offset_ is not None


def test_the_logits_alone_of_vmdls_b_come_back(table, tmp_path):
    """They have no Gaussians that could tell the type of the covariance."""
    detector = quick(VMDLSbDetector, features=("logit",)).fit(*table)
    assert len(detector.gaussians_) == 0
    skvmdls.save(detector, tmp_path / "a")
    assert_same(skvmdls.load(tmp_path / "a"), detector, table[0])


@pytest.mark.parametrize(
    "change",
    [{"features": ("mu",)}, {"fusion": "early"}, {"normalize": True}],
    ids=str,
)
def test_what_was_fitted_comes_back_whatever_the_parameters_became(
    change, table, tmp_path
):
    detector = quick().fit(*table).set_params(**change)
    skvmdls.save(detector, tmp_path / "a")
    assert_same(skvmdls.load(tmp_path / "a"), detector, table[0])


@pytest.mark.parametrize("fixture", ["vmdls", "vmdls_b"])
def test_images_come_back_bit_for_bit(fixture, digits, tmp_path, request):
    detector = request.getfixturevalue(fixture)
    skvmdls.save(detector, tmp_path / "a")
    assert_same(skvmdls.load(tmp_path / "a"), detector, digits.X_test[:50])


def test_flips_are_averaged_by_what_comes_back(digits, tmp_path):
    X, y, new = digits.X_train, digits.y_train, digits.X_test[:50]
    detector = quick(VMDLSbDetector, average_flips=True, max_epochs=1).fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    assert_same(skvmdls.load(tmp_path / "a"), detector, new)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["ant", "bee", "cow"]),
        np.array(["ant", "bee", "cow"], dtype=object),
        np.array([1.0, 2.0, 4.0]),
        np.array([10, 20, 30], dtype=np.uint8),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_of_any_type_come_back(labels, table, tmp_path):
    X, y = table
    detector = quick(VMDLSbDetector).fit(X, labels[y])
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    assert loaded.classes_.dtype.kind == detector.classes_.dtype.kind
    assert loaded.predict(X).tolist() == detector.predict(X).tolist()


def test_a_detector_of_a_frame_keeps_its_columns(table, tmp_path):
    pd = pytest.importorskip("pandas")
    X, y = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    skvmdls.save(quick(VMDLSbDetector).fit(frame, y), tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(frame[list("fedcba")])


@pytest.mark.parametrize(
    "change",
    [{"latent_dim": 8}, {"backbone": "cnn"}, {"classification_weight": 0}],
    ids=str,
)
def test_what_would_not_load_is_not_saved(change, table, tmp_path):
    """Regression: parameters changed after fit made a file that load refused."""
    X, y = table
    detector = quick(VMDLSbDetector).fit(X, y).set_params(**change)
    with pytest.raises(ValueError, match="set them back, or fit again"):
        skvmdls.save(detector, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_may_be_read_by_those_who_may_read_any(table, tmp_path):
    """Regression: a temporary file's permissions, the owner's alone, stayed."""
    detector, path = quick(VMDLSbDetector).fit(*table), tmp_path / "a"
    mask = os.umask(0o027)
    try:
        skvmdls.save(detector, path)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(mask)
    path.chmod(0o664)
    skvmdls.save(detector, path)
    assert path.stat().st_mode & 0o777 == 0o664


def own_mlp(input_shape):
    return mlp(input_shape)


def test_a_factory_of_ones_own_is_asked_for(table, tmp_path):
    X, y = table
    detector = quick(VMDLSbDetector, backbone=own_mlp).fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    with pytest.raises(ValueError, match=r"Pass it: load\(path, backbone=...\)"):
        skvmdls.load(tmp_path / "a")
    assert_same(skvmdls.load(tmp_path / "a", backbone=own_mlp), detector, X)
    with pytest.raises(ValueError, match="the network differs from the one .* saved"):
        skvmdls.load(tmp_path / "a", backbone=wider)
    with pytest.raises(ValueError, match="has no autoencoder"):
        skvmdls.load(tmp_path / "a", backbone=own_mlp, autoencoder=own_mlp)


@pytest.fixture
def own_net(monkeypatch):
    """Register a small model with torchvision, with two sets of weights."""

    class OwnWeights(WeightsEnum):
        OLD = Weights("", partial(ImageClassification, crop_size=40), {})
        NEW = Weights("", partial(ImageClassification, crop_size=32), {})
        DEFAULT = NEW

        def get_state_dict(self, *_, **__):
            torch.manual_seed(3)
            return net().state_dict()

    def net():
        return DenseNet(4, (1, 1, 1, 1), num_init_features=8, num_classes=5)

    def own_net(*, weights: OwnWeights | None = None, progress: bool = True):
        made = net()
        if weights is not None:
            made.load_state_dict(weights.get_state_dict())
        return made

    monkeypatch.setitem(BUILTIN_MODELS, "own_net", own_net)
    return own_net


@pytest.mark.parametrize(("weights", "side"), [("OLD", 40), ("DEFAULT", 32)])
@pytest.mark.usefixtures("own_net")
def test_a_pretrained_net_is_rebuilt_by_its_name_and_with_its_transform(
    weights, side, tmp_path
):
    factory = pretrained("own_net", weights)
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        for _ in range(24)
    ]
    X = np.stack([factory.transform(picture) for picture in pictures])
    assert X.shape[1:] == (3, side, side)
    detector = quick(VMDLSbDetector, backbone=factory, contamination=0.4)
    detector.fit(X, np.arange(24) % 2)
    skvmdls.save(detector, tmp_path / "a")
    skvmdls.save(skvmdls.load(tmp_path / "a"), tmp_path / "b")
    for name in ("a", "b"):
        torch.manual_seed(0)
        again = skvmdls.load(tmp_path / name)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=_seeded(0)))
        assert_same(again, detector, X)
        found = np.stack([again.backbone.transform(picture) for picture in pictures])
        np.testing.assert_array_equal(found, X)
    assert again.backbone.name == "own_net"


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pretrained": "vit_h_14"}, "vit_h_14 has .* more than the file holds"),
        ({"pretrained": "resnet19"}, "torchvision has no model named 'resnet19'"),
        ({"pretrained": 3}, "expected"),
        ({"weights": "NONE"}, "'NONE' are none of 'own_net'"),
        ({"pretrained": "densenet121"}, "densenet121 has .* more than the file holds"),
    ],
)
@pytest.mark.usefixtures("own_net")
def test_a_file_that_claims_another_pretrained_net_is_refused(
    change, message, tmp_path
):
    X = np.random.default_rng(0).normal(size=(24, 3, 32, 32)).astype(np.float32)
    detector = quick(VMDLSbDetector, backbone=pretrained("own_net", None))
    detector.set_params(contamination=0.4).fit(X, np.arange(24) % 2)
    skvmdls.save(detector, tmp_path / "a")
    claimed = {"pretrained": "own_net", "weights": None} | change
    path = rewritten(
        tmp_path / "a", tmp_path / "b", put("parameters", "backbone", value=claimed)
    )
    with pytest.raises(ValueError, match=message):
        skvmdls.load(path)


def wider(input_shape):
    module = mlp(input_shape)
    module.add_module("last", torch.nn.Linear(128, 9))
    return module


def test_loading_leaves_the_random_numbers_alone(saved):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    skvmdls.load(saved[1])
    assert torch.equal(torch.rand(3), expected)


def test_saving_what_cannot_be_saved_leaves_the_file_alone(saved, table, tmp_path):
    detector, path = saved
    before = path.read_bytes()
    with pytest.raises(NotFittedError):
        skvmdls.save(VMDLSDetector(), path)
    with pytest.raises(ValueError, match="VMDLSbDetector.*got int"):
        skvmdls.save(3, path)
    broken = pickle.loads(pickle.dumps(detector))
    broken.history_ = {"loss": [float("nan")]}
    with pytest.raises(ValueError, match="nan|JSON"):
        skvmdls.save(broken, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def rewritten(path, target, change):
    """The file with its header's JSON and its arrays changed."""
    with safe_open(path, framework="numpy") as file:
        head = json.loads(file.metadata()[KEY])
    arrays = load_file(path)
    change(head, arrays)
    text = json.dumps(head)
    save_file(arrays, target, {KEY: text, CHECKSUM: _checksum(text, arrays)})
    return target


def put(*keys, value):
    def change(head, arrays):
        place = head
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def early_parts(head, arrays):
    parts = ["t1", "t2", "t3", "g", "mu"]
    head["view"] |= {"fusion": "early", "features": parts}


def array(name, value):
    def change(head, arrays):
        arrays[name] = value(arrays[name])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", value=0), "has format 0, written by skvmdls .* reads formats"),
        (put("class", value="os.system"), "cannot be loaded: 'os.system'"),
        (put("parameters", "memory", value="/tmp"), r"not a file's: \['memory'\]"),
        (put("parameters", "evil", value=1), r"not a file's: \['evil'\]"),
        (put("parameters", "latent_dim", value=10**9), "latent_dim=1000000000, but mu"),
        (put("parameters", "latent_dim", value="32"), "'latent_dim' parameter"),
        (put("parameters", "backbone", value="os.system"), "'os.system' is not known"),
        (put("input_shape", value=[10**9]), "inputs of shape"),
        (put("input_shape", value=[7]), "standardizer.mean has shape"),
        (put("input_shape", value=[]), "inputs of shape"),
        (put("classes", "dtype", value="V1000000"), "labels of dtype"),
        (put("classes", "values", value=[0, 1]), "fit_positions has shape"),
        (put("classes", "values", value=[-1, 0, 1]), "none of them -1"),
        (put("classes", "values", value=[1, 1, 2]), "sorted, different"),
        (put("classes", "values", value=[{}, 1, 2]), "cannot be loaded"),
        (put("view", "features", value=["mu", "t9"]), "name parts of the evidence"),
        (put("view", "features", value=["mu", "g"]), r"Gaussians of .* not those exp"),
        (put("view", "fusion", value="early"), "name parts of the evidence"),
        (early_parts, r"Gaussians of .* not those expected"),
        (put("view", "fusion", value="none"), "a view of"),
        (put("view", "normalize", value=True), r"gaussians.t1.means has shape"),
        (put("view", "residual", value=False), r"Gaussians of \['residual'\] are not"),
        (put("view", value=None), "a view of None"),
        (put("parameters", "classification_weight", value=0), "there is no head"),
        (put("parameters", "classification_weight", value=-1), "'classification_weig"),
        (put("covariance_type", value="round"), "cannot be loaded: 'round'"),
        (put("weighting", value={"shift": 0.0, "scale": 0.0}), "a weighting of"),
        (put("weighting", value={"shift": 0.0}), "cannot be loaded: 'scale'"),
        (put("range", value=[0.0, "big"]), "expected a range of two floats"),
        (put("histories", value=[1]), "expected dict"),
        (put("histories", "evil_", value={}), "a history 'evil_'"),
        (put("histories", "history_", value="loss"), "expected dict, found 'loss'"),
        (put("histories", "history_", "loss", value="1"), "expected list, found '1'"),
        (
            array("network.mu.weight", lambda a: a[:, :3].copy()),
            "network.mu.weight has",
        ),
        (array("network.mu.bias", lambda a: a * np.nan), "numbers that are not finite"),
        (array("gaussians.g.precisions_cholesky", lambda a: -a), "positive diagonal"),
        (
            array("gaussians.mu.means", lambda a: a[:2].copy()),
            "gaussians.prec.* expect",
        ),
        (array("evidence.spread", lambda a: -a), "evidence.spread must be positive"),
        (array("evidence.weights", lambda a: a[1:].copy()), "evidence.weights has sh"),
        (lambda head, arrays: arrays.pop("evidence.typical"), "loaded: 'typical'"),
        (
            array("calibration_scores", lambda a: a[:0]),
            "calibration_scores is an",
        ),
        (array("standardizer.scale", lambda a: a * 0), "must be positive"),
        (lambda head, arrays: arrays.pop("network.mu.bias"), r"differs .*mu.bias"),
    ],
)
def test_files_that_do_not_hold_together_are_refused(change, message, saved, tmp_path):
    path = rewritten(saved[1], tmp_path / "changed", change)
    with pytest.raises(ValueError, match=message):
        skvmdls.load(path)


@pytest.mark.parametrize("case", BAD_FILES, ids=lambda case: case.given)
def test_bad_files_are_explained(case, saved, tmp_path):
    path = tmp_path / "detector"
    path.write_bytes(case.changed(saved[1].read_bytes()))
    with pytest.raises(ValueError, match=case.message):
        skvmdls.load(path)


def test_a_small_file_cannot_claim_a_large_net(tmp_path):
    """Regression: it was built first, in gigabytes, and its shapes checked after."""
    y = np.arange(40) % 2
    X = np.random.default_rng(0).normal(size=(40, 8, 8)) + y[:, None, None]
    skvmdls.save(quick(backbone="plain_cnn").fit(X, y), tmp_path / "a")
    path = rewritten(
        tmp_path / "a", tmp_path / "b", put("input_shape", value=[1, 2048, 2048])
    )
    assert peak_growth(partial(refused_memory, path)) < 200


def refused_memory(path):
    with pytest.raises(ValueError, match=r"network.* has shape"):
        skvmdls.load(path)


def test_other_files_are_refused(saved, tmp_path):
    content = saved[1].read_bytes()
    for name, wrong in (
        ("empty", b""),
        ("text", b"hello"),
        ("pickle", pickle.dumps({"a": 1})),
        ("cut", content[: len(content) // 2]),
        ("longer", content + b"x"),
        ("header", (2**40).to_bytes(8, "little") + content[8:]),
    ):
        path = tmp_path / name
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=f"{name} is damaged, or was not written"):
            skvmdls.load(path)
    save_file({"a": np.zeros(3)}, tmp_path / "strangers")
    with pytest.raises(ValueError, match="not written by skvmdls.save"):
        skvmdls.load(tmp_path / "strangers")
    with pytest.raises(FileNotFoundError):
        skvmdls.load(tmp_path / "nothing")


def test_a_folder_and_a_missing_file_are_told_apart(saved, tmp_path):
    """Regression: a folder was "damaged: No such device"."""
    for attempt in (skvmdls.load, partial(skvmdls.save, saved[0])):
        with pytest.raises(IsADirectoryError, match=f"It is a folder.*{tmp_path}"):
            attempt(tmp_path)
    with pytest.raises(FileNotFoundError, match="No such file.*nothing"):
        skvmdls.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="not written: '.*nowhere/a'"):
        skvmdls.save(saved[0], tmp_path / "nowhere" / "a")
    with pytest.raises(NotADirectoryError, match="detector.safetensors/a"):
        skvmdls.load(saved[1] / "a")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_may_not_be_read_is_told_as_such(saved):
    """Regression: it "does not exist"."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(saved[1], f"{folder}/a")
        os.chmod(f"{folder}/a", 0)
        try:
            if user == 0:
                # Root may read everything.
                os.chmod(folder, 0o711)
                os.seteuid(65534)
            with pytest.raises(PermissionError, match=f"{folder}/a"):
                skvmdls.load(f"{folder}/a")
        finally:
            os.seteuid(user)


def test_a_link_is_kept_on_saving(saved, tmp_path):
    (tmp_path / "current").symlink_to("first")
    skvmdls.save(saved[0], tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert skvmdls.load(tmp_path / "first").history_ == saved[0].history_


def test_safetensors_reads_what_is_written(saved):
    arrays = load_file(saved[1])
    assert arrays["network.mu.weight"].dtype == np.float32
    for name, tensor in saved[0].gaussians_.state_dict().items():
        np.testing.assert_array_equal(arrays[f"gaussians.{name}"], tensor.numpy())
    norm = "network.backbone.stage1.learned.1.num_batches_tracked"
    assert arrays[norm].shape == ()


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_saving_and_loading_many_classes_copy_nothing(kind, tmp_path):
    """Regression: a thousand classes took four times the file's size.

    Of arrays only: `examples/benchmarks/file_memory.py` measures the whole process.
    """
    detector, path = large_detector(kind), tmp_path / "a"
    saving = traced(partial(skvmdls.save, detector, path))
    loading = traced(partial(skvmdls.load, path))
    size = path.stat().st_size
    assert size > (100 if kind == "full" else 2) * 2**20
    # Beside the detector, which is about as large as its file.
    assert saving < 0.2 * size + 4 * 2**20
    assert loading < 1.2 * size + 4 * 2**20


def traced(function):
    """Bytes of arrays at the peak of a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def large_detector(kind):
    n_classes = 80
    settings = {"covariance_type": "diag", "fusion": "early", "backbone": "mlp"}
    y = np.arange(2 * n_classes) % n_classes
    X = np.random.default_rng(0).normal(size=(len(y), 6))
    detector = quick(VMDLSbDetector, **settings).fit(X, y)
    n = detector.gaussians_["ensemble"].means.shape[1]
    shape = (n_classes, n, n) if kind == "full" else (n, n)
    detector.gaussians_["ensemble"] = ClassGaussians(
        np.ones((n_classes, n)), np.broadcast_to(np.eye(n), shape) + 1e-3, kind
    )
    return detector


def test_mutated_files_load_equal_or_are_refused(saved, table):
    """A sample of what `examples/benchmarks/fuzz_load.py` tries by the thousand."""
    detector, path = saved
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    target = path.with_name("mutated")
    header = int.from_bytes(content[:8], "little") + 8
    refused = 0
    for i in range(100):
        mutated = bytearray(content)
        end = len(content) if i % 2 else header
        for place in rng.integers(0, end, rng.integers(1, 4)):
            mutated[place] = rng.integers(256)
        target.write_bytes(mutated)
        try:
            scores = skvmdls.load(target).score_samples(table[0])
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(scores, detector.score_samples(table[0]))
    target.unlink()
    assert refused > 90


def tiny_backbone(input_shape):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 8),
        torch.nn.ReLU(),
    )
    module.taps = ("2", "4", "6")
    return module


def tiny_autoencoder(input_shape):
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 4),
        torch.nn.Linear(4, 64),
        torch.nn.Unflatten(1, (1, 8, 8)),
    )


@pytest.mark.parametrize("detector", [VMDLSDetector, VMDLSbDetector])
def test_a_file_of_an_older_version_loads_or_says_which_version_wrote_it(detector):
    """Files of skvmdls 0.1.0, format 1, with what it answered for 60 digits.

    Fitted on scikit-learn's digits 0 to 2 for 8 epochs, with the factories above and
    latent_dim=2, contamination=0.1; VMDLSb with features=("t3", "mu"), tied.
    """
    stored = Path(__file__).parent / "data" / f"{detector.__name__}.safetensors"
    factories = {"backbone": tiny_backbone, "autoencoder": tiny_autoencoder}
    if detector is VMDLSbDetector:
        del factories["autoencoder"]
    try:
        loaded = skvmdls.load(stored, **factories)
    except ValueError as error:
        assert FORMAT > 1
        assert "has format 1, written by skvmdls 0.1.0; this is skvmdls" in str(error)
        return
    assert type(loaded) is detector
    expected = np.load(stored.with_suffix(".npz"))
    X = expected["X"]
    # Other processors round float32 otherwise.
    np.testing.assert_allclose(loaded.score_samples(X), expected["scores"], rtol=1e-4)
    np.testing.assert_array_equal(loaded.predict(X), expected["answers"])


def test_a_file_says_which_version_wrote_it(saved):
    with safe_open(saved[1], framework="numpy") as file:
        head = json.loads(file.metadata()[KEY])
    assert head["written_by"] == skvmdls.__version__

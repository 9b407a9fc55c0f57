"""ONNX files: the detector's answers without torch, or an error that says why not."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import TensorDataset

import skvmdls
import skvmdls.onnx
import skvmdls.onnx.files
from skvmdls import VMDLSbDetector, VMDLSDetector, export_onnx
from skvmdls.calibration.rounding import lowered
from skvmdls.calibration.verdicts import Calibration, ThresholdSettings
from skvmdls.datasets import load_digits
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.nets.backbones import from_module
from skvmdls.onnx.graph import Graph, Precision
from skvmdls.scoring.evidence import Evidence
from skvmdls.scoring.gaussians import ClassGaussians

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ROOT = Path(__file__).parents[2]
QUICK = {"max_epochs": 2, "contamination": 0.1, "random_state": 0, "augmentation": None}
EXACT = Precision(torch.float64, torch.float64, torch.float64)
OUTPUTS = ["label", "score", "p_value", "evidence", "class_log_likelihood"]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.* calibration points are too few", "ignore:.* have too few held-out points"
)


def quick(detector=VMDLSDetector, **parameters):
    if detector is VMDLSDetector:
        parameters = {"autoencoder_epochs": 1} | parameters
    return detector(**QUICK | parameters)


@pytest.fixture(scope="module")
def rows(table):
    """Known rows (none that was fitted: it may be at a tie), between, and far."""
    X, _ = table
    X = X + np.random.default_rng(1).normal(scale=0.1, size=X.shape)
    return np.concatenate([X, X[::2] * 0.6, X[::4] * 3])


def graph_of(detector, precision):
    settings = ThresholdSettings.of(detector)
    model, calibration = detector.model_, detector.calibration_
    return Graph(model, calibration, settings, detector.classes_, precision).eval()


def answered_in_torch(detector, X, precision=EXACT):
    graph = graph_of(detector, precision)
    X = np.reshape(X, (-1, *detector.input_shape_))
    with torch.no_grad():
        return [a.numpy() for a in graph(torch.as_tensor(X).to(precision.inputs))]


def assert_same(answers, detector, X, rtol):
    label, score, p_value, evidence, likelihood = answers
    expected = detector.score_samples(X)
    lower, upper = np.quantile(detector.calibration_scores_, [0.25, 0.75])
    spread = upper - lower
    np.testing.assert_allclose(score, expected, rtol=rtol, atol=rtol * spread)
    np.testing.assert_allclose(evidence, detector.evidence(X), rtol=rtol, atol=rtol)
    # A sum over parts, each of which is rounded, so that near 0 it is no more exact.
    expected_likelihood = detector.class_log_likelihood(X)
    size = rtol * np.abs(expected_likelihood).mean()
    np.testing.assert_allclose(likelihood, expected_likelihood, rtol=rtol, atol=size)
    # A score may pass a held-out one only where rounding can carry it over.
    held_out = lowered(detector.calibration_scores_)
    gaps = np.abs(expected[:, None] - held_out).min(axis=1)
    # Equal ones are no matter of rounding: the evidence is cut at 4, and at 0.
    is_tied = (gaps > 0) & (gaps <= rtol * np.maximum(spread, np.abs(expected)))
    np.testing.assert_array_equal(p_value[~is_tied], detector.p_value(X)[~is_tied])
    labels = labels_with_unknown(detector.classes_)[label]
    np.testing.assert_array_equal(labels[~is_tied], detector.predict(X)[~is_tied])
    assert is_tied.mean() < 0.05


def run(path, X):
    session = onnxruntime.InferenceSession(path)
    dtype = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}
    [given] = session.get_inputs()
    X = np.asarray(X, dtype=dtype.get(given.type, "float64"))
    return session.run(OUTPUTS, {"X": X})


def metadata(path):
    session = onnxruntime.InferenceSession(path)
    found = session.get_modelmeta().custom_metadata_map
    version = found.pop("skvmdls_version")
    return {name: json.loads(text) for name, text in found.items()}, version


# ---------------------------------------------------------- the graph, in torch


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"covariance_type": "tied"},
        {"covariance_type": "diag"},
        {"weighting": "paper"},
        {"weighting": "paper", "covariance_type": "tied", "fusion": "early"},
        {"fusion": "early", "normalize": True},
        {"classification_weight": 0},
        {"features": ("logit",)},
        {"features": ("mu", "x"), "normalize": True},
        {"threshold": -20.0, "guarantee": "class"},
        {"guarantee": "class", "calibration_fraction": 0.4},
        {"contamination": 0.0},
    ],
    ids=lambda parameters: "-".join(parameters) or "default",
)
def test_the_graph_answers_what_the_detector_answers(parameters, table, rows):
    fitted = quick(**parameters).fit(*table)
    assert_same(answered_in_torch(fitted, rows), fitted, rows, rtol=1e-9)


@pytest.mark.parametrize("parameters", [{}, {"features": ("logit",)}])
def test_a_graph_without_an_autoencoder_answers_the_same(parameters, table, rows):
    fitted = quick(VMDLSbDetector, **parameters).fit(*table)
    assert_same(answered_in_torch(fitted, rows), fitted, rows, rtol=1e-9)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"covariance_type": "tied"},
        {"weighting": "paper"},
        {"guarantee": "class", "calibration_fraction": 0.4},
        {"features": ("g", "mu")},
        {"classification_weight": 0, "fusion": "early"},
    ],
    ids=lambda parameters: "-".join(parameters) or "default",
)
@pytest.mark.filterwarnings("ignore:New classes that are too close")
def test_classes_that_came_and_went_are_in_the_graph(parameters, table, rows):
    X, y = table
    detector = quick(**parameters).fit(X[y > 0], y[y > 0])
    detector.add_classes(X[y == 0], y[y == 0]).add_classes(
        X[y == 1] - 6, np.full(40, 9)
    )
    assert_same(answered_in_torch(detector, rows), detector, rows, rtol=1e-9)
    detector.drop_classes([1])
    assert_same(answered_in_torch(detector, rows), detector, rows, rtol=1e-9)
    assert {0, 9, -1} & set(detector.predict(rows).tolist())


@pytest.mark.slow
@pytest.mark.parametrize("guarantee", ["marginal", "class"])
def test_held_out_rows_get_the_detectors_answers_from_a_file_in_any_batch(
    guarantee, table, tmp_path
):
    X, y = table
    detector = quick(calibration_fraction=0.4, guarantee=guarantee).fit(X, y)
    held_out = X[detector.split_.threshold].astype(np.float32)
    path = tmp_path / "detector.onnx"
    export_onnx(detector, path, held_out)
    expected = detector.predict(X[detector.split_.threshold])
    p_values = detector.p_value(X[detector.split_.threshold])
    for n in (1, 7, len(held_out)):
        parts = [run(path, rows) for rows in np.split(held_out, range(n, len(X), n))]
        label, _, p_value, *_ = map(np.concatenate, zip(*parts, strict=True))
        np.testing.assert_array_equal(label, expected)
        np.testing.assert_array_equal(p_value, p_values)


def test_thresholds_are_those_of_now(table, rows):
    detector = quick(calibration_fraction=0.4).fit(*table)
    for change in ({"contamination": 0.4}, {"guarantee": "class"}, {"threshold": -9.0}):
        detector.set_params(**change)
        assert_same(answered_in_torch(detector, rows), detector, rows, rtol=1e-9)


def test_the_detector_stays_as_it_was(table, tmp_path):
    detector = quick().fit(*table)
    before = detector.score_samples(table[0])
    skvmdls.save(detector, tmp_path / "before")
    graph_of(detector, Precision(torch.float32, torch.float32, torch.float32))
    np.testing.assert_array_equal(detector.score_samples(table[0]), before)
    skvmdls.save(detector, tmp_path / "after")
    before, after = (load_file(tmp_path / name) for name in ("before", "after"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_the_detector_refuses_is_unknown_to_the_graph(value, table):
    X, y = table
    detector = quick(contamination=0.0).fit(X, y)
    assert (detector.predict(X) >= 0).all()
    X = X.copy()
    X[3, 2] = value
    label, score, p_value, *_ = answered_in_torch(detector, X)
    assert label[3] == -1
    assert np.isnan(score[3])
    assert p_value[3] == 1 / (len(detector.calibration_scores_) + 1)
    assert np.delete(label, 3).min() >= 0


# ---------------------------------------------------------- the file


@pytest.fixture(scope="module")
def exported(table, rows, tmp_path_factory):
    X, y = table
    path = tmp_path_factory.mktemp("onnx") / "detector.onnx"
    detector = quick().fit(X, np.array(["ant", "bee", "cow"])[y])
    return detector, path, export_onnx(detector, path, rows)


def test_a_table_file_answers_what_the_detector_answers(exported, rows):
    detector, path, differences = exported
    assert differences.labels == 0
    assert differences.largest < 1e-4
    assert_same(run(path, rows), detector, rows.astype(np.float32), rtol=1e-4)
    for n in (1, 2, 7):
        for some, of_all in zip(run(path, rows[:n]), run(path, rows), strict=True):
            np.testing.assert_allclose(some, of_all[:n], rtol=1e-4, atol=1e-5)
            assert some.dtype == of_all.dtype


def test_the_file_says_what_goes_in_and_what_comes_out(exported):
    detector, path, differences = exported
    found, version = metadata(path)
    assert version == skvmdls.__version__
    assert found["classes"] == ["ant", "bee", "cow"]
    assert found["unknown"] == "-1"
    assert found["input_shape"] == [6]
    assert found["evidence_names"] == list(detector.evidence_names_)
    assert found["threshold"] == detector.offset_
    assert found["check"]["rows"] == "given"
    assert found["check"]["score"] == differences.score
    assert set(found["precision"]) == {"inputs", "nets", "gaussians"}
    session = onnxruntime.InferenceSession(path)
    assert [output.name for output in session.get_outputs()] == OUTPUTS
    dtypes = {output.type for output in session.get_outputs()}
    assert dtypes == {"tensor(int64)", "tensor(double)"}
    # No folder of this machine is in it.
    assert b"site-packages" not in path.read_bytes()
    onnx.checker.check_model(path, full_check=True)


def test_nothing_is_left_beside_the_file(exported):
    _, path, _ = exported
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_check_compares_a_file_with_a_detector(exported, table, rows, capsys):
    detector, path, differences = exported
    assert skvmdls.onnx.check(path, rows, detector) == differences
    assert capsys.readouterr().out == f"{differences}\n"
    dataset = TensorDataset(torch.from_numpy(rows))
    assert skvmdls.onnx.check(path, dataset, detector, verbose=False) == differences
    X, y = table
    other = quick().fit(X[y < 2], y[y < 2])
    with pytest.raises(
        ValueError, match=r"of another detector: its classes are \['ant"
    ):
        skvmdls.onnx.check(path, rows, other)
    retrained = quick(random_state=1).fit(X, np.array(["ant", "bee", "cow"])[y])
    found = skvmdls.onnx.check(path, rows, retrained, verbose=False)
    assert found.score > 0.01
    assert capsys.readouterr().out == ""


def test_a_damaged_file_is_refused_by_the_run_time(exported, rows, tmp_path):
    detector, path, _ = exported
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"damaged.onnx cannot be run by onnxruntime"):
        skvmdls.onnx.check(damaged, rows, detector)
    with pytest.raises(FileNotFoundError):
        skvmdls.onnx.check(tmp_path / "none.onnx", rows, detector)


@pytest.mark.parametrize(
    "average_flips", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_bytes_go_in_as_bytes(average_flips, tmp_path):
    digits = load_digits(known=(0, 1, 2), random_state=0)
    X = np.round(digits.X_train * 255 / digits.X_train.max()).astype(np.uint8)
    test = np.round(digits.X_test * 255 / digits.X_test.max()).astype(np.uint8)
    settings = {"max_epochs": 1, "calibration": "split"}
    detector = quick(**settings, average_flips=average_flips)
    detector.fit(X, digits.y_train)
    path = tmp_path / "detector.onnx"
    differences = export_onnx(detector, path, test[:300], batch=3)
    assert differences.labels == 0
    assert differences.p_value == 0
    [given] = onnxruntime.InferenceSession(path).get_inputs()
    assert (given.type, given.shape) == ("tensor(uint8)", [3, 1, 8, 8])
    assert_same(run(path, test[:3, None]), detector, test[:3], rtol=1e-4)
    found, _ = metadata(path)
    assert found["input_units"] == "bytes from 0 to 255"
    with pytest.raises(ValueError, match="X holds float64, but .* fitted on bytes"):
        skvmdls.onnx.check(path, test / 255, detector)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:New classes that are too close")
@pytest.mark.filterwarnings("ignore:.* too few held-out points")
def test_added_classes_and_promises_by_class_are_in_the_file(table, rows, tmp_path):
    X, y = table
    detector = quick(covariance_type="tied", calibration_fraction=0.4)
    detector.fit(X[y > 0], y[y > 0]).add_classes(X[y == 0], y[y == 0])
    detector.set_params(guarantee="class")
    path = tmp_path / "detector.onnx"
    assert export_onnx(detector, path, rows, precision="float64").labels == 0
    assert_same(run(path, rows), detector, rows, rtol=1e-9)
    assert set(run(path, rows)[0].tolist()) == {-1, 0, 1, 2}
    assert metadata(path)[0]["threshold"] is None


@pytest.mark.slow
def test_without_rows_it_is_checked_on_drawn_ones_that_say_as_much(
    table, rows, tmp_path
):
    # In float32 that number is another one, and what scores between passes.
    detector = quick(VMDLSbDetector, threshold=0.1).fit(*table)
    path = tmp_path / "detector.onnx"
    differences = export_onnx(detector, path, precision="float64")
    assert differences.n > 0
    assert differences.largest < 1e-9
    found, _ = metadata(path)
    assert found["check"]["rows"] == "drawn"
    assert found["threshold"] == 0.1
    assert_same(run(path, rows), detector, rows, rtol=1e-9)
    stored = onnx.load(path).graph.initializer
    assert any(np.all(onnx.numpy_helper.to_array(array) == 0.1) for array in stored)


@pytest.mark.slow
def test_numbers_that_float32_cannot_hold_go_in_as_float64(table, rows, tmp_path):
    """Seconds since 1970, say: of steps of a second, float32 keeps none."""
    X, y = table
    X = 1.7e9 + X
    detector = quick(VMDLSbDetector, features=("x", "logit")).fit(X, y)
    path = tmp_path / "detector.onnx"
    assert export_onnx(detector, path).largest < 1e-4
    [given] = onnxruntime.InferenceSession(path).get_inputs()
    assert given.type == "tensor(double)"
    assert_same(run(path, 1.7e9 + rows), detector, 1.7e9 + rows, rtol=1e-6)


def test_gaussians_that_float32_cannot_hold_are_float64(of_table):
    """Chosen by features that are drawn from them, so without any rows."""
    rng = np.random.default_rng(0)

    scores, labels = rng.normal(size=50), np.zeros(50, dtype=np.int64)
    calibration = Calibration(scores, scores, labels, labels[:, None])
    evidence = Evidence.unfitted(("g",))
    # Two features that are nearly the same number.
    white = np.array([[1.0, -1e5], [0.0, 1e5]])
    for whitening, is_enough in ((np.eye(2), True), (white, False)):
        one = ClassGaussians(np.full((1, 2), 3.0), whitening[None], "full")
        detector = VMDLSbDetector()
        detector.model_ = replace(
            of_table.model_, gaussians=nn.ModuleDict({"g": one}), evidence=evidence
        )
        detector.calibration_ = calibration
        rounding = skvmdls.onnx.export._rounding_of_gaussians(detector)
        assert (rounding <= skvmdls.onnx.export.TOLERANCE) is is_enough


@pytest.mark.slow
def test_large_models_keep_their_weights_beside_them(
    table, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(skvmdls.onnx.files, "LARGEST_FILE", 10_000)
    detector = quick(VMDLSbDetector).fit(*table)
    path = tmp_path / "detector.onnx"
    export_onnx(detector, path, rows)
    names = {file.name: file.stat().st_size for file in tmp_path.iterdir()}
    assert set(names) == {"detector.onnx", "detector.onnx.data"}
    assert names["detector.onnx"] < names["detector.onnx.data"]
    assert_same(run(path, rows), detector, rows.astype(np.float32), rtol=1e-4)


# ---------------------------------------------------------- what cannot be exported


class Branching(nn.Module):
    """Looks at its numbers, which a graph cannot."""

    def forward(self, x):
        return x * 2 if float(x.sum().detach()) > 0 else x


class Remembering(nn.Module):
    """Answers by how often it was asked."""

    def __init__(self):
        super().__init__()
        self.n = 0

    def forward(self, x):
        self.n += 1
        return x * (1 + self.n % 2)


def net_with(module):
    stages = [nn.Sequential(nn.Linear(6, 16), nn.ReLU())]
    stages += [nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(2)]
    net = nn.Sequential(*stages, nn.Sequential(nn.Linear(16, 16), module))
    return from_module(net, taps=("0", "1", "2"))


@pytest.mark.slow
def test_what_cannot_be_exported_is_named_with_the_reason(table, tmp_path):
    backbone = net_with(Branching())
    detector = quick(VMDLSbDetector, backbone=backbone, max_epochs=1).fit(*table)
    path = tmp_path / "detector.onnx"
    path.write_text("an older file")
    with pytest.raises(
        ValueError, match=r"^backbone\.3\.1, a Branching, cannot be exp"
    ):
        export_onnx(detector, path)
    assert path.read_text() == "an older file"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_net_of_your_own_is_exported(table, rows, tmp_path):
    backbone = net_with(nn.LayerNorm(16))
    detector = quick(VMDLSbDetector, backbone=backbone, max_epochs=1).fit(*table)
    path = tmp_path / "detector.onnx"
    assert export_onnx(detector, path, rows).labels == 0
    assert_same(run(path, rows), detector, rows.astype(np.float32), rtol=1e-3)


@pytest.mark.slow
def test_a_file_that_answers_otherwise_is_not_written(table, rows, tmp_path):
    backbone = net_with(Remembering())
    detector = quick(VMDLSbDetector, backbone=backbone, max_epochs=1).fit(*table)
    with pytest.raises(ValueError, match="answers otherwise than the detector: 2"):
        export_onnx(detector, tmp_path / "detector.onnx", rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch": 0}, "batch=0 must be 'dynamic' or a positive int"),
        ({"batch": "all"}, "batch='all' must be 'dynamic' or a positive int"),
        ({"batch": True}, "batch=True must be"),
        ({"precision": "float16"}, r"precision='float16' must be one of \('float32'"),
    ],
)
def test_bad_parameters_are_refused(parameters, message, exported, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_onnx(exported[0], tmp_path / "detector.onnx", **parameters)


def test_bad_places_and_detectors_are_refused(exported, tmp_path):
    with pytest.raises(IsADirectoryError, match="It is a folder"):
        export_onnx(exported[0], tmp_path)
    with pytest.raises(FileNotFoundError):
        export_onnx(exported[0], tmp_path / "none" / "detector.onnx")
    with pytest.raises(NotFittedError):
        export_onnx(VMDLSDetector(), tmp_path / "detector.onnx")


def test_without_the_extra_the_message_has_the_command(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        ImportError, match=r'onnxscript.* pip install "skvmdls\[onnx\]"'
    ):
        export_onnx(exported[0], tmp_path / "detector.onnx")

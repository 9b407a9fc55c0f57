"""ONNX files and saved files of detectors whose parts need no net."""

import numpy as np
import pytest

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector, export_onnx
from skvmdls.scoring.model import FittedModel
from skvmdls.scoring.stored_model import (
    NetChoices,
    model_arrays,
    model_from,
    model_head,
)

SETTINGS = {"contamination": 0.1, "random_state": 0}
CODE = -9999.0
ANSWERS = (
    "predict",
    "predict_known",
    "score_samples",
    "p_value",
    "evidence",
    "class_log_likelihood",
    "transform",
)


def rows_of(n_features, *, spread, seed):
    """Known rows, and rows between and beyond the classes, of 64-bit reals."""
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, n_features)) + spread * np.eye(n_features)[y]
    return X, y


def new_rows(n_features, spread):
    X, _ = rows_of(n_features, spread=spread, seed=1)
    noise = np.random.default_rng(2).normal(size=(40, n_features))
    return np.concatenate([X, X[::3] * 3, X[::3] * 0.6, noise])


@pytest.fixture(scope="module")
def of_rows():
    """Trained no net."""
    return VMDLSDetector(**SETTINGS).fit(*rows_of(6, spread=4, seed=0))


@pytest.fixture(scope="module")
def of_vectors():
    """Real columns, at least 64, in one unit: compared at unit length."""
    return VMDLSbDetector(**SETTINGS).fit(*rows_of(80, spread=3, seed=0))


def with_codes(X, column=2):
    """Rows of which a few hold the code."""
    X = X.copy()
    X[::40, column] = CODE
    return X


@pytest.fixture(scope="module")
def of_codes():
    X, y = rows_of(6, spread=4, seed=0)
    with pytest.warns(UserWarning, match="column 2 has -9999"):
        return VMDLSDetector(**SETTINGS).fit(with_codes(X), y)


def new_rows_with_codes():
    X = with_codes(new_rows(6, 4))
    X[5, 2], X[6, 2] = 8e5, -8e5
    return X


CASES = {
    "of_rows": (("shared", "separate", "neighbours", "linear", "trees"), 6, 4),
    "of_vectors": (
        ("shared", "relative", "neighbours", "prototype", "linear"),
        80,
        3,
    ),
    "of_codes": (("shared", "separate", "neighbours", "linear", "trees"), 6, 4),
}


@pytest.fixture(params=CASES)
def case(request):
    """A detector and rows that it has not seen."""
    detector = request.getfixturevalue(request.param)
    names, n_features, spread = CASES[request.param]
    assert detector.evidence_names_ == names
    assert detector.history_ == {}
    if request.param == "of_codes":
        return detector, new_rows_with_codes()
    return detector, new_rows(n_features, spread)


# ------------------------------------------------------------------------- files


def test_a_model_without_a_net_comes_back_from_its_state(case):
    detector, X = case
    model = detector.model_
    choices = NetChoices("auto", detector.latent_dim, True, None)
    head, arrays = model_head(model), model_arrays(model)
    again = model_from(head, arrays, choices, len(detector.classes_))
    assert isinstance(again, FittedModel)
    assert again.network is None
    assert again.direct is not None
    rebuilt = VMDLSbDetector(**SETTINGS)
    for name in ("classes_", "calibration_", "n_features_in_"):
        setattr(rebuilt, name, getattr(detector, name))
    rebuilt.model_ = again
    for answer in ANSWERS:
        np.testing.assert_array_equal(
            getattr(rebuilt, answer)(X), getattr(detector, answer)(X)
        )


def test_a_state_of_other_classes_is_refused(of_rows):
    choices = NetChoices("auto", of_rows.latent_dim, True, None)
    arrays = model_arrays(of_rows.model_)
    head = model_head(of_rows.model_) | {"fit_positions": [0, 1]}
    with pytest.raises(ValueError, match=r"direct parts has shape \(3,\), exp.* \(2,"):
        model_from(head, arrays, choices, 2)


def test_a_saved_file_answers_bit_for_bit(case, tmp_path):
    """Regression: a VMDLSDetector without a net could not be saved."""
    detector, X = case
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    assert type(loaded) is type(detector)
    for answer in ANSWERS:
        np.testing.assert_array_equal(
            getattr(loaded, answer)(X), getattr(detector, answer)(X)
        )
    assert loaded.history_ == {}
    assert not hasattr(loaded, "autoencoder_history_")
    with pytest.raises(AttributeError, match="trained no net"):
        _ = loaded.network_


def test_classes_that_came_and_went_are_saved(of_rows, tmp_path):
    X, y = rows_of(6, spread=4, seed=0)
    detector = VMDLSbDetector(**SETTINGS).fit(X, y)
    detector.add_classes(X[:40] + 9, np.full(40, 7)).drop_classes([1])
    skvmdls.save(detector, tmp_path / "a")
    loaded, new = skvmdls.load(tmp_path / "a"), np.concatenate([X, X + 9])
    for answer in ANSWERS:
        np.testing.assert_array_equal(
            getattr(loaded, answer)(new), getattr(detector, answer)(new)
        )
    assert 7 in loaded.predict(new)
    assert 1 not in loaded.predict(new)


# -------------------------------------------------------------------------- ONNX


@pytest.mark.slow
def test_an_exported_file_answers_as_the_detector(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    detector, X = case
    path = tmp_path / "detector.onnx"
    differences = export_onnx(detector, path, X)
    assert differences.labels == 0
    assert differences.p_value == 0
    assert differences.largest < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = X.astype(np.float32)
    label, score = session.run(["label", "score"], {"X": given})
    lower, upper = np.quantile(detector.calibration_scores_, [0.25, 0.75])
    expected = detector.score_samples(given)
    unit = np.maximum(upper - lower, np.abs(expected - np.median(expected)))
    assert np.max(np.abs(score - expected) / unit) < 1e-4
    answers = np.append(detector.classes_, -1)[label]
    np.testing.assert_array_equal(answers, detector.predict(given))
    assert {-1, 0, 1, 2} == set(answers.tolist())


# ------------------------------------------------------- codes for missing cells


def test_a_code_counts_as_the_mean_of_its_column(of_codes):
    columns = of_codes.standardizer_.columns_
    assert columns.codes[2] == CODE
    X = new_rows(6, 4)
    coded, filled = X.copy(), X.copy()
    coded[:, 2], filled[:, 2] = CODE, columns.centre[2]
    np.testing.assert_array_equal(
        of_codes.score_samples(coded), of_codes.score_samples(filled)
    )
    assert np.mean(of_codes.predict(coded[:120]) == -1) < 0.5


def test_another_far_cell_counts_as_twenty_spreads(of_codes):
    columns = of_codes.standardizer_.columns_
    X = new_rows(6, 4)[:120]
    far, nearer = X.copy(), X.copy()
    far[:, 2] = 8e5
    nearer[:, 2] = columns.centre[2] + 20 * columns.scale[2]
    np.testing.assert_array_equal(
        of_codes.score_samples(far), of_codes.score_samples(nearer)
    )
    assert (of_codes.predict(far) == -1).all()


def test_codes_do_not_move_the_scale(of_codes, of_rows):
    """With the plain deviation the column would be constant but for the codes."""
    plain, robust = of_rows.standardizer_, of_codes.standardizer_
    np.testing.assert_allclose(robust.scale_, plain.scale_, rtol=0.1)
    np.testing.assert_allclose(robust.mean_, plain.mean_, atol=0.2)


def test_a_net_sees_no_codes_either(tmp_path):
    X, y = rows_of(6, spread=4, seed=0)
    with pytest.warns(UserWarning, match="column 2 has -9999"):
        detector = VMDLSbDetector(**SETTINGS, max_epochs=2).fit(with_codes(X), y)
    new = new_rows_with_codes()
    coded, filled = new[:9].copy(), new[:9].copy()
    coded[:, 2], filled[:, 2] = CODE, detector.standardizer_.columns_.centre[2]
    np.testing.assert_array_equal(
        detector.score_samples(coded), detector.score_samples(filled)
    )
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    np.testing.assert_array_equal(
        loaded.score_samples(new), detector.score_samples(new)
    )

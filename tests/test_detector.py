"""The two detectors: scikit-learn's checks, use, guarantees, and bad input."""

import inspect
import io
import pickle
import re

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from bad_inputs import BAD_FITS, BAD_IMAGES, BAD_ROWS, X_GOOD, Y_GOOD
from sklearn.base import clone
from sklearn.covariance import OAS, EmpiricalCovariance
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.metrics import auroc
from skvmdls.model_selection import get_scorer

DETECTORS = (VMDLSDetector, VMDLSbDetector)
SCORING_METHODS = (
    "predict",
    "predict_known",
    "score_samples",
    "decision_function",
    "class_log_likelihood",
    "p_value",
    "transform",
)

# These demand what the contract rules out: +1/-1 answers, and fitting without y.
OUTLIER_CHECKS = {
    "check_outliers_train": "fits without y, which this classifier needs",
    "check_outliers_fit_predict": "fits without y, which this classifier needs",
}


def quick(detector=VMDLSbDetector, **parameters):
    # Not "auto", which is another precision on another processor.
    settings = {"precision": "float32", "max_epochs": 4, "contamination": 0.1}
    settings["random_state"] = 0
    if detector is VMDLSDetector:
        settings["autoencoder_epochs"] = 2
    return detector(**(settings | parameters))


@parametrize_with_checks(
    [VMDLSbDetector(max_epochs=2), VMDLSDetector(max_epochs=2, autoencoder_epochs=2)],
    expected_failed_checks=lambda estimator: OUTLIER_CHECKS,
)
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# ---------------------------------------------------------------- what it is for


def test_it_tells_known_digits_from_unknown_ones(vmdls, digits, is_known):
    X, y = digits.X_test, digits.y_test
    assert np.mean(vmdls.predict_known(X[is_known]) == y[is_known]) > 0.97
    assert auroc(is_known, vmdls.score_samples(X)) > 0.95
    assert vmdls.score(X, y) > 0.88
    noise = np.random.default_rng(0).uniform(0, 16, size=(300, 8, 8))
    assert np.mean(vmdls.predict(noise) == -1) > 0.99


def test_the_weight_does_no_harm(vmdls, vmdls_b, digits, is_known):
    weighted, plain = (
        auroc(is_known, detector.score_samples(digits.X_test))
        for detector in (vmdls, vmdls_b)
    )
    assert weighted > plain - 0.005


@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_known_points_are_rejected_at_about_the_asked_for_rate(
    digits, is_known, contamination
):
    """Regression: a threshold from the training scores rejects most new points."""
    detector = VMDLSbDetector(
        contamination=contamination, calibration_fraction=0.3, random_state=0
    ).fit(digits.X_train, digits.y_train)
    rejected = np.mean(detector.predict(digits.X_test[is_known]) == -1)
    assert abs(rejected - contamination) < 0.06
    training_scores = detector.score_samples(digits.X_train)
    from_training = np.quantile(training_scores, contamination)
    too_many = np.mean(detector.score_samples(digits.X_test[is_known]) < from_training)
    assert too_many > contamination


def test_answers_threshold_and_p_values_agree(vmdls, digits):
    X = digits.X_test
    scores = vmdls.score_samples(X)
    np.testing.assert_allclose(
        vmdls.decision_function(X), scores - vmdls.offset_, rtol=1e-5, atol=1e-3
    )
    rejected = scores < vmdls.offset_
    np.testing.assert_array_equal(vmdls.predict(X) == -1, rejected)
    np.testing.assert_array_equal(vmdls.p_value(X) <= vmdls.contamination, rejected)
    np.testing.assert_array_equal(
        vmdls.predict(X)[~rejected], vmdls.predict_known(X)[~rejected]
    )
    likelihood = vmdls.class_log_likelihood(X)
    assert likelihood.shape == (len(X), 6)
    np.testing.assert_array_equal(
        vmdls.classes_[likelihood.argmax(axis=1)], vmdls.predict_known(X)
    )


def test_vmdls_b_scores_by_the_likelihood_alone(vmdls_b, digits):
    np.testing.assert_array_equal(
        vmdls_b.score_samples(digits.X_test),
        vmdls_b.class_log_likelihood(digits.X_test).max(axis=1),
    )


@pytest.mark.parametrize("weighting", ["calibrated", "paper"])
def test_badly_reconstructed_points_never_gain(vmdls, digits, weighting):
    """Regression: the paper's ``w * l`` ranks backwards where ``l > 0``."""
    detector = quick(VMDLSDetector, weighting=weighting, max_epochs=20)
    detector.fit(digits.X_train, digits.y_train)
    assert detector.class_log_likelihood(digits.X_test).max() > 0
    noise = np.random.default_rng(0).uniform(0, 16, size=(200, 8, 8))
    assert (
        auroc(
            np.arange(400) < 200,
            detector.score_samples(np.concatenate([digits.X_test[:200], noise])),
        )
        > 0.95
    )


@pytest.mark.parametrize("fixture", ["vmdls", "vmdls_b"])
def test_a_score_does_not_depend_on_the_other_rows(fixture, digits, request):
    """Regression: the authors' code scales by the test set's extremes."""
    detector = request.getfixturevalue(fixture)
    X = digits.X_test[:40]
    strange = np.full((3, 8, 8), 1e6)
    for method in ("score_samples", "p_value", "transform", "class_log_likelihood"):
        score = getattr(detector, method)
        alone = np.concatenate([score(X[i : i + 1]) for i in range(len(X))])
        together = score(np.concatenate([strange, X, strange]))[3:-3]
        np.testing.assert_allclose(together, alone, rtol=2e-4, atol=2e-2)


@pytest.mark.parametrize("detector", DETECTORS)
def test_tables_score_the_same_alone_to_twelve_digits(detector, table):
    X, y = table
    fitted = quick(detector).fit(X, y)
    alone = np.concatenate([fitted.score_samples(row[None]) for row in X])
    np.testing.assert_allclose(fitted.score_samples(X), alone, rtol=1e-11, atol=1e-9)


def test_the_batch_size_does_not_matter(vmdls, digits):
    X = digits.X_test[:300]
    small = clone(vmdls).set_params(batch_size=7)
    small.__dict__.update(
        {name: value for name, value in vars(vmdls).items() if name.endswith("_")}
    )
    np.testing.assert_allclose(
        small.score_samples(X), vmdls.score_samples(X), rtol=2e-4, atol=2e-2
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_same_seed_gives_the_same_detector_bit_for_bit(detector, table):
    X, y = table
    scores = [
        quick(detector, random_state=seed).fit(X, y).score_samples(X)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_an_explicit_threshold_overrides_contamination(table):
    X, y = table
    detector = quick(threshold=-123.5).fit(X, y)
    assert detector.offset_ == -123.5
    low = quick(threshold=-1e30).fit(X, y)
    high = quick(threshold=1e30).fit(X, y)
    assert not np.any(low.predict(X) == -1)
    assert np.all(high.predict(X) == -1)


def test_the_threshold_of_a_fitted_detector_follows_its_parameters(table):
    X, y = table
    detector = quick().fit(X, y)
    scores = detector.calibration_scores_
    for contamination in (0.2, 0.4):
        detector.set_params(contamination=contamination)
        fresh = quick(contamination=contamination).fit(X, y)
        assert detector.offset_ == fresh.offset_
        np.testing.assert_array_equal(detector.predict(X), fresh.predict(X))
    detector.set_params(threshold=scores.max() + 1)
    assert np.all(detector.predict(X[:1]) == -1)
    detector.set_params(threshold=None, contamination=7)
    with pytest.raises(ValueError, match="'contamination' parameter.*Got 7"):
        detector.predict(X)
    detector.set_params(contamination=0.001)
    with pytest.warns(UserWarning, match="calibration points are too few"):
        assert np.all(detector.predict(X) != -1)


def test_features_of_a_fitted_detector_are_those_of_its_gaussians(table):
    """Regression: predictions took the parameter, whatever the Gaussians were of."""
    X, y = table
    detector = quick(features=("g", "mu")).fit(X, y)
    before = detector.score_samples(X), detector.transform(X)
    detector.set_params(features=("mu", "g"))
    np.testing.assert_array_equal(detector.score_samples(X), before[0])
    np.testing.assert_array_equal(detector.transform(X), before[1])
    assert detector.features_ == ("g", "mu")
    assert detector.get_feature_names_out()[0] == "g_0"


def test_fitting_leaves_parameters_that_are_modules_alone(digits):
    """Regression: fit replaced them by copies."""
    augmentation = nn.Identity()
    detector = quick(augmentation=augmentation).fit(digits.X_train, digits.y_train)
    assert detector.augmentation is augmentation


def test_no_contamination_rejects_nothing(table):
    X, y = table
    detector = quick(contamination=0).fit(X, y)
    assert set(detector.predict(1e6 * X)) <= {0, 1, 2}


def test_too_little_held_out_data_accepts_everything_and_says_so(table):
    X, y = table
    with pytest.warns(UserWarning, match="12 calibration points are too few"):
        detector = quick(contamination=0.05).fit(X, y)
    assert not np.any(detector.predict(1e6 * X) == -1)


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_docstring_states_every_parameter_once_with_its_default(detector):
    documented = re.findall(r"^(\w+) : .*default=(.*)$", detector.__doc__, re.MULTILINE)
    parameters = inspect.signature(detector).parameters
    keyword_only = {p.kind for name, p in parameters.items() if name != "backbone"}
    assert keyword_only == {inspect.Parameter.KEYWORD_ONLY}
    defaults = [(name, parameter.default) for name, parameter in parameters.items()]
    assert [(name, eval(default)) for name, default in documented] == defaults
    assert list(detector._parameter_constraints) == list(parameters)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_docstring_has_each_section_once_and_in_numpydocs_order(detector):
    sections = re.findall(r"^(\w[\w ]*)\n-{3,}$", detector.__doc__, re.MULTILINE)
    titles = ["Parameters", "Attributes", "See Also", "References", "Examples"]
    assert sections == titles


@pytest.mark.parametrize("fixture", ["vmdls", "vmdls_b"])
def test_the_docstring_states_every_attribute(fixture, request):
    detector = request.getfixturevalue(fixture)
    learned = {name for name in vars(detector) if name.endswith("_")} | {"offset_"}
    documented = set(re.findall(r"^(\w+_) : ", type(detector).__doc__, re.MULTILINE))
    assert documented - {"feature_names_in_"} == learned


@pytest.mark.parametrize(
    "parameters",
    [
        {"features": ("mu",)},
        {"features": ["g", "t3"]},
        {"covariance_type": "tied"},
        {"covariance_type": "diag"},
        {"covariance_estimator": OAS()},
        {
            "features": ("mu",),
            "latent_dim": 4,
            "covariance_type": "tied",
            "covariance_estimator": EmpiricalCovariance(),
        },
        {"backbone": "mlp"},
        {"latent_dim": 1, "distancing_margin": 3.0},
        {"classes_per_batch": 2, "samples_per_class": 2},
        {"freeze_epochs": 2},
        {"augmentation": nn.Dropout(0.2)},
        {"precision": "bfloat16"},
        {"device": "cpu", "batch_size": 1},
        {"kl_warmup": 0, "margin_warmup": 0, "kl_weight": 0.5, "triplet_margin": 0},
        {"max_epochs": 1},
        {"calibration_fraction": 0.5},
    ],
    ids=str,
)
def test_every_parameter_is_in_use(table, parameters):
    X, y = table
    detector = quick(**parameters).fit(X, y)
    assert np.isfinite(detector.score_samples(X)).all()
    sizes = detector.network_.ensemble_sizes
    assert detector.transform(X).shape[1] == sum(sizes[f] for f in detector.features)
    usual = quick().fit(X, y).score_samples(X)
    unchanged = {"device", "batch_size", "backbone"} >= set(parameters)
    assert np.allclose(detector.score_samples(X), usual) == unchanged


@pytest.mark.parametrize(
    "parameters",
    [
        {"autoencoder": "mlp"},
        {"autoencoder": lambda shape: nn.Linear(shape[0], shape[0])},
        {"autoencoder_epochs": 5},
        {"weighting": "paper"},
    ],
    ids=["name", "factory", "epochs", "weighting"],
)
def test_every_parameter_of_the_weight_is_in_use(table, parameters):
    X, y = table
    far = np.concatenate([X, 5 + 3 * X])
    usual = quick(VMDLSDetector).fit(X, y).score_samples(far)
    changed = quick(VMDLSDetector, **parameters).fit(X, y).score_samples(far)
    assert np.isfinite(changed).all()
    assert np.allclose(changed, usual) == (parameters == {"autoencoder": "mlp"})


@pytest.mark.parametrize("augmentation", ["affine", "crop_flip"])
def test_named_augmentations_train(digits, augmentation):
    detector = quick(augmentation=augmentation, max_epochs=10)
    detector.fit(digits.X_train, digits.y_train)
    assert detector.history_["accuracy"][-1] > 0.5


def test_small_classes_unequal_classes_and_many_classes():
    rng = np.random.default_rng(0)
    counts = [2, 3, 5, 60] + [6] * 20
    y = np.repeat(np.arange(len(counts)), counts)
    X = rng.normal(size=(len(y), 30)) + 5 * np.eye(30)[y]
    with pytest.warns(UserWarning, match="take the one pooled"):
        detector = quick(max_epochs=40).fit(X, y)
    assert np.isfinite(detector.class_log_likelihood(X)).all()
    assert np.mean(detector.predict_known(X) == y) > 0.8


def test_images_of_every_kind_are_taken():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 20)
    for shape, dtype in (
        ((9, 11), np.uint8),
        ((1, 8, 8), np.float16),
        ((3, 10, 8), np.float64),
        ((5, 8, 8), np.int64),
    ):
        X = rng.uniform(0, 255, (40, *shape)) / (1 + y.reshape(-1, *[1] * len(shape)))
        detector = quick(VMDLSDetector, contamination=0.5).fit(X.astype(dtype), y)
        assert np.isfinite(detector.score_samples(X.astype(dtype))).all()
        channels = shape if len(shape) == 3 else (1, *shape)
        assert detector.input_shape_ == channels
        assert detector.n_features_in_ == np.prod(channels)
        assert detector.reconstruct(X.astype(dtype)).shape == (40, *channels)


def test_extreme_inputs_are_rejected_with_finite_scores(vmdls):
    for value in (1e30, -1e30, 1e-30):
        scores = vmdls.score_samples(np.full((2, 8, 8), value))
        assert np.isfinite(scores).all()
        assert np.all(vmdls.predict(np.full((2, 8, 8), value)) == -1)


def test_reconstructions_are_in_the_units_of_the_input(vmdls, digits, is_known):
    X = digits.X_test[is_known]
    rebuilt = vmdls.reconstruct(X)
    assert rebuilt.shape == (len(X), 1, 8, 8)
    assert np.corrcoef(rebuilt.ravel(), X.ravel())[0, 1] > 0.5
    assert abs(rebuilt.mean() - X.mean()) < 1
    weights = vmdls.reconstruction_weight(digits.X_test)
    assert weights.shape == (len(digits.X_test),)
    assert np.all(weights >= 0)
    noise = np.random.default_rng(0).uniform(0, 16, (100, 8, 8))
    assert np.median(vmdls.reconstruction_weight(noise)) > np.median(weights[is_known])


# --------------------------------------------------------------- in scikit-learn


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        (np.array(["ant", "bee", "cow"]), "-1"),
        (np.array(["ant", "bee", "cow"], dtype=object), "-1"),
        (np.array([10, 20, 30], dtype=np.uint8), -1),
        (np.array([1.0, 2.0, 4.0]), -1),
    ],
    ids=["strings", "objects", "unsigned", "floats"],
)
def test_labels_of_any_type(table, names, unknown):
    X, y = table
    detector = quick().fit(X, names[y])
    answers = detector.predict(np.concatenate([X, 1e3 * X]))
    assert set(answers) == {*names, unknown}
    assert detector.score(X, names[y]) > 0.5
    np.testing.assert_array_equal(detector.classes_, names)


def test_boolean_labels(table):
    X, y = table
    detector = quick().fit(X, y > 0)
    answers = detector.predict(np.concatenate([X, 1e3 * X]))
    assert set(answers.tolist()) == {0, 1, -1}
    assert detector.predict_known(X).dtype == bool


@pytest.mark.parametrize("detector", DETECTORS)
def test_pipeline_and_pandas_output(detector, table):
    X, y = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    pipeline = Pipeline([("scale", StandardScaler()), ("detect", quick(detector))])
    pipeline.set_output(transform="pandas").fit(frame, y)
    assert np.mean(pipeline.predict(frame) == y) > 0.7
    features = pipeline.transform(frame)
    assert isinstance(features, pd.DataFrame)
    assert features.columns[0] == "t1_0"
    assert features.columns[-1] == "mu_31"
    assert list(features.columns) == list(pipeline.get_feature_names_out())
    assert list(pipeline["detect"].feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        pipeline["detect"].predict(frame[list("fedcba")])


@pytest.mark.parametrize(
    "grid",
    [{"contamination": [0.05, 0.3]}, {"threshold": [-1e30, 1e30]}],
    ids=["contamination", "threshold"],
)
@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_grid_search(table, grid):
    X, y = table
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(quick(), grid, cv=folds).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    name, values = next(iter(grid.items()))
    assert search.best_params_[name] == values[0]
    assert search.predict(X).shape == y.shape


def test_grid_search_by_a_scorer_of_ours(table):
    X, y = table
    known = np.where(y < 2)[0]
    splits = [(known[::2], np.concatenate([known[1::2], np.where(y == 2)[0]]))]
    search = GridSearchCV(
        quick(contamination=0),
        {"features": [("mu",), ("t1", "mu")]},
        cv=splits,
        scoring=get_scorer("auroc"),
        refit=False,
    ).fit(X, y)
    assert np.all(search.cv_results_["mean_test_score"] > 0.5)


@pytest.mark.parametrize("detector", DETECTORS)
def test_cross_val_predict_and_fit_predict(detector, table):
    X, y = table
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    answers = cross_val_predict(quick(detector, contamination=0), X, y, cv=folds)
    assert np.mean(answers == y) > 0.8
    np.testing.assert_array_equal(
        quick(detector).fit_predict(X, y), quick(detector).fit(X, y).predict(X)
    )


@pytest.mark.parametrize("detector", DETECTORS)
def test_clone_keeps_parameters_as_they_are(detector):
    original = quick(detector, features=["mu"], covariance_estimator=OAS())
    copied = clone(original)
    assert copied.get_params().keys() == original.get_params().keys()
    assert copied.features == ["mu"]
    assert not hasattr(copied, "network_")


@pytest.mark.parametrize("fixture", ["vmdls", "vmdls_b"])
def test_joblib_round_trip_gives_the_same_scores_bit_for_bit(
    fixture, digits, request, tmp_path
):
    detector = request.getfixturevalue(fixture)
    joblib.dump(detector, tmp_path / "detector.joblib")
    loaded = joblib.load(tmp_path / "detector.joblib")
    for method in SCORING_METHODS:
        np.testing.assert_array_equal(
            getattr(loaded, method)(digits.X_test),
            getattr(detector, method)(digits.X_test),
        )


class Elsewhere(nn.Module):
    """Stands in for a net on an accelerator: it knows whether it was brought home."""

    is_home = False

    def cpu(self):
        self.is_home = True
        return self


def test_pickles_hold_cpu_tensors_and_the_original_stays_where_it_is():
    detector = VMDLSDetector()
    for name in ("network_", "autoencoder_", "gaussians_"):
        setattr(detector, name, Elsewhere())
    loaded = pickle.loads(pickle.dumps(detector))
    for name in ("network_", "autoencoder_", "gaussians_"):
        assert getattr(loaded, name).is_home
        assert not getattr(detector, name).is_home


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_data_too_large_for_a_gpu_trains_from_pinned_batches(table, monkeypatch):
    X, y = table
    usual = quick(device="cuda").fit(X, y).score_samples(X)
    monkeypatch.setattr("skvmdls._fitting.fits_on", lambda tensor, device: False)
    streamed = quick(device="cuda").fit(X, y).score_samples(X)
    np.testing.assert_allclose(streamed, usual, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to come from")
def test_a_detector_fitted_on_cuda_scores_on_the_cpu(table):
    X, y = table
    detector = quick(device="cuda").fit(X, y)
    buffer = io.BytesIO()
    joblib.dump(detector, buffer)
    buffer.seek(0)
    loaded = joblib.load(buffer).set_params(device="cpu")
    np.testing.assert_allclose(
        loaded.score_samples(X), detector.score_samples(X), rtol=1e-6
    )


def test_read_only_memory_maps(digits, tmp_path):
    for name in ("X_train", "X_test"):
        np.save(tmp_path / name, digits[name].astype(np.float32))
    X_train, X_test = (
        np.load(tmp_path / f"{name}.npy", mmap_mode="r")
        for name in ("X_train", "X_test")
    )
    detector = quick(VMDLSDetector).fit(X_train, digits.y_train)
    same = quick(VMDLSDetector).fit(np.array(X_train), digits.y_train)
    np.testing.assert_array_equal(
        detector.score_samples(X_test), same.score_samples(np.array(X_test))
    )


# ------------------------------------------------------------------------ bad input


@pytest.fixture
def fitted(table):
    return quick().fit(*table)


@pytest.mark.parametrize("case", BAD_FITS, ids=lambda case: case.given)
def test_bad_fits_are_explained_and_an_earlier_fit_stays(case, table):
    earlier = quick(case.detector).fit(*table)
    before = earlier.score_samples(table[0])
    usual = {name: getattr(earlier, name) for name in case.parameters}
    earlier.set_params(**case.parameters)
    with pytest.raises((ValueError, TypeError), match=case.message):
        earlier.fit(case.X, case.y)
    earlier.set_params(**usual)
    np.testing.assert_array_equal(earlier.score_samples(table[0]), before)
    assert earlier.n_features_in_ == 6


def test_out_of_memory_in_training_names_the_batch_and_keeps_the_earlier_fit(table):
    def hungry(batch):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    detector = quick().fit(*table)
    before = detector.score_samples(table[0])
    detector.set_params(augmentation=hungry)
    with pytest.raises(
        MemoryError, match=r"classes_per_batch=3 classes with samples_per_class=16"
    ):
        detector.fit(*table)
    np.testing.assert_array_equal(detector.score_samples(table[0]), before)


@pytest.mark.parametrize("method", SCORING_METHODS)
@pytest.mark.parametrize("case", BAD_ROWS, ids=lambda case: case.given)
def test_bad_new_points_are_explained(fitted, method, case):
    with pytest.raises(ValueError, match=case.message):
        getattr(fitted, method)(case.X)


@pytest.mark.parametrize("case", BAD_IMAGES, ids=lambda case: case.given)
def test_new_images_of_the_wrong_shape_are_explained(vmdls, case):
    with pytest.raises(ValueError, match=case.message):
        vmdls.predict(case.X)


@pytest.mark.parametrize("method", [*SCORING_METHODS, "reconstruct"])
def test_an_unfitted_detector_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(VMDLSDetector(), method)(X_GOOD)


def test_a_failed_fit_on_other_data_keeps_even_the_input_shape(vmdls, digits):
    broken = pickle.loads(pickle.dumps(vmdls)).set_params(weighting="none")
    with pytest.raises(ValueError, match="weighting"):
        broken.fit(X_GOOD, Y_GOOD)
    assert broken.input_shape_ == (1, 8, 8)
    np.testing.assert_array_equal(
        broken.predict(digits.X_test), vmdls.predict(digits.X_test)
    )

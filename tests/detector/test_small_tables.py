"""Small tables: no net is trained, and all rows set the threshold."""

import re
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.base import clone

import skvmdls
from shared import SCORING_METHODS, blobs, changed
from skvmdls import VMDLSbDetector, VMDLSDetector

OF_TABLES = ("shared", "separate", "neighbours", "linear", "trees")
# Far from the three blobs of the fixture, in directions of their own.
FAR = 12 * np.eye(6)[3:]


@pytest.fixture(scope="module")
def small(table):
    """A detector with nothing set: read it, do not change it."""
    return VMDLSDetector(random_state=0).fit(*table)


def test_no_net_is_trained(small):
    assert small.evidence_names_ == small.features_ == OF_TABLES
    assert small.history_ == {}
    assert not hasattr(small, "network_")
    for name in ("network_", "autoencoder_"):
        with pytest.raises(AttributeError, match=r"needs one: \('shared'.*a backbone"):
            getattr(small, name)
    for method in (small.reconstruct, small.reconstruction_weight):
        with pytest.raises(AttributeError, match="trained no autoencoder"):
            method(FAR)


@pytest.mark.parametrize(
    "asking", [{"max_epochs": 1}, {"backbone": "mlp"}, {"latent_dim": 4}], ids=str
)
def test_a_parameter_of_the_net_asks_for_one(asking, table):
    settings = {"max_epochs": 1, "random_state": 0, "contamination": 0.2} | asking
    detector = VMDLSbDetector(**settings).fit(*table)
    assert detector.network_ is not None
    assert detector.history_
    of_net = ("t1", "t2", "t3", "g", "mu", "logit")
    assert detector.evidence_names_ == (*of_net, *OF_TABLES)
    # The net has seen the rows that train, so that others are held out.
    assert len(detector.split_.training) < len(table[0])
    # All parts of the net count half as much as all without one.
    weights = detector.evidence_.weights
    assert weights[:6].sum() == pytest.approx(weights[6:].sum() / 2)


def test_parameters_of_any_evidence_ask_for_no_net(table):
    detector = VMDLSbDetector(
        batch_size=7, contamination=0.2, calibration_fraction=0.3, random_state=1
    ).fit(*table)
    assert not hasattr(detector, "network_")


def test_both_detectors_are_the_same_without_a_net(small, table):
    other = VMDLSbDetector(random_state=0).fit(*table)
    for method in SCORING_METHODS:
        np.testing.assert_array_equal(
            getattr(other, method)(table[0]), getattr(small, method)(table[0])
        )


def test_all_rows_train_and_set_the_threshold(small, table):
    n = len(table[0])
    assert [len(rows) for rows in small.split_] == [n, n, n]
    assert len(small.calibration_scores_) == n
    # They were scored by parts that had not seen them, which is lower.
    seen = small.score_samples(table[0])
    assert small.calibration_scores_.mean() < seen.mean()
    known, _ = blobs(3, 300, seed=1)
    centred = known - 5 * np.eye(6)[np.repeat([0, 1, 2], 300)]
    new = centred + 4 * np.eye(6)[np.repeat([0, 1, 2], 300)]
    assert 0.01 < np.mean(small.predict(new) == -1) < 0.12
    assert (small.predict(FAR) == -1).all()


def test_a_split_may_be_asked_for(table):
    detector = VMDLSbDetector(
        calibration="split",
        calibration_fraction=0.4,
        contamination=0.1,
        random_state=0,
    ).fit(*table)
    training, evidence, threshold = map(set, detector.split_)
    assert not training & (evidence | threshold)
    assert len(training) == 72
    assert len(detector.calibration_scores_) == len(threshold) == 36
    assert not hasattr(detector, "network_")


def test_an_unknown_way_of_calibrating_is_refused(table):
    with pytest.raises(ValueError, match="'calibration' parameter.*'cross'"):
        VMDLSDetector(calibration="none").fit(*table)


@pytest.mark.parametrize("n_each", [10, 15])
def test_thirty_rows_are_enough_to_reject(n_each):
    X, y = blobs(3, n_each)
    detector = VMDLSDetector(random_state=0).fit(X, y)
    assert np.isfinite(detector.offset_)
    assert (detector.predict(3 * FAR) == -1).all()
    new, labels = blobs(3, 200, seed=2)
    assert np.mean(detector.predict_known(new) == labels) > 0.95
    assert np.mean(detector.predict(new) != -1) > 0.7


def test_the_rejection_rate_holds_on_average():
    """Of new known rows about 5 % are rejected, over many small training sets."""
    new, _ = blobs(3, 200, seed=99)
    rates = [
        np.mean(
            VMDLSbDetector(random_state=seed).fit(*blobs(3, 20, seed)).predict(new)
            == -1
        )
        for seed in range(6)
    ]
    assert 0.01 < np.mean(rates) < 0.1


def test_groups_are_cross_fitted_together(table):
    X, y = table
    twice, labels = np.tile(X, (2, 1)), np.tile(y, 2)
    near = twice + 1e-6 * np.random.default_rng(0).normal(size=twice.shape)
    groups = np.tile(np.arange(len(X)), 2)
    apart = VMDLSbDetector(random_state=0).fit(near, labels)
    together = VMDLSbDetector(random_state=0).fit(near, labels, groups)
    # A near copy among the training rows makes a row look too well known.
    place = OF_TABLES.index("neighbours")
    assert len(apart.calibration_scores_) == len(near)
    # Together they count as one point: a copy makes nothing surer.
    assert len(together.calibration_scores_) == len(X)
    assert len(np.unique(groups[together.split_.threshold])) == len(X)
    spread = [d.evidence_.typical[place] for d in (apart, together)]
    assert spread[0] > spread[1]


def test_the_same_seed_gives_the_same_detector(small, table):
    again = clone(small).fit(*table)
    np.testing.assert_array_equal(
        again.score_samples(table[0]), small.score_samples(table[0])
    )
    np.testing.assert_array_equal(again.calibration_scores_, small.calibration_scores_)


def test_a_score_does_not_depend_on_the_other_rows(small, table):
    X = table[0][::6] + 0.01
    strange = np.array([np.full(6, 1e6), np.zeros(6)])
    for method in SCORING_METHODS:
        score = getattr(small, method)
        alone = np.concatenate([score(row[None]) for row in X])
        together = score(np.concatenate([strange, X, strange]))[2:-2]
        np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------- part weights


def test_the_score_is_the_weighted_sum_of_the_evidence(small, table):
    X = np.concatenate([table[0], FAR])
    np.testing.assert_allclose(
        small.evidence(X) @ small.evidence_.weights, small.score_samples(X), rtol=1e-12
    )


def test_weights_are_learned_from_classes_left_out(small):
    trials = small.evidence_.trials
    assert trials.names == OF_TABLES
    np.testing.assert_array_equal(small.evidence_.weights, trials.weights)
    assert trials.aurocs.shape == (3, 5)
    assert len(set(small.evidence_.weights)) == 5


def test_fixed_weights_are_constants(table):
    detector = VMDLSbDetector(part_weights="fixed", random_state=0).fit(*table)
    np.testing.assert_array_equal(detector.evidence_.weights, np.ones(5))
    assert detector.evidence_.trials.aurocs.size == 0


def test_a_mapping_sets_some_weights_and_leaves_the_others(table):
    detector = VMDLSbDetector(
        part_weights={"trees": 0, "linear": np.float32(2)}, random_state=0
    ).fit(*table)
    assert detector.evidence_.weights.tolist() == [1, 1, 1, 2, 0]
    X = np.concatenate([table[0], FAR])
    expected = detector.evidence(X) @ [1, 1, 1, 2, 0]
    np.testing.assert_allclose(detector.score_samples(X), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("part_weights", "message"),
    [
        ({"mu": 1}, r"names 'mu', which is not a part.*\('shared'"),
        ({"trees": -1}, r"part_weights\['trees'\] is -1"),
        ({"trees": np.nan}, r"part_weights\['trees'\] is nan"),
        ({"trees": np.inf}, r"part_weights\['trees'\] is inf"),
        ({"trees": "much"}, r"part_weights\['trees'\] is 'much'"),
        (dict.fromkeys(OF_TABLES, 0), "part_weights are all 0"),
        ("equal", "'part_weights' parameter"),
        ([1, 1, 1, 1, 1], "'part_weights' parameter"),
    ],
)
def test_bad_weights_are_explained(part_weights, message, table):
    with pytest.raises(ValueError, match=message):
        VMDLSbDetector(part_weights=part_weights).fit(*table)


def test_bad_weights_are_told_before_the_training(table):
    def never(batch):
        raise AssertionError("it trains")

    detector = VMDLSbDetector(part_weights={"residual": 1}, augmentation=never)
    with pytest.raises(ValueError, match="names 'residual'"):
        detector.fit(*table)


# ---------------------------------------------------------------------- explanations


def test_explanations_name_the_columns(small, table):
    X = table[0][:4].copy()
    X[:, 5] += 30
    explanation = small.explain(X)
    assert explanation.contributions.shape == (4, 6)
    assert (explanation.contributions.argmin(axis=1) == 5).all()
    assert (explanation.label == -1).all()
    assert "residual_map" not in explanation
    place = small.evidence_names_.index("separate")
    np.testing.assert_allclose(
        explanation.contributions.sum(axis=1),
        explanation.evidence[:, place] * small.evidence_.spread[place],
        rtol=1e-9,
    )


# ----------------------------------------------------------------------- new classes


@pytest.fixture(scope="module")
def wider(small):
    rng = np.random.default_rng(3)
    X = rng.normal(size=(60, 6)) + 9 * np.eye(6)[np.repeat([3, 4], 30)]
    return changed(small).add_classes(X, np.repeat([3, 4], 30))


def test_classes_are_added(small, wider, table):
    rng = np.random.default_rng(4)
    y = np.repeat([3, 4], 50)
    X = rng.normal(size=(100, 6)) + 9 * np.eye(6)[y]
    assert (small.predict(X) == -1).mean() > 0.9
    assert wider.classes_.tolist() == [0, 1, 2, 3, 4]
    assert np.mean(wider.predict_known(X) == y) > 0.97
    assert np.mean(wider.predict(X) == y) > 0.6
    assert np.mean(wider.predict_known(table[0]) == table[1]) > 0.95
    assert (wider.predict(12 * np.eye(6)[5:]) == -1).all()
    # The old rows' scores stay, and those held out of the new ones join them.
    n = len(small.calibration_scores_)
    np.testing.assert_array_equal(
        wider.calibration_scores_[:n], small.calibration_scores_
    )
    assert len(wider.calibration_scores_) > n
    np.testing.assert_array_equal(
        wider.class_log_likelihood(X)[:, :3], small.class_log_likelihood(X)
    )


def test_dropping_undoes_adding(small, wider, table):
    again = changed(wider).drop_classes([3, 4])
    for method in ("score_samples", "predict", "class_log_likelihood", "p_values"):
        np.testing.assert_allclose(
            getattr(again, method)(table[0]),
            getattr(small, method)(table[0]),
            rtol=1e-12,
        )
    assert again.offset_ == small.offset_


def test_a_dropped_class_is_unknown(small, table):
    X, y = table
    detector = changed(small).drop_classes([1])
    assert detector.classes_.tolist() == [0, 2]
    assert np.mean(detector.predict(X[y == 1]) == -1) > 0.7
    assert np.mean(detector.predict_known(X[y != 1]) == y[y != 1]) > 0.97


def test_changed_classes_are_saved(wider, table, tmp_path):
    detector = changed(wider).drop_classes([0])
    joblib.dump(detector, tmp_path / "pickle")
    skvmdls.save(detector, tmp_path / "file")
    for again in (joblib.load(tmp_path / "pickle"), skvmdls.load(tmp_path / "file")):
        assert again.classes_.tolist() == [1, 2, 3, 4]
        for method in SCORING_METHODS:
            np.testing.assert_array_equal(
                getattr(again, method)(table[0]), getattr(detector, method)(table[0])
            )


# --------------------------------------------------------------------- what it is of


@pytest.mark.parametrize(
    "pattern",
    [
        r"object\.__new__",
        r"__dict__ =",
        r"__dict__\.update",
        r"_getframe",
        r"detector: Any",
    ],
)
def test_the_package_goes_around_no_constructor_and_types_its_detectors(pattern):
    package = Path(skvmdls.__file__).parent
    files = list(package.rglob("*.py"))
    assert len(files) > 50
    found = [file.name for file in files if re.search(pattern, file.read_text())]
    assert found == []

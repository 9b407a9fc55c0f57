"""After `predict`: promises by class, explanations, classes learned and dropped."""

import math
import warnings

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import skvmdls
from shared import TABLE_SETTINGS, blobs, changed
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.calibration.conformal import class_p_values, class_thresholds, discoveries
from skvmdls.scoring.features import block_features, ensembles
from skvmdls.scoring.model import standardized_batches

# ------------------------------------------------------------ promises by class


def test_p_values_of_classes_rank_among_the_held_out_points_of_each():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=40).round(1), rng.integers(3, size=40)
    new = rng.normal(size=(50, 4)).round(1)
    found = class_p_values(scores, labels, new)
    for i in range(50):
        for c in range(4):
            own = scores[labels == c]
            expected = (1 + sum(own <= new[i, c])) / (len(own) + 1)
            assert found[i, c] == pytest.approx(expected)
    assert (found[:, 3] == 1).all()
    for contamination in (0.0, 0.05, 0.1, 0.3):
        lowest = class_thresholds(scores, labels, 4, contamination)
        np.testing.assert_array_equal(new < lowest, found <= contamination)


def test_each_class_keeps_its_own_promise():
    """The classes' scores differ; one threshold for all would reject them unequally."""
    rng = np.random.default_rng(0)
    contamination, rejections = 0.1, []
    labels = np.repeat([0, 1, 2], [29, 99, 299])
    shift = np.array([-3.0, 0.0, 2.0])
    for _ in range(300):
        calibration = rng.normal(size=len(labels)) + shift[labels]
        new = rng.normal(size=(200, 3)) + shift  # under their own class
        p_values = class_p_values(calibration, labels, new)
        rejections.append(np.mean(p_values <= contamination, axis=0))
    mean = np.mean(rejections, axis=0)
    error = 4 * np.std(rejections, axis=0) / math.sqrt(300)
    assert np.all(mean <= contamination + error)
    assert np.all(mean >= contamination - error)


def test_answers_sets_and_p_values_agree(of_table):
    detector = changed(of_table, guarantee="class")
    X = np.concatenate([blobs(3, 40, seed=1)[0], 9 * np.eye(6)[3:], 20 * np.eye(6)])
    p_values, sets = detector.p_values(X), detector.prediction_set(X)
    assert p_values.shape == sets.shape == (len(X), 3)
    np.testing.assert_array_equal(sets, p_values > detector.contamination)
    answers = detector.predict(X)
    np.testing.assert_array_equal(answers == -1, ~sets.any(axis=1))
    accepted = answers != -1
    np.testing.assert_array_equal(
        p_values[accepted, answers[accepted]], p_values[accepted].max(axis=1)
    )
    np.testing.assert_array_equal(detector.decision_function(X) >= 0, accepted)
    assert 0.8 < accepted[:120].mean() < 1
    assert not accepted[120:].any()
    # The other promise has its own answers, and the same p-values.
    np.testing.assert_array_equal(of_table.p_values(X), p_values)
    np.testing.assert_array_equal(detector.p_value(X), of_table.p_value(X))
    np.testing.assert_array_equal(
        of_table.predict(X) == -1, of_table.p_value(X) <= of_table.contamination
    )


def with_log_tail(scores, bend):
    beyond = np.maximum(bend - scores, 0)
    return np.maximum(scores, bend) + bend * np.log1p(beyond / -bend)


def test_scores_under_classes_are_sums_of_the_parts_under_each(of_table):
    """A slow reference, part by part and class by class."""
    X = blobs(3, 4, seed=2)[0]
    measured = of_table._measure(X, by_class=True)
    evidence, model = of_table.evidence_, of_table.model_
    rows = of_table._check_new(X)
    batches = list(standardized_batches(rows, model, batch_size=99, device="cpu"))
    nets, selection = (model.network, model.autoencoder), model.selection
    [features] = block_features(*nets, batches, selection)
    [parts] = ensembles(model.network, batches, selection)
    logits = parts["logit"]
    assert evidence.offsets is None
    direct = model.direct.class_scores(torch.cat(batches)).numpy()
    expected = np.zeros((len(X), 3))
    for name, typical, spread, weight, highest in zip(
        evidence.names,
        evidence.typical,
        evidence.spread,
        evidence.weights,
        evidence.highest,
        strict=True,
    ):
        if name == "logit":
            raw = logits
        elif name in model.direct.names:
            raw = direct[:, :, model.direct.names.index(name)]
        else:
            block = torch.from_numpy(features[name])
            raw = of_table.gaussians_[name].log_likelihood(block).numpy()
        standard = np.minimum((raw - typical) / spread, highest)
        expected += weight * with_log_tail(standard, evidence.bend)
    np.testing.assert_allclose(measured.class_scores, expected, rtol=1e-9)


def test_a_threshold_overrides_the_promise_to_classes(of_table):
    X = blobs(3, 20, seed=1)[0]
    detector = changed(of_table, guarantee="class", threshold=-1.0)
    np.testing.assert_array_equal(
        detector.predict(X) == -1, of_table.score_samples(X) < -1
    )


def test_classes_with_too_few_held_out_points_are_named(of_table):
    detector = changed(of_table, guarantee="class", contamination=0.01)
    message = r"3 of 3 classes have too few held-out points.*0 \(\d+\), 1.*needs 99"
    for method in ("predict", "prediction_set", "decision_function"):
        with pytest.warns(UserWarning, match=message):
            getattr(detector, method)(np.zeros((1, 6)))
    with pytest.warns(UserWarning, match=message):
        VMDLSbDetector(
            **TABLE_SETTINGS | {"contamination": 0.01, "guarantee": "class"}
        ).fit(*blobs(3, 40))
    # Nothing is ever excluded, and nothing is asked for.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            detector.set_params(contamination=0).prediction_set(np.ones((2, 6))).all()
        )


def test_an_explanation_warns_of_too_few_points_once(of_table):
    detector = changed(of_table, guarantee="class", contamination=0.01)
    with pytest.warns(UserWarning, match="held-out points") as caught:
        detector.explain(blobs(3, 2)[0])
    assert len(caught) == 1


@pytest.mark.parametrize("method", ["predict", "decision_function", "prediction_set"])
def test_a_guarantee_that_is_none_is_refused(of_table, method):
    detector = changed(of_table, guarantee="everyone")
    with pytest.raises(ValueError, match="'guarantee' parameter.*'class'"):
        getattr(detector, method)(np.zeros((1, 6)))


def test_a_class_promise_with_the_papers_product(table):
    detector = VMDLSDetector(
        **TABLE_SETTINGS,
        autoencoder_epochs=2,
        weighting="paper",
        fusion="early",
        guarantee="class",
    ).fit(*table)
    X = np.concatenate([table[0], np.full((20, 6), 40.0)])
    answers = detector.predict(X)
    assert np.mean(answers[:120] == table[1]) > 0.7
    assert np.mean(answers[120:] == -1) > 0.9


# ------------------------------------------------------------ selecting the unknown


def benjamini_hochberg(p_values, fdr):
    ordered = np.sort(p_values)
    passing = np.flatnonzero(
        ordered <= fdr * np.arange(1, len(ordered) + 1) / len(p_values)
    )
    return p_values <= (ordered[passing[-1]] if len(passing) else -1)


def test_discoveries_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    for fdr in (0.05, 0.1, 0.3):
        p_values = rng.uniform(size=200) ** 3
        np.testing.assert_array_equal(
            discoveries(p_values, fdr), benjamini_hochberg(p_values, fdr)
        )
    assert discoveries(np.array([1 / 20]), 0.05).all()


def test_selected_points_are_unknown(of_table):
    known, unknown = blobs(3, 100, seed=3)[0], 12 * np.eye(6)[np.arange(30) % 3 + 3]
    X = np.concatenate([known, unknown])
    selected = of_table.select_unknown(X, fdr=0.2)
    assert selected[300:].all()
    assert selected[:300].sum() < 25
    assert not of_table.select_unknown(known[:50], fdr=0.2).any()


@pytest.mark.parametrize("fdr", [0, 1, -0.1, 1.5, np.nan])
def test_a_rate_out_of_range_is_refused(of_table, fdr):
    with pytest.raises(ValueError, match="fdr"):
        of_table.select_unknown(np.zeros((1, 6)), fdr=fdr)


def test_too_few_points_to_select_anything_are_told(of_table):
    n = len(of_table.calibration_scores_)
    with pytest.warns(UserWarning, match=rf"{n} held-out points.*at least 999 are"):
        assert not of_table.select_unknown(1e3 * np.ones((5, 6)), fdr=0.001).any()


def test_what_is_not_fitted_explains_nothing(table):
    X, y = table
    for call in (
        lambda d: d.explain(X),
        lambda d: d.p_values(X),
        lambda d: d.prediction_set(X),
        lambda d: d.select_unknown(X),
        lambda d: d.add_classes(X, y),
        lambda d: d.drop_classes([0]),
    ):
        with pytest.raises(NotFittedError):
            call(VMDLSDetector())


# ------------------------------------------------------------ new classes


def learned(detector):
    """A copy of the detector of three blobs that has learned two more."""
    X, y = blobs(5, 60, seed=5)
    return changed(detector).add_classes(X[y > 2], y[y > 2])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
@pytest.mark.parametrize("fusion", ["late", "early"])
def test_new_classes_are_learned_and_the_old_ones_left_alone(covariance_type, fusion):
    detector = VMDLSDetector(
        **TABLE_SETTINGS,
        autoencoder_epochs=2,
        covariance_type=covariance_type,
        fusion=fusion,
        features=("x", "t1", "mu"),
    ).fit(*blobs(3, 80))
    X, y = blobs(5, 50, seed=6)
    before, answers = detector.class_log_likelihood(X), detector.predict_known(X)
    assert np.mean(detector.predict(X[y > 2]) == -1) > 0.8
    state = detector.network_.state_dict()
    detector = learned(detector)
    assert detector.classes_.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(detector.class_log_likelihood(X)[:, :3], before)
    assert all((state[k] == v).all() for k, v in detector.network_.state_dict().items())
    again = detector.predict_known(X)
    assert np.mean(again[y > 2] == y[y > 2]) > 0.97
    assert np.mean(again[y < 3] == answers[y < 3]) > 0.98
    accepted = detector.predict(X) != -1
    assert accepted[y < 3].mean() > 0.7
    # With one covariance for all, classes that are wider than the old ones fare worse.
    assert accepted[y > 2].mean() > (0.4 if covariance_type == "tied" else 0.7)
    np.testing.assert_array_equal(
        detector.predict(X)[accepted], detector.predict_known(X)[accepted]
    )
    np.testing.assert_array_equal(
        detector.p_value(X) > detector.contamination, accepted
    )
    assert np.mean(detector.predict(9 * np.eye(6)[5:]) == -1) == 1


def test_evidence_still_sums_to_the_score(of_table):
    detector = learned(of_table)
    X = blobs(5, 20, seed=7)[0]
    evidence = detector.evidence(X)
    np.testing.assert_allclose(
        evidence @ detector.evidence_.weights, detector.score_samples(X), atol=1e-9
    )
    # The net's late parts and the trees know nothing of a new class, and go along with
    # the others.
    is_new = detector._measure(X, by_class=True).winners[:, 0] > 2
    shares = {"t2": 0.5, "t3": 1, "shared": 1, "separate": 1, "neighbours": 1}
    shares["linear"] = 1
    shares = np.array([shares.get(name, 0) for name in detector.evidence_names_])
    speaks = shares > 0
    in_spreads = detector.evidence_.in_spreads(detector._measure(X).raw)
    said = np.average(in_spreads, axis=1, weights=shares)
    assert 35 <= is_new.sum() <= 45
    logit = detector.evidence_names_.index("logit")
    assert (evidence[is_new, logit] == 0).all()
    speaks[logit] = True
    silent = np.minimum(said[is_new, None], detector.evidence_.highest[~speaks])
    np.testing.assert_allclose(
        evidence[is_new][:, ~speaks],
        with_log_tail(silent, detector.evidence_.bend),
    )
    explanation = detector.explain(X)
    part = detector.evidence_names_.index("separate")
    np.testing.assert_allclose(
        explanation.contributions.sum(axis=1),
        evidence[:, part] * detector.evidence_.spread[part],
        atol=1e-9,
    )


def test_the_held_out_part_of_new_rows_joins_the_threshold(of_table):
    detector = learned(of_table)
    n_old = len(of_table.calibration_scores_)
    np.testing.assert_array_equal(
        detector.calibration_scores_[:n_old], of_table.calibration_scores_
    )
    counts = np.bincount(detector.calibration_labels_)
    assert counts[3] == counts[4] == 24
    # The old points' held-out scores stand for at most what they would score now.
    X = blobs(3, 60, seed=8)[0]
    assert (detector.score_samples(X) >= of_table.score_samples(X) - 1e-9).all()


def test_labels_that_sort_between_the_old_ones():
    X, y = blobs(4, 60)
    names = np.array(["bee", "dog", "fox", "cat"])
    old = y < 3
    detector = VMDLSbDetector(**TABLE_SETTINGS).fit(X[old], names[y[old]])
    before = detector.class_log_likelihood(X)
    detector.add_classes(X[~old], names[y[~old]])
    assert detector.classes_.tolist() == ["bee", "cat", "dog", "fox"]
    np.testing.assert_array_equal(
        detector.class_log_likelihood(X)[:, [0, 2, 3]], before
    )
    assert np.mean(detector.predict_known(X[~old]) == "cat") > 0.97
    np.testing.assert_array_equal(
        detector.classes_[detector.calibration_labels_][-24:], ["cat"] * 24
    )


def test_dropping_undoes_adding(of_table):
    X = blobs(5, 20, seed=9)[0]
    detector = learned(of_table).drop_classes([3, 4])
    for method in ("score_samples", "predict", "p_values", "class_log_likelihood"):
        np.testing.assert_array_equal(
            getattr(detector, method)(X), getattr(of_table, method)(X)
        )
    assert detector.offset_ == of_table.offset_


def test_a_dropped_class_of_fit_is_unknown(of_table):
    detector = changed(of_table).drop_classes(1)
    X, y = blobs(3, 50, seed=9)
    assert detector.classes_.tolist() == [0, 2]
    np.testing.assert_array_equal(
        detector.class_log_likelihood(X), of_table.class_log_likelihood(X)[:, [0, 2]]
    )
    assert np.mean(detector.predict(X[y == 1]) == -1) > 0.9
    assert np.mean(detector.predict(X[y != 1]) == y[y != 1]) > 0.8
    # No held-out point may stand for more than it would score now.
    kept = of_table.calibration_labels_ != 1
    assert len(detector.calibration_scores_) == kept.sum()
    assert (detector.calibration_scores_ <= of_table.calibration_scores_[kept]).all()


def test_only_new_classes_may_be_left(of_table):
    detector = learned(of_table).drop_classes([0, 1, 2])
    X, y = blobs(5, 30, seed=9)
    assert np.mean(detector.predict_known(X[y > 2]) == y[y > 2]) > 0.97
    assert np.mean(detector.predict(X[y < 3]) == -1) > 0.9
    assert detector.explain(X).nearest.shape == (150, 3)


def test_images_get_new_classes(vmdls, digits, is_known):
    six = digits.y_test == 6
    X, y = digits.X_test[six], digits.y_test[six]
    before = vmdls.class_log_likelihood(digits.X_test)
    detector = changed(vmdls).add_classes(X[:90], y[:90])
    np.testing.assert_array_equal(
        detector.class_log_likelihood(digits.X_test)[:, :6], before
    )
    assert np.mean(detector.predict_known(X[90:]) == 6) > 0.9
    X_old, y_old = digits.X_test[is_known], digits.y_test[is_known]
    loss = np.mean(vmdls.predict_known(X_old) == y_old) - np.mean(
        detector.predict_known(X_old) == y_old
    )
    assert loss < 0.02


def test_a_few_images_of_a_new_class_are_enough(vmdls, digits, is_known):
    """Most of it is accepted then, and the old classes lose little: it was 0.025."""
    new = ~is_known & (digits.y_test < 8)
    X, y = digits.X_test[new], digits.y_test[new]
    few = np.concatenate([np.flatnonzero(y == c)[:20] for c in (6, 7)])
    detector = changed(vmdls).add_classes(X[few], y[few])
    X, y = np.delete(X, few, axis=0), np.delete(y, few)
    assert np.mean(detector.predict_known(X) == y) > 0.9
    assert np.mean(detector.predict(X) != -1) > 0.5
    X_old, y_old = digits.X_test[is_known], digits.y_test[is_known]
    right = [np.mean(d.predict_known(X_old) == y_old) for d in (vmdls, detector)]
    assert right[0] - right[1] < 0.02


def test_new_classes_are_saved_copied_and_not_cloned(of_table, tmp_path):
    X = blobs(5, 10, seed=9)[0]
    detector = learned(of_table).drop_classes([1])
    joblib.dump(detector, tmp_path / "pickle")
    skvmdls.save(detector, tmp_path / "file")
    for again in (joblib.load(tmp_path / "pickle"), skvmdls.load(tmp_path / "file")):
        assert again.classes_.tolist() == [0, 2, 3, 4]
        for method in ("score_samples", "predict", "p_values", "predict_known"):
            np.testing.assert_array_equal(
                getattr(again, method)(X), getattr(detector, method)(X)
            )
        X_new = np.full((30, 6), 9.0) + np.random.default_rng(0).normal(size=(30, 6))
        again.add_classes(X_new, np.full(30, 7))
        assert np.mean(again.predict_known(X_new) == 7) > 0.9
    assert not hasattr(clone(detector), "classes_")
    assert detector.fit(*blobs(3, 40)).classes_.tolist() == [0, 1, 2]


X_NEW, Y_NEW = blobs(5, 4, seed=5)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (X_NEW, Y_NEW, r"knows already: \[0, 1, 2\].*drop_classes.*fit again"),
        (X_NEW[:4], ["a"] * 4, "labels of type string, such as 'a', but .* integer"),
        (X_NEW[:4], [3.5] * 4, "labels of type float, such as 3.5"),
        (X_NEW[:4], [-1] * 4, "label -1"),
        (X_NEW[:4], [3, 3, 3, 4], r"one sample in y: \[4\]"),
        (X_NEW[:4], [3, 3, 3], "inconsistent numbers of samples"),
        (X_NEW[:4, :5], [3] * 4, "5 features"),
        (np.full((4, 6), np.nan), [3] * 4, "NaN"),
    ],
)
def test_bad_new_classes_leave_the_detector_as_it_was(of_table, X, y, message):
    detector = changed(of_table)
    before = {name: id(value) for name, value in vars(detector).items()}
    with pytest.raises(ValueError, match=message):
        detector.add_classes(X, y)
    assert {name: id(value) for name, value in vars(detector).items()} == before


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([9], r"holds \[9\].*classes are \[0, 1, 2\]"),
        ([0, 1], "would leave 1; at least 2"),
        (["0"], "labels of type string"),
    ],
)
def test_bad_drops_leave_the_detector_as_it_was(of_table, labels, message):
    detector = changed(of_table)
    with pytest.raises(ValueError, match=message):
        detector.drop_classes(labels)
    assert detector.classes_.tolist() == [0, 1, 2]


def test_a_new_class_on_top_of_an_old_one_is_named(of_table):
    X, y = blobs(3, 40, seed=5)
    with pytest.warns(UserWarning, match=r"too close to a known one: 8 to 1 \(\d+%\)"):
        changed(of_table).add_classes(X[y == 1], np.full(40, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned(of_table)

"""The measures against counting."""

import numpy as np
import pytest
from scipy.integrate import trapezoid
from sklearn.metrics import confusion_matrix, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skvmdls.metrics import (
    acceptance_rate,
    accepted_accuracy,
    auroc,
    closed_set_accuracy,
    decision_cost,
    open_set_f1,
    open_set_labels,
    oscr,
    threshold_curve,
    threshold_curve_from_predictions,
    tnr_at_tpr,
)

RNG = np.random.default_rng(0)
IS_KNOWN = RNG.random(200) < 0.6
SCORES = (RNG.normal(size=200) + IS_KNOWN).round(1)


def test_auroc_equals_counting_pairs():
    known, unknown = SCORES[IS_KNOWN][:, None], SCORES[~IS_KNOWN]
    counted = np.mean((known > unknown) + 0.5 * (known == unknown))
    assert auroc(IS_KNOWN, SCORES) == pytest.approx(counted)


@pytest.mark.parametrize("tpr", [0.5, 0.95, 1.0])
def test_tnr_at_tpr_equals_trying_every_threshold(tpr):
    known, unknown = SCORES[IS_KNOWN], SCORES[~IS_KNOWN]
    allowed = [t for t in np.unique(SCORES) if np.mean(known >= t) >= tpr]
    assert tnr_at_tpr(IS_KNOWN, SCORES, tpr) == np.mean(unknown < max(allowed))


def test_measures_do_not_change_under_rising_maps_of_the_score():
    for measure in (auroc, tnr_at_tpr):
        assert measure(IS_KNOWN, np.exp(SCORES)) == measure(IS_KNOWN, SCORES)


def test_open_set_f1_counts_unknown_as_one_more_class():
    y_true = ["a", "b", "b", "c", "zebra", "gnu"]
    y_pred = ["a", "b", "a", "-1", "-1", "c"]
    by_hand = f1_score(
        ["a", "b", "b", "c", "?", "?"], ["a", "b", "a", "?", "?", "c"], average="macro"
    )
    assert open_set_f1(y_true, y_pred, ["a", "b", "c"]) == pytest.approx(by_hand)


def test_open_set_f1_without_unknowns_is_the_usual_f1():
    y_true, y_pred = RNG.integers(0, 3, 50), RNG.integers(0, 3, 50)
    expected = f1_score(y_true, y_pred, average="macro")
    assert open_set_f1(y_true, y_pred, [2, 0, 1]) == pytest.approx(expected)
    assert open_set_f1(y_true, np.full(50, -1), [0, 1, 2]) == 0


def test_unknown_counts_only_where_there_are_unknown_points():
    """Regression: one rejection among known points halved the F1 of two classes."""
    y_true, y_pred = [0, 0, 1, 1, 1], [0, -1, 1, 1, 0]
    by_hand = f1_score(y_true, y_pred, labels=[0, 1], average="macro")
    assert open_set_f1(y_true, y_pred, [0, 1]) == pytest.approx(by_hand)
    by_hand = f1_score([*y_true, -1], [*y_pred, 1], average="macro")
    assert open_set_f1([*y_true, 7], [*y_pred, 1], [0, 1]) == pytest.approx(by_hand)


def test_f1_of_a_good_detector_on_known_points_is_near_its_accuracy():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 4, 4000)
    y_pred = np.where(rng.random(4000) < 0.05, -1, y_true)
    assert open_set_f1(y_true, y_pred, range(4)) > 0.95


def test_closed_set_accuracy_leaves_unknown_points_out():
    assert closed_set_accuracy([True, False, False], [1, 1, 0], [False, True]) == 2 / 3
    with pytest.raises(ValueError, match="no point of a known class"):
        closed_set_accuracy([7], [0], [0, 1])


@pytest.mark.parametrize("measure", [auroc, tnr_at_tpr])
def test_one_kind_of_points_alone_is_an_error(measure):
    with pytest.raises(ValueError, match="no unknown points"):
        measure([True, True], [0.0, 1.0])
    with pytest.raises(ValueError, match="no known points"):
        measure([False, False], [0.0, 1.0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        measure([True, False], [0.0])


def test_bad_settings_are_explained():
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\], got 95"):
        tnr_at_tpr(IS_KNOWN, SCORES, tpr=95)


def test_acceptance_and_its_accuracy_are_counted_on_known_points():
    y_true = ["a", "a", "b", "b", "zebra", "zebra"]
    y_pred = ["a", "b", "b", "-1", "a", "-1"]
    assert acceptance_rate(y_true, y_pred, ["a", "b"]) == 3 / 4
    assert accepted_accuracy(y_true, y_pred, ["a", "b"]) == 2 / 3
    with pytest.raises(ValueError, match="None of the 2 points .* is accepted"):
        accepted_accuracy([0, 1, 7], [-1, -1, 0], [0, 1])
    for measure in (acceptance_rate, accepted_accuracy):
        with pytest.raises(ValueError, match="no point of a known class"):
            measure([7], [0], [0, 1])


def curve_by_trying_every_threshold(y_true, y_known, scores, classes):
    is_known = np.isin(y_true, classes)
    thresholds = [*np.unique(scores), np.nextafter(scores.max(), np.inf)]
    rows = []
    for threshold in thresholds:
        accepted = scores >= threshold
        both = accepted & is_known
        rows.append(
            (
                threshold,
                accepted[is_known].mean(),
                accepted[~is_known].mean() if (~is_known).any() else np.nan,
                np.mean(y_true[both] == y_known[both]) if both.any() else np.nan,
                open_set_f1(y_true, np.where(accepted, y_known, -1), classes),
            )
        )
    return np.transpose(rows)


@pytest.mark.parametrize("decimals", [0, 1, 8])
@pytest.mark.parametrize("labels", [(0, 1, 2, 3, 8, 9), (0, 1, 2, 3), (2, 9), (1,)])
def test_threshold_curve_equals_trying_every_threshold(labels, decimals):
    rng = np.random.default_rng(0)
    classes = np.array([3, 0, 2, 1])
    for n in (1, 2, 60):
        y_true = rng.choice(labels, n)
        if not np.isin(y_true, classes).any():
            y_true[0] = 2
        y_known = np.where(rng.random(n) < 0.6, y_true % 4, rng.integers(0, 4, n))
        scores = rng.normal(size=n).round(decimals)
        curve = threshold_curve_from_predictions(y_true, y_known, scores, classes)
        slow = curve_by_trying_every_threshold(y_true, y_known, scores, classes)
        unknown = curve.unknown_acceptance
        assert (unknown is None) == bool(np.isin(y_true, classes).all())
        fast = (
            curve.thresholds,
            curve.known_acceptance,
            np.full(len(curve.thresholds), np.nan) if unknown is None else unknown,
            curve.accepted_accuracy,
            curve.macro_f1,
        )
        np.testing.assert_allclose(np.array(fast), slow, rtol=1e-12)


def test_threshold_curve_says_what_set_params_then_does(vmdls_b, digits, is_known):
    X, y = digits.X_test, digits.y_test
    curve = threshold_curve(make_pipeline(FunctionTransformer(), vmdls_b), X, y)
    scores = vmdls_b.score_samples(X)
    known = vmdls_b.predict_known(X)
    for i in (0, len(curve.thresholds) // 2, -1):
        answers = np.where(scores >= curve.thresholds[i], known, -1)
        assert curve.macro_f1[i] == pytest.approx(open_set_f1(y, answers, digits.known))
        assert curve.known_acceptance[i] == np.mean(answers[is_known] != -1)
        assert curve.unknown_acceptance[i] == np.mean(answers[~is_known] != -1)


def test_cost_equals_adding_up_the_points():
    rng = np.random.default_rng(1)
    y_true, y_known = rng.integers(0, 5, 80), rng.integers(0, 3, 80)
    scores = rng.normal(size=80).round(1)
    curve = threshold_curve_from_predictions(y_true, y_known, scores, [0, 1, 2])
    is_known = y_true < 3
    costs = curve.cost(
        false_rejection=2, wrong_label=3, false_acceptance=7, unknown_share=0.1
    )
    for threshold, cost in zip(curve.thresholds, costs, strict=True):
        accepted = scores >= threshold
        each = np.where(
            is_known,
            np.where(accepted, 3 * (y_true != y_known), 2),
            np.where(accepted, 7, 0),
        )
        by_hand = 0.9 * each[is_known].mean() + 0.1 * each[~is_known].mean()
        assert cost == pytest.approx(by_hand)


def test_the_cost_of_decisions_is_that_of_the_curve_at_their_threshold():
    rng = np.random.default_rng(2)
    y_true, y_known = rng.integers(0, 5, 80), rng.integers(0, 3, 80)
    scores = rng.normal(size=80).round(1)
    prices = {"false_rejection": 2, "wrong_label": 3}
    curve = threshold_curve_from_predictions(y_true, y_known, scores, [0, 1, 2])
    for more in ({}, {"false_acceptance": 7, "unknown_share": 0.1}):
        costs = curve.cost(**prices, **more)
        for threshold, cost in zip(curve.thresholds, costs, strict=True):
            y_pred = np.where(scores >= threshold, y_known, -1)
            found = decision_cost(y_true, y_pred, [0, 1, 2], **prices, **more)
            assert found == pytest.approx(cost)


def test_bad_costs_of_decisions_are_explained():
    prices = {"false_rejection": 1, "wrong_label": 1, "false_acceptance": 1}
    with pytest.raises(ValueError, match="y_true holds none.*LeaveClassesOut"):
        decision_cost([0, 1], [0, 0], [0, 1], **prices)
    with pytest.raises(ValueError, match=r"unknown_share must be in \[0, 1\], got 20"):
        decision_cost([0, 7], [0, 0], [0, 1], **prices, unknown_share=20)


def test_cost_of_unknown_points_needs_some():
    curve = threshold_curve_from_predictions([0, 1], [0, 0], [1.0, 2.0], [0, 1])
    np.testing.assert_allclose(
        curve.cost(false_rejection=1, wrong_label=3), [1.5, 2.0, 1.0]
    )
    with pytest.raises(ValueError, match="without any.*LeaveClassesOut"):
        curve.cost(false_rejection=1, wrong_label=1, false_acceptance=1)
    with pytest.raises(ValueError, match=r"unknown_share must be in \[0, 1\], got 20"):
        curve.cost(
            false_rejection=1, wrong_label=1, false_acceptance=1, unknown_share=20
        )
    with pytest.raises(ValueError, match="no point of a known class"):
        threshold_curve_from_predictions([7], [0], [1.0], [0, 1])


def test_oscr_is_the_area_under_its_curve():
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 5, 200)  # 3 and 4 are unknown
    y_known = np.where(rng.random(200) < 0.8, y_true % 3, rng.integers(0, 3, 200))
    scores = (rng.normal(size=200) + (y_true < 3)).round(1)
    is_known = y_true < 3
    pairs = [
        (one == answer) * (1.0 * (s > u) + 0.5 * (s == u))
        for one, answer, s in zip(
            y_true[is_known], y_known[is_known], scores[is_known], strict=True
        )
        for u in scores[~is_known]
    ]
    area = oscr(y_true, y_known, scores, classes=[0, 1, 2])
    assert area == pytest.approx(np.mean(pairs))
    thresholds = np.append(np.unique(scores), np.inf)
    right = [
        np.mean((y_known == y_true)[is_known] & (scores[is_known] >= t))
        for t in thresholds
    ]
    false = [np.mean(scores[~is_known] >= t) for t in thresholds]
    assert area == pytest.approx(-trapezoid(right, false))


def test_oscr_is_bounded_by_accuracy_and_auroc():
    rng = np.random.default_rng(1)
    y_true, scores = rng.integers(0, 4, 300), rng.normal(size=300)
    y_known = rng.integers(0, 3, 300)
    area = oscr(y_true, y_known, scores, classes=[0, 1, 2])
    assert area <= closed_set_accuracy(y_true, y_known, [0, 1, 2])
    assert area <= auroc(y_true < 3, scores)
    perfect = oscr(y_true, y_true, scores, classes=[0, 1, 2])
    assert perfect == pytest.approx(auroc(y_true < 3, scores))
    with pytest.raises(ValueError, match="no unknown points"):
        oscr([0, 1], [0, 1], [1.0, 2.0], classes=[0, 1])


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (["cat", "king", "dog"], ["cat", "dog"], ["cat", "-1", "dog"]),
        ([1, 2, 3, -1], [1, 2], [1, 2, -1, -1]),
        (["-1", "a"], ["a", "b"], ["-1", "a"]),
        ([True, False], [False, True], [1, 0]),
    ],
)
def test_labels_that_are_not_known_become_that_for_unknown(y, classes, expected):
    found = open_set_labels(y, np.array(classes))
    assert found.tolist() == expected
    # They stay as they are if it is done again.
    assert open_set_labels(found, np.array(classes)).tolist() == expected


def test_a_confusion_matrix_has_one_row_for_all_unknown_labels():
    y_true = open_set_labels(["cat", "King", "Queen", "dog"], ["cat", "dog"])
    y_pred = np.array(["cat", "-1", "dog", "dog"])
    labels = ["cat", "dog", "-1"]
    found = confusion_matrix(y_true, y_pred, labels=labels)
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_true_labels_of_another_type_than_the_classes_are_named():
    with pytest.raises(ValueError, match="string.*integer"):
        open_set_labels(["1", "2"], np.array([1, 2]))

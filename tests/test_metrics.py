"""The measures against counting, and the scorers in scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.model_selection import cross_validate

from skvmdls import VMDLSbDetector
from skvmdls.metrics import (
    SCORERS,
    auroc,
    closed_set_accuracy,
    get_scorer,
    open_set_f1,
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
    with pytest.raises(ValueError, match="No scorer named 'f1'"):
        get_scorer("f1")


def test_scorers_agree_with_the_functions(vmdls, digits, is_known):
    X, y = digits.X_test, digits.y_test
    scores = vmdls.score_samples(X)
    assert get_scorer("auroc")(vmdls, X, y) == auroc(is_known, scores)
    assert get_scorer("tnr_at_tpr95")(vmdls, X, y) == tnr_at_tpr(is_known, scores)
    assert get_scorer("open_set_f1")(vmdls, X, y) == vmdls.score(X, y)
    assert get_scorer("closed_set_accuracy")(vmdls, X, y) == np.mean(
        vmdls.predict_known(X[is_known]) == y[is_known]
    )


def test_all_scorers_at_once_in_cross_validation(table):
    X, y = table
    known = np.where(y < 2)[0]
    splits = [(known[::2], np.concatenate([known[1::2], np.where(y == 2)[0]]))]
    results = cross_validate(
        VMDLSbDetector(max_epochs=5, contamination=0, random_state=0),
        X,
        y,
        cv=splits,
        scoring=SCORERS,
    )
    assert set(results) >= {f"test_{name}" for name in SCORERS}
    assert results["test_auroc"] > 0.9

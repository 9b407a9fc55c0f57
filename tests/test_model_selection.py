"""The splitter: what it promises of classes and rows; the scorers in scikit-learn."""

import pickle
import warnings
from collections import Counter
from copy import deepcopy

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    check_cv,
    cross_val_predict,
    cross_validate,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skvmdls import VMDLSbDetector, model_selection
from skvmdls.metrics import acceptance_rate, accepted_accuracy, auroc, tnr_at_tpr
from skvmdls.model_selection import (
    SCORERS,
    LeaveClassesOut,
    ThresholdComparisons,
    get_scorer,
)

RNG = np.random.default_rng(0)
UNEVEN = RNG.permutation(np.repeat(np.arange(7), [100, 40, 11, 5, 23, 64, 30]))


def splits(y, **settings):
    return list(LeaveClassesOut(**settings).split(np.zeros((len(y), 1)), y))


def left_out(y, train):
    return np.setdiff1d(y, y[train])


@pytest.mark.parametrize("n_unknown", [1, 2, 5, 0.01, 0.3, 0.7])
@pytest.mark.parametrize("test_size", [0.2, 1 / 3, 0.5, 0.7])
def test_left_out_classes_are_only_in_the_test_part(n_unknown, test_size):
    expected = n_unknown if n_unknown >= 1 else max(1, round(n_unknown * 7))
    for train, test in splits(
        UNEVEN, n_unknown=n_unknown, test_size=test_size, random_state=0
    ):
        unknown = left_out(UNEVEN, train)
        assert len(unknown) == expected
        assert np.isin(unknown, UNEVEN[test]).any()
        assert np.isin(UNEVEN[train], UNEVEN[test]).any()
        assert not np.intersect1d(train, test).size
        unused = np.setdiff1d(np.arange(len(UNEVEN)), np.union1d(train, test))
        assert np.isin(UNEVEN[unused], unknown).all()


@pytest.mark.parametrize("test_size", [0.1, 0.2, 1 / 3, 0.5, 0.7])
def test_test_part_is_stratified(test_size):
    share = test_size * np.bincount(UNEVEN)
    for _, test in splits(UNEVEN, test_size=test_size, random_state=0):
        drawn = np.bincount(UNEVEN[test], minlength=7)
        assert np.all(np.abs(drawn - share) < 1 + 1e-9)


@pytest.mark.parametrize("n_splits", [1, 4, 5, 7, 14])
@pytest.mark.parametrize("n_unknown", [1, 2, 3])
def test_classes_are_left_out_about_equally_often(n_splits, n_unknown):
    for seed in range(5):
        times = Counter(dict.fromkeys(range(7), 0))
        for train, _ in splits(
            UNEVEN, n_splits=n_splits, n_unknown=n_unknown, random_state=seed
        ):
            times.update(left_out(UNEVEN, train).tolist())
        assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize("n_splits", [2, 3, 5, 6, 7, 10])
def test_test_parts_are_a_partition_where_sizes_sum_to_one(n_splits):
    parts = splits(UNEVEN, n_splits=n_splits, test_size=1 / n_splits, random_state=0)
    rows = np.sort(np.concatenate([test for _, test in parts]))
    np.testing.assert_array_equal(rows, np.arange(len(UNEVEN)))


def test_every_row_has_the_same_chance_to_be_tested():
    y = np.repeat([0, 1, 2], [12, 7, 5])
    chances = np.zeros(len(y))
    for seed in range(2000):
        ((_, test),) = splits(y, n_splits=1, test_size=0.25, random_state=seed)
        chances[test] += 1 / 2000
    np.testing.assert_allclose(chances, 0.25, atol=0.05)


def test_an_int_repeats_the_splits_and_other_seeds_differ():
    first, again, other = (
        [np.concatenate(part) for part in splits(UNEVEN, random_state=seed)]
        for seed in (0, 0, 1)
    )
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_labels_may_be_of_any_type_and_only_their_equality_counts():
    names = np.array(["ant", "bee", "cat", "dog", "eel", "fox", "gnu"])[UNEVEN]
    for of_ints, of_names in zip(
        splits(UNEVEN, random_state=0), splits(names, random_state=0), strict=True
    ):
        assert all(map(np.array_equal, of_ints, of_names))


def test_it_is_a_splitter_of_scikit_learn():
    cv = LeaveClassesOut(n_splits=4, n_unknown=2, random_state=0)
    assert check_cv(cv) is cv
    assert cv.get_n_splits() == 4
    assert repr(cv) == (
        "LeaveClassesOut(n_splits=4, n_unknown=2, random_state=0, test_size=0.2)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_unknown": 6}, "leaves out 6 of 7 classes; at most 5"),
        ({"n_unknown": 0.9}, "n_unknown=0.9 leaves out 6 of 7 classes"),
        ({"n_unknown": 0}, "'n_unknown' parameter of LeaveClassesOut .* Got 0 "),
        ({"n_unknown": 1.5}, "'n_unknown' .* Got 1.5 "),
        ({"n_splits": 0}, "'n_splits' .* Got 0 "),
        ({"test_size": 5}, "'test_size' .* Got 5 "),
        ({"test_size": 0.0}, "'test_size' .* Got 0.0 "),
        ({"test_size": 0.9}, r"Class 3 has 5 row\(s\).*Lower test_size"),
    ],
)
def test_bad_settings_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        splits(UNEVEN, **settings)


def test_bad_labels_are_explained():
    with pytest.raises(ValueError, match="y has 2 classes.*at least 3"):
        splits(np.repeat([0, 1], 20))
    with pytest.raises(ValueError, match="needs y"):
        next(LeaveClassesOut().split(np.zeros((9, 1))))
    with pytest.raises(ValueError, match="no row of a (left-out|known) class"):
        splits(np.repeat([0, 1, 2], 3), test_size=0.1, n_splits=9)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        next(LeaveClassesOut().split(np.zeros((9, 1)), UNEVEN))
    with pytest.warns(UserWarning, match="ignores groups"):
        next(LeaveClassesOut().split(UNEVEN, UNEVEN, groups=UNEVEN))


@pytest.fixture(scope="module")
def blobs():
    """Five separated blobs, as (X, y) with string labels."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(5), 40)
    X = rng.normal(size=(200, 8)) + 5 * np.eye(8)[y]
    return X, np.array(["ant", "bee", "cat", "dog", "eel"])[y]


DETECTOR = VMDLSbDetector(
    max_epochs=5, contamination=0.1, calibration_fraction=0.2, random_state=0
)


def test_all_scorers_see_the_left_out_classes_as_unknown(blobs):
    results = cross_validate(
        DETECTOR,
        *blobs,
        cv=LeaveClassesOut(n_splits=2, random_state=0),
        scoring=SCORERS,
        error_score="raise",
    )
    assert all(np.isfinite(results[f"test_{name}"]).all() for name in SCORERS)
    assert results["test_auroc"].mean() > 0.9


def test_grid_search_tunes_a_pipeline_without_unknown_data(blobs):
    pipeline = make_pipeline(StandardScaler(), clone(DETECTOR))
    search = GridSearchCV(
        pipeline,
        {"vmdlsbdetector__learning_rate": [1e-3, 1e-8]},
        cv=LeaveClassesOut(n_splits=2, random_state=0),
        scoring=get_scorer("auroc"),
        error_score="raise",
    ).fit(*blobs)
    assert search.best_score_ > 0.9
    # The winner is refitted on all classes.
    assert len(search.best_estimator_.classes_) == 5


def test_cross_val_predict_answers_every_row_once(blobs):
    X, y = blobs
    cv = LeaveClassesOut(n_splits=3, test_size=1 / 3, random_state=0)
    answers = cross_val_predict(DETECTOR, X, y, cv=cv)
    is_unknown = np.zeros(len(y), dtype=bool)
    for train, test in cv.split(X, y):
        assert not np.isin(answers[test], left_out(y, train)).any()
        is_unknown[test] = np.isin(y[test], left_out(y, train))
    rejected = answers == "-1"
    assert rejected[is_unknown].mean() > 0.3 > rejected[~is_unknown].mean()
    with pytest.raises(ValueError, match="only works for partitions"):
        cross_val_predict(DETECTOR, X, y, cv=LeaveClassesOut(3, test_size=0.2))


def test_an_unknown_scorer_is_named_beside_those_there_are():
    with pytest.raises(ValueError, match="No scorer named 'f1'; there are .*'auroc'"):
        get_scorer("f1")


def test_scorers_are_named_and_pickle():
    for name, scorer in SCORERS.items():
        assert scorer.__name__ == f"{name}_scorer"
        assert pickle.loads(pickle.dumps(scorer)) is scorer


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


def test_the_scorers_of_known_points_follow_the_detector(vmdls_b, digits, is_known):
    X, y = digits.X_test, digits.y_test
    answers = vmdls_b.predict(X)[is_known]
    accepted = answers != -1
    error = get_scorer("neg_acceptance_rate_error")(vmdls_b, X, y)
    assert error == pytest.approx(-abs(accepted.mean() - 0.95))
    assert get_scorer("accepted_accuracy")(vmdls_b, X, y) == np.mean(
        answers[accepted] == y[is_known][accepted]
    )


def as_table(images):
    return images.reshape(len(images), -1)


def as_images(table):
    return table.reshape(-1, 8, 8)


@pytest.mark.parametrize("name", SCORERS)
def test_scorers_reach_a_detector_at_the_end_of_a_pipeline(name, vmdls_b, digits):
    X, y = digits.X_test[::3], digits.y_test[::3]
    scorer = get_scorer(name)
    alone = scorer(vmdls_b, X, y)
    to_images = FunctionTransformer(as_images)
    assert scorer(Pipeline([("detector", vmdls_b)]), X, y) == alone
    pipeline = make_pipeline(to_images, vmdls_b)
    assert scorer(pipeline, as_table(X), y) == alone
    nested = make_pipeline(FunctionTransformer(), "passthrough", pipeline)
    assert scorer(nested, as_table(X), y) == alone


def test_scorers_reach_the_best_estimator_of_a_search(table):
    X, y = table
    search = GridSearchCV(
        make_pipeline(
            FunctionTransformer(), VMDLSbDetector(contamination=0.5, random_state=0)
        ),
        {"vmdlsbdetector__max_epochs": [2]},
        scoring={name: SCORERS[name] for name in ("accepted_accuracy", "open_set_f1")},
        refit="accepted_accuracy",
        cv=StratifiedKFold(2),
        error_score="raise",
    ).fit(X, y)
    for scorer in (get_scorer("closed_set_accuracy"), get_scorer("open_set_f1")):
        assert scorer(search, X, y) == scorer(search.best_estimator_[-1], X, y)


def test_a_scorer_without_unknown_points_says_where_to_get_them(vmdls_b, digits):
    y = digits.y_train
    for name in ("auroc", "tnr_at_tpr95"):
        with pytest.raises(ValueError, match="no unknown points.*LeaveClassesOut"):
            get_scorer(name)(vmdls_b, digits.X_train[:20], y[:20])


# ------------------------------------------------------------ choosing a threshold


class Answers:
    """A detector at a given threshold: X are pairs of a score and a label."""

    classes_ = np.array([0, 1])

    def __init__(self, threshold):
        self.contamination, self.threshold = 0.05, threshold

    def predict(self, X):
        return np.where(X[:, 0] >= self.threshold, X[:, 1].astype(int), -1)

    def predict_known(self, X):
        return X[:, 1].astype(int)

    def score_samples(self, X):
        return X[:, 0]


def answers_of_known_points(accuracy, n=1000):
    """X and y of known points, low scores being wrong more often."""
    rng = np.random.default_rng(0)
    y, scores = rng.integers(0, 2, n), rng.random(n)
    is_right = rng.random(n) < np.minimum(1, accuracy + 0.3 * (scores - 0.5))
    return np.column_stack([scores, np.where(is_right, y, 1 - y)]), y


@pytest.fixture
def comparisons(monkeypatch):
    """Nothing was scored before, as in a new process."""
    fresh = ThresholdComparisons()
    monkeypatch.setattr(model_selection, "_comparisons", fresh)
    return fresh


def best_threshold(scorer, X, y):
    thresholds = np.linspace(0, 0.5, 51)
    return thresholds[np.argmax([scorer(Answers(t), X, y) for t in thresholds])]


@pytest.mark.parametrize("accuracy", [0.6, 0.8, 1.2])
@pytest.mark.parametrize("min_acceptance", [0.8, 0.95])
def test_the_scorer_with_a_target_uses_what_may_be_rejected(accuracy, min_acceptance):
    X, y = answers_of_known_points(accuracy)
    scorer = get_scorer("accepted_accuracy", min_acceptance=min_acceptance)
    best = best_threshold(scorer, X, y)
    rate = acceptance_rate(y, Answers(best).predict(X), [0, 1])
    assert abs(rate - min_acceptance) < 0.015


def test_the_scorer_with_a_target_is_accuracy_less_what_is_missed():
    X, y = answers_of_known_points(0.8)
    scorer = get_scorer("accepted_accuracy", min_acceptance=0.9)
    for threshold, weight in ((0.02, 1), (0.3, -2)):
        y_pred = Answers(threshold).predict(X)
        rate = acceptance_rate(y, y_pred, [0, 1])
        expected = accepted_accuracy(y, y_pred, [0, 1]) - weight * (rate - 0.9)
        assert scorer(Answers(threshold), X, y) == pytest.approx(expected)
    assert scorer(Answers(2.0), X, y) == pytest.approx(-1.8)
    assert pickle.loads(pickle.dumps(scorer)) == scorer


def test_a_lower_acceptance_than_asked_for_never_wins_on_one_net():
    """Even where only wrong labels are rejected."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1000)
    scores = np.arange(1000) / 1000
    X = np.column_stack([scores, np.where(scores < 0.3, 1 - y, y)])
    assert best_threshold(
        get_scorer("accepted_accuracy", min_acceptance=0.95), X, y
    ) == pytest.approx(0.05)


def test_the_scorer_of_costs_is_the_negated_cost():
    X, y = answers_of_known_points(0.8)
    scorer = get_scorer("neg_decision_cost", false_rejection=1, wrong_label=4)
    y_pred = Answers(0.2).predict(X)
    cost = np.mean(np.where(y_pred == -1, 1, np.where(y_pred != y, 4, 0)))
    assert scorer(Answers(0.2), X, y) == pytest.approx(-cost)
    # A rejection is worth its price where a label is wrong with a chance of a quarter.
    many = answers_of_known_points(0.8, n=50_000)
    assert best_threshold(scorer, *many) == pytest.approx(0.33, abs=0.05)
    assert best_threshold(get_scorer("open_set_f1"), X, y) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: get_scorer("auroc", min_acceptance=0.9), TypeError, "no settings"),
        (lambda: get_scorer("neg_decision_cost"), ValueError, "needs false_rejection"),
        (
            lambda: get_scorer("neg_decision_cost", wrong_label=2),
            ValueError,
            "needs false_rejection, for",
        ),
        (
            lambda: get_scorer("accepted_accuracy", min_acceptance=95),
            ValueError,
            "min_acceptance=95 must be a number above 0 and below 1",
        ),
    ],
)
def test_bad_settings_of_scorers_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("open_set_f1", "every rejection is an error"),
        ("accepted_accuracy", "does not count the rejected ones"),
        ("closed_set_accuracy", "the same at every threshold"),
    ],
)
def test_a_score_that_cannot_compare_thresholds_warns_once(comparisons, name, why):
    X, y = answers_of_known_points(0.8)
    scorer = get_scorer(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Other points, or the same threshold again, are no comparison.
        scorer(Answers(0.1), X, y)
        scorer(Answers(0.2), X[:500], y[:500])
        scorer(Answers(0.1), X, y)
    with pytest.warns(UserWarning, match=f"{why}.*get_scorer"):
        scorer(Answers(0.2), X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer(Answers(0.3), X, y)
        scorer(Answers(0.3), X[:500], y[:500])


def test_scores_that_can_compare_thresholds_do_not_warn(comparisons):
    X, y = answers_of_known_points(0.8)
    with_unknown = np.where(np.arange(1000) < 300, 7, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for threshold in (0.1, 0.2):
            detector = Answers(threshold)
            get_scorer("open_set_f1")(detector, X, with_unknown)
            get_scorer("accepted_accuracy", min_acceptance=0.9)(detector, X, y)
            get_scorer("neg_acceptance_rate_error")(detector, X, y)


def test_comparisons_are_remembered_of_so_many_test_sets(comparisons):
    for n in range(2, 2 + 2 * comparisons.MOST_TEST_SETS):
        comparisons.note(Answers(0.1), np.zeros(n, dtype=int), "problem")
    assert len(comparisons._settings) == comparisons.MOST_TEST_SETS


def test_a_search_finds_the_threshold_that_a_person_would(digits, vmdls_b, comparisons):
    """The winner accepts 95 % of new known points, and rejects unknown ones.

    One fitted detector is moved: the candidates of a search differ in nothing else.
    """
    is_known = np.isin(digits.y_test, digits.known)
    X, y = digits.X_test[is_known], digits.y_test[is_known]
    candidates = [
        deepcopy(vmdls_b).set_params(contamination=c) for c in (0.02, 0.05, 0.1, 0.2)
    ]
    scorer = get_scorer("accepted_accuracy", min_acceptance=0.95)
    best = max(candidates, key=lambda detector: scorer(detector, X, y))
    assert np.mean(best.predict(X) != -1) >= 0.95
    assert np.mean(best.predict(digits.X_test[~is_known]) == -1) > 0.7
    with pytest.warns(UserWarning, match="every rejection is an error"):
        scores = [get_scorer("open_set_f1")(each, X, y) for each in candidates]
    assert np.argmax(scores) == 0

"""Scores of every row by parts that have not seen it."""

import numpy as np
import pytest

from skvmdls.calibration import conformal_threshold
from skvmdls.direct.parts import fit_direct_parts
from skvmdls.scoring.cross_fitting import cross_fitted_scores, row_folds

NAMES = ("shared", "neighbours", "linear")


def fit_parts(X, labels, n_classes):
    parts = fit_direct_parts(X, labels, n_classes, names=NAMES)
    return lambda rows: parts.class_scores(rows).numpy()


def blobs(seed, n_rows=60, n_classes=3):
    rng = np.random.default_rng(seed)
    y = np.arange(n_rows) % n_classes
    return rng.normal(size=(n_rows, 4)) + 5 * np.eye(4)[y], y


def test_rows_are_scored_by_a_fit_of_the_other_folds():
    X, y = blobs(0)
    found = cross_fitted_scores(X, y, 3, fit_parts)
    folds = row_folds(y)
    assert found.positions.tolist() == list(range(60))
    for i in (0, 17, 59):
        others = folds != folds[i]
        expected = fit_parts(X[others], y[others], 3)(X[[i]])[0]
        np.testing.assert_allclose(found.scores[i], expected)
    np.testing.assert_array_equal(found.of_parts, found.scores.max(axis=1))


def test_folds_are_balanced_in_each_class():
    y = np.repeat([0, 1, 2], [5, 12, 50])
    folds = row_folds(y, random_state=3)
    for label in range(3):
        sizes = np.bincount(folds[y == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1


def test_groups_and_equal_rows_stay_together():
    y = np.arange(60) % 3
    groups = np.arange(60) // 6
    folds = row_folds(y, groups=groups)
    for group in range(10):
        assert len(set(folds[groups == group])) == 1


@pytest.mark.parametrize("n_groups", [2, 3, 4, 7])
def test_every_fit_keeps_a_row_of_every_class(n_groups):
    rng = np.random.default_rng(n_groups)
    for _ in range(20):
        y = np.r_[0, 1, 2, 3, rng.integers(4, size=12)]
        groups = rng.integers(n_groups, size=16)
        folds = row_folds(y, groups=groups)
        for fold in set(folds) - {-1}:
            assert set(y[folds != fold]) == {0, 1, 2, 3}


def test_a_class_of_a_single_group_is_in_every_fit():
    X, y = blobs(0)
    y[:4] = 3
    groups = np.where(y == 3, 0, np.arange(60))
    found = cross_fitted_scores(X, y, 4, fit_parts, groups=groups)
    assert found.positions.tolist() == list(range(4, 60))


def test_single_groups_alone_are_refused():
    X, y = blobs(0)
    with pytest.raises(ValueError, match="Each of 3 classes is a single group"):
        cross_fitted_scores(X, y, 3, fit_parts, groups=y)


def test_the_scores_are_the_same_on_any_number_of_threads():
    X, y = blobs(0)
    one, two = (cross_fitted_scores(X, y, 3, fit_parts, n_jobs=n) for n in (None, 2))
    np.testing.assert_array_equal(one.scores, two.scores)


def test_a_threshold_of_all_rows_rejects_about_the_share_that_was_asked_for():
    rejected = []
    for seed in range(20):
        X, y = blobs(seed, n_rows=60)
        cross = cross_fitted_scores(X, y, 3, fit_parts).of_parts[:, 0]
        threshold = conformal_threshold(cross, contamination=0.1)
        new, _ = blobs(1000 + seed, n_rows=300)
        scores = fit_parts(X, y, 3)(new).max(axis=1)[:, 0]
        rejected.append(np.mean(scores < threshold))
    assert 0.03 < np.mean(rejected) < 0.12

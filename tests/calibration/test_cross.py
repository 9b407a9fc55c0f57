"""Thresholds from cross-fitted scores: few rows, none held out, one final detector."""

import math

import numpy as np
import pytest

from skvmdls.calibration import conformal_threshold, rejection_range
from skvmdls.calibration.cross import ENOUGH_FOR_SPLIT, resolve_calibration


def draw(rng, n, n_features=5):
    """Two classes of heavy tails."""
    labels = np.arange(n) % 2
    rows = rng.standard_t(5, size=(n, n_features)) + 4 * labels[:, None]
    return rows, labels


def fit(rows, labels):
    """Score rows by the nearest class mean, in the spreads of each class."""
    own = [rows[labels == label] for label in (0, 1)]
    means, spreads = (np.array([f(r, axis=0) for r in own]) for f in (np.mean, np.std))
    return lambda new: -np.square((new[:, None] - means) / spreads).sum(2).min(1)


def cross_fitted(rows, labels, n_folds):
    # Pairs of neighbours are of both classes, so that folds of them are stratified.
    fold, scores = np.arange(len(rows)) // 2 % n_folds, np.empty(len(rows))
    for k in range(n_folds):
        left = fold == k
        scores[left] = fit(rows[~left], labels[~left])(rows[left])
    return scores


@pytest.mark.parametrize("n_folds", [5, 10])
def test_known_points_are_rejected_no_more_often_than_stated(n_folds):
    rng, shares, naive = np.random.default_rng(0), [], []
    for _ in range(200):
        rows, labels = draw(rng, 60)
        final = fit(rows, labels)
        new = final(draw(rng, 2000)[0])
        threshold = conformal_threshold(cross_fitted(rows, labels, n_folds), 0.05)
        shares.append(np.mean(new < threshold))
        naive.append(np.mean(new < conformal_threshold(final(rows), 0.05)))
    error = np.std(shares) / math.sqrt(200)
    assert np.mean(shares) <= 0.05 + 2 * error
    # The detectors of the folds have seen fewer rows: a little careful, not useless.
    assert np.mean(shares) >= 0.02
    assert np.mean(naive) > 0.06
    _, highest = rejection_range(60, 0.05)
    assert np.mean(np.array(shares) > highest) <= 0.05


def test_cross_calibration_is_for_few_rows_and_cheap_fits():
    enough = ENOUGH_FOR_SPLIT
    assert resolve_calibration("auto", enough - 1, is_cheap=True) == "cross"
    assert resolve_calibration("auto", enough, is_cheap=True) == "split"
    assert resolve_calibration("auto", 10, is_cheap=False) == "split"
    for given in ("split", "cross"):
        assert resolve_calibration(given, 10, is_cheap=True) == given
    low, high = rejection_range(enough, 0.05)
    assert (round(low, 3), round(high, 3)) == (0.033, 0.071)

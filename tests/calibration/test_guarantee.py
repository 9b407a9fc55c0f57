"""The promise about known points, on real data: one fitted net, many random splits."""

import math
from copy import deepcopy

import numpy as np
import pytest

from skvmdls.calibration.conformal import conformal_p_value, conformal_threshold
from skvmdls.calibration.rounding import lowered
from skvmdls.calibration.verdicts import Calibration

N_SPLITS = 400
N_CALIBRATION = 150


@pytest.fixture(scope="module", params=["vmdls", "vmdls_b"])
def splits(request, digits, is_known):
    """Scores of known points that set no part of the score, split many times.

    One row a split; the first N_CALIBRATION columns calibrate.
    """
    detector = request.getfixturevalue(request.param)
    pool = np.concatenate(
        [
            detector.calibration_scores_,
            detector.score_samples(digits.X_test[is_known]),
        ]
    )
    rng = np.random.default_rng(0)
    return rng.permuted(np.tile(pool, (N_SPLITS, 1)), axis=1)


def rejection_rates(splits, contamination):
    thresholds = [
        conformal_threshold(row[:N_CALIBRATION], contamination) for row in splits
    ]
    return np.mean(splits[:, N_CALIBRATION:] < np.array(thresholds)[:, None], axis=1)


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.2])
def test_mean_rejection_of_known_points_is_within_the_bound(splits, contamination):
    rates = rejection_rates(splits, contamination)
    error = 4 * rates.std() / math.sqrt(N_SPLITS)
    rank = math.floor(contamination * (N_CALIBRATION + 1))
    bound = rank / (N_CALIBRATION + 1)
    assert bound <= contamination
    assert rates.mean() <= bound + error
    # Nor is more accepted than the bound asks for: these scores have no ties.
    assert len(np.unique(splits[0])) == splits.shape[1]
    assert rates.mean() >= bound - error


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.2])
def test_ties_only_lower_the_rejection(splits, contamination):
    coarse = np.round(splits, -2)
    assert len(np.unique(coarse[0])) < splits.shape[1] / 2
    rates = rejection_rates(coarse, contamination)
    error = 4 * rates.std() / math.sqrt(N_SPLITS)
    assert rates.mean() <= contamination + error


def test_p_values_of_known_points_are_super_uniform(splits):
    p_values = np.array(
        [conformal_p_value(row[:N_CALIBRATION], row[N_CALIBRATION:]) for row in splits]
    )
    for level in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9):
        shares = np.mean(p_values <= level, axis=1)
        assert shares.mean() <= level + 4 * shares.std() / math.sqrt(N_SPLITS)


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.2])
def test_the_detector_keeps_the_promise_with_its_own_methods(
    vmdls_b, digits, is_known, splits, contamination
):
    """`predict` rejects what the threshold of its calibration scores rejects."""
    detector = deepcopy(vmdls_b).set_params(contamination=contamination)
    scores, labels = splits[0, :N_CALIBRATION], np.zeros(N_CALIBRATION, dtype=np.int64)
    detector.calibration_ = Calibration(scores, scores, labels, labels[:, None])
    X = digits.X_test[is_known]
    rejected = detector.predict(X) == -1
    threshold = conformal_threshold(lowered(scores), contamination)
    np.testing.assert_array_equal(rejected, detector.score_samples(X) < threshold)
    np.testing.assert_array_equal(rejected, detector.p_value(X) <= contamination)


def test_without_contamination_nothing_is_rejected(vmdls_b, digits):
    detector = deepcopy(vmdls_b).set_params(contamination=0)
    assert detector.offset_ == -math.inf
    noise = 1e3 * np.random.default_rng(0).normal(size=(20, 8, 8))
    assert not np.any(detector.predict(np.concatenate([digits.X_test, noise])) == -1)


def test_too_few_points_for_a_lower_contamination_are_told_on_predicting(
    vmdls_b, digits
):
    n = len(vmdls_b.calibration_scores_)
    assert 19 <= n < 99
    detector = deepcopy(vmdls_b).set_params(contamination=0.01)
    with pytest.warns(UserWarning, match=f"{n} calibration points.*at least 99"):
        answers = detector.predict(digits.X_test)
    assert not np.any(answers == -1)

"""A threshold that holds for one detector: its rank, its coverage, its warnings."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import binom, kstest

from skvmdls.calibration import (
    class_thresholds,
    conformal_rank,
    conformal_threshold,
    held_out_needed,
    rejection_range,
)
from skvmdls.calibration.conformal import warn_of_classes_never_excluded

SIZES = (1, 2, 19, 45, 57, 100, 229, 230, 500, 2000)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.5])
def test_the_rank_is_the_largest_that_the_binomial_distribution_allows(
    contamination, confidence
):
    for n in SIZES:
        ranks = np.arange(n + 1)
        allowed = binom.sf(ranks - 1, n, contamination) >= confidence
        rank = conformal_rank(n, contamination, confidence)
        assert rank == ranks[allowed].max()


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1])
@pytest.mark.parametrize("n", [100, 500, 2000])
def test_one_threshold_in_ten_rejects_more_than_contamination(n, contamination):
    """For uniform scores the threshold itself is the share that it rejects."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*calibration points are too few")
        rejected = np.array(
            [
                conformal_threshold(rng.random(n), contamination, confidence=0.9)
                for _ in range(2000)
            ]
        )
    expected = binom.cdf(conformal_rank(n, contamination, 0.9) - 1, n, contamination)
    assert expected <= 0.1
    error = math.sqrt(0.1 * 0.9 / 2000)
    assert abs(np.mean(rejected > contamination) - expected) < 4 * error


@pytest.mark.parametrize("confidence", [None, 0.9])
def test_rejected_shares_follow_the_beta_distribution(confidence):
    rng = np.random.default_rng(0)
    shares = [
        conformal_threshold(rng.random(300), 0.05, confidence) for _ in range(2000)
    ]
    low, high = rejection_range(300, 0.05, confidence, coverage=0.8)
    inside = np.mean((np.array(shares) > low) & (np.array(shares) < high))
    assert abs(inside - 0.8) < 4 * math.sqrt(0.16 / 2000)
    rank = conformal_rank(300, 0.05, confidence)
    assert kstest(shares, "beta", (rank, 301 - rank)).pvalue > 0.001


def test_ties_lower_the_rejection_only():
    rng = np.random.default_rng(0)
    over = 0
    for _ in range(1000):
        scores = rng.integers(40, size=5100)
        threshold = conformal_threshold(scores[:100], 0.1, confidence=0.9)
        over += np.mean(scores[100:] < threshold) > 0.1
    assert over <= 0.1 * 1000 + 4 * math.sqrt(90)


@pytest.mark.parametrize("confidence", [None, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("contamination", [0.001, 0.01, 0.05, 0.2])
def test_the_number_needed_is_the_first_that_rejects(contamination, confidence):
    needed = held_out_needed(contamination, confidence)
    assert conformal_rank(needed, contamination, confidence) == 1
    assert conformal_rank(needed - 1, contamination, confidence) == 0


def test_no_rejection_has_no_range():
    assert rejection_range(18, 0.05) == (0.0, 0.0)
    assert rejection_range(100, 0.0) == (0.0, 0.0)
    assert conformal_rank(100, 0.0, confidence=0.9) == 0


def test_too_few_points_for_the_confidence_are_counted_in_the_warning():
    scores = np.arange(44.0)
    with pytest.warns(UserWarning, match="confidence=0.9: at least 45.*lower confid"):
        assert conformal_threshold(scores, 0.05, confidence=0.9) == -math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conformal_threshold(np.arange(45.0), 0.05, confidence=0.9) == 0.0


def test_each_class_has_its_threshold_with_confidence():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [400, 60, 30])
    scores = rng.normal(size=490) + 5 * labels
    thresholds = class_thresholds(scores, labels, 3, 0.05, confidence=0.9)
    for label in (0, 1):
        own = scores[labels == label]
        assert thresholds[label] == conformal_threshold(own, 0.05, confidence=0.9)
    assert thresholds[2] == -math.inf
    with pytest.warns(UserWarning, match=r"1 of 3 .*confidence=0.9.*2 \(30\)\. Each n"):
        warn_of_classes_never_excluded(np.arange(3), labels, 0.05, confidence=0.9)

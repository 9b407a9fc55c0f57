"""New held-out scores of a new site: the report before, and the guarantee after."""

import math
import warnings

import numpy as np
import pytest
from scipy.stats import kstest

from skvmdls.calibration import (
    compare_with_calibration,
    conformal_threshold,
)

RNG = np.random.default_rng


def test_rejected_points_are_counted_against_the_old_threshold():
    rng = RNG(0)
    old, new = rng.normal(size=200), rng.normal(size=100)
    for contamination, confidence in ((0.05, None), (0.1, 0.9)):
        report = compare_with_calibration(old, new, contamination, confidence)
        threshold = conformal_threshold(old, contamination, confidence)
        assert report.n_rejected == np.sum(new < threshold)
        assert report.rejected_share == report.n_rejected / 100


def test_the_p_value_is_one_where_nothing_has_changed():
    rng = RNG(1)
    p_values, expected, shares = [], [], []
    for _ in range(500):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            report = compare_with_calibration(rng.random(99), rng.random(200), 0.1)
        p_values.append(report.p_value)
        expected.append(report.expected)
        shares.append(report.rejected_share)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p_values) <= level) <= level + 4 * math.sqrt(
            level / 500
        )
    # Counts are discrete: nearly uniform.
    assert kstest(p_values, "uniform").statistic < 0.12
    assert np.mean(shares) == pytest.approx(np.mean(expected), abs=0.01)


def test_a_new_camera_is_reported_and_ordinary_points_are_not():
    rng = RNG(0)
    old = rng.normal(size=300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_with_calibration(old, rng.uniform(-1, 2, size=100), 0.05)
    with pytest.warns(
        UserWarning, match=r"rejects 100 of 100 .*where 5.0% are expected"
    ):
        report = compare_with_calibration(old, rng.uniform(-5, -1.5, size=100), 0.05)
    assert report.p_value < 1e-6


def test_points_far_below_the_others_are_named_farthest_first():
    new = RNG(0).uniform(-1, 1, size=100)
    new[[7, 30]] = -20, -30
    with pytest.warns(UserWarning, match="2 lie far below the others: rows 30, 7"):
        report = compare_with_calibration(RNG(1).normal(size=300), new, 0.05)
    assert report.outlying.tolist() == [30, 7]


def test_heavy_tails_that_were_there_before_are_not_far():
    rng, n_named = RNG(0), 0
    for _ in range(100):
        old, new = -np.exp(rng.normal(size=300)), -np.exp(rng.normal(size=100)) / 3
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            n_named += len(compare_with_calibration(old, new - 5, 0.05).outlying)
    assert n_named <= 0.002 * 100 * 100


def test_too_few_points_to_reject_are_compared_by_the_lowest():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = compare_with_calibration(np.arange(5.0), np.array([-1.0, 2, 3]), 0.01)
    assert report.n_rejected == 1
    assert report.expected == pytest.approx(1 / 6)


@pytest.mark.parametrize("n_new", [100, 500])
def test_the_new_threshold_keeps_the_guarantee_at_the_new_site(n_new):
    """Whatever the shift: known points there are rejected as often as stated."""
    rng = RNG(0)
    rejected = []
    for _ in range(400):
        new = 0.3 * rng.standard_t(4, n_new + 500) - 7
        rejected.append(np.mean(new[n_new:] < conformal_threshold(new[:n_new], 0.05)))
    bound = math.floor(0.05 * (n_new + 1)) / (n_new + 1)
    error = np.std(rejected) / math.sqrt(400)
    assert bound - 4 * error <= np.mean(rejected) <= bound + 4 * error

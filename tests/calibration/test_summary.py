"""Numbers for a person: shares by class, false alarms a day, and ranges."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from skvmdls.calibration import (
    RejectionSummary,
    acceptance_by,
    conformal_threshold,
    expected_false_alarms,
)


def test_acceptance_is_counted_with_exact_intervals():
    rng = np.random.default_rng(0)
    names = rng.choice(["ant", "bee", "cat", "dog"], 60, p=[0.5, 0.4, 0.05, 0.05])
    accepted = (rng.random(60) < 0.8) & (names != "cat") | (names == "dog")
    rows = acceptance_by(names, accepted, coverage=0.9)
    assert [row.name for row in rows] == sorted(set(names.tolist()))
    for row in rows:
        own = accepted[names == row.name]
        exact = binomtest(int(own.sum()), len(own)).proportion_ci(0.9, method="exact")
        assert row.n_points == len(own)
        assert row.share == own.mean()
        assert (row.low, row.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("confidence", [None, 0.9])
def test_false_alarms_of_a_day_are_in_their_range(confidence):
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(1000):
        threshold = conformal_threshold(rng.random(150), 0.05, confidence)
        counts.append(np.sum(rng.random(200) < threshold))
    expected, low, high = expected_false_alarms(200, 150, 0.05, confidence)
    assert np.mean(counts) == pytest.approx(expected, abs=4 * np.std(counts) / 31)
    inside = np.mean((np.array(counts) >= low) & (np.array(counts) <= high))
    assert inside >= 0.95 - 4 * math.sqrt(0.05 / 1000)


def test_no_threshold_no_false_alarms():
    assert expected_false_alarms(1000, 18, 0.05) == (0.0, 0, 0)
    (sentence,) = RejectionSummary(18, 0.05).sentences(n_points=9)
    assert "No point will be rejected" in sentence
    assert "18 held-out points" in sentence


def test_more_held_out_points_make_the_range_narrower():
    widths = [np.diff(RejectionSummary(n, 0.05).range)[0] for n in (60, 240, 960)]
    assert widths[0] > 1.6 * widths[1] > 2.5 * widths[2]
    assert (
        RejectionSummary(60, 0.05, 0.9).range[1] < RejectionSummary(60, 0.05).range[1]
    )

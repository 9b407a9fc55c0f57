"""The test of the order of the rows: false warnings, drifts, and a slow reference."""

import math
import warnings

import numpy as np
import pytest

from skvmdls.calibration import exchangeability_p_value
from skvmdls.calibration.exchangeability import (
    JUMP,
    SLOPES,
    _log_wealth,
    warn_of_drift,
)

RNG = np.random.default_rng


@pytest.mark.parametrize("n", [30, 200])
def test_shuffled_rows_are_warned_of_no_more_often_than_stated(n):
    rng = RNG(0)
    p_values = np.array(
        [
            exchangeability_p_value(rng.integers(9, size=n), rng.integers(3, size=n))
            for _ in range(300)
        ]
    )
    for level in (0.01, 0.1, 0.3):
        error = math.sqrt(level * (1 - level) / 300)
        assert np.mean(p_values <= level) <= level + 3 * error


@pytest.mark.parametrize(
    "drift",
    [
        lambda time: 3 * time,
        lambda time: -3 * time,
        lambda time: -3 * (time > 0.7),
        lambda time: 4 - 16 * (time - 0.5) ** 2,  # the middle is known best
    ],
    ids=["up", "down", "step", "middle"],
)
def test_drifts_are_found(drift):
    found = [
        exchangeability_p_value(RNG(i).normal(size=200) + drift(np.arange(200) / 200))
        for i in range(10)
    ]
    assert np.mean(np.array(found) <= 0.01) >= 0.8


def test_a_file_that_is_sorted_by_class_is_no_drift():
    labels = np.repeat([0, 1, 2], 100)
    scores = RNG(0).normal(size=300) + 5 * labels
    assert exchangeability_p_value(scores, labels) > 0.05
    assert exchangeability_p_value(scores) < 1e-6


def test_the_stakes_are_those_of_the_rule_written_out():
    ranks = RNG(0).random(40)
    factors = 1 + np.multiply.outer(ranks - 0.5, SLOPES)
    stakes, wealth = np.full(len(SLOPES), 1 / len(SLOPES)), []
    for factor in factors:
        stakes = (1 - JUMP) * stakes + JUMP * stakes.sum() / len(SLOPES)
        stakes = stakes * factor
        wealth.append(stakes.sum())
    np.testing.assert_allclose(_log_wealth(factors), np.log(wealth))


def test_bets_are_fair():
    ranks = (np.arange(1000) + 0.5) / 1000
    factors = 1 + np.multiply.outer(ranks - 0.5, SLOPES)
    np.testing.assert_allclose(factors.mean(axis=0), 1)
    assert (factors >= 0).all()


def test_no_points_and_one_point_show_nothing():
    assert exchangeability_p_value(np.empty(0)) == 1
    assert exchangeability_p_value(np.zeros(1)) > 0.3


def test_the_warning_names_the_chance_and_what_to_do():
    labels = np.zeros(300, dtype=int)
    with pytest.warns(UserWarning, match="The rows drift.*at most .*recalibrate"):
        assert warn_of_drift(np.arange(300.0), labels) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_drift(RNG(0).normal(size=300), labels)

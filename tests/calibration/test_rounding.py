"""Slack for rounding: a point may gain by it, and never loses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skvmdls.calibration.conformal import (
    class_p_values,
    class_thresholds,
    conformal_p_value,
    conformal_threshold,
)
from skvmdls.calibration.rounding import SLACK, lowered
from skvmdls.calibration.verdicts import Calibration, ThresholdSettings

MARGINAL = ThresholdSettings(contamination=0.1)
BY_CLASS = ThresholdSettings(contamination=0.1, guarantee="class")
TWO = np.array(["ant", "bee"])

scores = arrays(np.float64, st.integers(40, 60), elements=st.floats(-1e6, 1e6))


def calibration_of(held_out):
    labels = np.arange(len(held_out)) % 2
    return Calibration(held_out, held_out, labels, labels[:, None])


@given(held_out=scores, new=scores)
def test_thresholds_are_never_higher_and_p_values_never_smaller_than_exact_ones(
    held_out, new
):
    calibration = calibration_of(held_out)
    exact = conformal_threshold(held_out, 0.1)
    assert calibration.threshold(MARGINAL) <= exact
    assert np.all(calibration.p_values(new) >= conformal_p_value(held_out, new))
    labels, by_class = calibration.labels, np.column_stack([new, new])
    assert np.all(
        calibration.class_thresholds(BY_CLASS, TWO)
        <= class_thresholds(held_out, labels, 2, 0.1)
    )
    assert np.all(
        calibration.class_p_values(by_class)
        >= class_p_values(held_out, labels, by_class)
    )


@given(held_out=scores, new=scores)
def test_a_point_is_rejected_where_its_p_value_says_so(held_out, new):
    calibration = calibration_of(held_out)
    rejected = new < calibration.threshold(MARGINAL)
    np.testing.assert_array_equal(rejected, calibration.p_values(new) <= 0.1)


@given(held_out=scores)
def test_lowered_scores_keep_their_order(held_out):
    found = lowered(held_out)[np.argsort(held_out)]
    assert np.all(np.diff(found) >= 0)


def test_the_slack_costs_less_than_one_held_out_point_in_a_thousand():
    rng = np.random.default_rng(0)
    costs = []
    for _ in range(200):
        held_out, new = rng.normal(size=1000), rng.normal(size=1000)
        found = calibration_of(held_out).p_values(new)
        costs.append(np.mean(found - conformal_p_value(held_out, new)))
    assert 0 < np.mean(costs) < 1 / 1001


def test_a_threshold_by_hand_is_taken_as_it_is():
    calibration = calibration_of(np.arange(50.0))
    settings = ThresholdSettings(contamination=0.1, threshold=7.25)
    assert calibration.threshold(settings) == 7.25


@pytest.mark.parametrize("held_out", [[3.0], [3.0, 3.0, 3.0], [1.0, 1e9]])
def test_few_or_equal_scores_have_a_small_slack_too(held_out):
    held_out = np.array(held_out)
    slack = held_out - lowered(held_out)
    assert np.all(slack > 0)
    assert np.all(slack <= 2 * SLACK * held_out.max())

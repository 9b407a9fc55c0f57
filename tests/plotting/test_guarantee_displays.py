"""The plots of guarantees: where the curve and the bars lie, and what is refused."""

import matplotlib as mpl
import numpy as np
import pytest

from skvmdls.calibration import conformal_p_value, expected_false_alarms
from skvmdls.plotting import AcceptanceDisplay, RejectionCalibrationDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def curve_and_band(shift, seed=0):
    """Curve and band of 400 points, `shift` spreads below 199 held-out ones."""
    rng = np.random.default_rng(seed)
    p_values = conformal_p_value(rng.normal(size=199), rng.normal(-shift, size=400))
    ax = RejectionCalibrationDisplay.from_predictions(
        p_values, n_held_out=199, allowed=0.05
    ).ax_
    (curve,) = [line for line in ax.lines if line.get_label() == "400 new known points"]
    band = ax.collections[0].get_paths()[0].vertices
    return curve, band


def test_the_curve_is_the_share_that_each_level_rejects():
    rng = np.random.default_rng(0)
    p_values = conformal_p_value(rng.normal(size=99), rng.normal(size=300))
    display = RejectionCalibrationDisplay.from_predictions(p_values, n_held_out=99)
    curve = next(
        x for x in display.ax_.lines if x.get_label() == "300 new known points"
    )
    for level, share in zip(*curve.get_data(), strict=True):
        assert share == pytest.approx(np.mean(p_values <= level + 1e-9))
    assert display.ax_.get_xlim() == (0, 1)


def test_points_of_another_kind_leave_the_band():
    outside = []
    for shift in (0, 1):
        curve, band = curve_and_band(shift)
        level, share = curve.get_data()
        highest = [band[np.isclose(band[:, 0], at), 1].max() for at in level]
        outside.append(np.mean(share > np.array(highest)))
    assert outside[0] < 0.3
    assert outside[1] > 0.9


def test_the_curve_stays_within_the_frame():
    display = RejectionCalibrationDisplay.from_predictions(
        np.full(50, 0.04), n_held_out=99, allowed=0.05
    )
    curve = next(x for x in display.ax_.lines if x.get_label().startswith("50 new"))
    assert curve.get_ydata().max() < display.ax_.get_ylim()[1]


def test_the_band_is_the_range_of_false_alarms():
    _, band = curve_and_band(0)
    for level in (0.05, 0.1, 0.5):
        of_level = band[np.isclose(band[:, 0], level), 1]
        alarms = expected_false_alarms(400, n_held_out=199, contamination=level)
        assert of_level.min() == pytest.approx(alarms.low / 400)
        assert of_level.max() == pytest.approx(alarms.high / 400)


def test_the_lowest_acceptance_comes_first_and_ten_are_drawn():
    names = np.repeat(np.arange(30), 20)
    accepted = np.random.default_rng(0).random(600) < 0.9
    accepted[names == 7] = False
    display = AcceptanceDisplay.from_predictions(names, accepted, promised=0.95)
    ticks = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert len(ticks) == 10
    assert ticks[0] == "7 (20)"
    assert any("0.95" in t.get_text() for t in display.ax_.get_legend().get_texts())


def test_from_a_detector_only_known_points_count(of_table, table):
    X, y = table
    labels = np.where(np.arange(len(y)) < 3, 99, y)
    display = AcceptanceDisplay.from_estimator(of_table, X, labels)
    assert sum(row.n_points for row in display.acceptance) == len(y) - 3
    display = RejectionCalibrationDisplay.from_estimator(of_table, X, labels)
    assert len(display.p_values) == len(y) - 3
    for kind in (AcceptanceDisplay, RejectionCalibrationDisplay):
        with pytest.raises(ValueError, match="no known points"):
            kind.from_estimator(of_table, X[:3], [99] * 3)
    # Those that failed left no empty figure behind.
    assert len(plt.get_fignums()) == 2

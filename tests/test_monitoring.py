"""The stream: p-values, the martingale, its alarm, and its state."""

import io
import math

import joblib
import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skvmdls.monitoring import ShiftMonitor, bets, online_p_values


class Scores:
    """Stands for a detector: X are the scores."""

    def __init__(self, calibration_scores):
        self.calibration_scores_ = np.asarray(calibration_scores, dtype=float)

    def score_samples(self, X):
        if np.isnan(X).any():
            raise ValueError("NaN")
        return np.asarray(X, dtype=float)


def test_each_score_is_ranked_among_all_before_it():
    rng = np.random.default_rng(0)
    earlier, scores = rng.integers(9, size=20) * 1.0, rng.integers(9, size=60) * 1.0
    uniform = rng.random(60)
    found = online_p_values(np.sort(earlier), scores, uniform)
    for i in range(60):
        before = np.concatenate([earlier, scores[:i]])
        lower, equal = np.sum(before < scores[i]), np.sum(before == scores[i])
        expected = (lower + uniform[i] * (1 + equal)) / (len(before) + 1)
        assert found[i] == pytest.approx(expected)


def test_p_values_of_an_unchanged_stream_are_uniform_even_with_ties():
    rng = np.random.default_rng(0)
    found = [
        online_p_values(
            np.sort(rng.integers(4, size=20)), rng.integers(4, size=40), rng.random(40)
        )
        for _ in range(500)
    ]
    assert kstest(np.concatenate(found), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(np.transpose(found)[-2:])[0, 1]) < 0.15


def test_bets_are_fair_and_fall():
    p = (np.arange(200_000) + 0.5) / 200_000
    factors = bets(p)
    assert (np.diff(factors, axis=0) < 0).all()
    # The midpoint rule misses some of the steepest ones' pole at zero.
    assert (factors.mean(axis=0) <= 1).all()
    assert (factors.mean(axis=0) > 0.8).all()


def fortune(calibration, stream, uniform):
    """The martingale, written out: every change point, every gambler."""
    in_bank = 1 / (1 + np.log1p(np.arange(len(stream) + 1)))
    factors = bets(online_p_values(np.sort(calibration), stream, uniform))
    course = []
    for n in range(1, len(stream) + 1):
        total = in_bank[n]
        for begin in range(n):
            grown = np.prod(factors[begin:n], axis=0).mean()
            total += (in_bank[begin] - in_bank[begin + 1]) * grown
        course.append(total)
    return np.array(course)


def test_the_martingale_is_a_mixture_over_the_beginning_of_the_change():
    rng = np.random.default_rng(0)
    calibration, stream = rng.normal(size=30), rng.normal(size=50) - np.arange(50) / 20
    monitor = ShiftMonitor(Scores(calibration), random_state=3).update(stream)
    bits = np.random.PCG64(monitor._seed)
    expected = fortune(calibration, stream, np.random.Generator(bits).random(50))
    np.testing.assert_allclose(monitor.course_, np.log(expected), rtol=1e-9)
    assert monitor.log_martingale_ == monitor.course_[-1]


def test_false_alarms_are_as_rare_as_stated():
    rng = np.random.default_rng(0)
    alarms = [
        ShiftMonitor(Scores(rng.normal(size=25)), false_alarm=0.1, random_state=i)
        .update(rng.normal(size=400))
        .alarm_
        for i in range(200)
    ]
    assert np.mean(alarms) <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 200)


@pytest.mark.parametrize(("share", "within"), [(1.0, 30), (0.5, 80), (0.1, 600)])
def test_a_change_is_noticed_soon_even_late_in_the_stream(share, within):
    rng = np.random.default_rng(1)
    monitor = ShiftMonitor(Scores(rng.normal(size=300)), random_state=0)
    monitor.update(rng.normal(size=2000))
    assert not monitor.alarm_
    assert monitor.log_martingale_ > -3
    changed = rng.normal(size=1000) - 8 * (rng.random(1000) < share)
    assert monitor.update(changed).alarm_
    assert monitor.alarm_at_ <= 2000 + within
    # It stays, whatever comes.
    assert monitor.update(rng.normal(size=5000)).alarm_


def test_better_scores_than_ever_are_no_alarm():
    rng = np.random.default_rng(0)
    monitor = ShiftMonitor(Scores(rng.normal(size=100)), random_state=0)
    assert not monitor.update(rng.normal(size=2000) + 3).alarm_


@pytest.mark.parametrize("size", [1, 7, 600])
def test_how_a_stream_is_cut_does_not_matter(size):
    rng = np.random.default_rng(0)
    detector, stream = Scores(rng.integers(9, size=40)), rng.integers(8, size=1300)
    whole = ShiftMonitor(detector, random_state=0).update(stream)
    pieces = ShiftMonitor(detector, random_state=0)
    for start in range(0, 1300, size):
        pieces.update(stream[start : start + size])
    np.testing.assert_allclose(pieces.course_, whole.course_, rtol=1e-9)
    assert whole.n_seen_ == pieces.n_seen_ == 1300


def test_the_state_is_saved_and_gone_on_with():
    rng = np.random.default_rng(0)
    detector, stream = Scores(rng.integers(9, size=40)), rng.integers(8, size=300)
    whole = ShiftMonitor(detector, false_alarm=0.2).update(stream)
    for n in (0, 100):
        half = ShiftMonitor(detector, false_alarm=0.2)
        half._seed = whole._seed
        half.update(stream[:n])
        file = io.BytesIO()
        np.savez(file, **half.state_dict())
        file.seek(0)
        again = ShiftMonitor.from_state(detector, np.load(file))
        copied = io.BytesIO()
        joblib.dump(half, copied)
        copied.seek(0)
        for monitor in (again, joblib.load(copied)):
            monitor.update(stream[n:])
            np.testing.assert_array_equal(monitor.course_, whole.course_)
            assert monitor.false_alarm == 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"ranked": np.arange(41.0)},
        {"ranked": -np.arange(40.0)},
        {"log_stakes": np.zeros(3)},
        {"course": np.zeros(2)},
        {"seed": np.array(-1)},
        {"false_alarm": np.array(2.0)},
    ],
    ids=str,
)
def test_states_of_something_else_are_refused(change):
    detector = Scores(np.arange(40))
    state = ShiftMonitor(detector).state_dict()
    assert ShiftMonitor.from_state(detector, state).n_seen_ == 0
    with pytest.raises(ValueError, match="monitor|false_alarm"):
        ShiftMonitor.from_state(detector, state | change)
    with pytest.raises(ValueError, match="not that of a monitor of this detector"):
        ShiftMonitor.from_state(Scores(np.arange(40) + 0.5), state)


def test_begun_anew_it_has_forgotten():
    rng = np.random.default_rng(0)
    monitor = ShiftMonitor(Scores(rng.normal(size=100)), random_state=0)
    assert monitor.log_martingale_ == 0
    assert monitor.update(np.full(50, -9.0)).alarm_
    assert not monitor.reset().alarm_
    assert monitor.n_seen_ == 0


@pytest.mark.parametrize("false_alarm", [0, 1, -1, math.nan, "rare"])
def test_a_chance_out_of_range_is_refused(false_alarm):
    with pytest.raises(ValueError, match="'false_alarm' parameter of ShiftMonitor"):
        ShiftMonitor(Scores([1.0]), false_alarm=false_alarm)


def test_a_detector_and_a_pipeline_are_watched_alike(vmdls_b, digits, is_known):
    pipeline = make_pipeline(FunctionTransformer(), vmdls_b)
    known, unknown = digits.X_test[is_known][:200], digits.X_test[~is_known][:60]
    courses = []
    for detector in (vmdls_b, pipeline):
        monitor = ShiftMonitor(detector, random_state=0).update(known)
        assert not monitor.alarm_
        before = monitor.course_.copy()
        with pytest.raises(ValueError, match="shape"):
            monitor.update(np.zeros((2, 9, 9)))
        np.testing.assert_array_equal(monitor.course_, before)
        assert monitor.update(unknown).alarm_
        courses.append(monitor.course_)
    np.testing.assert_array_equal(*courses)

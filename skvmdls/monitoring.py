"""Watching a stream: whether the points still come as the training data came.

`predict` looks at one point at a time, and rejects a few of the known ones whatever
comes. That many more than these few are rejected, or score low, shows only over many
points. A conformal test martingale bets against "nothing has changed", and gains only
if something has. The chance of a false alarm is stated. It is over the whole stream,
for any length and any number of looks.
"""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from skvmdls._support.estimators import Detector, detector_and_inputs
from skvmdls._support.sklearn import Interval, validate_parameter_constraints
from skvmdls._support.stored_arrays import stored_array
from skvmdls._support.values import InputLike

__all__ = ["ShiftMonitor", "bets", "online_p_values"]

# The gamblers: each takes a share of the points to have low p-values, in density
# `power * p ** (power - 1)`, and the others to be as ever.
SHARES, POWERS = (0.05, 0.2, 0.5, 1.0), (0.15, 0.4, 0.7)

# Points that are ranked at a time: their square is the memory that it takes.
CHUNK = 512


def online_p_values(
    earlier: np.ndarray, scores: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Rank each score among all before it, ties broken at random.

    ``(#{lower} + u (1 + #{equal})) / (n + 1)`` of the ``n`` scores before. If all
    scores are exchangeable, these are independent and uniform, exactly [1]_. With
    other p-values the guarantee would not hold over a whole stream. Ranks among the
    held-out points alone would share their chance deviations, and add them up.

    Parameters
    ----------
    earlier : ndarray of shape (n,)
        Ascending.
    scores : ndarray of shape (m,)
        In the order in which they came.
    uniform : ndarray of shape (m,)
        Random numbers in [0, 1).

    Returns
    -------
    p_values : ndarray of shape (m,)
        In [0, 1): small where a score is low.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
       Springer, 2005, theorem 8.2.

    Examples
    --------
    >>> online_p_values(np.array([1.0, 2.0]), np.array([1.5, 0.0]), np.full(2, 0.5))
    array([0.5  , 0.125])
    """
    m = len(scores)
    n_lower = np.searchsorted(earlier, scores, side="left").astype(np.float64)
    n_equal = np.searchsorted(earlier, scores, side="right") - n_lower
    came_before = np.tri(m, k=-1, dtype=bool)
    n_lower += (came_before & (scores[None, :] < scores[:, None])).sum(axis=1)
    n_equal += (came_before & (scores[None, :] == scores[:, None])).sum(axis=1)
    n_before = len(earlier) + np.arange(m)
    return (n_lower + uniform * (1 + n_equal)) / (n_before + 1)


def bets(p_values: np.ndarray) -> np.ndarray:
    """By what each gambler's stake is multiplied at each point.

    A gambler who expects a share ``e`` of unusual points bets ``1 - e + e k p ** (k -
    1)``. It integrates to one over [0, 1] and falls in ``p``. No gambler bets that the
    points are more like known ones than those held out.

    Parameters
    ----------
    p_values : ndarray of shape (m,)

    Returns
    -------
    factors : ndarray of shape (m, n_gamblers)

    Examples
    --------
    >>> factors = bets((np.arange(100_000) + 0.5) / 100_000)
    >>> bool(np.all(np.abs(factors[:, 2::3].mean(axis=0) - 1) < 0.01))
    True
    """
    p = np.maximum(p_values, np.finfo(np.float64).tiny)[:, None, None]
    share = np.array(SHARES)[:, None]
    power = np.array(POWERS)
    factors = 1 - share + share * power * p ** (power - 1)
    return factors.reshape(len(p_values), -1)


class ShiftMonitor:
    """Conformal test martingale over the points that a detector is given.

    Each point's score is ranked among those of the held-out points and of all points
    before it. A bank's fortune of 1 is bet against "they all come alike" by gamblers
    who expect low ranks, some few points of many, some all. A change may begin at any
    time. Therefore the bank gives the gamblers a little of its money at each point, so
    that some is left when the change begins. If nothing changes, the fortune is a
    martingale, and ever reaches ``1 / false_alarm`` with a chance of at most
    `false_alarm` (Ville's inequality), over a stream of any length [1]_.

    It is about the stream as a whole. Use `predict` and ``select_unknown`` to find the
    unusual points. The guarantee requires that the held-out points and the stream are
    exchangeable as long as nothing has changed. If classes come one after the other,
    they are not.

    Parameters
    ----------
    detector : fitted detector, Pipeline or search
    false_alarm : float in (0, 1), default=0.01
        Chance of a false alarm, ever.
    random_state : int, RandomState or None, default=None
        Breaks ties between scores.

    Attributes
    ----------
    log_martingale_ : float
        Logarithm of the fortune now: evidence against "nothing has changed".
    alarm_ : bool
        Whether the fortune has ever reached ``1 / false_alarm``.
    alarm_at_ : int or None
        Number of points seen when it first did.
    course_ : ndarray of shape (`n_seen_`,)
        `log_martingale_` after each point.
    n_seen_ : int
        Points seen.

    See Also
    --------
    skvmdls.plotting.ShiftDisplay : The course as a plot.

    References
    ----------
    .. [1] V. Vovk, I. Petej, I. Nouretdinov, E. Ahlberg, L. Carlsson, A. Gammerman,
       "Retrain or not retrain: conformal test martingales for change-point detection",
       COPA 2021.

    Examples
    --------
    >>> from skvmdls import VMDLSbDetector
    >>> from skvmdls.datasets import load_digits
    >>> digits = load_digits(known=(0, 1, 2), random_state=0)
    >>> detector = VMDLSbDetector(max_epochs=3, random_state=0)
    >>> detector = detector.fit(digits.X_train, digits.y_train)
    >>> monitor = ShiftMonitor(detector, random_state=0)
    >>> is_known = digits.y_test < 3
    >>> monitor.update(digits.X_test[is_known][:100]).alarm_
    False
    >>> monitor.update(digits.X_test[~is_known][:100]).alarm_
    True
    """

    def __init__(
        self,
        detector: Detector | BaseEstimator,
        *,
        false_alarm: float = 0.01,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        validate_parameter_constraints(
            {"false_alarm": [Interval(Real, 0, 1, closed="neither")]},
            {"false_alarm": false_alarm},
            type(self).__name__,
        )
        self.detector = detector
        self.false_alarm: float = float(false_alarm)
        self.random_state: int | np.random.RandomState | None = random_state
        self.reset()

    def reset(self) -> Self:
        """Start again, with a fortune of 1 and the held-out points alone.

        Call it after an alarm that was dealt with. The chances of false alarms add up.

        Returns
        -------
        self : ShiftMonitor
        """
        innermost, _ = detector_and_inputs(self.detector, None)
        rng = check_random_state(self.random_state)
        self._seed = int(rng.randint(np.iinfo(np.int32).max))
        self._ranked = np.sort(innermost.calibration_scores_)
        self._log_stakes = np.full(len(SHARES) * len(POWERS), -np.inf)
        self.course_ = np.empty(0)
        return self

    def update(self, X: InputLike) -> Self:
        """Look at the next points.

        It does not matter how a stream is cut into batches.

        Parameters
        ----------
        X : array-like
            As for the detector's `predict`, in the order in which they came.

        Returns
        -------
        self : ShiftMonitor

        Raises
        ------
        ValueError
            As of the detector's `score_samples`. The monitor is left as it was.
        """
        scores = self.detector.score_samples(X)
        for start in range(0, len(scores), CHUNK):
            self._follow(scores[start : start + CHUNK])
        return self

    def _follow(self, scores: np.ndarray) -> None:
        n_seen = self.n_seen_
        # Each point has a random number of its own, whatever batch it comes in.
        bits = np.random.PCG64(self._seed).advance(n_seen)
        uniform = np.random.Generator(bits).random(len(scores))
        p_values = online_p_values(self._ranked, scores, uniform)
        log_factors = np.log(bets(p_values))
        in_bank = _log_in_bank(n_seen + np.arange(len(scores) + 1))
        handed_out = _log_difference(in_bank[:-1], in_bank[1:])
        n_gamblers = len(self._log_stakes)
        course = np.empty(len(scores))
        stakes = self._log_stakes
        for i in range(len(scores)):
            stakes = np.logaddexp(stakes, handed_out[i] - math.log(n_gamblers))
            stakes = stakes + log_factors[i]
            course[i] = np.logaddexp.reduce(stakes, initial=in_bank[i + 1])
        self._log_stakes = stakes
        self._ranked = np.sort(np.concatenate([self._ranked, scores]), kind="stable")
        self.course_ = np.concatenate([self.course_, course])

    @property
    def n_seen_(self) -> int:
        """Points seen."""
        return len(self.course_)

    @property
    def log_martingale_(self) -> float:
        """Logarithm of the fortune now."""
        return float(self.course_[-1]) if self.n_seen_ else 0.0

    @property
    def alarm_at_(self) -> int | None:
        """Number of points seen when the alarm was raised."""
        reached = self.course_ >= -math.log(self.false_alarm)
        return int(reached.argmax()) + 1 if reached.any() else None

    @property
    def alarm_(self) -> bool:
        """Whether the alarm was raised."""
        return self.alarm_at_ is not None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Hand out all but the detector, for :meth:`from_state`.

        Returns
        -------
        state : dict of str to ndarray
            For ``np.savez``, among others.
        """
        return {
            "false_alarm": np.array(self.false_alarm),
            "seed": np.array(self._seed),
            "ranked": self._ranked,
            "log_stakes": self._log_stakes,
            "course": self.course_,
        }

    @classmethod
    def from_state(
        cls, detector: Detector | BaseEstimator, state: Mapping[str, Any]
    ) -> "ShiftMonitor":
        """Go on where another monitor of the same detector was.

        Parameters
        ----------
        detector : fitted detector, Pipeline or search
        state : mapping of str to ndarray
            As of :meth:`state_dict`. What ``np.load`` gives will do.

        Returns
        -------
        monitor : ShiftMonitor

        Raises
        ------
        ValueError
            If the state is not one of a monitor of this detector.
        KeyError
            If something is missing.
        """
        seed = int(state["seed"])
        monitor = cls(detector, false_alarm=float(state["false_alarm"]))
        if seed < 0:
            raise ValueError(f"the monitor's seed is {seed}, expected at least 0")
        held_out = monitor._ranked
        monitor._seed = seed
        monitor.course_ = np.empty(0)
        if np.size(state["course"]):
            monitor.course_ = stored_array(state, "course", 1, of="monitor")
        monitor._ranked = stored_array(state, "ranked", 1, of="monitor")
        stakes = np.asarray(state["log_stakes"], dtype=np.float64)
        if (
            stakes.shape != monitor._log_stakes.shape
            or not (stakes < np.inf).all()
            or (np.diff(monitor._ranked) < 0).any()
            or len(monitor._ranked) != len(held_out) + len(monitor.course_)
            or not np.isin(held_out, monitor._ranked).all()
        ):
            raise ValueError(
                "The state is not that of a monitor of this detector: its scores are "
                f"{len(monitor._ranked)}, of {len(held_out)} held-out points and "
                f"{len(monitor.course_)} seen."
            )
        monitor._log_stakes = stakes
        return monitor


def _log_in_bank(n_seen: np.ndarray) -> np.ndarray:
    """Share of the fortune that is not bet yet, so slowly it falls: logarithm."""
    return -np.log1p(np.log1p(n_seen))


def _log_difference(larger: np.ndarray, smaller: np.ndarray) -> np.ndarray:
    """``log(exp(larger) - exp(smaller))``."""
    return larger + np.log(-np.expm1(smaller - larger))

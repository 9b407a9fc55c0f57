"""Whether the training rows are exchangeable, as the threshold's guarantee requires.

Rows that drift in the order of time are not. The held-out points are then a mixture of
old and new, and points to come are like neither. A conformal test
martingale over the held-out scores, in the order of the file, shows it. Each score is
ranked among the earlier ones of its own class, so that a file that is sorted by class
is no drift. If the rows of each class are exchangeable, the ranks are independent and
uniform, and no strategy of bets against that makes money [1]_.

Two strategies share the stake. Each spreads it over bettors and moves a part of it
between them after each rank, as the "simple jumper" of [2]_. The first bets on ranks
that are higher or lower on the whole, as in a gradual drift. The second bets on few
very low or very high ranks, as in :func:`skvmdls.monitoring.bets`.

References
----------
.. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World",
   Springer, 2005.
.. [2] V. Vovk, I. Petej, I. Nouretdinov, E. Ahlberg, L. Carlsson, A. Gammerman,
   "Retrain or not retrain: conformal test martingales for change-point detection",
   COPA 2021.
"""

import numpy as np

from skvmdls._support.values import warn
from skvmdls.monitoring import bets, online_p_values

__all__ = ["FALSE_ALARM", "exchangeability_p_value", "warn_of_drift"]

# Chance that `fit` warns of a drift where there is none.
FALSE_ALARM = 0.01

# Slopes of the bets ``1 + slope (p - 1/2)``, and the share of the stakes that is dealt
# out again after each rank.
SLOPES = (-2.0, -1.0, 0.0, 1.0, 2.0)
JUMP = 0.01


def exchangeability_p_value(
    scores: np.ndarray, labels: np.ndarray | None = None, random_state: int = 0
) -> float:
    """Test whether scores come in a random order.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of held-out points, in the order of the file.
    labels : ndarray of shape (n,), default=None
        Their classes. Scores are compared within a class only.
    random_state : int, default=0
        Breaks ties between scores.

    Returns
    -------
    p_value : float
        In (0, 1]. If the order is random within each class, it is at most ``a`` with a
        chance of at most ``a`` (Ville's inequality). It is one over the largest value
        that a stake of 1 ever had.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.normal(size=300)
    >>> exchangeability_p_value(scores) > 0.05
    True
    >>> exchangeability_p_value(scores + np.linspace(0, 3, 300)) < 1e-6
    True
    """
    n = len(scores)
    if n == 0:
        return 1.0
    uniform = np.random.default_rng(random_state).random(n)
    labels = np.zeros(n, dtype=int) if labels is None else labels
    ranks = np.empty(n)
    for label in np.unique(labels):
        own = labels == label
        ranks[own] = online_p_values(np.empty(0), scores[own], uniform[own])
    gradual = 1 + np.multiply.outer(ranks - 0.5, SLOPES)
    few = np.column_stack([bets(ranks), bets(1 - ranks), np.ones(n)])
    log_mean = np.logaddexp(_log_wealth(gradual), _log_wealth(few)) - np.log(2)
    return float(np.exp(-max(0.0, log_mean.max())))


def _log_wealth(factors: np.ndarray) -> np.ndarray:
    """Follow a stake of 1 that jumps between bettors, given their (n, k) factors."""
    n_bettors = factors.shape[1]
    stakes = np.full(n_bettors, 1 / n_bettors)
    log_scale, log_wealth = 0.0, np.empty(len(factors))
    for i, factor in enumerate(factors):
        # The stakes sum to 1 again after each rank, so that they never overflow.
        stakes = ((1 - JUMP) * stakes + JUMP / n_bettors) * factor
        wealth = stakes.sum()
        stakes /= wealth
        log_scale += np.log(wealth)
        log_wealth[i] = log_scale
    return log_wealth


def warn_of_drift(
    scores: np.ndarray, labels: np.ndarray, false_alarm: float = FALSE_ALARM
) -> float:
    """Warn if held-out points show that the rows drift in the order of the file.

    Parameters
    ----------
    scores : ndarray of shape (n,)
        Of held-out points, in the order of the file.
    labels : ndarray of shape (n,), int
    false_alarm : float in (0, 1), default=0.01
        Chance of a warning where the order of the rows is random within each class.

    Returns
    -------
    p_value : float
        As of :func:`exchangeability_p_value`.

    Warns
    -----
    UserWarning
        If the p-value is at most `false_alarm`.

    Examples
    --------
    >>> warn_of_drift(np.random.default_rng(0).normal(size=50), np.zeros(50, dtype=int))
    1.0
    """
    p_value = exchangeability_p_value(scores, labels)
    if p_value <= false_alarm:
        warn(
            "The rows drift in the order in which they were given: held-out points "
            "score differently early and late, which a random order would show with a "
            f"chance of at most {p_value:.1g}. The threshold's guarantee requires that "
            "new points come as these rows came. If the rows are in the order of time, "
            "train on the latest ones, or recalibrate on points that are as new as "
            "those to come. If the order has no meaning, shuffle the rows."
        )
    return p_value

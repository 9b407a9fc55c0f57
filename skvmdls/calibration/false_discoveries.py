"""How many of the points that somebody marked as unknown are known, at most.

The points may be marked by any rule, chosen after looking at the batch: "the forty of
the lowest scores", "all below this threshold, which looked right". The bound holds for
all such choices at once.

Let the batch have `m` points and ``p`` be their conformal p-values from ``n`` held-out
scores. The known points of the batch, of which there are ``m0``, share the held-out
scores, so that their p-values depend on each other. Their common distribution is known
exactly [1]_ [2]_: the number ``N(t)`` of known points with a p-value of at most ``t = j
/ (n + 1)`` has a beta-binomial distribution, with parameters ``m0``, ``j`` and ``n + 1
- j``, and the numbers between successive ``t`` together have a Dirichlet-multinomial
one. An envelope ``B(t)`` with ``P(N(t) <= B(t) for all t) >= confidence`` bounds the
known points in every set ``R`` [3]_::

    |R and known| <= min over t of ( B(t) + number of points in R with p > t )

- The envelope is the quantile of the beta-binomial distribution at one local level for
  all ``t``. The local level is that at which simulated numbers stay below it with
  probability `confidence`, as in a Monte Carlo test.
- ``m0`` is not known. Every ``m0`` that the batch itself contradicts (it would need
  more known points than the bound for the whole batch allows) is left out, and the
  largest bound of the others is returned. So a batch that is unknown for the most part
  has a tighter bound. This costs no probability.

References
----------
.. [1] S. Bates, E. Candes, L. Lei, Y. Romano, M. Sesia, "Testing for outliers with
   conformal p-values", Annals of Statistics 51, 2023.
.. [2] U. Gazin, G. Blanchard, E. Roquain, "Transductive conformal inference with
   adaptive scores", AISTATS 2024.
.. [3] G. Blanchard, P. Neuvial, E. Roquain, "Post hoc confidence bounds on false
   positives using reference families", Annals of Statistics 48, 2020.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

__all__ = ["KnownPointsEnvelope", "false_discovery_bound"]

# Thresholds on the p-values that the envelope is made of, and simulations of them.
N_THRESHOLDS, N_SIMULATIONS = 40, 4_000

# Numbers of known points that are tried, as shares of the batch.
KNOWN_SHARES = (1.0, 0.97, 0.94, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0)


@dataclass(frozen=True)
class KnownPointsEnvelope:
    """Most known points of low p-values among `n_known`, for all thresholds at once.

    Parameters
    ----------
    ranks : ndarray of shape (n_thresholds,), int
        Thresholds ``j`` on the ranks ``p (n + 1)``, ascending.
    largest : ndarray of shape (n_thresholds,), int
        Most known points with a rank of at most each.

    Examples
    --------
    >>> envelope = KnownPointsEnvelope.simulate(99, n_known=100, confidence=0.9)
    >>> int(envelope.largest[envelope.ranks == 5][0])
    13
    """

    ranks: np.ndarray
    largest: np.ndarray

    @classmethod
    def simulate(
        cls, n_held_out: int, n_known: int, confidence: float
    ) -> "KnownPointsEnvelope":
        """Find the local level by simulation, always with the same random numbers."""
        ranks = _thresholds(n_held_out)
        rng = np.random.default_rng(0)
        gaps = np.diff(ranks, prepend=0, append=n_held_out + 1)
        shares = rng.dirichlet(gaps, size=N_SIMULATIONS)
        counts = rng.multinomial(n_known, shares)[:, :-1].cumsum(axis=1)
        # P(N >= x) of x = 0 ... n_known, a threshold at a time: memory is n_known.
        tails = [_upper_tail(n_known, rank, n_held_out) for rank in ranks]
        local = np.column_stack(
            [tail[found] for tail, found in zip(tails, counts.T, strict=True)]
        ).min(axis=1)
        # The smallest local p-value of the true numbers is below this one with a
        # chance of at most 1 - confidence: they and the simulated are exchangeable.
        which = int((1 - confidence) * (N_SIMULATIONS + 1) + 1e-9)
        level = np.sort(local)[which - 1] if which else 0.0
        largest = [np.count_nonzero(tail >= level) - 1 for tail in tails]
        return cls(ranks, np.array(largest))

    def bound(self, ranks: np.ndarray) -> int:
        """Bound the known ones among points of given ranks (r,)."""
        n_above = _n_above(ranks, self.ranks)
        return min(len(ranks), int((self.largest + n_above).min()))


def false_discovery_bound(
    p_values: np.ndarray,
    rejected: np.ndarray,
    n_held_out: int,
    confidence: float = 0.9,
) -> int:
    """Bound how many of the marked points of a batch are known.

    With probability `confidence`, over the held-out points and the batch, no set of
    points of the batch holds more known points than its bound. So any rule may mark
    them, after looking at the batch, and several sets may be tried.

    It requires that the known points of the batch and the held-out points are
    exchangeable. Nothing is required of the unknown points. `p_values` must be those of
    the whole batch, the points that are not marked included: a batch from which points
    were taken away because of their scores does not fulfil the requirement.

    Parameters
    ----------
    p_values : ndarray of shape (m,)
        Conformal p-values of all points of the batch, from ``n_held_out`` scores. See
        :func:`skvmdls.calibration.conformal_p_value`.
    rejected : ndarray of shape (m,), bool
        Which points are marked.
    n_held_out : int
        Number of held-out scores.
    confidence : float in (0, 1), default=0.9

    Returns
    -------
    bound : int
        At most the number of marked points. The number of marked points less this is a
        lower bound for the unknown ones among them.

    Raises
    ------
    ValueError
        If the shapes differ, or `confidence` is out of range.

    See Also
    --------
    skvmdls.VMDLSDetector.select_unknown : Bounds the expected share instead.

    Examples
    --------
    Forty points of two hundred have lower scores than all 999 held-out points:

    >>> p_values = np.concatenate([np.full(40, 0.001), np.linspace(0.005, 1, 160)])
    >>> marked = p_values <= 0.001
    >>> false_discovery_bound(p_values, marked, n_held_out=999)
    2
    """
    p_values, rejected = np.asarray(p_values), np.asarray(rejected)
    if rejected.shape != p_values.shape or rejected.dtype != bool:
        raise ValueError(
            f"rejected has shape {rejected.shape} and dtype {rejected.dtype}, expected "
            f"{p_values.shape} and bool: which points of the batch are marked."
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence={confidence!r} must be a number above 0 and below 1: the "
            "probability that the bound holds."
        )
    ranks = np.rint(p_values * (n_held_out + 1)).astype(np.int64)
    m = len(ranks)
    marked = ranks[rejected]
    if not len(marked):
        return 0
    envelopes = _envelopes(n_held_out, m, float(confidence))
    # Of next_smaller + 1 to n_known known points, is one compatible with the batch?
    fits = envelopes.bounds(ranks) > envelopes.next_smaller
    return int((fits * envelopes.bounds(marked)).max())


class _Envelopes(NamedTuple):
    """Envelopes of several numbers of known points, from the batch's size down."""

    n_known: np.ndarray
    next_smaller: np.ndarray
    ranks: np.ndarray
    largest: np.ndarray

    def bounds(self, ranks: np.ndarray) -> np.ndarray:
        """Bound the known ones among points of ranks (r,), for each envelope."""
        n_above = _n_above(ranks, self.ranks)
        bounds = (self.largest + n_above).min(axis=1)
        return np.minimum(bounds, np.minimum(len(ranks), self.n_known))


@lru_cache(maxsize=32)
def _envelopes(n_held_out: int, m: int, confidence: float) -> _Envelopes:
    sizes = np.unique([int(np.ceil(share * m)) for share in KNOWN_SHARES])[::-1]
    found = [
        KnownPointsEnvelope.simulate(n_held_out, int(n_known), confidence)
        for n_known in sizes[:-1]
    ]
    largest = np.array([envelope.largest for envelope in found])
    return _Envelopes(sizes[:-1], sizes[1:], found[0].ranks, largest)


def _n_above(ranks: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the ranks (r,) above each of ascending thresholds."""
    return len(ranks) - np.searchsorted(np.sort(ranks), thresholds, side="right")


def _thresholds(n_held_out: int) -> np.ndarray:
    """Ranks from 1 to n, denser where they are low."""
    return np.unique(np.rint(np.geomspace(1, n_held_out, N_THRESHOLDS)).astype(int))


def _upper_tail(n_known: int, rank: int, n_held_out: int) -> np.ndarray:
    """``P(N >= x)`` for x from 0 to n_known, of the beta-binomial distribution."""
    from scipy.stats import betabinom

    pmf = betabinom.pmf(np.arange(n_known + 1), n_known, rank, n_held_out + 1 - rank)
    return np.minimum(np.cumsum(pmf[::-1])[::-1], 1.0)

"""Calibrated probabilities of the known classes, and of "unknown".

Known classes
    The scores that the classes are chosen by become probabilities by a softmax with a
    temperature, which is fitted to held-out points [1]_. The most likely class stays
    the same. These are probabilities given that the point is known. An isotonic curve
    on top was tried on text, image features and digits, and never had a lower log-loss.

Unknown
    Without unknown points nobody can measure how they score, so that their probability
    needs two assumptions: their share of all points (the prior), and how well scores
    separate them from known points (an AUROC). The density of a known point's conformal
    p-value is 1. That of an unknown one is taken to be ``a p ** (a - 1)`` with ``a = (1
    - AUROC) / AUROC``, the power law of which the AUROC is as assumed [2]_. Bayes' rule
    does the rest. With ``n`` held-out points the p-value is at least ``1 / (n + 1)``,
    so that few held-out points never make "unknown" certain.

References
----------
.. [1] C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural
   networks", ICML 2017.
.. [2] T. Sellke, M. Bayarri, J. Berger, "Calibration of p values for testing precise
   null hypotheses", The American Statistician 55, 2001.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

__all__ = ["USUAL_AUROC", "ClassProbabilities", "unknown_probability", "with_unknown"]

# Expected AUROC against unknown points where no class was left out.
USUAL_AUROC = 0.75

# Logarithms of the lowest and the highest temperature, in units of the scores.
LOWEST, HIGHEST = -7.0, 7.0

# Weight, in held-out points, of the prior that the scores are log-probabilities. It
# keeps the temperature positive where all held-out points have their own labels.
PRIOR_POINTS = 4


@dataclass(frozen=True)
class ClassProbabilities:
    """Calibrated probabilities of the classes, given that a point is known.

    ``softmax(scores / temperature)``.

    Parameters
    ----------
    temperature : float
        Positive. Above 1 the scores, as log-probabilities, were too sure.

    Examples
    --------
    A net that is sure of all its predictions, and right four times in five:

    >>> scores = np.tile([[9.0, 0.0]], (500, 1))
    >>> labels = np.repeat([0, 1], [400, 100])
    >>> ClassProbabilities.fit(scores, labels).predict(scores[:1]).round(2)
    array([[0.81, 0.19]])
    """

    temperature: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(
                f"temperature is {self.temperature}, expected a positive number"
            )

    @classmethod
    def fit(cls, scores: np.ndarray, labels: np.ndarray) -> "ClassProbabilities":
        """Find the temperature of the lowest log-loss on held-out known points.

        Parameters
        ----------
        scores : ndarray of shape (n, n_classes)
            By which the classes are chosen, of points that did not train. Higher is
            more likely.
        labels : ndarray of shape (n,), int
            Positions of their classes.

        Returns
        -------
        probabilities : ClassProbabilities
        """
        rows = np.arange(len(labels))

        def loss(log_temperature: float) -> float:
            log_p = log_softmax(scores / np.exp(log_temperature), axis=1)
            prior = PRIOR_POINTS * log_temperature**2 / 2
            return float(prior - log_p[rows, labels].sum())

        found = minimize_scalar(loss, bounds=(LOWEST, HIGHEST), method="bounded")
        return cls(float(np.exp(found.x)))

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Compute probabilities.

        Parameters
        ----------
        scores : ndarray of shape (m, n_classes)

        Returns
        -------
        probabilities : ndarray of shape (m, n_classes), float64
            Rows sum to 1.
        """
        return np.asarray(softmax(scores / self.temperature, axis=1))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays for :meth:`from_state`.

        Returns
        -------
        state : dict of str to ndarray
        """
        return {"temperature": np.array(self.temperature)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "ClassProbabilities":
        """Load what :meth:`state_dict` returned.

        Parameters
        ----------
        state : mapping of str to ndarray

        Returns
        -------
        probabilities : ClassProbabilities

        Raises
        ------
        ValueError
            If the temperature is not a positive number.
        """
        return cls(float(state["temperature"]))


def unknown_probability(
    p_values: np.ndarray,
    n_held_out: int,
    unknown_prior: float,
    expected_auroc: float = USUAL_AUROC,
) -> np.ndarray:
    """Probability of "unknown", from two numbers that known points cannot show.

    ``prior u / (prior u + 1 - prior)``, where ``u = (n + 1) (p ** a - (p - 1 / (n + 1))
    ** a)`` is how many times more often unknown than known points have the p-value
    ``p``, with ``a = (1 - expected_auroc) / expected_auroc``.

    Parameters
    ----------
    p_values : ndarray of shape (m,)
        Conformal p-values from `n_held_out` scores.
    n_held_out : int
    unknown_prior : float in (0, 1)
        Share of unknown points where the detector is used.
    expected_auroc : float in [0.5, 1), default=0.75
        AUROC that is expected against unknown points. The best guess is the AUROC
        against known classes that were left out of the training. The default is
        cautious: it makes "unknown" less certain than a higher one does.

    Returns
    -------
    probability : ndarray of shape (m,), float64
        It falls in the p-value.

    Raises
    ------
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> unknown_probability(np.array([0.01, 0.5, 1.0]), 99, unknown_prior=0.1).round(3)
    array([0.705, 0.056, 0.036])
    """
    if not 0 < unknown_prior < 1:
        raise ValueError(
            f"unknown_prior={unknown_prior!r} must be a number above 0 and below 1: "
            "the share of unknown points where the detector is used."
        )
    if not 0.5 <= expected_auroc < 1:
        raise ValueError(
            f"expected_auroc={expected_auroc!r} must be at least 0.5 and below 1: how "
            "well scores are expected to tell unknown points from known ones."
        )
    power = (1 - expected_auroc) / expected_auroc
    step = 1 / (n_held_out + 1)
    ratio = (p_values**power - np.maximum(p_values - step, 0) ** power) / step
    odds = unknown_prior / (1 - unknown_prior) * ratio
    return odds / (1 + odds)


def with_unknown(probabilities: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Add the column of "unknown" to the probabilities of the known classes.

    Parameters
    ----------
    probabilities : ndarray of shape (m, n_classes)
        Given that the points are known.
    unknown : ndarray of shape (m,)
        As of :func:`unknown_probability`.

    Returns
    -------
    probabilities : ndarray of shape (m, n_classes + 1)
        Rows sum to 1.

    Examples
    --------
    >>> with_unknown(np.array([[0.5, 0.5]]), np.array([0.2]))
    array([[0.4, 0.4, 0.2]])
    """
    known = probabilities * (1 - unknown)[:, None]
    return np.column_stack([known, unknown])

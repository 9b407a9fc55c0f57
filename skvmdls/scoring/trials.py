"""What the weights of the parts were learned from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from skvmdls._support.stored_arrays import check_shape, stored_array
from skvmdls.calibration.probabilities import USUAL_AUROC

__all__ = ["PartTrials", "normalized"]


@dataclass(frozen=True)
class PartTrials:
    """Weights of the parts, and the trials that taught them.

    Parameters
    ----------
    names : tuple of str
        The parts.
    weights : ndarray of shape (n_parts,), float64
        Not negative; they sum to the number of parts.
    aurocs : ndarray of shape (n_folds, n_parts), float64
        Of each part alone, held-out known rows against the rows of the classes left
        out. Without rows where there were no trials.
    auroc_of_sum, auroc_of_prior : ndarray of shape (n_folds,), float64
        The same of the sum with these weights, which were fitted to these very scores,
        and with the prior ones.
    folds : ndarray of shape (n_classes,), int
        The fold in which each class was left out; -1 where there were no trials.
    pull : float
        Strength with which the weights were drawn to the prior ones.

    Examples
    --------
    >>> trials = PartTrials.untried(("shared", "linear"), np.array([1.0, 3.0]), 2)
    >>> trials.weights, len(trials.aurocs)
    (array([0.5, 1.5]), 0)
    """

    names: tuple[str, ...]
    weights: np.ndarray
    aurocs: np.ndarray
    auroc_of_sum: np.ndarray
    auroc_of_prior: np.ndarray
    folds: np.ndarray
    pull: float

    @classmethod
    def untried(
        cls, names: Sequence[str], prior: np.ndarray, n_classes: int
    ) -> "PartTrials":
        """Take the prior weights (n_parts,) as they are, without trials."""
        return cls(
            tuple(names),
            normalized(np.asarray(prior, dtype=np.float64)),
            np.empty((0, len(names))),
            np.empty(0),
            np.empty(0),
            np.full(n_classes, -1),
            np.inf,
        )

    @property
    def expected_auroc(self) -> float:
        """Mean AUROC of the sum against left-out classes; 0.75 without trials."""
        if not len(self.auroc_of_sum):
            return USUAL_AUROC
        return float(np.clip(self.auroc_of_sum.mean(), 0.5, 0.99))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, all float64, by name, for :meth:`from_state`."""
        state = {"weights": self.weights, "folds": self.folds.astype(np.float64)}
        if len(self.aurocs):
            state |= {
                "aurocs": self.aurocs,
                "auroc_of_sum": self.auroc_of_sum,
                "auroc_of_prior": self.auroc_of_prior,
                "pull": np.array([self.pull]),
            }
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any], names: Sequence[str]) -> "PartTrials":
        """Rebuild from a `state_dict`; a ValueError if it is not of these parts."""
        of = "part weights"
        weights = stored_array(state, "weights", 1, of=of)
        check_shape(f"{of}.weights", weights.shape, (len(names),))
        if weights.min() < 0 or weights.sum() <= 0:
            raise ValueError(f"{of}.weights must not be negative, nor all zero")
        # An array of them, since a file may claim any number of classes.
        folds = stored_array(state, "folds", 1, of=of).astype(int)
        if "aurocs" not in state:
            return cls.untried(names, weights, len(folds))
        aurocs = stored_array(state, "aurocs", 2, of=of)
        check_shape(f"{of}.aurocs", aurocs.shape[1:], (len(names),))
        of_sum = stored_array(state, "auroc_of_sum", 1, of=of)
        of_prior = stored_array(state, "auroc_of_prior", 1, of=of)
        for array in (of_sum, of_prior):
            check_shape(f"{of} of folds", array.shape, aurocs.shape[:1])
        pull = float(stored_array(state, "pull", 1, of=of)[0])
        return cls(tuple(names), weights, aurocs, of_sum, of_prior, folds, pull)


def normalized(weights: np.ndarray) -> np.ndarray:
    """Scale weights so that they sum to their number."""
    return weights * len(weights) / weights.sum()

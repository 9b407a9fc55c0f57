"""The held-out scores of a detector, and the verdicts that follow from them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support.stored_arrays import (
    check_shape,
    stored_array,
    with_prefix,
    without_prefix,
)
from skvmdls._support.values import plain
from skvmdls.calibration.conformal import (
    class_p_values,
    class_thresholds,
    conformal_p_value,
    conformal_threshold,
    rejection_range,
    warn_of_classes_never_excluded,
)
from skvmdls.calibration.probabilities import ClassProbabilities
from skvmdls.calibration.rounding import lowered
from skvmdls.calibration.summary import RejectionSummary, acceptance_by
from skvmdls.inputs.labels import labels_with_unknown

__all__ = [
    "Calibration",
    "RankTable",
    "ThresholdSettings",
    "Verdicts",
    "judge",
    "least_excluded",
]

# Scores under each class are compared with held-out ones for so many rows at a time.
ROWS_AT_ONCE = 4096

# Probabilities as the scores give them.
UNCALIBRATED = ClassProbabilities(1.0)


class ThresholdParameters(Protocol):
    """The parameters of a detector that set its threshold, as users give them."""

    contamination: float
    threshold: float | None
    guarantee: Literal["marginal", "class"]
    confidence: float | None


@dataclass(frozen=True)
class ThresholdSettings:
    """The parameters of a detector that set its threshold, as plain values."""

    contamination: float
    threshold: float | None = None
    guarantee: str = "marginal"
    confidence: float | None = None

    @classmethod
    def of(cls, parameters: ThresholdParameters) -> Self:
        """Take the parameters of a detector as they are now."""
        return cls(
            contamination=plain(parameters.contamination),
            threshold=plain(parameters.threshold),
            guarantee=plain(parameters.guarantee),
            confidence=plain(parameters.confidence),
        )

    @property
    def by_class(self) -> bool:
        """Whether each class has its own threshold."""
        return self.guarantee == "class" and self.threshold is None


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of held-out known points, which set the threshold.

    Thresholds and p-values compare new scores with these scores less a small slack, so
    that rounding does not decide (see ``calibration/rounding.py``).

    Parameters
    ----------
    scores : ndarray of shape (n,), float64
    class_scores : ndarray of shape (n,), float64
        The score of each point under its own class.
    labels : ndarray of shape (n,), int64
        Positions of their classes.
    winners : ndarray of shape (n, n_parts), int64
        Positions of the classes under which each part of the score was found.
    probabilities : ClassProbabilities
        Turns the scores by which the class is chosen into probabilities.

    Examples
    --------
    >>> scores, labels = np.arange(1.0, 20.0), np.zeros(19, dtype=np.int64)
    >>> held_out = Calibration(scores, scores, labels, labels[:, None])
    >>> round(held_out.threshold(ThresholdSettings(contamination=0.1)), 2)
    1.99
    """

    scores: np.ndarray
    class_scores: np.ndarray
    labels: np.ndarray
    winners: np.ndarray
    probabilities: ClassProbabilities = UNCALIBRATED

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays by name, for :meth:`from_state`."""
        return {
            **with_prefix("probabilities", self.probabilities.state_dict()),
            "calibration_scores": self.scores,
            "calibration_class_scores": self.class_scores,
            "calibration_labels": self.labels,
            "calibration_winners": self.winners,
        }

    @classmethod
    def from_state(
        cls, state: Mapping[str, np.ndarray], n_classes: int, n_parts: int
    ) -> Self:
        """Rebuild from a `state_dict`; a ValueError if it is not of these classes."""
        scores = stored_array(state, "calibration_scores", 1)
        class_scores = stored_array(state, "calibration_class_scores", 1)
        labels, winners = state["calibration_labels"], state["calibration_winners"]
        n = len(scores)
        check_shape("calibration_class_scores", class_scores.shape, (n,))
        check_shape("calibration_labels", labels.shape, (n,))
        check_shape("calibration_winners", winners.shape, (n, n_parts))
        for name, positions in (("labels", labels), ("winners", winners)):
            is_integer = positions.dtype == np.int64
            if not is_integer or positions.min() < 0 or positions.max() >= n_classes:
                raise ValueError(
                    f"calibration_{name} must hold positions of the {n_classes} classes"
                )
        probabilities = UNCALIBRATED
        if stored := without_prefix("probabilities", state):
            probabilities = ClassProbabilities.from_state(stored)
        return cls(scores, class_scores, labels, winners, probabilities)

    def of_points(self, is_kept: np.ndarray) -> "Calibration":
        """Keep some of the points, by a mask (n,)."""
        return replace(
            self,
            scores=self.scores[is_kept],
            class_scores=self.class_scores[is_kept],
            labels=self.labels[is_kept],
            winners=self.winners[is_kept],
        )

    def moved(self, position: np.ndarray) -> "Calibration":
        """Replace each class's position by ``position[old]``."""
        labels, winners = position[self.labels], position[self.winners]
        return replace(self, labels=labels, winners=winners)

    def joined(self, other: "Calibration") -> "Calibration":
        """Append the held-out points of another calibration."""
        return replace(
            self,
            scores=np.concatenate([self.scores, other.scores]),
            class_scores=np.concatenate([self.class_scores, other.class_scores]),
            labels=np.concatenate([self.labels, other.labels]),
            winners=np.concatenate([self.winners, other.winners]),
        )

    def without_classes(self, stays: np.ndarray) -> "Calibration":
        """Keep the points of the classes that stay (n_classes,), at new positions.

        Where a class that goes took part in a score, the score under the point's own
        class replaces it. That one is lower, so the threshold never becomes too high.
        """
        rows = stays[self.labels]
        position = np.cumsum(stays) - 1
        own, winners = self.labels[rows], self.winners[rows]
        is_touched = ~stays[winners].all(axis=1)
        class_scores = self.class_scores[rows]
        return replace(
            self,
            scores=np.where(is_touched, class_scores, self.scores[rows]),
            class_scores=class_scores,
            labels=position[own],
            winners=position[np.where(is_touched[:, None], own[:, None], winners)],
        )

    @cached_property
    def limits(self) -> np.ndarray:
        """The scores less the slack: what new scores are compared with."""
        return lowered(self.scores)

    @cached_property
    def class_limits(self) -> np.ndarray:
        """The scores under their own classes, less the slack."""
        return lowered(self.class_scores)

    def threshold(self, settings: ThresholdSettings) -> float:
        """Return the lowest score that is accepted; warn if nothing can be rejected."""
        if settings.threshold is not None:
            return float(settings.threshold)
        return conformal_threshold(
            self.limits, settings.contamination, settings.confidence
        )

    def class_thresholds(
        self, settings: ThresholdSettings, classes: np.ndarray
    ) -> np.ndarray:
        """Return the lowest score under each class that does not exclude it.

        Warns of the classes that can never be excluded.
        """
        rate, confidence = settings.contamination, settings.confidence
        warn_of_classes_never_excluded(classes, self.labels, rate, confidence)
        return class_thresholds(
            self.class_limits, self.labels, len(classes), rate, confidence
        )

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Compute conformal p-values (m,) of new scores (m,)."""
        return conformal_p_value(self.limits, scores)

    def class_p_values(self, class_scores: np.ndarray) -> np.ndarray:
        """Compute p-values of new scores (m, n_classes), each among its class's own."""
        return class_p_values(self.class_limits, self.labels, class_scores)

    def rejection_range(
        self, settings: ThresholdSettings, n_classes: int
    ) -> tuple[float, float]:
        """Shares of known points between which the threshold rejects, 19 times in 20.

        With thresholds by class, from the lowest to the highest of any class. For a
        threshold set by hand, as counted on these points, which did not choose it.
        """
        if settings.threshold is not None:
            is_accepted = self.scores >= settings.threshold
            (counted,) = acceptance_by(np.zeros(len(self.scores), int), is_accepted)
            return 1 - counted.high, 1 - counted.low
        rate, confidence = settings.contamination, settings.confidence
        if not settings.by_class:
            return rejection_range(len(self.scores), rate, confidence)
        sizes = np.unique(np.bincount(self.labels, minlength=n_classes))
        ranges = [rejection_range(int(n), rate, confidence) for n in sizes]
        return min(low for low, _ in ranges), max(high for _, high in ranges)

    def accepted(self, settings: ThresholdSettings, classes: np.ndarray) -> np.ndarray:
        """Tell which of these points (n,) the threshold that they set accepts."""
        if settings.by_class:
            thresholds = self.class_thresholds(settings, classes)
            return np.asarray(self.class_scores >= thresholds[self.labels])
        return np.asarray(self.scores >= self.threshold(settings))

    def sentences(
        self, settings: ThresholdSettings, classes: np.ndarray, n_points: int | None
    ) -> list[str]:
        """Write what the threshold guarantees, and for how many points a day."""
        rate, confidence = settings.contamination, settings.confidence
        if settings.threshold is not None:
            low, high = self.rejection_range(settings, len(classes))
            return [
                "The threshold was set by hand, so it carries no guarantee. By the "
                f"{len(self.scores):,} held-out points it rejects between "
                f"{100 * low:.1f} and {100 * high:.1f} % of known points."
            ]
        if not settings.by_class:
            summary = RejectionSummary(len(self.scores), rate, confidence)
            return summary.sentences(n_points)
        sizes = np.bincount(self.labels, minlength=len(classes))
        fewest = int(sizes.argmin())
        return [
            "Each class has its own threshold. For the class of the fewest held-out "
            f"points, {classes.tolist()[fewest]!r}:",
            *RejectionSummary(int(sizes[fewest]), rate, confidence).sentences(n_points),
        ]

    def warn_of_few_points(
        self, settings: ThresholdSettings, classes: np.ndarray
    ) -> None:
        """Warn now, not at the first prediction, if points are too few to reject."""
        if settings.by_class:
            self.class_thresholds(settings, classes)
        else:
            self.threshold(settings)


class Verdicts(NamedTuple):
    """The label (n,) of each point, known or unknown, and its margin (n,).

    The margin is the distance of the score from the threshold, negative if rejected.
    """

    labels: np.ndarray
    margins: np.ndarray


def judge(
    scores: np.ndarray,
    most_likely: np.ndarray,
    class_scores: np.ndarray | None,
    calibration: Calibration,
    settings: ThresholdSettings,
    classes: np.ndarray,
) -> Verdicts:
    """Label each point with a known class, or as unknown.

    Takes scores (n,), the positions (n,) of the most likely classes and, for thresholds
    by class, the scores (n, n_classes) under each; `classes` (n_classes,) are sorted
    labels. With thresholds by class the margin is the largest over the classes.
    """
    if settings.by_class:
        assert class_scores is not None
        thresholds = calibration.class_thresholds(settings, classes)
        margins = (class_scores - thresholds).max(axis=1)
        positions = _least_excluded_in_pieces(class_scores, thresholds, calibration)
    else:
        threshold = calibration.threshold(settings)
        margins = scores - threshold
        positions = np.where(scores >= threshold, most_likely, -1)
    return Verdicts(labels_with_unknown(classes)[positions], margins)


def _least_excluded_in_pieces(
    class_scores: np.ndarray, thresholds: np.ndarray, calibration: Calibration
) -> np.ndarray:
    ranks = RankTable.by_class(calibration, class_scores.shape[1])
    limits = torch.from_numpy(thresholds)
    pieces = torch.from_numpy(class_scores).split(ROWS_AT_ONCE)
    found = [least_excluded(piece, limits, ranks(piece)) for piece in pieces]
    return torch.cat(found).numpy() if found else np.empty(0, dtype=np.int64)


def least_excluded(
    class_scores: Tensor, thresholds: Tensor, p_values: Tensor
) -> Tensor:
    """Position (n,) of the class of the largest p-value; -1 if all are excluded.

    Takes scores and p-values (n, n_classes) and thresholds (n_classes,). p-values are
    coarse: of equal ones, the higher score decides.

    Examples
    --------
    >>> scores = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    >>> least_excluded(scores, torch.tensor([0.5, 0.5]), torch.full((2, 2), 0.5))
    tensor([ 1, -1])
    """
    is_possible = class_scores >= thresholds
    p_values = torch.where(is_possible, p_values, -1.0)
    is_largest = p_values == p_values.amax(dim=1, keepdim=True)
    best = torch.where(is_largest, class_scores, -math.inf).argmax(dim=1)
    return torch.where(is_possible.any(dim=1), best, -1)


class RankTable(nn.Module):
    """Conformal p-values of scores, each column among its own held-out scores.

    Held-out scores are counted in two steps, first in rows of a table and then within
    one row. That takes about twice the square root of their number of comparisons, in
    operations that ONNX has. NaN is below all others.

    Parameters
    ----------
    held_out : sequence of ndarray of shape (m,)
        Scores of each column; they may differ in number.

    Examples
    --------
    >>> table = RankTable([np.array([1.0, 2.0, 3.0]), np.array([5.0])])
    >>> table(torch.tensor([[2.5, 0.0]], dtype=torch.float64))
    tensor([[0.7500, 0.5000]], dtype=torch.float64)
    """

    table: Tensor
    sizes: Tensor

    def __init__(self, held_out: Sequence[np.ndarray]) -> None:
        super().__init__()
        sizes = np.array([len(scores) for scores in held_out])
        side = math.isqrt(max(0, int(sizes.max()) - 1)) + 1
        table = np.full((len(held_out), side * side), np.inf)
        for column, scores in enumerate(held_out):
            table[column, : len(scores)] = np.sort(scores)
        shape = (len(held_out), side, side)
        self.register_buffer("table", torch.from_numpy(table.reshape(shape)))
        self.register_buffer("sizes", torch.from_numpy(sizes))

    @classmethod
    def of(cls, calibration: Calibration) -> "RankTable":
        """Make the table behind :meth:`Calibration.p_values`, of one column."""
        return cls([calibration.limits])

    @classmethod
    def by_class(cls, calibration: Calibration, n_classes: int) -> "RankTable":
        """Make the table behind :meth:`Calibration.class_p_values`."""
        scores, labels = calibration.class_limits, calibration.labels
        return cls([scores[labels == label] for label in range(n_classes)])

    def forward(self, scores: Tensor) -> Tensor:
        """Compute p-values (n, columns) of scores (n, columns)."""
        first = self.table[:, :, 0]
        row = (first <= scores[:, :, None]).long().sum(dim=2) - 1
        row = row.clamp_min(0)
        columns = torch.arange(len(self.table), device=scores.device)
        within = (self.table[columns, row] <= scores[:, :, None]).long().sum(dim=2)
        # Infinite scores must not count the places that hold no score.
        n_below = torch.minimum(row * self.table.shape[2] + within, self.sizes)
        return (1 + n_below).double() / (self.sizes + 1).double()

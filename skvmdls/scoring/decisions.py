"""From scores under each class to one class, one evidence and one score for a point."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.scoring.evidence import INPUT, JOINT, LOGIT, Evidence

__all__ = ["MARGIN", "PARTS_IN_LABEL", "ByClass", "KnownClasses", "Measured"]

# How much the parts count beside the head in choosing the class; see docs/recipe.md.
PARTS_IN_LABEL = 0.5

# The parts that speak of classes that the net was not trained on, and how much each
# counts: the later ones have drawn together what did not matter to the others. And by
# how much, in usual ranges, they have to explain a point better under such a class. See
# docs/recipe.md.
SPEAKING, MARGIN = {INPUT: 1.0, "t2": 0.5, "t3": 1.0, JOINT: 1.0}, 1 / 6


def _nothing() -> np.ndarray:
    return np.empty((0, 0))


@dataclass(frozen=True)
class Measured:
    """What the nets and the Gaussians say of each point.

    `class_log_likelihood` (n, n_classes), in nats; `raw` (n, n_parts) scores of the
    evidence; `most_likely` (n,), the position of the class that each point is given;
    the reconstruction `weight` (n,), zero without an autoencoder. Where they were asked
    for, `winners` (n, n_parts), the position of the class under which each part's raw
    score is that in `raw`, and `class_scores` (n, n_classes).
    """

    class_log_likelihood: np.ndarray
    raw: np.ndarray
    most_likely: np.ndarray
    weight: np.ndarray
    winners: np.ndarray = field(default_factory=_nothing)
    class_scores: np.ndarray = field(default_factory=_nothing)

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)


class ByClass(NamedTuple):
    """What a batch scores under each class, before one is chosen.

    `log_likelihood` (n, n_classes); `raw` (n, n_classes, n_parts); `logits` (n,
    n_classes), or None without a head; `weight` (n,).
    """

    log_likelihood: np.ndarray
    raw: np.ndarray
    logits: np.ndarray | None
    weight: np.ndarray


@dataclass(frozen=True)
class KnownClasses:
    """Which classes there are, those of `fit` and those added since, and how to choose.

    The classes of `fit` share a net that tells them apart, and each part of the
    evidence is that of the class that explains it best. A class that was added later is
    unknown to the net: of such a one only some parts speak (`shares`), and the others
    go along with these, but for the logit, which counts as typical. A point scores as
    with whichever explains it best; it is given to an added class if the parts that
    speak say so by a :data:`MARGIN`.

    `positions` (n_classes,) are those among the classes of `fit`, -1 if added; the
    constants that scores need are there as soon as they are fitted.

    Examples
    --------
    >>> known = KnownClasses(np.array([0, -1, 1]))
    >>> known.fitted, known.added
    (array([0, 2]), array([1]))
    >>> known.of_head(np.array([[5.0, 7.0]]))
    array([[5., 0., 7.]])
    """

    positions: np.ndarray
    evidence: Evidence | None = None
    product: WeightCalibration | None = None

    @classmethod
    def of_fit(cls, n_classes: int) -> "KnownClasses":
        """All classes of `fit`, and no others."""
        return cls(np.arange(n_classes))

    @property
    def fitted(self) -> np.ndarray:
        """Positions (k,) of the classes that are left of `fit`."""
        return np.flatnonzero(self.positions >= 0)

    @property
    def added(self) -> np.ndarray:
        """Positions (n_classes - k,) of the classes that were added."""
        return np.flatnonzero(self.positions < 0)

    def of_head(self, logits: np.ndarray) -> np.ndarray:
        """Give each class its logit (n, classes of fit), and the others the typical."""
        typical = self.evidence.typical_logit if self.evidence else 0.0
        return np.where(self.positions >= 0, logits[:, self.positions], typical)

    @property
    def shares(self) -> np.ndarray:
        """Shares (n_parts,) of the parts in what is said of added classes, sum one."""
        assert self.evidence is not None
        names = self.evidence.names
        shares = np.array([SPEAKING.get(name, 0.0) for name in names])
        if not shares.any():
            shares = self.evidence.weights * (np.array(names) != LOGIT)
        return shares / shares.sum()

    @property
    def silent(self) -> np.ndarray:
        """Mask (n_parts,) of the parts that go along there; the logit does not."""
        assert self.evidence is not None
        return (self.shares == 0) & (np.array(self.evidence.names) != LOGIT)

    def _said_by_some(self, raw: np.ndarray) -> np.ndarray:
        """Mean (...) of what the parts say that speak of added classes, in spreads."""
        assert self.evidence is not None
        return self.evidence.in_spreads(raw) @ self.shares

    def score(
        self, raw: np.ndarray, log_likelihood: np.ndarray, weight: np.ndarray
    ) -> np.ndarray:
        """Score points: raw (n, ..., n_parts), the others of shapes that go along."""
        if self.product is not None:
            return self.product.apply(log_likelihood, weight)
        assert self.evidence is not None
        return self.evidence.total(raw)

    def decide(self, found: ByClass, n_blocks: int, *, by_class: bool) -> Measured:
        """Choose the class that each point is given, and so its evidence.

        The first `n_blocks` parts are those that have a say in it beside the head.
        """
        label_scores = self._label_scores(found, n_blocks)
        if len(self.added):
            found = found._replace(raw=self._with_silent_parts(found.raw))
            measured, winners = self._with_added(found, label_scores)
        else:
            measured = Measured(
                found.log_likelihood,
                found.raw.max(axis=1),
                label_scores.argmax(axis=1),
                found.weight,
            )
            winners = found.raw.argmax(axis=1)
        if not by_class:
            return replace(
                measured, winners=winners[:, :0], class_scores=label_scores[:, :0]
            )
        weight = found.weight[:, None]
        class_scores = self.score(found.raw, found.log_likelihood, weight)
        return replace(measured, winners=winners, class_scores=class_scores)

    def _label_scores(self, found: ByClass, n_blocks: int) -> np.ndarray:
        """By what the class is chosen among those of `fit`, (n, n_classes)."""
        if found.logits is None:
            return found.log_likelihood
        if self.evidence is None or not n_blocks:
            return found.logits
        parts = self.evidence.in_spreads(found.raw[..., :n_blocks])
        weights = self.evidence.weights[:n_blocks]
        return found.logits + PARTS_IN_LABEL * (parts @ weights)

    def _with_silent_parts(self, raw: np.ndarray) -> np.ndarray:
        """Let the parts of `raw` that are silent of added classes go along there."""
        assert self.evidence is not None
        raw, silent = raw.copy(), np.flatnonzero(self.silent)
        said = self._said_by_some(raw[:, self.added])[..., None]
        typical, spread = self.evidence.typical[silent], self.evidence.spread[silent]
        raw[np.ix_(np.arange(len(raw)), self.added, silent)] = typical + said * spread
        return raw

    def _with_added(
        self, found: ByClass, label_scores: np.ndarray
    ) -> tuple[Measured, np.ndarray]:
        """Candidates are the classes of `fit` together, and each of those added."""
        n, _, n_parts = found.raw.shape
        fitted, added = self.fitted, self.added
        raw, likelihood = found.raw[:, added], found.log_likelihood[:, added]
        classes = np.broadcast_to(added, (n, len(added)))
        winners = np.broadcast_to(added[:, None], (n, len(added), n_parts))
        if len(fitted):
            of_fit = found.raw[:, fitted]
            raw = np.concatenate([of_fit.max(axis=1, keepdims=True), raw], axis=1)
            largest = found.log_likelihood[:, fitted].max(axis=1, keepdims=True)
            likelihood = np.concatenate([largest, likelihood], axis=1)
            most_likely = fitted[label_scores[:, fitted].argmax(axis=1)]
            classes = np.column_stack([most_likely, classes])
            winners = np.concatenate(
                [fitted[of_fit.argmax(axis=1)][:, None], winners], axis=1
            )
        scores = self.score(raw, likelihood, found.weight[:, None])
        best, rows = scores.argmax(axis=1), np.arange(n)
        if len(fitted) and self.product is None:
            scores = self._said_by_some(raw)
            scores[:, 0] += MARGIN
        measured = Measured(
            found.log_likelihood,
            raw[rows, best],
            classes[rows, scores.argmax(axis=1)],
            found.weight,
        )
        return measured, winners[rows, best]

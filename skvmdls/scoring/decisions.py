"""From scores under each class to one class, one evidence and one score for a point.

Everything is computed by torch in float64, in operations that ONNX has: the detectors
and the exported files decide by the same code.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls.calibration.paper_product import WeightCalibration, weighted
from skvmdls.direct.parts import DIRECT_PARTS, LINEAR
from skvmdls.scoring.evidence import (
    BOUNDARY,
    INPUT,
    JOINT,
    LOGIT,
    OF_HEAD,
    RESIDUAL,
    TEXTURE,
    VETO,
    Evidence,
    standardized,
)

__all__ = ["Decided", "Decision", "boundary_matrix"]

# Distances by differences, not by products of matrices, which round more.
EXACT = "donot_use_mm_for_euclid_dist"
SMALLEST_DIFFERENCE = 1e-12

# Weight of the parts next to the head in choosing the class; see docs/recipe.md.
PARTS_IN_LABEL = 0.5
# The parts that count for classes that the net was not trained on, with their weights:
# later parts have drawn together what does not separate the classes of `fit`. A point
# is given to such a class if these parts are higher under it by MARGIN, in usual
# ranges. See docs/recipe.md.
PARTS_OF_ADDED_CLASSES = {INPUT: 1.0, "t2": 0.5, "t3": 1.0, JOINT: 1.0} | dict.fromkeys(
    DIRECT_PARTS, 1.0
)
MARGIN = 1 / 6


class Decided(NamedTuple):
    """What is decided of a batch, all float64 but for positions of classes (int64).

    `class_log_likelihood` (n, n_classes), in nats; `raw` (n, n_parts) scores of the
    evidence; `score` (n,); `most_likely` (n,), the position of the class that each
    point is given. Where they were asked for: `winners` (n, n_parts), the position of
    the class under which each raw score was found, `class_scores` (n, n_classes), and
    `label_scores` (n, n_classes), by which the class is chosen.
    """

    class_log_likelihood: Tensor
    raw: Tensor
    score: Tensor
    most_likely: Tensor
    winners: Tensor | None = None
    class_scores: Tensor | None = None
    label_scores: Tensor | None = None


class Decision(nn.Module):
    """Choose the class of each point, and so its evidence and its score.

    The classes of `fit` share a net that separates them, and each part of the evidence
    is that of the class that explains it best. For classes that were added later, see
    :class:`AddedClasses`.

    Parameters
    ----------
    names : sequence of str
        The parts of the evidence.
    n_blocks : int
        The first parts, so many, add up to the log-likelihood.
    unit_rows : bool
        Whether the points are vectors, compared at unit length.
    positions : ndarray of shape (n_classes,), int
        Positions of the classes among those of `fit`, -1 if added since.
    evidence : Evidence
    product : WeightCalibration or None
        With it, the score is the paper's product.
    can_score : ndarray of shape (n_classes, n_parts), bool, or None
        False where a part without a net cannot score an added class.
    head : Tensor of shape (classes of `fit`, features), or None
        Weights of the head, if the distance to its boundaries is a part.
    """

    typical: Tensor
    spread: Tensor
    weights: Tensor
    label_weights: Tensor
    highest: Tensor
    bend: Tensor | None
    typical_logit: Tensor
    typical_boundary: Tensor
    to_boundaries: Tensor | None
    positions: Tensor
    is_of_fit: Tensor
    offsets: Tensor | None
    usual_sum: Tensor | None
    shift: Tensor | None
    largest_weight: Tensor | None

    def __init__(
        self,
        names: Sequence[str],
        n_blocks: int,
        unit_rows: bool,
        positions: np.ndarray,
        evidence: Evidence,
        product: WeightCalibration | None,
        can_score: np.ndarray | None = None,
        head: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.names, self.n_blocks, self.unit_rows = tuple(names), n_blocks, unit_rows
        self.has_direct = any(name in DIRECT_PARTS for name in names)
        self.needs_net = not all(name in DIRECT_PARTS for name in names)
        # As tensors: the exporter rounds a number of Python to float32.
        self.register_buffer("typical", torch.from_numpy(evidence.typical))
        self.register_buffer("spread", torch.from_numpy(evidence.spread))
        self.register_buffer("weights", torch.from_numpy(evidence.weights))
        # A class is chosen without the autoencoder.
        in_label = evidence.weights * (np.array(names) != RESIDUAL)
        self.register_buffer("label_weights", torch.from_numpy(in_label))
        self.register_buffer("highest", torch.from_numpy(evidence.highest))
        bend = torch.tensor(evidence.bend, dtype=torch.float64)
        self.register_buffer("bend", bend if evidence.is_bent else None)
        for name in OF_HEAD:
            typical = torch.tensor(evidence.typical_of(name), dtype=torch.float64)
            self.register_buffer(f"typical_{name}", typical)
        self.register_buffer("to_boundaries", None)
        if head is not None:
            self.to_boundaries = boundary_matrix(head)
        self.register_buffer("positions", torch.from_numpy(positions.clip(0)))
        self.register_buffer("is_of_fit", torch.from_numpy(positions >= 0))
        self.register_buffer("shift", None)
        self.register_buffer("largest_weight", None)
        if product is not None:
            self.shift = torch.tensor(product.shift, dtype=torch.float64)
            self.largest_weight = torch.tensor(product.scale, dtype=torch.float64)
        self.register_buffer("offsets", None)
        if evidence.offsets is not None:
            self.offsets = torch.from_numpy(evidence.offsets)
        self.register_buffer("usual_sum", None)
        if evidence.usual_sum is not None:
            self.usual_sum = torch.from_numpy(evidence.usual_sum)
        self.added = None
        if (positions < 0).any():
            self.added = AddedClasses(names, positions, evidence, can_score)

    def forward(
        self,
        scores: Mapping[str, Tensor],
        logits: Tensor | None,
        weight: Tensor | None,
        by_class: bool = False,
    ) -> Decided:
        """Decide from scores (n, n_classes) by part, logits of the head, weights (n,).

        The logits (n, classes of `fit`) are None without a head, the weights without an
        autoencoder. `by_class` adds the winners and the scores under each class.
        """
        scores = dict(scores)
        if logits is not None:
            of_class = logits[:, self.positions]
            scores[LOGIT] = torch.where(self.is_of_fit, of_class, self.typical_logit)
        if logits is not None and self.to_boundaries is not None:
            of_class = (logits @ self.to_boundaries)[:, self.positions]
            typical = self.typical_boundary
            scores[BOUNDARY] = torch.where(self.is_of_fit, of_class, typical)
        raw = torch.stack([scores[name] for name in self.names], dim=2)
        if self.offsets is not None:
            raw = raw - self.offsets
        if self.added is not None:
            raw = self.added.with_pooled_parts(raw)
        likelihood = self._likelihood(scores, raw)
        label_scores = self._label_scores(scores, raw, likelihood)
        # Without a net an added class is scored as any other.
        if self.added is None or not self.needs_net:
            best, winners = raw.amax(dim=1), raw.argmax(dim=1)
            most_likely = label_scores.argmax(dim=1)
        else:
            candidates = self.added.candidates(raw, likelihood, label_scores)
            totals = self.score(candidates.raw, candidates.likelihood, weight)
            by_margin = self.shift is None
            best, winners, most_likely = self.added.choose(
                candidates, totals, by_margin=by_margin
            )
            if by_class:
                label_scores = self.added.label_scores(
                    candidates, totals, label_scores, by_margin=by_margin
                )
        score = self.score(best, likelihood.amax(dim=1), weight)
        decided = Decided(likelihood, best, score, most_likely)
        if not by_class:
            return decided
        class_scores = self.score(raw, likelihood, weight)
        return decided._replace(
            winners=winners, class_scores=class_scores, label_scores=label_scores
        )

    def score(
        self, raw: Tensor, log_likelihood: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Score raw evidence (n, ..., n_parts) with log-likelihoods (n, ...)."""
        if self.shift is None:
            # A product of matrices would round by the number of rows.
            total = (self.standardized(raw) * self.weights).sum(dim=-1)
            return total if self.usual_sum is None else self._with_veto(raw, total)
        assert weight is not None
        assert self.largest_weight is not None
        if log_likelihood.ndim == 2:
            weight = weight[:, None]
        return weighted(log_likelihood, weight, self.shift, self.largest_weight)

    def _with_veto(self, raw: Tensor, total: Tensor) -> Tensor:
        """Lower sums (...) of points whose texture is far from that of known ones."""
        assert self.usual_sum is not None
        typical, spread = self.usual_sum[0], self.usual_sum[1]
        part = self.names.index(TEXTURE)
        in_spreads = (raw[..., part] - self.typical[part]) / self.spread[part]
        lowered = torch.minimum(total, typical) + spread * (in_spreads - VETO)
        return torch.where(in_spreads < VETO, lowered, total)

    def standardized(self, raw: Tensor) -> Tensor:
        """Bring raw evidence (..., n_parts) to the common unit."""
        constants = (self.typical, self.spread, self.highest, self.bend)
        return standardized(raw, *constants)

    def _likelihood(self, scores: Mapping[str, Tensor], raw: Tensor) -> Tensor:
        """Log-likelihoods (n, n_classes), or what takes their place."""
        if self.n_blocks:
            # One by one: the rounding of a sum must not depend on the number of
            # classes.
            blocks = self.names[: self.n_blocks]
            return reduce(torch.add, [scores[name] for name in blocks])
        if LOGIT in scores:
            return scores[LOGIT]
        return self._sum_in_spreads(raw, len(self.names))

    def _label_scores(
        self, scores: Mapping[str, Tensor], raw: Tensor, likelihood: Tensor
    ) -> Tensor:
        """Scores (n, n_classes) by which the class is chosen among those of `fit`."""
        if self.unit_rows and LINEAR in scores:
            mean = self._sum_in_spreads(raw, len(self.names)) / len(self.names)
            return scores[LINEAR] + PARTS_IN_LABEL * mean
        if self.has_direct:
            return self._sum_in_spreads(raw, len(self.names))
        if LOGIT not in scores:
            return likelihood
        return scores[LOGIT] + PARTS_IN_LABEL * self._sum_in_spreads(raw, self.n_blocks)

    def _sum_in_spreads(self, raw: Tensor, n: int) -> Tensor:
        """Weighted sum (n, n_classes) of the first n parts, in spreads."""
        in_spreads = (raw[..., :n] - self.typical[:n]) / self.spread[:n]
        return (in_spreads * self.label_weights[:n]).sum(dim=-1)


def boundary_matrix(head: Tensor) -> Tensor:
    """Turn logits into mean distances to the boundaries of each class [1]_.

    From the weights (n_classes, features) of the head to a matrix (n_classes,
    n_classes), float64, that logits (n, n_classes) are multiplied by. Between two
    classes, the distance of the features to the boundary is the difference of the
    logits divided by that of the weights. It is negative on the other side.

    References
    ----------
    .. [1] L. Liu and Y. Qin, "Fast Decision Boundary based Out-of-Distribution
       Detector", ICML 2024; here the distance is not divided by that of the features
       from their mean.

    Examples
    --------
    >>> logits = torch.tensor([[6.0, 0.0]]).double()
    >>> logits @ boundary_matrix(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor([[ 1.2000, -1.2000]], dtype=torch.float64)
    """
    weights = head.double()
    differences = torch.cdist(weights, weights, compute_mode=EXACT)
    inverse = 1 / differences.clamp_min(SMALLEST_DIFFERENCE).fill_diagonal_(torch.inf)
    return (inverse.sum(dim=0).diag() - inverse) / (len(weights) - 1)


class Candidates(NamedTuple):
    """The classes of `fit` together, then each added class: (n, n_candidates, ...)."""

    raw: Tensor
    likelihood: Tensor
    classes: Tensor
    winners: Tensor


class AddedClasses(nn.Module):
    """How classes that the net was not trained on compete with those of `fit`.

    For such a class only the parts in :data:`PARTS_OF_ADDED_CLASSES` count. The other
    parts take their mean, and those of the head count as typical. A point scores as
    with the class that explains it best. It is given to an added class if the parts
    that count are higher by :data:`MARGIN`.
    """

    fitted: Tensor
    added: Tensor
    is_pooled: Tensor
    is_texture: Tensor
    typical: Tensor
    spread: Tensor
    shares: Tensor
    margin: Tensor

    def __init__(
        self,
        names: Sequence[str],
        positions: np.ndarray,
        evidence: Evidence,
        can_score: np.ndarray | None,
    ) -> None:
        super().__init__()
        is_of_head = np.isin(names, OF_HEAD)
        shares = np.array([PARTS_OF_ADDED_CLASSES.get(name, 0.0) for name in names])
        if not shares.any():
            shares = evidence.weights * ~is_of_head
        if not shares.any():
            # The texture, which has no weight, is the only other part.
            shares = 1.0 * ~is_of_head
        is_pooled = (positions < 0)[:, None] & (shares == 0) & ~is_of_head
        if can_score is not None:
            is_pooled |= ~can_score
            shares = shares * can_score.all(axis=0)
        fitted, added = np.flatnonzero(positions >= 0), np.flatnonzero(positions < 0)
        self.n_fitted, self.has_texture = len(fitted), TEXTURE in names
        self.register_buffer("fitted", torch.from_numpy(fitted))
        self.register_buffer("added", torch.from_numpy(added))
        self.register_buffer("is_pooled", torch.from_numpy(is_pooled))
        self.register_buffer("is_texture", torch.from_numpy(np.isin(names, TEXTURE)))
        self.register_buffer("typical", torch.from_numpy(evidence.typical))
        self.register_buffer("spread", torch.from_numpy(evidence.spread))
        self.register_buffer("shares", torch.from_numpy(shares / shares.sum()))
        self.register_buffer("margin", torch.tensor(MARGIN, dtype=torch.float64))

    def with_pooled_parts(self, raw: Tensor) -> Tensor:
        """Replace parts of raw evidence (n, n_classes, n_parts) that do not count.

        The texture is that of the class with the most alike one: a few images of a new
        class do not tell how its texture varies.
        """
        mean = self._mean_in_spreads(raw)[:, :, None]
        pooled = torch.where(self.is_pooled, self.typical + mean * self.spread, raw)
        if not self.has_texture:
            return pooled
        is_taken = self.is_texture & self.is_pooled
        return torch.where(is_taken, raw.amax(dim=1, keepdim=True), pooled)

    def candidates(
        self, raw: Tensor, likelihood: Tensor, label_scores: Tensor
    ) -> Candidates:
        """Join the classes of `fit` to one candidate, next to each added class."""
        raw_added, likelihoods = raw[:, self.added], likelihood[:, self.added]
        classes = self.added + torch.zeros_like(likelihoods, dtype=torch.int64)
        winners = classes[:, :, None].expand(-1, -1, raw.shape[2])
        added = Candidates(raw_added, likelihoods, classes, winners)
        if not self.n_fitted:
            return added
        of_fit = raw[:, self.fitted]
        first = label_scores[:, self.fitted].argmax(dim=1, keepdim=True)
        joined = Candidates(
            of_fit.amax(dim=1, keepdim=True),
            likelihood[:, self.fitted].amax(dim=1, keepdim=True),
            self.fitted[first],
            self.fitted[of_fit.argmax(dim=1, keepdim=True)],
        )
        pairs = zip(joined, added, strict=True)
        return Candidates(*(torch.cat(pair, dim=1) for pair in pairs))

    def choose(
        self, candidates: Candidates, totals: Tensor, *, by_margin: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take evidence and winners (n, n_parts) of the best, and the class (n,)."""
        n_parts = candidates.raw.shape[2]
        best = totals.argmax(dim=1, keepdim=True)[:, :, None].expand(-1, -1, n_parts)
        scores = totals
        if self.n_fitted and by_margin:
            means = self._mean_in_spreads(candidates.raw)
            scores = torch.cat([means[:, :1] + self.margin, means[:, 1:]], dim=1)
        chosen = scores.argmax(dim=1, keepdim=True)
        return (
            candidates.raw.gather(1, best)[:, 0],
            candidates.winners.gather(1, best)[:, 0],
            candidates.classes.gather(1, chosen)[:, 0],
        )

    def label_scores(
        self,
        candidates: Candidates,
        totals: Tensor,
        of_head: Tensor,
        *,
        by_margin: bool,
    ) -> Tensor:
        """Scores (n, n_classes) whose largest is that of the chosen class.

        Among the classes of `fit`, the differences are those of the head.
        """
        scores = totals
        if self.n_fitted and by_margin:
            means = self._mean_in_spreads(candidates.raw)
            scores = torch.cat([means[:, :1] + self.margin, means[:, 1:]], dim=1)
        by_class = of_head.clone()
        if self.n_fitted:
            fitted = of_head[:, self.fitted]
            highest = fitted.amax(dim=1, keepdim=True)
            by_class[:, self.fitted] = fitted - highest + scores[:, :1]
            scores = scores[:, 1:]
        by_class[:, self.added] = scores
        return by_class

    def _mean_in_spreads(self, raw: Tensor) -> Tensor:
        """Mean (...) of the parts that count for added classes, in spreads."""
        in_spreads = (raw - self.typical) / self.spread
        return (in_spreads * self.shares).sum(dim=-1)

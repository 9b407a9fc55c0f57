"""The decision in torch beside a slow reference, point by point, class by class."""

import math

import numpy as np
import pytest
import torch

from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.scoring.decisions import Decision
from skvmdls.scoring.evidence import Evidence

N_POINTS, N_CLASSES = 200, 4
MARGIN = 1 / 6
# Parts that count for an added class, and how much.
COUNTED = {
    "x": 1.0,
    "t2": 0.5,
    "t3": 1.0,
    "ensemble": 1.0,
    "shared": 1.0,
    "neighbours": 1.0,
    "linear": 1.0,
    "trees": 1.0,
}
DIRECT = ("shared", "neighbours", "linear", "trees")
OF_FIT = np.arange(N_CLASSES)
# Two classes of `fit` that stayed, at other positions, and two that were added.
ADDED = np.array([2, -1, 0, -1])
ALL_ADDED = np.full(N_CLASSES, -1)
# Names of the parts, the blocks among them, and whether rows are vectors.
KINDS = {
    "net": (("x", "t1", "t3", "g", "residual", "logit"), 4, False),
    "net and texture": (("t1", "t3", "texture", "logit"), 2, False),
    "net and boundary": (("t1", "t3", "texture", "logit", "boundary"), 2, False),
    "net without a head": (("x", "t1", "g"), 3, False),
    "logit alone": (("logit",), 0, False),
    "net and tables": (("x", "g", "logit", "shared", "trees"), 2, False),
    "tables": (("shared", "linear", "trees"), 0, False),
    "vectors": (("shared", "neighbours", "linear"), 0, True),
}


class Case:
    """Scores of points under classes by part, and constants, all drawn."""

    def __init__(self, kind, positions, *, product=False, has_offsets=False):
        rng = np.random.default_rng(0)
        self.names, self.n_blocks, self.unit_rows = KINDS[kind]
        self.positions, n_parts = positions, len(self.names)
        self.scores = {
            name: rng.normal(0, 3, size=(N_POINTS, N_CLASSES))
            for name in self.names
            if name not in ("logit", "boundary")
        }
        self.logits = None
        if "logit" in self.names:
            self.logits = rng.normal(0, 3, size=(N_POINTS, 5))
        self.head = None
        if "boundary" in self.names:
            self.head = rng.normal(size=(5, 7))
        self.weight = rng.exponential(size=N_POINTS) if product else None
        self.product = WeightCalibration(1.0, 2.0) if product else None
        offsets = rng.normal(size=(N_CLASSES, n_parts)) if has_offsets else None
        first = 0.0 if self.head is None else -1.0
        self.evidence = Evidence(
            self.names,
            typical=rng.normal(size=n_parts),
            spread=rng.uniform(0.2, 2, size=n_parts),
            weights=rng.uniform(0.5, 2, size=n_parts),
            # The first part counts only below the usual range of images, or the median.
            highest=np.array([first] + [4.0] * (n_parts - 1)),
            offsets=offsets,
            usual_sum=np.array([0.3, 2.0]) if "texture" in self.names else None,
        )
        self.can_score = None
        if not set(self.names).isdisjoint(DIRECT):
            self.can_score = np.ones((N_CLASSES, n_parts), dtype=bool)
            is_trees = np.array(self.names) == "trees"
            self.can_score[np.ix_(positions < 0, is_trees)] = False

    def decided(self):
        decision = Decision(
            self.names,
            self.n_blocks,
            self.unit_rows,
            self.positions,
            self.evidence,
            self.product,
            self.can_score,
            None if self.head is None else torch.from_numpy(self.head),
        )
        return decision(
            {name: torch.from_numpy(array) for name, array in self.scores.items()},
            None if self.logits is None else torch.from_numpy(self.logits),
            None if self.weight is None else torch.from_numpy(self.weight),
            by_class=True,
        )

    # ------------------------------------------------------- the slow reference

    def in_spreads(self, part, score):
        evidence = self.evidence
        return (score - evidence.typical[part]) / evidence.spread[part]

    def total(self, raw, likelihood, point):
        """The score from raw scores by part, or the paper's product."""
        if self.product is not None:
            relative = self.weight[point] / self.product.scale
            shortfall = likelihood - self.product.shift
            if shortfall < 0:
                return shortfall * relative
            return shortfall / max(1, relative)
        total = 0.0
        for part, score in enumerate(raw):
            unit = min(self.in_spreads(part, score), self.evidence.highest[part])
            if unit < -4:
                unit = -4 - 4 * math.log(1 + (-4 - unit) / 4)
            unit -= min(0, self.evidence.highest[part])
            total += self.evidence.weights[part] * unit
        if "texture" in self.names:
            part = self.names.index("texture")
            texture = self.in_spreads(part, raw[part])
            if texture < -2:
                typical, spread = self.evidence.usual_sum
                total = min(total, typical) + spread * (texture + 2)
        return total

    def shares(self):
        """How much each part counts for added classes; sums to one."""
        shares = [COUNTED.get(name, 0.0) for name in self.names]
        if not any(shares):
            shares = [
                0.0 if name in ("logit", "boundary") else weight
                for name, weight in zip(self.names, self.evidence.weights, strict=True)
            ]
        if self.can_score is not None:
            shares = [
                share if self.can_score[:, part].all() else 0.0
                for part, share in enumerate(shares)
            ]
        return [share / sum(shares) for share in shares]

    def mean_that_counts(self, raw):
        pairs = zip(self.shares(), raw, strict=True)
        return sum(
            share * self.in_spreads(part, score)
            for part, (share, score) in enumerate(pairs)
        )

    def to_boundaries(self, point, own):
        """Mean distance to the boundaries between a class of `fit` and the others."""
        distances = [
            (self.logits[point, own] - self.logits[point, other])
            / np.linalg.norm(self.head[own] - self.head[other])
            for other in range(5)
            if other != own
        ]
        return np.mean(distances)

    def most_alike_texture(self, point):
        """Score of the texture under the class that explains it best."""
        part = self.names.index("texture")
        offsets = self.evidence.offsets
        return max(
            score - (0 if offsets is None else offsets[label, part])
            for label, score in enumerate(self.scores["texture"][point])
        )

    def under(self, point, label):
        """Raw scores, log-likelihood and score for the label under one class."""
        evidence, is_added = self.evidence, self.positions[label] < 0
        scores = {name: array[point, label] for name, array in self.scores.items()}
        if self.logits is not None:
            scores["logit"] = self.logits[point, self.positions[label]]
            if is_added:
                scores["logit"] = evidence.typical[self.names.index("logit")]
        if self.head is not None:
            scores["boundary"] = (
                evidence.typical[self.names.index("boundary")]
                if is_added
                else self.to_boundaries(point, self.positions[label])
            )
        raw = [scores[name] for name in self.names]
        if evidence.offsets is not None:
            raw = [
                r - offset
                for r, offset in zip(raw, evidence.offsets[label], strict=True)
            ]
        if is_added:
            mean, counted = self.mean_that_counts(raw), self.shares()
            for part, name in enumerate(self.names):
                is_silent = (
                    self.can_score is not None and not self.can_score[label, part]
                )
                if name == "texture":
                    raw[part] = self.most_alike_texture(point)
                elif name not in ("logit", "boundary") and (
                    counted[part] == 0 or is_silent
                ):
                    raw[part] = evidence.typical[part] + mean * evidence.spread[part]
        weighted = [
            evidence.weights[part] * self.in_spreads(part, score)
            for part, score in enumerate(raw)
        ]
        if self.n_blocks:
            likelihood = sum(scores[name] for name in self.names[: self.n_blocks])
        else:
            likelihood = scores["logit"] if "logit" in scores else sum(weighted)
        if self.unit_rows:
            for_label = scores["linear"] + 0.5 * sum(weighted) / len(weighted)
        elif not set(self.names).isdisjoint(DIRECT):
            for_label = sum(weighted)
        elif "logit" in scores:
            for_label = scores["logit"] + 0.5 * sum(weighted[: self.n_blocks])
        else:
            for_label = likelihood
        return raw, likelihood, for_label

    def slow(self, point):
        """Score, label, raw evidence, winners and scores by class of one point."""
        found = [self.under(point, label) for label in range(N_CLASSES)]
        parts = range(len(self.names))
        class_scores = [self.total(raw, like, point) for raw, like, _ in found]
        highest = max(like for _, like, _ in found)

        def joined(labels):
            winners = [max(labels, key=lambda c: found[c][0][p]) for p in parts]
            raw = [found[winner][0][part] for part, winner in enumerate(winners)]
            label = max(labels, key=lambda c: found[c][2])
            return raw, max(found[c][1] for c in labels), label, winners

        needs_net = not set(self.names) <= set(DIRECT)
        fitted = [c for c in range(N_CLASSES) if self.positions[c] >= 0]
        added = [c for c in range(N_CLASSES) if self.positions[c] < 0]
        if not added or not needs_net:
            raw, _, label, winners = joined(range(N_CLASSES))
            score = self.total(raw, highest, point)
            return score, label, raw, winners, class_scores
        candidates = [joined(fitted)] if fitted else []
        candidates += [joined([label]) for label in added]
        totals = [self.total(raw, like, point) for raw, like, *_ in candidates]
        best = candidates[int(np.argmax(totals))]
        means = [self.mean_that_counts(raw) for raw, *_ in candidates]
        if self.product is not None or not fitted:
            means = totals
        else:
            means[0] += MARGIN
        label = candidates[int(np.argmax(means))][2]
        return (
            self.total(best[0], highest, point),
            label,
            best[0],
            best[3],
            class_scores,
        )


# A head alone takes no new classes.
CASES = [(kind, OF_FIT) for kind in KINDS] + [
    (kind, positions)
    for kind in KINDS
    for positions in (ADDED, ALL_ADDED)
    if kind != "logit alone"
]


@pytest.mark.parametrize("has_offsets", [False, True])
@pytest.mark.parametrize(("kind", "positions"), CASES, ids=str)
def test_decisions_are_those_of_a_slow_reference(kind, positions, has_offsets):
    assert_same(Case(kind, positions, has_offsets=has_offsets))


@pytest.mark.parametrize("positions", [OF_FIT, ADDED], ids=["of fit", "added"])
@pytest.mark.parametrize("kind", ["net", "net without a head"])
def test_the_papers_product_is_that_of_a_slow_reference(kind, positions):
    assert_same(Case(kind, positions, product=True))


def assert_same(case):
    decided = case.decided()
    expected = [case.slow(point) for point in range(N_POINTS)]
    score, label, raw, winners, class_scores = (
        np.array(column) for column in zip(*expected, strict=True)
    )
    np.testing.assert_allclose(decided.score, score, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(decided.most_likely, label)
    np.testing.assert_allclose(decided.raw, raw, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(decided.winners, winners)
    np.testing.assert_allclose(decided.class_scores, class_scores, rtol=1e-9)
    # All classes take part, so that the comparison can fail.
    assert len(set(label.tolist())) == N_CLASSES


def test_without_scores_by_class_the_rest_is_the_same():
    case = Case("net", ADDED)
    decision = Decision(
        case.names, case.n_blocks, False, ADDED, case.evidence, None, None
    )
    scores = {name: torch.from_numpy(array) for name, array in case.scores.items()}
    decided = decision(scores, torch.from_numpy(case.logits), None)
    assert decided.winners is None
    assert decided.class_scores is None
    assert torch.equal(decided.score, case.decided().score)


def test_a_decision_does_not_depend_on_the_rest_of_the_batch():
    case = Case("net and tables", ADDED, has_offsets=True)
    together = case.decided()
    for point in range(0, N_POINTS, 40):
        alone = Case("net and tables", ADDED, has_offsets=True)
        alone.scores = {k: v[point : point + 1] for k, v in case.scores.items()}
        alone.logits = case.logits[point : point + 1]
        decided = alone.decided()
        assert decided.score[0] == together.score[point]
        assert decided.most_likely[0] == together.most_likely[point]

"""The held-out split, the conformal threshold, and the weight."""

import math
import re
import warnings

import numpy as np
import pytest
import torch

from skvmdls.calibration.conformal import (
    class_p_values,
    conformal_p_value,
    conformal_threshold,
)
from skvmdls.calibration.hold_out import (
    hold_out,
    stratified_sample,
    warn_of_small_classes,
)
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.calibration.verdicts import RankTable

RNG = np.random.RandomState


def test_sample_is_stratified_and_every_row_has_the_same_chance():
    labels = np.repeat([0, 1, 2], [40, 7, 3])
    chances = np.zeros(len(labels))
    for seed in range(4000):
        mask = stratified_sample(labels, 10, RNG(seed))
        assert mask.sum() == 10
        assert np.all(
            np.abs(np.bincount(labels[mask], minlength=3) - [8, 1.4, 0.6]) < 1
        )
        chances += mask / 4000
    np.testing.assert_allclose(chances, 0.2, atol=0.03)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("evidence_share", [0.0, 0.25])
@pytest.mark.parametrize("counts", [(50, 50), (2, 2), (2, 3, 90), (2,) * 500])
def test_held_out_parts_are_disjoint_and_every_class_keeps_a_row(
    fraction, evidence_share, counts
):
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(5):
        parts = hold_out(labels, fraction, evidence_share, RNG(seed))
        assert set(labels[parts.training]) == set(labels)
        assert len(parts.threshold) >= 1
        held_out = np.union1d(parts.evidence, parts.threshold)
        assert not np.intersect1d(parts.training, held_out).size
        assert len(parts.training) + len(held_out) == len(labels)
        wanted = min(round(fraction * len(labels)), len(labels) // 2)
        assert len(held_out) == max(1, wanted)
        if len(held_out) > 1:
            assert not np.intersect1d(parts.evidence, parts.threshold).size
        assert bool(len(parts.evidence)) == bool(evidence_share)


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("n", [19, 20, 99, 500])
@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_threshold_and_p_value_agree(contamination, n):
    rng = RNG(0)
    calibration = rng.normal(size=n).round(1)
    scores = rng.normal(size=1000).round(1)
    rejected = scores < conformal_threshold(calibration, contamination)
    p_values = conformal_p_value(calibration, scores)
    np.testing.assert_array_equal(rejected, p_values <= contamination + 1e-12)


@pytest.mark.parametrize("contamination", [0.01, 0.05, 0.1, 0.2])
def test_rejection_rate_of_known_points_keeps_its_bound(contamination):
    """Exactly floor(contamination (n + 1)) / (n + 1) for continuous scores."""
    n, n_repeats = 149, 20_000
    scores = RNG(0).normal(size=(n_repeats, n + 1))
    rejected = [
        row[-1] < conformal_threshold(row[:-1], contamination) for row in scores
    ]
    expected = math.floor(contamination * (n + 1)) / (n + 1)
    assert expected <= contamination
    error = math.sqrt(contamination / n_repeats)
    assert abs(np.mean(rejected) - expected) < 4 * error


def test_p_values_are_super_uniform_on_known_points():
    scores = RNG(0).normal(size=(5000, 50)).round(1)
    p_values = np.array([conformal_p_value(row[:-1], row[-1:])[0] for row in scores])
    for level in (0.02, 0.05, 0.1, 0.3, 0.7):
        assert np.mean(p_values <= level) <= level + 4 * math.sqrt(level / 5000)


def test_p_value_equals_counting():
    calibration, scores = RNG(0).normal(size=30), RNG(1).normal(size=40)
    counted = [(1 + sum(calibration <= score)) / 31 for score in scores]
    np.testing.assert_allclose(conformal_p_value(calibration, scores), counted)


def test_ties_at_the_threshold_are_accepted():
    assert conformal_threshold(np.zeros(100), 0.05) == 0.0


def test_rounding_does_not_cost_a_rank():
    """0.07 * 100 is 7.000000000000001, 0.29 * 100 is 28.999999999999996."""
    for percent in range(1, 51):
        scores = np.arange(1.0, 100.0)
        assert conformal_threshold(scores, percent / 100) == percent


def test_no_class_is_held_out_whole():
    """Regression: of 7 rows, 4 were held out, among them a class's only two."""
    for n in range(4, 30):
        for seed in range(20):
            labels = np.minimum(np.arange(n) // 2, n // 2 - 1)
            parts = hold_out(labels, 0.5, 0.25, RNG(seed))
            assert set(labels[parts.training]) == set(labels)


def test_too_few_points_accept_everything_and_say_how_many_are_needed():
    with pytest.warns(UserWarning, match=r"10 calibration points.*at least 19"):
        assert conformal_threshold(np.arange(10.0), 0.05) == -math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert conformal_threshold(np.arange(19.0), 0.05) == 0.0
        assert conformal_threshold(np.arange(10.0), 0.0) == -math.inf


def test_the_papers_product_with_constants_of_held_out_points():
    """Below the shift: weight times shortfall, as in the paper, in other units."""
    rng = RNG(0)
    known = rng.normal(2000, 100, 500), rng.gamma(2.0, 1.0, 500)
    rule = WeightCalibration.fit(*known)
    assert rule.shift == known[0].max()
    assert rule.scale == known[1].max()
    likelihoods, weights = known[0] - 1, rng.gamma(4.0, 1.0, 500)
    product = (likelihoods - known[0].max()) * (weights / known[1].max())
    np.testing.assert_allclose(rule.apply(likelihoods, weights), product)


def test_scores_rise_with_the_likelihood_and_fall_with_the_weight():
    """Regression: the literal product rewards a large weight where ``l > 0``."""
    rng = RNG(0)
    known = rng.normal(2000, 100, 500), rng.gamma(2.0, 1.0, 500)
    rule = WeightCalibration.fit(*known)
    weights = np.linspace(0, 50, 200)
    for level in (-1e6, 1500.0, 2000.0, known[0].max() + 1e4):
        assert np.all(np.diff(rule.apply(np.full(200, level), weights)) <= 0)
    levels = np.linspace(-5000, 5000, 200)
    for weight in (0.0, 1.0, 1e3):
        assert np.all(np.diff(rule.apply(levels, np.full(200, weight))) >= 0)


def test_a_badly_reconstructed_point_scores_below_a_known_one_of_equal_likelihood():
    rng = RNG(0)
    rule = WeightCalibration.fit(rng.normal(2000, 100, 500), rng.gamma(2.0, 1.0, 500))
    scores = rule.apply(np.array([1900.0, 1900.0]), np.array([2.0, 200.0]))
    assert scores[1] < scores[0]


def test_perfect_reconstructions_and_extreme_values_stay_finite():
    rule = WeightCalibration.fit(np.zeros(9), np.zeros(9))
    scores = rule.apply(np.array([-1e30, 0.0, 1e30]), np.array([1e20, 0.0, 1e20]))
    assert np.isfinite(scores).all()


# ------------------------------------------------------------------------- groups


def random_groups(rng, n_classes=4, n_groups=60, largest=12):
    """Groups of one label each, and some rows of theirs with another label."""
    sizes = rng.randint(1, largest, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    labels = (groups % n_classes + (rng.uniform(size=len(groups)) < 0.05)) % n_classes
    order = rng.permutation(len(groups))
    return labels[order], groups[order]


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("weight_share", [0.0, 0.25])
@pytest.mark.parametrize("largest", [2, 5, 12])
def test_groups_stay_on_one_side_and_each_counts_once(fraction, weight_share, largest):
    shares = []
    for seed in range(10):
        labels, groups = random_groups(RNG(seed), largest=largest)
        parts = hold_out(labels, fraction, weight_share, RNG(seed), groups)
        of_training, of_weight, of_threshold = (
            set(groups[part].tolist()) for part in parts
        )
        assert not of_training & (of_weight | of_threshold)
        assert not of_weight & of_threshold
        assert of_training | of_weight | of_threshold == set(groups.tolist())
        assert len(of_threshold) == len(parts.threshold) >= 1
        assert bool(len(parts.evidence)) == bool(weight_share)
        assert set(labels[parts.training]) == set(labels)
        for part in parts:
            assert np.all(np.diff(part) > 0)
        shares.append(1 - len(parts.training) / len(labels))
    assert abs(np.mean(shares) - fraction) < 0.25 * fraction + 0.02
    assert max(shares) <= 0.6


def test_groups_of_one_row_are_drawn_like_rows():
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    for seed in range(5):
        parts = hold_out(labels, 0.2, 0.25, RNG(seed), np.arange(100))
        assert [len(part) for part in parts] == [80, 5, 15]
        assert np.bincount(labels[parts.training]).tolist() == [48, 24, 8]


def test_every_group_has_the_same_chance_whatever_its_size():
    sizes = np.repeat([1, 2, 5], 20)
    groups = np.repeat(np.arange(60), sizes)
    labels = (groups % 2).astype(int)
    chances = np.zeros(60)
    for seed in range(2000):
        parts = hold_out(labels, 0.2, 0.0, RNG(seed), groups)
        chances[groups[parts.threshold]] += 1 / 2000
    np.testing.assert_allclose(chances, 0.2, atol=0.04)


def test_each_row_of_a_group_may_stand_for_it():
    groups = np.repeat(np.arange(40), 3)
    chosen = np.zeros(120)
    for seed in range(500):
        chosen[hold_out(groups % 2, 0.5, 0.0, RNG(seed), groups).threshold] += 1
    by_place = chosen.reshape(40, 3).sum(axis=0)
    np.testing.assert_allclose(by_place / by_place.sum(), 1 / 3, atol=0.02)


@pytest.mark.parametrize("contamination", [0.05, 0.2])
def test_the_promise_holds_for_oversampled_points(contamination):
    """Regression: copies on both sides rejected nearly every new point.

    A copy of a training row scores high; a new point scores by chance. Classes are
    filled up with copies to the size of the largest.
    """
    rng = RNG(0)
    distinct = np.repeat([0, 1, 2, 3], [200, 200, 40, 25])
    rates, naive = [], []
    for seed in range(500):
        copies = np.concatenate(
            [rng.choice(np.flatnonzero(distinct == c), 200) for c in (2, 3)]
        )
        rows = np.concatenate([np.flatnonzero(distinct < 2), copies])
        groups = np.unique(rows, return_inverse=True)[1]
        parts = hold_out(distinct[rows], 0.2, 0.25, RNG(seed), groups)
        scores = rng.normal(size=465)
        seen = np.zeros(465, dtype=bool)
        seen[rows[parts.training]] = True
        assert not seen[rows[parts.threshold]].any()
        threshold = conformal_threshold(scores[rows[parts.threshold]], contamination)
        new = rng.normal(size=50)
        rates.append(np.mean(new < threshold))

        parts = hold_out(distinct[rows], 0.2, 0.25, RNG(seed))
        seen[:] = False
        seen[rows[parts.training]] = True
        threshold = conformal_threshold(
            np.where(seen, scores + 3, scores)[rows[parts.threshold]], contamination
        )
        naive.append(np.mean(new < threshold))
    error = 4 * np.std(rates) / math.sqrt(len(rates))
    assert np.mean(rates) <= contamination + error
    assert np.mean(rates) >= contamination - 0.02
    assert np.mean(naive) > contamination


def test_points_of_a_group_that_score_alike_count_once():
    """Counted each, large groups of low scores would set the threshold."""
    rng = RNG(0)
    groups = np.repeat(np.arange(200), rng.choice([1, 20], 200, p=[0.8, 0.2]))
    rates = []
    for seed in range(500):
        scores = rng.normal(size=200)
        parts = hold_out(groups % 2, 0.3, 0.0, RNG(seed), groups)
        rows = parts.threshold
        noisy = scores[groups] + 0.01 * rng.normal(size=len(groups))
        rates.append(
            np.mean(rng.normal(size=50) < conformal_threshold(noisy[rows], 0.1))
        )
    assert np.mean(rates) <= 0.1 + 4 * np.std(rates) / math.sqrt(len(rates))


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        (np.repeat([0, 1], 6), np.zeros(12, int)),
        (np.repeat([0, 1], 6), np.repeat([0, 1], 6)),
    ],
    ids=["one for all", "one a class"],
)
def test_groups_that_leave_nothing_to_hold_out_are_explained(labels, groups):
    with pytest.raises(ValueError, match="No rows can be held out.*two groups or more"):
        hold_out(labels, 0.2, 0.25, RNG(0), groups)


def test_a_group_larger_than_what_is_held_out_always_trains():
    groups = np.concatenate([np.zeros(40, int), 1 + np.arange(60)])
    for seed in range(20):
        parts = hold_out(np.arange(100) % 3, 0.1, 0.25, RNG(seed), groups)
        assert set(range(40)) <= set(parts.training)
        assert 5 <= 100 - len(parts.training) <= 12


@pytest.mark.parametrize(
    ("counts", "groups_of", "named"),
    [
        ((90, 90, 8), 1, "1 of 3 classes have too few rows.*'c2' .8."),
        ((90, 90, 3, 5), 1, "2 of 4 classes.*'c2' .3., 'c3' .5.\\. "),
        ((400, *[4] * 7), 1, "7 of 8 .*'c1' .4., .*'c5' .4., \\.\\.\\."),
        ((90, 90, 90), 30, "3 of 3 classes have too few different rows or groups"),
        ((90, 90, 19), 1, "'c2' .19."),
        ((90, 90, 20), 1, None),
        ((6, 6, 6), 1, None),
        ((6, 6, 10), 1, None),
        ((90, 90, 90), 15, None),
    ],
    ids=str,
)
def test_classes_that_are_too_small_for_the_promise_are_named(counts, groups_of, named):
    labels = np.repeat(np.arange(len(counts)), counts)
    classes = np.array([f"c{i}" for i in range(len(counts))])
    groups = None if groups_of == 1 else np.arange(len(labels)) // groups_of
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_small_classes(classes, labels, groups)
    assert len(caught) == (named is not None)
    if named:
        assert re.search(named, str(caught[0].message))
        assert "Give more" in str(caught[0].message)


@pytest.mark.parametrize("n", [1, 3, 100])
def test_the_p_value_of_nan_is_the_smallest(n):
    """Regression: it was the largest, as if the point were known for certain."""
    held_out = np.random.default_rng(0).normal(size=n)
    found = conformal_p_value(held_out, np.array([np.nan, -np.inf, 0.0, np.inf]))
    assert found[0] == found[1] == 1 / (n + 1)
    assert found[3] == 1
    by_class = class_p_values(held_out, np.zeros(n, dtype=int), np.full((2, 1), np.nan))
    np.testing.assert_array_equal(by_class, 1 / (n + 1))


@pytest.mark.parametrize("sizes", [(1,), (4, 1), (20, 7, 50), (26, 25, 24)])
def test_ranks_in_torch_are_the_p_values_ties_infinities_and_nan_included(sizes):
    rng = np.random.default_rng(0)
    held_out = [rng.integers(9, size=size).astype(float) for size in sizes]
    scores = rng.integers(-2, 11, size=(300, len(sizes))).astype(float)
    scores[:3] = np.array([[np.nan], [np.inf], [-np.inf]])
    found = RankTable(held_out)(torch.from_numpy(scores)).numpy()
    for column, own in enumerate(held_out):
        expected = conformal_p_value(own, scores[:, column])
        np.testing.assert_array_equal(found[:, column], expected)

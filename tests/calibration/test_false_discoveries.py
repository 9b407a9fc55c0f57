"""The bound on known points among those marked, whatever rule marks them."""

import itertools
import math

import numpy as np
import pytest

from skvmdls.calibration import conformal_p_value, false_discovery_bound
from skvmdls.calibration.false_discoveries import (
    KNOWN_SHARES,
    KnownPointsEnvelope,
)


def batch(rng, n_held_out, m, share, distance=4.0):
    """Draw p-values of a batch with a share of unknown points, and which are these."""
    is_unknown = np.arange(m) < round(share * m)
    scores = rng.normal(size=m) - distance * is_unknown
    return conformal_p_value(rng.normal(size=n_held_out), scores), is_unknown


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
@pytest.mark.parametrize(("n_held_out", "m"), [(60, 100), (500, 300)])
def test_the_bound_holds_for_all_sets_at_once(n_held_out, m, share):
    """The worst sets are the known points below a threshold, over all thresholds."""
    rng = np.random.default_rng(0)
    n_batches, failed = 100, 0
    for _ in range(n_batches):
        p_values, is_unknown = batch(rng, n_held_out, m, share)
        failed += any(
            false_discovery_bound(p_values, ~is_unknown & (p_values <= t), n_held_out)
            < np.sum(~is_unknown & (p_values <= t))
            for t in np.unique(p_values)[: m // 3]
        )
    assert failed <= 0.1 * n_batches + 3 * math.sqrt(0.09 * n_batches)


def test_the_envelope_holds_for_the_numbers_of_known_points():
    """Simulated from scores, not from the distribution that the envelope is made of."""
    rng = np.random.default_rng(1)
    envelope = KnownPointsEnvelope.simulate(80, 120, confidence=0.8)
    outside = 0
    for _ in range(2000):
        p_values, _ = batch(rng, 80, 120, 0.0)
        ranks = np.rint(p_values * 81)
        counts = np.sum(ranks[:, None] <= envelope.ranks, axis=0)
        outside += np.any(counts > envelope.largest)
    assert outside <= 0.2 * 2000 + 4 * math.sqrt(0.16 * 2000)
    # Nor is it needlessly wide.
    assert outside >= 0.1 * 2000


def test_the_bound_of_a_set_equals_trying_every_threshold():
    rng = np.random.default_rng(2)
    envelope = KnownPointsEnvelope.simulate(50, 40, confidence=0.9)
    for size in (1, 7, 40):
        ranks = rng.integers(1, 52, size=size)
        slow = min(
            largest + np.sum(ranks > rank)
            for rank, largest in zip(envelope.ranks, envelope.largest, strict=True)
        )
        assert envelope.bound(ranks) == min(size, slow)


def test_the_bound_grows_with_the_set_and_with_the_confidence():
    rng = np.random.default_rng(3)
    p_values, _ = batch(rng, 400, 200, 0.2)
    order = np.argsort(p_values)
    bounds = []
    for size in (5, 20, 40, 60, 200):
        marked = np.isin(np.arange(200), order[:size])
        by_confidence = [
            false_discovery_bound(p_values, marked, 400, confidence)
            for confidence in (0.5, 0.9, 0.99)
        ]
        assert by_confidence == sorted(by_confidence)
        bounds.append(by_confidence[1])
    assert bounds == sorted(bounds)
    assert all(b - a <= 140 for a, b in itertools.pairwise(bounds))


def test_a_mostly_unknown_batch_has_a_tighter_bound():
    rng = np.random.default_rng(4)
    p_values, is_unknown = batch(rng, 1000, 400, 0.9, distance=8.0)
    marked = p_values <= 0.05
    bound = false_discovery_bound(p_values, marked, 1000)
    unaware = KnownPointsEnvelope.simulate(1000, 400, 0.9).bound(
        np.rint(p_values[marked] * 1001)
    )
    assert np.sum(marked & ~is_unknown) <= bound < unaware


def test_nothing_is_marked_nothing_is_false():
    assert false_discovery_bound(np.ones(5), np.zeros(5, dtype=bool), 20) == 0
    assert false_discovery_bound(np.ones(0), np.zeros(0, dtype=bool), 20) == 0
    assert KNOWN_SHARES[0] == 1


@pytest.mark.parametrize("rejected", [np.zeros(4, bool), np.zeros(5), [0, 1, 2]])
def test_marks_of_another_shape_or_type_are_refused(rejected):
    with pytest.raises(ValueError, match=r"rejected has shape .* expected \(5,\)"):
        false_discovery_bound(np.ones(5), rejected, 20)


@pytest.mark.parametrize("confidence", [0, 1, 1.5, math.nan])
def test_a_confidence_out_of_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence="):
        false_discovery_bound(np.ones(5), np.ones(5, bool), 20, confidence)

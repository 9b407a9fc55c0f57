"""A row gets the same answer alone and in any batch: the held-out rows above all.

Their own scores are the limits that they are compared with, so that the last digit
would decide.
"""

import numpy as np
import pytest

from shared import blobs, changed
from skvmdls import VMDLSbDetector, VMDLSDetector

SPLIT = {"calibration": "split", "random_state": 0, "augmentation": None}
HALF = SPLIT | {"calibration_fraction": 0.4}
SIZES = (1, 2, 7, 64)


def fitted_on(kind, digits):
    """Fit a detector on data of a kind; returns it with its held-out rows."""
    X, y = digits.X_train, digits.y_train
    if kind == "table without a net":
        X, y = blobs(3, 80)
        detector = VMDLSbDetector(**HALF)
    elif kind == "table with nets":
        X, y = blobs(3, 80)
        detector = VMDLSDetector(
            **HALF, features=("x", "g", "mu"), max_epochs=4, autoencoder_epochs=2
        )
    elif kind == "vectors":
        X, y = blobs(3, 60, n_features=80)
        detector = VMDLSbDetector(**HALF)
    elif kind == "images":
        detector = VMDLSbDetector(**HALF, max_epochs=2)
    else:
        detector = VMDLSDetector(**SPLIT, max_epochs=2, autoencoder_epochs=1)
    detector.fit(X, y)
    return detector, X[detector.split_.threshold]


KINDS = (
    "table without a net",
    "table with nets",
    "vectors",
    "images",
    "images with an autoencoder",
)


@pytest.fixture(scope="module", params=KINDS)
def case(request, digits):
    return fitted_on(request.param, digits)


def in_batches(method, X, size):
    return np.concatenate([method(X[i : i + size]) for i in range(0, len(X), size)])


def test_the_row_that_sets_the_threshold_is_accepted_alone_and_in_any_batch(case):
    """Regression: scored alone, it was rejected where its last digit was lower."""
    detector, X = case
    n = len(X)
    found = {size: in_batches(detector.score_samples, X, size) for size in SIZES}
    order = np.argsort(detector.calibration_scores_)
    in_order = detector.score_samples(X)
    for k in range(1, n // 2 + 1):
        limit = changed(detector, contamination=k / (n + 1)).offset_
        accepted = in_order >= limit
        assert accepted[order[k - 1 :]].all()
        for scores in found.values():
            np.testing.assert_array_equal(scores >= limit, accepted)


@pytest.mark.parametrize("guarantee", ["marginal", "class"])
@pytest.mark.parametrize("contamination", [0.25, 0.5])
def test_a_held_out_row_gets_the_same_label_alone_and_in_any_batch(
    case, guarantee, contamination
):
    detector, X = case
    detector = changed(detector, guarantee=guarantee, contamination=contamination)
    expected = detector.predict(X)
    assert 0 < np.sum(expected == -1) <= contamination * len(X)
    for size in SIZES:
        np.testing.assert_array_equal(in_batches(detector.predict, X, size), expected)


def test_every_held_out_row_reaches_its_own_rank_in_any_batch(case):
    """Its p-value counts the row itself, whatever it is scored with."""
    detector, X = case
    ranks = np.searchsorted(
        np.sort(detector.calibration_scores_), detector.calibration_scores_, "right"
    )
    least = (1 + ranks) / (len(X) + 1)
    for size in SIZES:
        p_values = in_batches(detector.p_value, X, size)
        assert np.all(p_values >= least)
        np.testing.assert_array_equal(p_values, detector.p_value(X))


def test_the_order_and_the_rest_of_a_batch_do_not_matter(case):
    detector, X = case
    expected = detector.predict(X)
    order = np.random.default_rng(0).permutation(len(X))
    np.testing.assert_array_equal(detector.predict(X[order]), expected[order])
    among_others = np.concatenate([X[::-1] * 0.9, X, X[:5]])
    found = detector.predict(among_others)[len(X) : 2 * len(X)]
    np.testing.assert_array_equal(found, expected)

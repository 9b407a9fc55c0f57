"""Class Gaussians against scipy, their streaming, and their complaints."""

import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from skvmdls.scoring.gaussians import (
    ClassGaussians,
    cache_features,
    check_class_sizes,
    check_memory,
    covariance_type_for,
    fit_gaussians,
)


def correlated(n, n_features, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features))
    return shift + rng.normal(size=(n, n_features)) @ mixing


CLASSES = [correlated(60, 5, 0), correlated(40, 5, 1, 3.0), correlated(25, 5, 2, -2.0)]
POINTS = correlated(30, 5, 3)


def in_batches(blocks, batch_size=7):
    """Batches of each class, from the classes' arrays of each block."""

    def class_batches(label):
        of_class = {name: arrays[label] for name, arrays in blocks.items()}
        for start in range(0, len(next(iter(of_class.values()))), batch_size):
            end = start + batch_size
            yield {name: array[start:end] for name, array in of_class.items()}

    return class_batches


def fitted(arrays, covariance_type, batch_size=7, pooling=0.0):
    class_batches = in_batches({"g": arrays}, batch_size)
    classes = range(len(arrays))
    gaussians = fit_gaussians(class_batches, classes, covariance_type, pooling)
    assert set(gaussians) == {"g"}
    return gaussians["g"]


def scipy_log_likelihood(means, covariances, points):
    return np.column_stack(
        [
            multivariate_normal(mean, covariance).logpdf(points)
            for mean, covariance in zip(means, covariances, strict=True)
        ]
    )


def class_covariances():
    """Estimated in units of the pooled within-class deviation, then scaled back."""
    sizes = [len(X) for X in CLASSES]
    pooled = np.average([X.var(axis=0) for X in CLASSES], axis=0, weights=sizes)
    scale = np.sqrt(pooled)
    return [
        LedoitWolf().fit(X / scale).covariance_ * np.outer(scale, scale)
        for X in CLASSES
    ]


def test_full_equals_scipy():
    means = [X.mean(axis=0) for X in CLASSES]
    expected = scipy_log_likelihood(means, class_covariances(), POINTS)
    found = fitted(CLASSES, "full").log_likelihood(torch.from_numpy(POINTS))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_tied_equals_scipy_with_the_size_weighted_mean_of_the_covariances():
    sizes = [len(X) for X in CLASSES]
    pooled = np.average(class_covariances(), axis=0, weights=sizes)
    means = [X.mean(axis=0) for X in CLASSES]
    expected = scipy_log_likelihood(means, [pooled] * 3, POINTS)
    found = fitted(CLASSES, "tied").log_likelihood(torch.from_numpy(POINTS))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("n_points", [1, 256])
def test_tied_scores_a_class_alike_whatever_others_there_are(n_points):
    rng = np.random.default_rng(0)
    means, whitening = rng.normal(size=(70, 17)), np.tril(rng.random((17, 17)) + 1)
    common = {"centre": means.mean(axis=0)}
    points = torch.from_numpy(rng.normal(size=(n_points, 17)))

    def scores(some):
        return ClassGaussians(some, whitening, "tied", common).log_likelihood(points)

    of_all = scores(means)
    white = (points.numpy()[:, None] - means) @ whitening
    expected = -0.5 * ((white**2).sum(axis=2) + 17 * np.log(2 * np.pi))
    expected += np.log(np.diag(whitening)).sum()
    np.testing.assert_allclose(of_all, expected, rtol=1e-9)
    for n in (1, 63, 64, 65, 69):
        assert torch.equal(scores(means[:n]), of_all[:, :n])


def test_diag_equals_scipy():
    expected = scipy_log_likelihood(
        [X.mean(axis=0) for X in CLASSES], [X.var(axis=0) for X in CLASSES], POINTS
    )
    found = fitted(CLASSES, "diag").log_likelihood(torch.from_numpy(POINTS))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("pooling", [0.05, 0.4])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_pooling_equals_scipy_with_the_mixture_of_the_covariances(
    covariance_type, pooling
):
    sizes = [len(X) for X in CLASSES]
    own = (
        class_covariances()
        if covariance_type == "full"
        else [np.diag(X.var(axis=0)) for X in CLASSES]
    )
    pooled = np.average(own, axis=0, weights=sizes)
    expected = scipy_log_likelihood(
        [X.mean(axis=0) for X in CLASSES],
        [(1 - pooling) * covariance + pooling * pooled for covariance in own],
        POINTS,
    )
    found = fitted(CLASSES, covariance_type, pooling=pooling)
    np.testing.assert_allclose(
        found.log_likelihood(torch.from_numpy(POINTS)).numpy(), expected, rtol=1e-9
    )


def test_all_pooled_is_tied():
    points = torch.from_numpy(POINTS)
    torch.testing.assert_close(
        fitted(CLASSES, "full", pooling=1.0).log_likelihood(points),
        fitted(CLASSES, "tied").log_likelihood(points),
    )


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_a_class_too_small_borrows_all_of_the_pooled_one_whatever_the_pooling(
    covariance_type,
):
    arrays = [*CLASSES, correlated(2, 5, 5, -8.0)]
    with pytest.warns(UserWarning, match="have no covariance of their own"):
        little, much = (
            fitted(arrays, covariance_type, pooling=pooling) for pooling in (0.0, 0.9)
        )
    assert torch.equal(little.precisions_cholesky[3], much.precisions_cholesky[3])


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_float32_features_are_scored_in_float64_and_batches_do_not_matter(
    covariance_type,
):
    one = fitted(CLASSES, covariance_type, batch_size=1)
    other = fitted(CLASSES, covariance_type, batch_size=1000)
    points = torch.from_numpy(POINTS.astype(np.float32))
    found = one.log_likelihood(points)
    assert found.dtype == torch.float64
    torch.testing.assert_close(other.log_likelihood(points), found)
    rows = torch.cat([one.log_likelihood(row[None]) for row in points])
    torch.testing.assert_close(rows, found)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_the_units_of_a_feature_do_not_matter(covariance_type):
    units = np.array([0.3, 1.0, 1.5, 2.0, 0.7])
    plain = fitted(CLASSES, covariance_type).log_likelihood(torch.from_numpy(POINTS))
    scaled = fitted([units * X for X in CLASSES], covariance_type)
    found = scaled.log_likelihood(torch.from_numpy(units * POINTS))
    torch.testing.assert_close(found + np.log(units).sum(), plain)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_a_feature_that_hardly_moves_does_not_outvote_the_others(covariance_type):
    """A known point that moved it once scored -51,333 in one part."""
    still = [X * np.array([1, 1, 1, 1, 1e-6]) for X in CLASSES]
    gaussians = fitted(still, covariance_type)
    moved = still[0].mean(axis=0) + np.array([0, 0, 0, 0, still[0][:, 0].std()])
    points = torch.from_numpy(np.stack([still[0].mean(axis=0), moved]))
    usual, other = gaussians.log_likelihood(points)[:, 0]
    assert 0 < usual - other < 500


@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_more_dimensions_than_points_and_dead_channels_are_shrunk(covariance_type):
    """Singular covariances are ordinary: Ledoit-Wolf handles them."""
    arrays = [correlated(12, 40, seed) for seed in range(3)]
    for X in arrays:
        X[:, 7] = 1.0
    likelihood = fitted(arrays, covariance_type).log_likelihood(
        torch.from_numpy(correlated(5, 40, 9))
    )
    assert torch.isfinite(likelihood).all()


def test_diag_survives_dead_channels():
    arrays = [X * np.array([1, 0, 1, 1, 1]) for X in CLASSES]
    likelihood = fitted(arrays, "diag").log_likelihood(torch.from_numpy(POINTS))
    assert torch.isfinite(likelihood).all()


def test_a_class_too_small_for_a_covariance_borrows_the_pooled_one():
    arrays = [*CLASSES, correlated(1, 5, 4, 8.0), correlated(2, 5, 5, -8.0)]
    with pytest.warns(UserWarning, match=r"2 of 5 classes \(\[3, 4\]\) have"):
        full = fitted(arrays, "full")
    tied = fitted(arrays, "tied")
    points = torch.from_numpy(POINTS)
    torch.testing.assert_close(
        full.log_likelihood(points)[:, 3:], tied.log_likelihood(points)[:, 3:]
    )


def test_a_class_too_small_for_a_variance_borrows_the_pooled_one():
    """Regression: one point's variance is zero, and its class's density a spike."""
    lonely, pair = np.full((1, 5), 3.0), np.full((2, 5), -3.0)
    with pytest.warns(UserWarning, match=r"2 of 5 classes \(\[3, 4\]\) have"):
        gaussians = fitted([*CLASSES, lonely, pair], "diag")
    assert torch.equal(
        gaussians.precisions_cholesky[3], gaussians.precisions_cholesky[4]
    )
    assert gaussians.precisions_cholesky[3].max() < 10


@pytest.mark.parametrize(
    ("sizes", "covariance_type", "message"),
    [
        ([2, 2, 1], "full", "at least 3 training points.*largest has 2.*'diag'"),
        ([2, 2, 1], "tied", "at least 3 training points.*largest has 2.*'diag'"),
        ([1, 1, 1], "diag", "at least 2 training points.*Use more points a class"),
        ([1, 1, 1], "auto", "at least 2 training points.*Use more points a class"),
    ],
)
def test_classes_too_small_for_any_covariance_are_explained(
    sizes, covariance_type, message
):
    with pytest.raises(ValueError, match=message):
        check_class_sizes(np.array(sizes), covariance_type)


def test_each_part_gets_the_covariances_that_its_rows_allow():
    rng = np.random.default_rng(0)
    sizes = (40, 18, 30)
    blocks = {
        name: [rng.normal(size=(n, n_features)) for n in sizes]
        for name, n_features in (("mu", 4), ("g", 384))
    }
    found = fit_gaussians(in_batches(blocks), "abc", "auto", pooling=0.1)
    assert found["mu"].covariance_type == "full"
    assert found["g"].covariance_type == "tied"
    for name, gaussians in found.items():
        alone = fitted(blocks[name], gaussians.covariance_type, pooling=0.1)
        expected, state = alone.state_dict(), gaussians.state_dict()
        assert expected.keys() == state.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)


def test_two_rows_a_class_and_very_wide_parts_get_variances_alone():
    assert covariance_type_for([2, 2, 1], 3) == "diag"
    assert covariance_type_for([900, 900], 4097) == "diag"


def test_full_covariances_that_fit_no_memory_are_tied(monkeypatch):
    monkeypatch.setattr("skvmdls.scoring.gaussians._memory", lambda: 2**20)
    assert covariance_type_for([900] * 10, 100) == "tied"
    assert covariance_type_for([900] * 10, 20) == "full"


def test_covariances_that_fit_no_memory_are_an_error_that_names_the_way_out(
    monkeypatch,
):
    monkeypatch.setattr("skvmdls.scoring.gaussians._memory", lambda: 2**30)
    lengths, sizes = {"t1": 8, "x": 5026}, np.full(150, 100)
    with pytest.raises(ValueError, match=r"'full' .*'x' .* 5026 col.*56 GiB.*auto"):
        check_memory(lengths, sizes, "full")
    check_memory(lengths, sizes, "auto")


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_features_that_never_vary_are_an_error_that_names_the_part(covariance_type):
    never = [np.zeros((9, 3)), np.ones((9, 3))]
    blocks = {"t1": [correlated(9, 2, seed) for seed in range(2)], "g": never}
    with pytest.raises(ValueError, match="part 'g' .* same for every training point"):
        fit_gaussians(in_batches(blocks), "ab", covariance_type)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_blocks_fitted_together_are_those_fitted_alone(covariance_type):
    blocks = {
        "t1": CLASSES,
        "mu": [correlated(len(X), 3, 10 + i) for i, X in enumerate(CLASSES)],
        "logit": [X[:, :1] for X in CLASSES],
    }
    together = fit_gaussians(in_batches(blocks), "abc", covariance_type, pooling=0.1)
    assert list(together) == list(blocks)
    for name, arrays in blocks.items():
        alone = fitted(arrays, covariance_type, pooling=0.1).state_dict()
        for key, tensor in together[name].state_dict().items():
            assert torch.equal(alone[key], tensor), (name, key)


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_classes_that_borrow_in_several_blocks_are_named_once(covariance_type):
    arrays = [*CLASSES, correlated(1, 5, 4, 8.0), correlated(2, 5, 5, -8.0)]
    blocks = {"t1": arrays, "g": arrays, "mu": arrays}
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        fit_gaussians(in_batches(blocks), range(5), covariance_type)
    [message] = [str(warning.message) for warning in raised]
    assert message.startswith("2 of 5 classes ([3, 4]) have no covariance")


def test_many_classes_that_borrow_are_named_in_part():
    arrays = [*CLASSES, *(correlated(1, 5, seed) for seed in range(9))]
    with pytest.warns(
        UserWarning, match=r"9 of 12 classes \(\[3, 4, 5, 6, 7, \.\.\.\]\)"
    ):
        fitted(arrays, "full")


def test_no_blocks_give_no_gaussians():
    """Of the largest logit alone, which needs none."""
    assert fit_gaussians(lambda label: [{}, {}], "ab", "full") == {}


def test_classes_of_two_points_are_too_few_even_for_shrinkage():
    arrays = [correlated(2, 30, seed) for seed in range(2)]
    with pytest.raises(ValueError, match="Ledoit-Wolf shrinkage. Use more training"):
        fitted(arrays, "full")
    with pytest.warns(UserWarning, match="too few points"):
        likelihood = fitted(arrays, "diag").log_likelihood(torch.zeros(1, 30))
    assert torch.isfinite(likelihood).all()


@pytest.mark.parametrize(
    ("n", "n_features"), [(200, 4), (40, 30), (10, 60), (3, 20), (2, 5)]
)
def test_streamed_shrinkage_is_scikit_learns(n, n_features):
    """One class and its mirror image, so that the pooled deviation is the class's."""
    X = correlated(n, n_features, seed=n)
    scale = X.std(axis=0)
    expected = LedoitWolf().fit(X / scale).covariance_ * np.outer(scale, scale)
    arrays = [X, -X]
    if n == 2:
        with pytest.raises(ValueError, match="singular"):
            fitted(arrays, "tied")
        return
    factor = fitted(arrays, "tied").precisions_cholesky.numpy()
    np.testing.assert_allclose(factor @ factor.T, np.linalg.inv(expected), rtol=1e-7)


def test_features_are_cache_features_as_far_as_memory_allows():
    computed = []

    def class_batches(label):
        for start in range(0, 60, 20):
            computed.append((label, start))
            features = CLASSES[0][start : start + 20] + label
            yield {"t1": features[:, :2], "g": features[:, 2:]}

    kept = cache_features(class_batches, budget=2 * CLASSES[0].nbytes)
    first, second = (
        [
            np.concatenate([np.hstack(list(rows.values())) for rows in kept(label)])
            for label in range(3)
        ]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    # Two of three classes fit.
    assert computed == [(c, start) for c in (0, 1, 2, 2) for start in (0, 20, 40)]


def peak_memory(n_batches, covariance_type, n_classes=3):
    def class_batches(label):
        rng = np.random.default_rng(label)
        for _ in range(n_batches):
            yield {"g": rng.normal(label, 1, size=(100, 20))}

    tracemalloc.start()
    fit_gaussians(class_batches, range(n_classes), covariance_type)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
def test_memory_does_not_grow_with_the_number_of_points(covariance_type):
    few, many = (peak_memory(n, covariance_type) for n in (5, 100))
    assert many < 1.1 * few


STATES = {
    "full": np.stack([np.eye(3), 2 * np.eye(3)]),
    "tied": np.eye(3),
    "diag": np.ones((2, 3)),
}


@pytest.mark.parametrize("kind", STATES)
def test_gaussians_come_back_from_their_state(kind):
    means = np.arange(6.0).reshape(2, 3)
    gaussians = ClassGaussians(means, STATES[kind], kind)
    # The centre stays where it was as classes come and go.
    kept = {"means", "precisions_cholesky"} | ({"centre"} if kind == "tied" else set())
    assert set(gaussians.state_dict()) == kept
    again = ClassGaussians.from_state(gaussians.state_dict(), kind)
    points = torch.randn(4, 3)
    assert torch.equal(again.log_likelihood(points), gaussians.log_likelihood(points))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": np.zeros((3, 3))}, r"has shape \(2, 3, 3\), expected \(3, 3, 3\)"),
        ({"means": np.zeros(3)}, "gaussians.means is an array of float64 and shape"),
        ({"means": np.full((2, 3), np.inf)}, "means holds numbers that are not finite"),
        ({"precisions_cholesky": np.eye(3)}, "expected float64 with 3 axes"),
        ({"precisions_cholesky": -STATES["full"]}, "must have a positive diagonal"),
    ],
)
def test_a_state_that_no_gaussians_have_is_refused(change, message):
    state = {"means": np.zeros((2, 3)), "precisions_cholesky": STATES["full"]}
    with pytest.raises(ValueError, match=message):
        ClassGaussians.from_state(state | change, "full")

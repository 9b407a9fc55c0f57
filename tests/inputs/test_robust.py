"""Scales that a few cells cannot move."""

import numpy as np
import pytest
import torch

from skvmdls.inputs.robust import describe_far_values, robust_scales


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(3, 2, size=(900, 10))


def slow_scales(column):
    """Find centre and scale of one column as the docstring describes them."""
    median = np.median(column)
    order = np.argsort(abs(column - median), kind="stable")
    distances = abs(column - median)[order]
    n_near = int(np.ceil(0.95 * len(column)))
    spread = np.sqrt(np.mean(distances[:n_near] ** 2))
    for i in range(n_near, len(column)):
        if spread > 0 and distances[i] >= max(20 * spread, 3 * distances[i - 1]):
            column = column[order[:i]]
            break
    return column.mean(), column.std()


@pytest.mark.parametrize("share", [0.001, 0.003, 0.02])
def test_a_code_for_missing_does_not_move_centre_and_scale(X, share):
    clean = robust_scales(X)
    is_coded = np.random.default_rng(1).random(X.shape) < share
    coded = robust_scales(np.where(is_coded, -9999, X))
    np.testing.assert_allclose(coded.centre, clean.centre, atol=0.05)
    np.testing.assert_allclose(coded.scale, clean.scale, rtol=0.05)
    for far in coded.far_values:
        assert far.value == -9999
        assert far.share == pytest.approx(is_coded[:, far.column].mean())


@pytest.mark.parametrize("value", [-9999, 1e9, 99999.0])
def test_scales_are_those_of_a_slow_reference(X, value):
    X[5:9, 3], X[7, 4] = value, value
    scales = robust_scales(X)
    expected = np.array([slow_scales(column) for column in X.T])
    np.testing.assert_allclose(scales.centre, expected[:, 0])
    np.testing.assert_allclose(scales.scale, expected[:, 1])


@pytest.mark.parametrize(
    "draw", ["normal", "standard_t", "lognormal", "uniform", "poisson"]
)
def test_columns_without_codes_get_mean_and_deviation(draw):
    rng = np.random.default_rng(0)
    sample = {
        "normal": lambda: rng.normal(size=(500, 8)),
        "standard_t": lambda: rng.standard_t(4, size=(500, 8)),
        "lognormal": lambda: rng.lognormal(size=(500, 8)),
        "uniform": lambda: rng.uniform(size=(500, 8)),
        "poisson": lambda: rng.poisson(0.1, size=(500, 8)).astype(float),
    }[draw]()
    scales = robust_scales(sample)
    assert not scales.far_values
    np.testing.assert_allclose(scales.centre, sample.mean(axis=0))
    np.testing.assert_allclose(scales.scale, sample.std(axis=0))


def test_rare_categories_are_not_far():
    X = (
        np.random.default_rng(0).random((500, 6)) < [0.01, 0.03, 0.1, 0.5, 0.9, 0.99]
    ) * 1.0
    scales = robust_scales(X)
    assert not scales.far_values
    assert not scales.is_far(X).any()


def test_constant_columns_have_a_positive_scale():
    scales = robust_scales(np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.1]]))
    assert (scales.scale > 0).all()
    assert (scales.scale[1] < 1e-10).all()


def test_few_rows_have_no_far_cells():
    scales = robust_scales(np.array([[1.0], [2.0], [3.0], [1e6]]))
    assert np.isinf(scales.lower).all()


def test_a_single_far_cell_is_left_out_and_not_named(X):
    X[0, 0] = 1e7
    scales = robust_scales(X)
    assert scales.scale[0] < 3
    assert scales.far_values == ()
    assert scales.is_far(X).sum() == 1


def test_codes_become_the_centre_and_other_far_cells_are_limited(X):
    X[:4, 2] = -9999
    scales = robust_scales(X)
    new = torch.from_numpy(X[[0, 10, 11, 12]])
    new[1, 2], new[2, 3] = 5e5, -9999
    given = new.clone()
    bounded = scales.bounded(new)
    assert bounded[0, 2] == scales.centre[2]
    # Strange, but no further than 20 spreads; of a column without far cells, as it is.
    assert bounded[1, 2] == scales.centre[2] + 20 * scales.scale[2]
    assert bounded[2, 3] == -9999
    np.testing.assert_array_equal(bounded[3], X[12])
    np.testing.assert_array_equal(new, given)


def test_integers_and_single_precision_are_taken(X):
    whole = X.round().astype(np.int32)
    whole[:3, 0] = -9999
    assert robust_scales(whole).far_values[0].column == 0
    np.testing.assert_allclose(
        robust_scales(X.astype(np.float32)).scale, robust_scales(X).scale, rtol=1e-5
    )


def test_the_warning_names_column_value_and_share(X):
    assert describe_far_values(robust_scales(X)) == ""
    X[:9, 1] = -9999
    text = describe_far_values(robust_scales(X), names=list("abcdefghij"))
    assert "'b' has -9999 in 0.01 of the rows" in text
    assert "SimpleImputer(missing_values=-9999" in text


def test_more_rows_than_are_looked_at_give_the_same_bounds():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50_000, 2))
    X[rng.permutation(50_000)[:150], 0] = -9999
    scales = robust_scales(X)
    assert scales.scale[0] == pytest.approx(1, abs=0.02)
    assert scales.far_values[0].share == pytest.approx(0.003)

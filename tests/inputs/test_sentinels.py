"""Values that stand for missing ones in tables."""

import warnings

import numpy as np
import pytest
import sklearn
from sklearn.base import BaseEstimator

from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.sentinels import find_sentinels

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(300, 4))


def with_values(column, value, n):
    X = TABLE.copy()
    X[RNG.permutation(300)[:n], column] = value
    return X


@pytest.mark.parametrize(
    ("value", "n"),
    [(-9999, 1), (-9999, 30), (999, 1), (99.99, 2), (1e6, 2), (-1e30, 9)],
)
def test_a_value_far_from_all_others_is_found(value, n):
    [found] = find_sentinels(with_values(2, value, n))
    assert (found.column, found.value) == (2, value)
    assert found.share == pytest.approx(n / 300)


@pytest.mark.parametrize(
    "X",
    [
        TABLE,
        # One that is merely far off is no sentinel: it may be an outlier.
        with_values(2, 1234.5, 1),
        RNG.lognormal(0, 2, (500, 5)),
        RNG.standard_cauchy((500, 5)),
        RNG.poisson(0.1, (500, 5)),
        RNG.integers(0, 2, (500, 5)),
        np.where(TABLE > 1, 5.0, 0.0),
        np.ones((50, 3)),
        TABLE[:10],
        np.clip(RNG.lognormal(0, 2, (500, 5)), 0, 60),
        np.full((300, 2), -9999.0),
    ],
    ids=range(11),
)
def test_other_values_are_not(X):
    assert find_sentinels(X) == []


def test_two_of_them_and_both_ends_are_found():
    X = with_values(0, -9999, 3)
    X[:2, 0] = 9999
    X[5:9, 3] = -999
    found = [(s.column, s.value) for s in find_sentinels(X)]
    assert found == [(0, -9999), (0, 9999), (3, -999)]


def test_a_large_table_is_looked_at_in_part():
    X = RNG.normal(size=(60_000, 2))
    X[RNG.random(60_000) < 0.01, 1] = -9999
    [found] = find_sentinels(X)
    assert found.share == pytest.approx(0.01, rel=0.3)


def test_fit_warns_with_the_name_of_the_column():
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(with_values(1, -9999, 3), columns=list("abcd"))
    told = r"\(b: -9999 in 0.01 of the rows, \d+ deviations off\).*SimpleImputer"
    estimator = BaseEstimator()
    with pytest.warns(UserWarning, match=told):
        check_inputs(estimator, X, None)
    with pytest.warns(UserWarning, match="column 1: -9999"):
        check_inputs(BaseEstimator(), X.to_numpy(), None)
    # Of new rows nothing is said.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_inputs(estimator, X, (4,))


def test_a_row_with_nan_that_scikit_learn_was_told_not_to_look_for(of_table):
    """It is the strangest of all, for every method."""
    X = np.full((3, 6), 1.0)
    X[0, 2] = np.nan
    X[1] = 1e5
    with sklearn.config_context(assume_finite=True):
        assert of_table.predict(X)[0] == of_table.predict(X)[1] == -1
        p_values = of_table.p_value(X)
        assert p_values[0] == p_values[1] == p_values.min()
        assert np.isfinite(of_table.score_samples(X)).all()
        assert (of_table.p_values(X)[0] == of_table.p_values(X)[1]).all()
        selected = of_table.select_unknown(X, fdr=0.4)
        assert selected[0] == selected[1]

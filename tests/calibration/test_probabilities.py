"""Probabilities of the known classes and of "unknown", against what they promise."""

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from skvmdls.calibration import (
    ClassProbabilities,
    conformal_p_value,
    unknown_probability,
    with_unknown,
)


def scores_at_temperature(temperature, n=4000, n_classes=4, seed=0):
    """Scores of points of which the labels are drawn at a known temperature."""
    rng = np.random.default_rng(seed)
    log_p = log_softmax(rng.normal(size=(n, n_classes)) * 2, axis=1)
    uniform = rng.random((n, 1))
    labels = (
        (np.exp(log_p).cumsum(axis=1) < uniform).sum(axis=1).clip(max=n_classes - 1)
    )
    return log_p * temperature, labels


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_the_temperature_of_the_labels_is_found(temperature):
    scores, labels = scores_at_temperature(temperature)
    fitted = ClassProbabilities.fit(scores, labels)
    assert fitted.temperature == pytest.approx(temperature, rel=0.1)
    predicted = fitted.predict(scores)
    # Among points of a probability, that share has the class.
    for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):
        chosen = (predicted >= low) & (predicted < high)
        is_own = labels[:, None] == np.arange(4)
        assert is_own[chosen].mean() == pytest.approx(
            predicted[chosen].mean(), abs=0.03
        )


def test_the_temperature_has_the_lowest_log_loss():
    scores, labels = scores_at_temperature(2.0)
    rows = np.arange(len(labels))

    def loss(temperature):
        predicted = ClassProbabilities(temperature).predict(scores)
        return -np.log(predicted[rows, labels]).mean()

    best = ClassProbabilities.fit(scores, labels).temperature
    assert all(loss(best) < loss(best * factor) for factor in (0.8, 0.95, 1.05, 1.2))


def test_the_most_likely_class_stays_and_rows_sum_to_one():
    scores, labels = scores_at_temperature(3.0, n=300)
    predicted = ClassProbabilities.fit(scores, labels).predict(scores)
    np.testing.assert_array_equal(predicted.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_allclose(predicted.sum(axis=1), 1)


@pytest.mark.parametrize("n", [1, 3, 50])
def test_separable_points_keep_a_temperature_that_is_not_zero(n):
    scores = 10 * np.eye(3)[np.arange(n) % 3]
    fitted = ClassProbabilities.fit(scores, np.arange(n) % 3)
    assert 0.2 < fitted.temperature <= 1.001
    assert ClassProbabilities.fit(scores * 1e6, np.arange(n) % 3).temperature > 0


def test_the_state_is_the_whole_of_it(tmp_path):
    fitted = ClassProbabilities.fit(*scores_at_temperature(2.0, n=100))
    np.savez(tmp_path / "a.npz", **fitted.state_dict())
    with np.load(tmp_path / "a.npz") as state:
        assert ClassProbabilities.from_state(state) == fitted


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_temperatures_that_are_none_are_refused(temperature):
    with pytest.raises(ValueError, match="expected a positive number"):
        ClassProbabilities.from_state({"temperature": np.array(temperature)})


# ------------------------------------------------------------ unknown


@pytest.mark.parametrize("auroc", [0.6, 0.75, 0.95])
@pytest.mark.parametrize("prior", [0.05, 0.5])
def test_unknown_is_calibrated_where_the_assumption_holds(auroc, prior):
    """Points whose p-values have the assumed law: so many are unknown as stated."""
    rng = np.random.default_rng(0)
    m, power = 200_000, (1 - auroc) / auroc
    is_unknown = rng.random(m) < prior
    # Scores in [0, 1]: known points uniform, unknown ones by the power law.
    scores = np.where(is_unknown, rng.random(m) ** (1 / power), rng.random(m))
    assert roc_auc_score(~is_unknown, scores) == pytest.approx(auroc, abs=0.01)
    p_values = conformal_p_value(np.arange(1, 200) / 200, scores)
    probability = unknown_probability(p_values, 199, prior, auroc)
    assert probability.mean() == pytest.approx(prior, rel=0.03)
    for cut in np.quantile(probability, [0.5, 0.9, 0.99]):
        chosen = probability >= cut
        assert is_unknown[chosen].mean() == pytest.approx(
            probability[chosen].mean(), abs=0.02
        )


def test_unknown_falls_in_the_p_value_and_rises_in_the_prior():
    p_values = np.arange(1, 101) / 100
    for auroc in (0.5, 0.7, 0.99):
        low, high = (unknown_probability(p_values, 99, q, auroc) for q in (0.1, 0.6))
        assert (np.diff(low) <= 1e-12).all()
        assert (low < high).all()
    chance = unknown_probability(p_values, 99, 0.3, expected_auroc=0.5)
    np.testing.assert_allclose(chance, 0.3)


def test_few_held_out_points_make_nothing_certain():
    smallest = [
        unknown_probability(np.array([1 / (n + 1)]), n, 0.1, 0.9)[0]
        for n in (9, 99, 999)
    ]
    assert smallest == sorted(smallest)
    assert smallest[0] < 0.5


def test_the_column_of_unknown_leaves_the_odds_of_the_others():
    known = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    joined = with_unknown(known, np.array([0.5, 0.1]))
    np.testing.assert_allclose(joined.sum(axis=1), 1)
    np.testing.assert_allclose(joined[:, 3], [0.5, 0.1])
    np.testing.assert_allclose(joined[:, 0] / joined[:, 1], known[:, 0] / known[:, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unknown_prior": 0}, "unknown_prior=0 must be"),
        ({"unknown_prior": 1.0}, "unknown_prior=1.0 must be"),
        ({"unknown_prior": 0.1, "expected_auroc": 1.0}, "expected_auroc=1.0 must be"),
        ({"unknown_prior": 0.1, "expected_auroc": 0.4}, "expected_auroc=0.4 must be"),
    ],
)
def test_numbers_out_of_range_are_explained(settings, message):
    with pytest.raises(ValueError, match=message):
        unknown_probability(np.array([0.5]), 9, **settings)

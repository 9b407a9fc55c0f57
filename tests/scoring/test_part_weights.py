"""Weights learned by leaving known classes out: properties, and a slow reference."""

from functools import partial

import numpy as np
import pytest
from scipy.optimize import minimize

from skvmdls.direct.parts import fit_direct_parts
from skvmdls.metrics import auroc
from skvmdls.scoring.part_weights import (
    PartTrials,
    TrialScores,
    class_folds,
    fit_weights,
    learn_part_weights,
    pull_to_prior,
)

NAMES = ("near", "noise", "backwards")


def fit_known_parts(X, labels, n_classes):
    """Fit one part that is right, one that knows nothing, and one that is wrong."""
    means = np.stack([X[labels == c].mean(axis=0) for c in range(n_classes)])

    def scores(rows):
        near = -np.linalg.norm(rows[:, None] - means, axis=2)
        noise = np.sin(1e4 * rows.sum(axis=1))[:, None] + np.zeros(n_classes)
        backwards = np.linalg.norm(rows, axis=1)[:, None] + np.zeros(n_classes)
        return np.stack([near, noise, backwards], axis=2)

    return scores


def circle(n_classes=12, n_rows=30, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n_classes * n_rows) % n_classes
    angle = 2 * np.pi * y / n_classes
    return 9 * np.column_stack([np.cos(angle), np.sin(angle)]) + rng.normal(
        size=(len(y), 2)
    ), y


@pytest.fixture(scope="module")
def learned():
    return learn_part_weights(*circle(), 12, fit_known_parts, NAMES, prior=np.ones(3))


def test_the_part_that_tells_left_out_classes_apart_gets_the_weight(learned):
    assert learned.weights.argmax() == 0
    assert learned.weights[0] > 2 * learned.weights[1:].max()
    assert learned.weights.min() >= 0
    assert learned.weights.sum() == pytest.approx(3)


def test_what_taught_the_weights_can_be_looked_at(learned):
    assert learned.names == NAMES
    assert learned.aurocs.shape == (5, 3)
    assert learned.aurocs[:, 0].min() > 0.9
    assert abs(learned.aurocs[:, 1].mean() - 0.5) < 0.15
    assert learned.auroc_of_sum.mean() > learned.auroc_of_prior.mean()
    assert np.bincount(learned.folds).tolist() == [3, 3, 2, 2, 2]


def test_a_seed_gives_the_same_weights_on_any_number_of_threads(learned):
    again = learn_part_weights(
        *circle(), 12, fit_known_parts, NAMES, prior=np.ones(3), n_jobs=2
    )
    np.testing.assert_array_equal(again.weights, learned.weights)


def test_two_classes_keep_the_prior_weights():
    X, y = circle(2)
    trials = learn_part_weights(X, y, 2, fit_known_parts, NAMES, prior=[1, 1, 2])
    np.testing.assert_allclose(trials.weights, [0.75, 0.75, 1.5])
    assert len(trials.aurocs) == 0


def test_up_to_five_classes_are_left_out_in_turn():
    assert sorted(class_folds(4, 0)) == [0, 1, 2, 3]
    assert np.bincount(class_folds(11, 0)).tolist() == [3, 2, 2, 2, 2]


def test_every_class_is_left_out_once_and_never_fitted_then():
    X, y = circle(7)
    seen = []

    def fit(X_fitted, labels, n_classes):
        assert sorted(set(labels)) == list(range(n_classes))
        seen.append(X_fitted)
        return fit_known_parts(X_fitted, labels, n_classes)

    trials = learn_part_weights(X, y, 7, fit, NAMES, prior=np.ones(3))
    for fold, fitted in enumerate(seen):
        classes = {y[np.flatnonzero((row == X).all(axis=1))[0]] for row in fitted}
        assert classes == set(np.flatnonzero(trials.folds != fold))


def test_rows_of_a_group_are_fitted_or_held_out_together():
    X, y = circle(6, n_rows=20)
    groups = np.arange(len(y)) // 12
    fitted_rows = []

    def fit(X_fitted, labels, n_classes):
        fitted_rows.append({tuple(row) for row in X_fitted})
        scores = fit_known_parts(X_fitted, labels, n_classes)

        def checked(rows):
            rows_and_groups = zip(groups, X, strict=True)
            mine = {g for g, row in rows_and_groups if tuple(row) in fitted_rows[-1]}
            asked = [np.flatnonzero((row == X).all(axis=1))[0] for row in rows]
            known = [i for i in asked if trial_kept(y[i], fitted_rows[-1])]
            assert not mine & set(groups[known])
            return scores(rows)

        return checked

    def trial_kept(label, rows):
        return any(tuple(row) in rows for row in X[y == label])

    learn_part_weights(X, y, 6, fit, NAMES, prior=np.ones(3), groups=groups)
    assert len(fitted_rows) == 5


def test_weights_are_those_of_a_slow_logistic_regression():
    rng = np.random.default_rng(0)
    trials = [
        TrialScores(rng.normal([0.5, 1], size=(20, 2)), rng.normal(size=(9, 2)))
        for _ in range(2)
    ]
    prior, pull = np.array([1.0, 3.0]), 0.05

    def loss(v):
        total = 0.0
        for known, unknown in trials:
            total += np.mean([np.log1p(np.exp(-(s @ v[:2] + v[2]))) for s in known])
            total += np.mean([np.log1p(np.exp(s @ v[:2] + v[2])) for s in unknown])
        multiple = v[:2] @ prior / (prior @ prior)
        return total / 4 + pull * np.sum((v[:2] - multiple * prior) ** 2)

    slow = minimize(loss, [1, 1, 0], bounds=[(0, None), (0, None), (None, None)]).x[:2]
    found = fit_weights(trials, prior, pull)
    np.testing.assert_allclose(found, 2 * slow / slow.sum(), atol=1e-3)


def test_a_strong_pull_gives_the_prior_weights():
    rng = np.random.default_rng(0)
    trial = TrialScores(rng.normal([0.5, 1], size=(20, 2)), rng.normal(size=(9, 2)))
    found = fit_weights([trial], np.array([3.0, 1.0]), pull=1e4)
    np.testing.assert_allclose(found, [1.5, 0.5], atol=1e-3)


def test_where_no_part_helps_the_prior_weights_stay():
    trial = TrialScores(np.array([[0.0, 0.0]]), np.array([[1.0, 1.0]]))
    np.testing.assert_allclose(fit_weights([trial], np.ones(2), pull=1e-3), [1, 1])


def test_few_classes_and_few_rows_pull_harder():
    assert pull_to_prior(np.full(3, 20)) > pull_to_prior(np.full(30, 20))
    assert pull_to_prior(np.full(10, 5)) > pull_to_prior(np.full(10, 50))


def test_a_state_gives_the_same_trials(learned):
    again = PartTrials.from_state(learned.state_dict(), NAMES)
    for name in ("weights", "aurocs", "auroc_of_sum", "auroc_of_prior", "folds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(learned, name))
    untried = PartTrials.untried(NAMES, np.array([1.0, 2, 3]), 4)
    again = PartTrials.from_state(untried.state_dict(), NAMES)
    np.testing.assert_array_equal(again.folds, np.full(4, -1))
    np.testing.assert_allclose(again.weights, [0.5, 1, 1.5])


def test_a_state_of_other_parts_is_refused(learned):
    with pytest.raises(ValueError, match=r"part weights.weights has shape \(3,\)"):
        PartTrials.from_state(learned.state_dict(), NAMES[:2])
    negative = learned.state_dict() | {"weights": np.array([1.0, 3, -1])}
    with pytest.raises(ValueError, match="must not be negative"):
        PartTrials.from_state(negative, NAMES)


def test_learned_weights_of_direct_parts_beat_the_prior_on_other_left_out_classes():
    # Three parts see a column that tells nothing of new classes.
    rng = np.random.default_rng(0)
    y = np.arange(600) % 20
    centres = 3 * rng.normal(size=(30, 8))
    names = ("neighbours", "linear", "prototype")

    def fit(X, labels, n_classes):
        parts = fit_direct_parts(X, labels, n_classes, names=names)
        return lambda rows: parts.class_scores(rows).numpy()

    X = centres[y] + rng.normal(size=(600, 8))
    trials = learn_part_weights(X, y, 20, fit, names, prior=np.array([0.1, 1, 1]))
    scores = fit(X, y, 20)
    known = scores(centres[y] + rng.normal(size=(600, 8))).max(axis=1)
    unknown = scores(centres[20 + y % 10] + rng.normal(size=(600, 8))).max(axis=1)
    spread = known.std(axis=0)
    is_known = np.repeat([True, False], 600)

    def of(weights):
        return auroc(is_known, (np.concatenate([known, unknown]) / spread) @ weights)

    assert of(trials.weights) > of(np.array([0.1, 1, 1])) + 0.005
    assert trials.weights.argmax() == 0


def test_classes_with_a_single_row_do_not_stop_the_trials():
    X, y = circle(6, n_rows=5)
    X, y = np.append(X, [[0.0, 0.0]], axis=0), np.append(y, 6)
    fit = partial(learn_part_weights, X, y, 7, fit_known_parts, NAMES)
    assert fit(prior=np.ones(3)).weights[0] > 1

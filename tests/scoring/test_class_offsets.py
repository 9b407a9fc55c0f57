"""New points of a small class are accepted as those of large ones."""

import numpy as np
import pytest

from skvmdls.calibration import conformal_threshold
from skvmdls.direct.parts import PARTS_OF_TABLES, fit_direct_parts
from skvmdls.scoring.class_offsets import class_offsets, is_small_class
from skvmdls.scoring.cross_fitting import cross_fitted_scores
from skvmdls.scoring.evidence import Evidence

NAMES = tuple(name for name in PARTS_OF_TABLES if name != "trees")


def fit_parts(X, labels, n_classes):
    parts = fit_direct_parts(X, labels, n_classes, names=NAMES)
    return lambda rows: parts.class_scores(rows).numpy()


def rejected(sizes, n_columns, *, with_offsets):
    """Share of new points of each class that is rejected, and of an unknown class."""
    rng = np.random.default_rng(0)
    centres = 1.5 * rng.normal(size=(4, n_columns))
    X = np.concatenate(
        [centres[c] + rng.normal(size=(n, n_columns)) for c, n in enumerate(sizes)]
    )
    y = np.repeat([0, 1, 2], sizes)
    cross = cross_fitted_scores(X, y, 3, fit_parts)
    offsets = class_offsets(cross.scores, y) * with_offsets
    raw = (cross.scores - offsets).max(axis=1)
    evidence = Evidence.fit(NAMES, raw, np.ones(len(NAMES)))
    threshold = conformal_threshold(evidence.total(raw), 0.05)
    score = fit_parts(X, y, 3)

    def of_class(c):
        new = centres[c] + rng.normal(size=(300, n_columns))
        totals = evidence.total((score(new) - offsets).max(axis=1))
        return np.mean(totals < threshold)

    return np.array([of_class(c) for c in range(4)])


@pytest.mark.parametrize(("n_rare", "n_columns"), [(20, 10), (20, 30), (60, 30)])
def test_offsets_let_new_points_of_a_small_class_in(n_rare, n_columns):
    sizes = (500, 500, n_rare)
    before = rejected(sizes, n_columns, with_offsets=False)
    after = rejected(sizes, n_columns, with_offsets=True)
    assert before[2] > 0.2
    assert after[2] < 0.2
    assert abs(after[:2].mean() - 0.05) < 0.03
    assert after[3] > before[3] - 0.1


def test_classes_of_like_sizes_get_no_offsets():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [100, 60, 30])
    assert not class_offsets(rng.normal(size=(190, 3, 2)), labels).any()


def test_a_part_that_does_not_recognise_a_class_gets_no_offset():
    labels = np.repeat([0, 1], [80, 10])
    scores = np.zeros((90, 2, 2))
    scores[:, 0] = 1.0
    scores[labels == 1, 1, 1] = 5.0
    offsets = class_offsets(scores, labels)
    assert offsets[1, 0] == 0
    assert offsets[1, 1] == 4.0
    assert not offsets[0].any()


def test_small_is_beside_the_largest():
    assert is_small_class(np.array([9, 12, 48])).tolist() == [False, True, False]

"""Why a point scores as it does: columns, places of an image, near classes."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import skvmdls
from shared import SETTINGS, TABLE_SETTINGS, blobs
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.scoring.expected_images import ExpectedImages


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag"])
@pytest.mark.parametrize("detector", [VMDLSDetector, VMDLSbDetector])
def test_columns_contribute_what_they_sum_to(detector, covariance_type):
    X, y = blobs(3, 60)
    settings = TABLE_SETTINGS | {"features": ("x", "g", "logit")}
    fitted = detector(**settings, covariance_type=covariance_type).fit(X, y)
    new = np.concatenate([X, 30 * np.random.default_rng(0).normal(size=(40, 6))])
    explanation = fitted.explain(new)
    part = fitted.evidence_names_.index("x")
    excess = explanation.evidence[:, part] * fitted.evidence_.spread[part]
    assert explanation.contributions.shape == new.shape
    np.testing.assert_allclose(
        explanation.contributions.sum(axis=1), excess, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_array_equal(explanation.evidence, fitted.evidence(new))
    assert "residual_map" not in explanation


@pytest.mark.parametrize(("n_features", "part"), [(6, "separate"), (80, "shared")])
def test_columns_contribute_to_a_part_without_a_net(n_features, part):
    """Rows of 80 real columns are compared at unit length, as vectors."""
    X, y = blobs(3, 40, n_features=n_features)
    fitted = VMDLSDetector(contamination=0.1, random_state=0).fit(X, y)
    noise = 3 * np.random.default_rng(0).normal(size=(40, n_features))
    new = np.concatenate([X, noise])
    explanation = fitted.explain(new)
    assert explanation.explained_part == part
    place = fitted.evidence_names_.index(part)
    assert explanation.contributions.shape == new.shape
    np.testing.assert_allclose(
        explanation.contributions.sum(axis=1),
        explanation.evidence[:, place] * fitted.evidence_.spread[place],
        rtol=1e-9,
        atol=1e-9,
    )
    np.testing.assert_array_equal(explanation.evidence, fitted.evidence(new))


@pytest.fixture(scope="module")
def of_input():
    """A fitted detector whose evidence looks at the input itself."""
    settings = TABLE_SETTINGS | {"features": ("x", "g", "logit")}
    return VMDLSDetector(**settings, autoencoder_epochs=2).fit(*blobs(3, 80))


def test_columns_contribute_what_they_sum_to_where_the_evidence_is_cut(of_input):
    cut, X = deepcopy(of_input), blobs(3, 20, seed=4)[0]
    highest = np.full_like(cut.evidence_.spread, 0.1)
    evidence = replace(cut.evidence_, highest=highest)
    cut.model_ = replace(cut.model_, evidence=evidence)
    explanation = cut.explain(X)
    part = cut.evidence_names_.index("x")
    assert np.any(explanation.evidence[:, part] == 0.1)
    np.testing.assert_allclose(
        explanation.contributions.sum(axis=1),
        explanation.evidence[:, part] * cut.evidence_.spread[part],
        atol=1e-9,
    )


def test_a_disturbed_column_contributes_most(of_table):
    X = blobs(3, 100, seed=4)[0]
    rng = np.random.default_rng(0)
    columns = rng.integers(6, size=len(X))
    X[np.arange(len(X)), columns] += 25 * rng.choice([-1, 1], size=len(X))
    unknown = of_table.predict(X) == -1
    worst = of_table.explain(X).contributions.argmin(axis=1)
    assert unknown.mean() > 0.5
    assert np.mean(worst[unknown] == columns[unknown]) > 0.95


def test_a_usual_row_has_no_column_that_stands_out(of_input):
    X = of_input.standardizer_.inverse_transform(of_input.gaussians_["x"].means.clone())
    contributions = of_input.explain(X).contributions
    np.testing.assert_allclose(
        contributions, np.repeat(contributions[:, :1], 6, axis=1), atol=1e-9
    )


@pytest.mark.parametrize("guarantee", ["marginal", "class"])
def test_an_explanation_holds_the_answer(of_table, guarantee):
    detector = deepcopy(of_table).set_params(guarantee=guarantee, contamination=0.1)
    X = np.concatenate([blobs(3, 30, seed=2)[0], np.full((3, 6), 9.0)])
    explanation = detector.explain(X)
    assert set(explanation.label.tolist()) > {-1}
    np.testing.assert_array_equal(explanation.label, detector.predict(X))
    np.testing.assert_array_equal(explanation.margin, detector.decision_function(X))
    np.testing.assert_array_equal(explanation.p_value, detector.p_value(X))


def painted(X, size, low, high, rng):
    """Paint a square of the other shade into each image; give its corners too."""
    X = X.copy()
    corners = rng.integers(0, X.shape[1] + 1 - size, size=(len(X), 2))
    for image, (row, column) in zip(X, corners, strict=True):
        square = image[row : row + size, column : column + size]
        square[:] = high if square.mean() < (low + high) / 2 else low
    return X, corners


def test_the_map_is_largest_where_a_square_was_painted(
    vmdls, vmdls_b, digits, is_known
):
    known = digits.X_test[is_known][:200]
    X, corners = painted(known, 3, 0, 16, np.random.default_rng(0))
    for detector in (vmdls, vmdls_b):
        explanation = detector.explain(X)
        assert explanation.residual_map.shape == X.shape
        assert "contributions" not in explanation
        largest = explanation.residual_map.reshape(200, -1).argmax(axis=1)
        places = np.column_stack(np.unravel_index(largest, X.shape[1:]))
        inside = np.all((places - corners) // 3 == 0, axis=1)
        assert inside.mean() > 0.7  # by chance: 0.14
        as_they_are = detector.explain(known).residual_map.max(axis=(1, 2))
        assert np.median(explanation.residual_map.max(axis=(1, 2)) / as_they_are) > 1.2


def test_what_is_left_over_of_images_as_numpy_finds_it():
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(40, 2, 5, 6)), np.repeat([0, 1], 20)
    images[labels == 1] += rng.normal(size=(2, 5, 6))
    expected = ExpectedImages.fit(torch.from_numpy(images), labels)
    means = np.stack([images[labels == c].mean(axis=0) for c in (0, 1)])
    np.testing.assert_allclose(expected.means, means)
    components = expected.components.flatten(start_dim=1).numpy()
    assert components.shape == (8, 60)
    np.testing.assert_allclose(components @ components.T, np.eye(8), atol=1e-9)
    # Of the variations that there are, they hold the most that eight can.
    flat = (images - means[labels]).reshape(40, 60)
    spread = np.linalg.svd(flat, compute_uv=False) ** 2
    assert np.square(flat @ components.T).sum() > 0.98 * spread[:8].sum()
    left_over = flat - flat @ components.T @ components
    smooth = [
        [
            gaussian_filter(channel, (5 * 2.5 / 28, 6 * 2.5 / 28), mode="constant")
            for channel in image
        ]
        for image in left_over.reshape(images.shape)
    ]
    np.testing.assert_allclose(
        expected.residual_map(torch.from_numpy(images), torch.from_numpy(labels)),
        np.sqrt(np.square(smooth).mean(axis=1)),
        atol=1e-9,
    )


def test_large_images_are_compared_in_a_coarse_grid():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(24, 3, 70, 20)).astype(np.float32), np.repeat([0, 1], 12)
    detector = VMDLSbDetector(**SETTINGS | {"max_epochs": 1}, contamination=0.5)
    detector.fit(X, y)
    assert detector.expected_images_.means.shape == (2, 3, 32, 20)
    X[0, :, 50:60, 5:10] += 20
    explained = detector.explain(X[:2]).residual_map
    assert explained.shape == (2, 70, 20)
    row, column = np.unravel_index(explained[0].argmax(), (70, 20))
    assert 50 <= row < 60
    assert 5 <= column < 10


def test_new_classes_have_an_expected_image(vmdls, digits, tmp_path):
    six = digits.X_test[digits.y_test == 6]
    before = vmdls.expected_images_.means.clone()
    detector = deepcopy(vmdls).add_classes(six[:90], [-6] * 90)
    means = detector.expected_images_.means
    assert torch.equal(means[1:], before)
    assert detector.classes_.tolist() == [-6, 0, 1, 2, 3, 4, 5]
    X = detector.standardizer_.transform(detector._check_new(six))
    distances = [(X.double() - mean).square().mean(dim=(1, 2, 3)) for mean in means[:2]]
    assert (distances[0] < distances[1]).double().mean() > 0.95
    skvmdls.save(detector, tmp_path / "file")
    again = skvmdls.load(tmp_path / "file").explain(six[:9]).residual_map
    np.testing.assert_array_equal(again, detector.explain(six[:9]).residual_map)
    assert torch.equal(detector.drop_classes([-6]).expected_images_.means, before)


def test_nearest_classes_begin_with_the_answer(vmdls, vmdls_b, of_table, digits):
    X = digits.X_test[:100]
    for detector in (vmdls, vmdls_b):
        nearest = detector.explain(X).nearest
        assert nearest.shape == (100, 3)
        np.testing.assert_array_equal(nearest[:, 0], detector.predict_known(X))
        assert all(len(set(row)) == 3 for row in nearest.tolist())
    two = deepcopy(of_table).drop_classes([1])
    assert two.explain(np.zeros((4, 6))).nearest[:, 2].tolist() == [-1] * 4


def test_a_file_from_before_there_were_maps_explains_all_else(vmdls, digits, tmp_path):
    detector, X = deepcopy(vmdls), digits.X_test[:5]
    detector.model_ = replace(detector.model_, expected_images=None)
    skvmdls.save(detector, tmp_path / "file")
    again = skvmdls.load(tmp_path / "file").drop_classes([0])
    with_maps = set(vmdls.explain(X))
    assert set(again.explain(X)) == with_maps - {"residual_map"}


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("means", (5, 1, 8, 8), r"expected.means has shape \(5, 1, 8, 8\)"),
        ("components", (8, 3, 8, 8), r"expected.components has shape \(3, 8, 8\)"),
        ("components", (8, 64), "float64 with 4 axes"),
    ],
)
def test_expected_images_of_another_shape_are_refused(vmdls, name, shape, message):
    state = {n: v.numpy() for n, v in vmdls.expected_images_.state_dict().items()}
    assert ExpectedImages.from_state(state, (1, 8, 8), 6).means.shape == (6, 1, 8, 8)
    with pytest.raises(ValueError, match=message):
        ExpectedImages.from_state(state | {name: np.zeros(shape)}, (1, 8, 8), 6)


def test_places_may_be_left_out(vmdls, digits, table):
    of_table = VMDLSbDetector(max_epochs=1, random_state=0).fit(*table)
    left_out = {"contributions", "explained_part", "residual_map"}
    for detector, X in ((vmdls, digits.X_test[:9]), (of_table, table[0][:9])):
        whole, short = detector.explain(X), detector.explain(X, places=False)
        assert set(whole) - set(short) <= left_out
        assert set(whole) != set(short)
        for name, values in short.items():
            np.testing.assert_array_equal(values, whole[name])

"""Each part beside a slow reference; classes that come and go; states."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf as sklearn_ledoit_wolf
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from skvmdls.direct.means import ledoit_wolf
from skvmdls.direct.neighbours import NearestRows
from skvmdls.direct.parts import (
    DIRECT_PARTS,
    DirectParts,
    fit_direct_parts,
    usual_parts,
)
from skvmdls.direct.row_space import RowSpace, looks_like_vectors


def blobs(n_classes=4, n_rows=30, n_features=6, seed=0, spread=5.0):
    rng = np.random.default_rng(seed)
    centres = spread * np.random.default_rng(99).normal(size=(n_classes, n_features))
    y = np.arange(n_classes * n_rows) % n_classes
    return centres[y] + rng.normal(size=(len(y), n_features)), y


@pytest.fixture(scope="module")
def data():
    return blobs()


@pytest.fixture(scope="module")
def parts(data):
    return fit_direct_parts(*data, 4, names=DIRECT_PARTS)


def scores_of(parts, name, X):
    return parts.class_scores(X)[..., parts.names.index(name)].numpy()


def covariance_within(z, y):
    means = np.stack([z[y == c].mean(axis=0) for c in range(y.max() + 1)])
    shrunk = sklearn_ledoit_wolf(z - means[y], assume_centered=True)[0]
    return means, shrunk * len(z) / (len(z) - len(means))


def test_shared_is_the_mahalanobis_distance_by_one_covariance(data, parts):
    X, y = data
    z = parts.space(torch.from_numpy(X)).numpy()
    means, covariance = covariance_within(z, y)
    precision = np.linalg.inv(covariance)
    expected = [[-(r - m) @ precision @ (r - m) / 2 for m in means] for r in z[:9]]
    np.testing.assert_allclose(scores_of(parts, "shared", X[:9]), expected, rtol=1e-6)


@pytest.mark.parametrize("n_rows", [3, 30])
def test_relative_subtracts_a_gaussian_of_all_classes(n_rows):
    X, y = blobs(n_rows=n_rows)
    parts = fit_direct_parts(X, y, 4, names=("relative",), normalize=True)
    z = parts.space(torch.from_numpy(X)).numpy()
    means, within = covariance_within(z, y)
    centre = z.mean(axis=0)
    between = (means - centre).T @ (means - centre) / len(means)
    inverse, inverse_of_all = np.linalg.inv(within), np.linalg.inv(within + between)
    expected = [
        [
            -(
                (r - m) @ inverse @ (r - m)
                - (r - centre) @ inverse_of_all @ (r - centre)
            )
            / 2
            for m in means
        ]
        for r in z[:9]
    ]
    found = scores_of(parts, "relative", X[:9])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_separate_counts_the_common_covariance_as_rows(data, parts):
    X, y = data
    z = parts.space(torch.from_numpy(X)).numpy()
    means, common = covariance_within(z, y)
    n_dimensions = z.shape[1]
    for c, mean in enumerate(means):
        own = z[y == c] - mean
        scatter = own.T @ own + n_dimensions * common
        precision = np.linalg.inv(scatter / (len(own) - 1 + n_dimensions))
        expected = [-(r - mean) @ precision @ (r - mean) / 2 for r in z[:9]]
        found = scores_of(parts, "separate", X[:9])[:, c]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_neighbours_is_half_of_the_squared_distance_to_the_nearest(data, parts):
    X, y = data
    z = parts.space(torch.from_numpy(X)).numpy()
    new = blobs(seed=5)[0][:9]
    rows = parts.space(torch.from_numpy(new)).numpy()
    expected = [
        [
            -min(((r - z[i]) ** 2).sum() for i in np.flatnonzero(y == c)) / 2
            for c in range(4)
        ]
        for r in rows
    ]
    np.testing.assert_allclose(scores_of(parts, "neighbours", new), expected)


def test_neighbours_of_classes_of_unequal_sizes():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 3)), np.repeat([0, 1, 2], [3, 20, 7])
    rows = rng.normal(size=(5, 3))
    nearest = NearestRows.fit(X, y)
    expected = [
        [-((r - X[y == c]) ** 2).sum(axis=1).min() / 2 for c in range(3)] for r in rows
    ]
    np.testing.assert_allclose(nearest.scores(torch.from_numpy(rows)), expected)


def test_prototype_is_the_cosine_to_a_centred_class_mean(data, parts):
    X, y = data
    z = parts.space(torch.from_numpy(X)).numpy()
    means = np.stack([z[y == c].mean(axis=0) for c in range(4)])
    middle = means.mean(axis=0)

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    expected = [[cosine(r - middle, m - middle) for m in means] for r in z[:9]]
    np.testing.assert_allclose(scores_of(parts, "prototype", X[:9]), expected)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_linear_is_the_logit_of_a_logistic_regression(n_classes):
    X, y = blobs(n_classes)
    parts = fit_direct_parts(X, y, n_classes, names=("linear",), normalize=True)
    z = parts.space(torch.from_numpy(X)).numpy()
    model = LogisticRegression(C=10, max_iter=200).fit(z, y)
    shares = torch.softmax(parts.class_scores(X)[..., 0], dim=1).numpy()
    np.testing.assert_allclose(shares, model.predict_proba(z), atol=1e-6)


def test_trees_vote_as_in_scikit_learn(data, parts):
    X, y = data
    z = parts.space(torch.from_numpy(X)).numpy()
    model = ExtraTreesClassifier(len(parts.trees.roots), random_state=0).fit(z, y)
    new = blobs(seed=5, spread=2.0)[0]
    expected = model.predict_proba(parts.space(torch.from_numpy(new)).numpy())
    np.testing.assert_allclose(scores_of(parts, "trees", new), expected, atol=1e-12)


def test_shrinkage_is_that_of_scikit_learn():
    rows = np.random.default_rng(0).normal(size=(12, 7)) * np.arange(1, 8)
    expected = sklearn_ledoit_wolf(rows, assume_centered=True)[0]
    np.testing.assert_allclose(ledoit_wolf(rows), expected)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_span_of_few_rows_gives_the_scores_of_all_columns(normalize):
    X, y = blobs(3, 10, n_features=60, spread=1.0)
    new = blobs(3, 10, n_features=60, spread=1.0, seed=5)[0]
    names = ("shared", "relative", "neighbours", "prototype", "linear")

    def fitted(widest):
        space = RowSpace.fit(X, normalize=normalize, widest=widest)
        return fit_direct_parts(X, y, 3, names=names, space=space, tolerance=1e-8)

    wide, in_span = fitted(60), fitted(59)
    assert in_span.space.n_dimensions == 30
    np.testing.assert_allclose(
        in_span.class_scores(new), wide.class_scores(new), rtol=1e-3, atol=1e-4
    )


def test_wide_rows_are_fitted_in_little_memory_and_time():
    X, y = blobs(3, 20, n_features=20_000, spread=1.0)
    parts = fit_direct_parts(X, y, 3, names=usual_parts(20_000, 3, normalize=True))
    assert parts.space.n_dimensions <= 61
    n_numbers = sum(array.size for array in parts.state_dict().values())
    assert n_numbers < 100 * 20_000


def test_terms_of_columns_sum_to_the_scores(data, parts):
    X = data[0][:9]
    scores = parts.class_scores(X)
    classes = scores[..., 0].argmax(dim=1)
    terms = parts.column_terms(X, classes)
    assert terms.shape == (9, 6, len(DIRECT_PARTS))
    own = scores[torch.arange(9), classes]
    has_terms = torch.tensor([name != "trees" for name in DIRECT_PARTS])
    torch.testing.assert_close(terms.sum(dim=1)[:, has_terms], own[:, has_terms])
    assert (terms[..., ~has_terms] == 0).all()


def test_terms_name_the_column_that_is_off(data, parts):
    X = data[0][:1].copy()
    X[0, 4] += 50
    label = torch.tensor([0])
    terms = parts.column_terms(X, label)[0]
    for name in ("shared", "separate", "neighbours"):
        assert terms[:, DIRECT_PARTS.index(name)].argmin() == 4


@pytest.mark.parametrize("normalize", [False, True])
def test_an_added_class_is_recognised_and_changes_no_other_scores(normalize):
    X, y = blobs(5)
    of_four = y < 4
    names = ("shared", "relative", "separate", "neighbours", "prototype", "linear")
    fit = partial(fit_direct_parts, names=names, normalize=normalize)
    before = fit(X[of_four], y[of_four], 4)
    fifth = X[~of_four]
    after = before.with_classes(fifth[:5], np.zeros(5, dtype=int))
    new = blobs(5, seed=5)[0][y == 4]
    labels = after.class_scores(new).argmax(dim=1)
    assert (labels == 4).double().mean(dim=0).min() > 0.9
    torch.testing.assert_close(
        after.class_scores(X)[:, :4], before.class_scores(X), rtol=1e-9, atol=1e-9
    )


def test_trees_are_silent_about_added_classes(data, parts):
    after = parts.with_classes(np.full((3, 6), 30.0), np.zeros(3, dtype=int))
    assert parts.speaks.all()
    assert not after.speaks[4, DIRECT_PARTS.index("trees")]
    assert after.speaks.sum() == after.speaks.size - 1
    assert (scores_of(after, "trees", data[0])[:, 4] == 0).all()


def test_dropping_classes_keeps_the_scores_of_the_others(data, parts):
    kept = parts.of_classes(np.array([3, 1]))
    assert kept.n_classes == 2
    expected = parts.class_scores(data[0])[:, [3, 1]]
    torch.testing.assert_close(kept.class_scores(data[0]), expected)


def test_some_of_the_parts_score_as_all_of_them(data, parts):
    kept = parts.of_parts(("linear", "relative"))
    places = [DIRECT_PARTS.index(name) for name in kept.names]
    expected = parts.class_scores(data[0])[..., places]
    assert torch.equal(kept.class_scores(data[0]), expected)
    assert not any(name.startswith("trees") for name in kept.state_dict())


def test_a_dropped_class_can_be_added_again(data, parts):
    X, y = data
    without = parts.of_classes(np.array([0, 1, 2]))
    again = without.with_classes(X[y == 3], np.zeros((y == 3).sum(), dtype=int))
    for name in ("shared", "neighbours"):
        np.testing.assert_allclose(
            scores_of(again, name, X), scores_of(parts, name, X), rtol=1e-9
        )


def test_linear_can_be_extended_where_no_rows_are_kept(data):
    X, y = data
    parts = fit_direct_parts(X[y < 3], y[y < 3], 3, names=("linear",))
    after = parts.with_classes(X[y == 3][:5], np.zeros(5, dtype=int))
    assert (after.class_scores(X[y == 3]).argmax(dim=1) == 3).double().mean() > 0.9


@pytest.mark.parametrize("normalize", [False, True])
def test_a_state_gives_the_same_scores(data, normalize):
    X, y = data
    parts = fit_direct_parts(X, y, 4, names=DIRECT_PARTS, normalize=normalize)
    parts = parts.with_classes(X[:5] + 9, np.zeros(5, dtype=int))
    state = parts.state_dict()
    again = DirectParts.from_state(state, parts.names)
    assert torch.equal(again.class_scores(X), parts.class_scores(X))
    assert (again.speaks == parts.speaks).all()


def test_a_state_without_a_part_is_refused(parts):
    state = parts.state_dict()
    no_trees = {k: v for k, v in state.items() if not k.startswith("trees.")}
    with pytest.raises(ValueError, match="holds no arrays of 'trees'"):
        DirectParts.from_state(no_trees, parts.names)
    with pytest.raises(ValueError, match="'magic' is not one of"):
        DirectParts.from_state(state, ("magic",))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("space.scale", np.zeros(6), "scale must be positive"),
        ("space.scale", np.ones(5), "row space.scale has shape"),
        ("moments.whitening", np.eye(5), "moments.whitening has shape"),
        (
            "neighbours.counts",
            np.array([30.0, 30, 30, 29]),
            "neighbours.rows has shape",
        ),
        ("neighbours.rows", np.zeros((120, 6), dtype=int), "is an array of int"),
        ("trees.roots", np.full(100, 1e9), "trees.roots must be whole numbers"),
        ("linear.intercepts", np.full(4, np.nan), "not finite"),
    ],
)
def test_a_damaged_state_is_refused(parts, name, value, message):
    with pytest.raises(ValueError, match=message):
        DirectParts.from_state(parts.state_dict() | {name: value}, parts.names)


def test_kept_rows_are_bounded_and_balanced():
    X, y = np.zeros((500, 2)), np.repeat([0, 1, 2], [5, 45, 450])
    nearest = NearestRows.fit(X, y, most_rows=45)
    assert nearest.counts == (5, 20, 20)


def test_scores_do_not_depend_on_the_rest_of_the_batch(data, parts):
    X = data[0]
    alone = torch.cat([parts.class_scores(row[None]) for row in X[:5]])
    torch.testing.assert_close(alone, parts.class_scores(X)[:5], rtol=1e-9, atol=1e-9)


def test_a_fit_is_the_same_again(data):
    X, y = data
    first, second = (
        fit_direct_parts(X, y, 4, names=DIRECT_PARTS, random_state=3) for _ in range(2)
    )
    assert torch.equal(first.class_scores(X), second.class_scores(X))


def test_embeddings_and_tables_are_told_apart():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 384)).astype(np.float16)
    assert looks_like_vectors(embeddings)
    assert looks_like_vectors(np.maximum(embeddings, 0))
    assert not looks_like_vectors(embeddings[:, :20])
    assert not looks_like_vectors(np.eye(100)[rng.integers(100, size=50)])
    units = embeddings.astype(float) * 10.0 ** rng.integers(-3, 4, size=384)
    assert not looks_like_vectors(units)
    assert not looks_like_vectors(np.zeros((5, 100)))


def test_a_part_that_grows_with_classes_or_columns_steps_aside():
    assert "separate" not in usual_parts(300, 3, normalize=False)
    assert "separate" not in usual_parts(250, 2000, normalize=False)
    assert "trees" not in usual_parts(10, 60, normalize=False)


def test_an_exported_graph_gives_the_same_scores(data, parts, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    X = data[0].astype(np.float32)
    program = torch.export.export(
        parts.as_module(),
        (torch.from_numpy(X[:5]),),
        dynamic_shapes=({0: torch.export.Dim("n")},),
        strict=False,
    )
    path = tmp_path / "parts.onnx"
    torch.onnx.export(program, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for rows in (X, X[:1]):
        found = session.run(None, {name: rows})[0]
        np.testing.assert_allclose(found, parts.class_scores(rows), atol=1e-6)

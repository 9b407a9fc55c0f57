"""From arrays to tensors."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import BaseEstimator

from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.labels import check_labels, labels_with_unknown
from skvmdls.inputs.standardizer import Standardizer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("shape", "input_shape"),
    [((9, 5), (5,)), ((9, 8, 7), (1, 8, 7)), ((9, 3, 8, 7), (3, 8, 7))],
)
def test_inputs_are_tables_or_images_with_channels_first(shape, input_shape):
    estimator = BaseEstimator()
    X = check_inputs(estimator, np.zeros(shape), None)
    assert X.shape[1:] == input_shape
    assert estimator.n_features_in_ == np.prod(input_shape)
    assert check_inputs(estimator, np.zeros(shape), input_shape).shape == X.shape


@pytest.mark.parametrize(
    ("X", "input_shape", "message"),
    [
        (np.zeros((2, 3, 8, 8, 8)), None, "X has 5 dimensions"),
        (np.zeros((0, 8, 8)), None, "0 sample"),
        (np.zeros(5), None, "Expected 2D array"),
        (np.full((2, 8, 8), np.nan), None, "NaN"),
        (np.full((2, 8, 8), np.inf), None, "infinity"),
        (np.zeros((2, 64)), (1, 8, 8), r"fitted on images of shape.*\(1, 8, 8\)"),
        (np.zeros((2, 8, 8)), (64,), r"inputs of shape \(1, 8, 8\).*\(64,\)"),
        (
            np.zeros((2, 3, 8, 8)),
            (1, 8, 8),
            r"inputs of shape \(3, 8, 8\).*\(1, 8, 8\)",
        ),
        (np.zeros((2, 9, 8)), (1, 8, 8), r"inputs of shape \(1, 9, 8\)"),
        (np.zeros((8, 8)), (1, 8, 8), r"a single image as X\[None\]"),
        (np.zeros((3, 8, 8)), (3, 8, 8), r"a single image as X\[None\]"),
        (np.zeros((2, 8, 8, 3)), (3, 8, 8), r"X.transpose\(0, 3, 1, 2\)"),
        (np.zeros((2, 0, 8)), None, r"shape \(2, 0, 8\): its images hold no pixels"),
    ],
)
def test_bad_inputs_are_explained(X, input_shape, message):
    with pytest.raises(ValueError, match=message):
        check_inputs(BaseEstimator(), X, input_shape)


@pytest.mark.parametrize("of_rows", [list, np.ndarray.tolist, tuple])
def test_a_column_of_vectors_is_stacked(of_rows):
    X = np.random.default_rng(0).normal(size=(9, 4))
    column = pd.Series(of_rows(X), name="embedding")
    estimator = BaseEstimator()
    np.testing.assert_array_equal(check_inputs(estimator, column, None), X)
    assert estimator.n_features_in_ == 4
    np.testing.assert_array_equal(check_inputs(estimator, column[3:], (4,)), X[3:])


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            sparse.random_array((9, 40), rng=0),
            r"coo_array of shape \(9, 40\).*TruncatedSVD",
        ),
        (sparse.csr_matrix(np.eye(9)), r"csr_matrix.*X.toarray\(\)"),
    ],
)
def test_sparse_matrices_are_refused_with_the_line_that_helps(X, message):
    with pytest.raises(TypeError, match=message):
        check_inputs(BaseEstimator(), X, None)


def test_a_frame_with_a_column_of_vectors_is_refused_with_the_line_that_helps():
    frame = pd.DataFrame({"price": np.arange(3), "embedding": np.eye(3).tolist()})
    with pytest.raises(ValueError, match=r"np.stack\(X\['embedding'\]\)"):
        check_inputs(BaseEstimator(), frame, None)


def test_inputs_are_not_copied_needlessly(tmp_path):
    images = np.lib.format.open_memmap(
        tmp_path / "images.npy", "w+", np.uint8, (4, 1, 8, 8)
    )
    assert np.shares_memory(check_inputs(BaseEstimator(), images, None), images)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (np.array([3, 5]), np.array([3, 5, -1])),
        (np.array([3, 5], dtype=np.uint8), np.array([3, 5, -1], dtype=np.int16)),
        (np.array([3, 5], dtype=np.uint64), np.array([3, 5, -1])),
        (np.array([0.5, 2.0]), np.array([0.5, 2.0, -1.0])),
        (np.array([False, True]), np.array([0, 1, -1], dtype=np.int8)),
        (np.array(["a", "bcd"]), np.array(["a", "bcd", "-1"])),
        (np.array(["a"]), np.array(["a", "-1"])),
        (np.array(["a", "b"], dtype=object), np.array(["a", "b", "-1"], dtype=object)),
        (np.array([3, 5], dtype=object), np.array([3, 5, -1], dtype=object)),
    ],
)
def test_unknown_joins_labels_of_any_type(classes, expected):
    answers = labels_with_unknown(classes)
    assert answers.dtype.kind == expected.dtype.kind
    assert answers.tolist() == expected.tolist()


def test_labels_are_encoded_in_sorted_order():
    classes, encoded = check_labels(np.array([True, False, False, True]))
    assert classes.tolist() == [False, True]
    assert encoded.tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 0, -1, -1], "label -1, which stands for 'unknown'"),
        ([0.0, 0.0, -1.0, -1.0], "label -1, which stands for 'unknown'"),
        (["a", "a", "-1", "-1"], "label -1, which stands for 'unknown'"),
        ([4, 4, 4], r"1 class, \[4\]; at least 2 classes"),
        (["a", None, "a", None], "missing labels"),
        (["a", np.nan, "a", "b"], "missing labels"),
        ([0, 0, 1], r"Classes with one sample in y: \[1\]"),
    ],
)
def test_unusable_labels_are_explained(y, message):
    is_missing = any(label is None or label != label for label in y)
    with pytest.raises(ValueError, match=message):
        check_labels(np.array(y, dtype=object if is_missing else None))


UNITS = {
    "uint8": lambda images: images,
    "float 255": lambda images: images * 1.0,
    "float 1": lambda images: images / 255,
    "centred": lambda images: images / 127.5 - 1,
    "standardised": lambda images: (images / 255 - 0.13) / 0.31,
    "uint16": lambda images: images.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("new", UNITS)
@pytest.mark.parametrize("fitted", UNITS)
def test_images_in_other_units_than_at_fit_are_warned_of(fitted, new):
    """Regression: all of them were rejected without a word."""
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
    images[:, :, 0, :4] = [0, 255, 0, 128]
    standardizer = Standardizer().fit(UNITS[fitted](images))
    same = fitted == new or {fitted, new} == {"uint8", "float 1"}
    for given in (images, images[:1], images // 2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            standardizer.warn_of_other_units(UNITS[new](given))
        if {fitted, new} == {"centred", "standardised"}:
            continue  # Their ranges are alike.
        assert ["in the same units" in str(w.message) for w in caught] == (
            [] if same else [True]
        ), given.max()


@pytest.mark.parametrize("unit", UNITS)
def test_dark_bright_and_empty_images_in_the_same_units_are_not_warned_of(unit):
    images = np.random.default_rng(0).integers(0, 256, (9, 1, 8, 8), dtype=np.uint8)
    standardizer = Standardizer().fit(UNITS[unit](images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in (images // 8, 160 + images // 3, 0 * images, 0 * images + 255):
            standardizer.warn_of_other_units(UNITS[unit](given.astype(np.uint8)))


def test_values_too_large_to_standardise_are_explained():
    with pytest.raises(ValueError, match=r"as large as 1e\+200.*stay below 1e\+150"):
        Standardizer().fit(np.array([[1e200], [0.0]]))


@pytest.mark.parametrize("shape", [(3000, 4), (1500, 3, 8, 9)])
def test_standardised_inputs_have_mean_0_and_variance_1(shape):
    rng = np.random.default_rng(0)
    offsets = np.arange(shape[1]).reshape((-1,) + (1,) * (len(shape) - 2))
    X = rng.normal(5 + offsets, 1 + offsets, shape)
    standardizer = Standardizer().fit(X)
    values = standardizer.transform(X, torch.float64).transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(shape[1]).double())
    torch.testing.assert_close(
        values.std(1, correction=0), torch.ones(shape[1]).double()
    )
    back = standardizer.inverse_transform(standardizer.transform(X, torch.float64))
    np.testing.assert_allclose(back, X)


def test_bytes_and_their_255ths_are_the_same_image():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    as_bytes, as_floats = Standardizer().fit(images), Standardizer().fit(images / 255)
    torch.testing.assert_close(
        as_bytes.transform(images / 255), as_floats.transform(images)
    )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_extreme_scales_and_constant_features_stay_finite(scale, dtype):
    if dtype == np.float16 and scale != 1.0:
        scale = {1e-30: 1e-4, 1e30: 1e4}[scale]
    X = (np.random.default_rng(0).normal(size=(50, 2)) * scale).astype(dtype)
    X = np.column_stack([X, np.full(50, 3 * scale, dtype=dtype)])
    standardizer = Standardizer().fit(X)
    values = standardizer.transform(X)
    assert torch.isfinite(values).all()
    assert values[:, :2].std() > 0.5
    assert values[:, 2].abs().max() < 1e-2
    far = np.full((1, 3), 100 * scale, dtype=np.float64)
    far[0, 0] = np.finfo(np.float64).max
    assert torch.isfinite(standardizer.transform(far)).all()


def test_batches_follow_the_rows_and_the_batch_size_does_not_matter():
    X = np.random.default_rng(0).normal(size=(23, 4))
    standardizer = Standardizer().fit(X)
    whole = standardizer.transform(X)
    for batch_size in (1, 7, 23, 100):
        batches = list(standardizer.batches(X, batch_size, CPU))
        assert max(map(len, batches)) <= batch_size
        torch.testing.assert_close(torch.cat(batches), whole, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 4)])
def test_a_standardizer_comes_back_from_its_state(shape):
    X = np.random.default_rng(0).normal(3, 2, size=shape)
    standardizer = Standardizer().fit(X)
    again = Standardizer.from_state(standardizer.state_dict(), shape[1:])
    assert torch.equal(again.transform(X), standardizer.transform(X))
    assert vars(again).keys() == vars(standardizer).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": np.zeros(2)}, r"standardizer.mean has shape \(2,\), expected \(3,\)"),
        ({"mean": np.zeros((3, 1))}, "mean is an array of float64 and shape"),
        ({"mean": np.zeros(3, np.float32)}, "mean is an array of float32"),
        ({"mean": np.full(3, np.nan)}, "mean holds numbers that are not finite"),
        ({"scale": np.array([1.0, 0.0, 1.0])}, "standardizer.scale must be positive"),
        ({"range": [0.0, "big"]}, "expected a range of two floats"),
        ({"range": [0.0, float("nan")]}, "expected a range of two floats"),
        ({"were_bytes": 1}, "whether they were bytes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_state_that_no_standardizer_has_is_refused(change, message):
    state = Standardizer().fit(np.arange(15.0).reshape(5, 3)).state_dict()
    with pytest.raises(ValueError, match=message):
        Standardizer.from_state(state | change, (3,))


@pytest.mark.parametrize(
    ("shape", "is_warned_of"),
    [
        ((4, 16, 16, 12), True),
        ((4, 64, 48, 10), True),
        ((4, 32, 32, 3), True),
        ((4, 8, 8, 12), True),
        ((4, 12, 16, 16), False),
        ((4, 3, 64, 32), False),
        ((4, 1, 28, 28), False),
        ((4, 12, 200, 10), False),
        ((4, 64, 64, 64), False),
    ],
)
def test_images_with_their_channels_last_are_warned_of(shape, is_warned_of):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_inputs(BaseEstimator(), np.zeros(shape), None)
    told = [str(w.message) for w in said]
    assert len(told) == is_warned_of
    assert all("X.transpose(0, 3, 1, 2)" in message for message in told)


@pytest.mark.parametrize(
    ("value", "found"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]
)
def test_a_number_that_is_not_finite_is_told_by_its_place(value, found):
    X = np.zeros((5, 3))
    X[3, 1] = X[4, 2] = value
    estimator = BaseEstimator()
    told = f"contains {found}: 2 of 15 numbers are not finite, such as the one in row 3"
    with pytest.raises(ValueError, match=rf"{told}, column 1[.].*SimpleImputer"):
        check_inputs(estimator, X, None)
    frame = pd.DataFrame(X, columns=["ash", "hue", "alcohol"])
    with pytest.raises(ValueError, match=f"{told}, column 'hue'[.]"):
        check_inputs(estimator, frame, None)


def test_pandas_own_missing_values_are_refused():
    frame = pd.DataFrame({"ash": pd.array([1, None, 3], dtype="Int64")})
    with pytest.raises(ValueError, match="contains NaN"):
        check_inputs(BaseEstimator(), frame, None)

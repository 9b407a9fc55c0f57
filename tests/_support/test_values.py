"""X in containers of every kind, groups of rows, numbers of numpy."""

import array
import datetime
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from skvmdls._support.values import as_numpy, plain
from skvmdls.inputs.checking import as_array
from skvmdls.inputs.groups import group_ids

NUMBERS = torch.arange(12.0).reshape(4, 3)
PICTURES = torch.arange(4 * 9.0).reshape(4, 3, 3)


@pytest.mark.parametrize(
    "given",
    [
        NUMBERS,
        NUMBERS.bfloat16(),
        NUMBERS.half(),
        NUMBERS.clone().requires_grad_(),
        NUMBERS.T.contiguous().T,
        NUMBERS.tolist(),
        list(NUMBERS),
        list(NUMBERS.numpy()),
        tuple(NUMBERS.bfloat16()),
        np.array([*NUMBERS.numpy(), None], dtype=object)[:-1],
        NUMBERS.numpy().astype(str),
        NUMBERS.numpy().astype(object),
        [array.array("d", row) for row in NUMBERS.tolist()],
        pd.DataFrame(NUMBERS.numpy()),
        pd.DataFrame(NUMBERS.numpy()).astype("Int64"),
        pd.DataFrame(NUMBERS.numpy()).astype("category"),
    ],
    ids=lambda given: type(given).__name__,
)
def test_numbers_are_taken_from_any_container(given):
    found = np.asarray(as_array(given), dtype=float)
    np.testing.assert_array_equal(found, NUMBERS)


def test_small_floats_and_special_views_come_exactly():
    values = torch.tensor([1.0, -0.5, 256.0])
    for dtype in (torch.bfloat16, torch.float16, torch.float8_e4m3fn):
        np.testing.assert_array_equal(as_numpy(values.to(dtype)), values)
    negative = torch.tensor([1 + 2j]).conj().imag
    assert negative.is_neg()
    np.testing.assert_array_equal(as_numpy(negative), [-2.0])
    with torch.inference_mode():
        made = values * 2
    np.testing.assert_array_equal(as_numpy(made), 2 * values)


def test_lists_of_pictures_are_stacked():
    pictures = [Image.fromarray(np.full((5, 4, 3), i, np.uint8)) for i in range(3)]
    found = as_array(pictures)
    assert found.shape == (3, 5, 4, 3)
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([PICTURES[0], PICTURES[1, :2]], r"\(3, 3\) and \(2, 3\).*functional.resize"),
        (
            np.array([PICTURES[0].numpy(), PICTURES[1, :2].numpy()], object),
            r"2 different shapes",
        ),
        ([[1, 2], [3]], "rows of 1 to 2 entries"),
        ("images/", r"'images/', a name"),
        (Path("x.csv"), "Read the file first"),
        ({"a": [1]}, "X is a dict; expected an array"),
        ({1, 2}, "X is a set"),
        (iter([1]), "iterator; expected an array"),
        (3, "X is a int"),
        (None, "X is a NoneType"),
        (NUMBERS.to_sparse(), r"sparse.*X.to_dense\(\)"),
        (NUMBERS.to("meta"), "meta device"),
        (np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), r"masked.*X.filled"),
        (np.array([["a", "b"]]), r"text .*'a'.*OneHotEncoder"),
        (np.array([[1.0, "b"]], object), "text .*'b'.*OneHotEncoder"),
        (np.array([["2020"]], "M8[D]"), "holds times.*np.timedelta64"),
        (np.zeros(2, dtype=[("a", float)]), "structured.*fields .'a'"),
        (
            pd.DataFrame({"a": [1.0], "pet": ["cat"], "day": [pd.Timestamp("2020")]}),
            r"no numbers: 'pet' .*'day'.*pd.get_dummies",
        ),
        (
            pd.DataFrame({"pet": pd.Series(["cat"], dtype="category")}),
            r"'pet' \(category\)",
        ),
        (
            pd.DataFrame({"d": [datetime.timedelta(1)]}),
            r"'d' \(timedelta",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_array_is_refused_with_the_line_that_makes_one(given, message):
    with pytest.raises(ValueError, match=message):
        as_array(given)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.uint8(200), 200),
        (np.float32(0.5), 0.5),
        (np.float16(0.1), float(np.float16(0.1))),
        (np.bool_(True), True),
        (np.str_("cnn"), "cnn"),
        (Fraction(1, 4), 0.25),
        (None, None),
        ([np.int64(1)], [np.int64(1)]),
    ],
    ids=repr,
)
def test_numbers_and_words_become_pythons_own(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def joined_slowly(X, groups):
    """Join any two rows that are equal or have one group, until nothing changes."""
    ids = np.arange(len(X))
    changed = True
    while changed:
        changed = False
        for i in range(len(X)):
            for j in range(i):
                together = np.array_equal(X[i], X[j]) or groups[i] == groups[j]
                if together and ids[i] != ids[j]:
                    ids[ids == max(ids[i], ids[j])] = min(ids[i], ids[j])
                    changed = True
    return ids


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_the_connected_components_of_equality_and_groups(seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 12, (25, 1)).astype(float)
    groups = rng.integers(0, 18, 25)
    found, slow = group_ids(X, groups), joined_slowly(X, groups)
    np.testing.assert_array_equal(found[:, None] == found, slow[:, None] == slow)
    assert sorted(set(found)) == list(range(len(set(found))))


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64, np.longdouble]
)
def test_rows_are_equal_by_content(dtype):
    X = np.array([[0, 1], [1, 0], [0, 1]], dtype=dtype)
    assert group_ids(X, None).tolist() == [0, 1, 0]
    assert group_ids(X[:2], None) is None
    assert group_ids(X[:2], ["a", "b"]) is None
    assert group_ids(X[:2], ["a", "a"]).tolist() == [0, 0]


def test_zero_and_minus_zero_are_equal():
    assert group_ids(np.array([[0.0], [-0.0], [1.0]]), None).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([1, 2], "inconsistent numbers of samples"),
        ([1, None, 2], "groups has 1 missing"),
        (pd.Series(["a", pd.NA, "b"], dtype="string"), "groups has 1 missing"),
        ([[1, 2], [3, 4], [5, 6]], "1d array"),
    ],
    ids=repr,
)
def test_bad_groups_are_explained(groups, message):
    with pytest.raises(ValueError, match=message):
        group_ids(np.eye(3), groups)

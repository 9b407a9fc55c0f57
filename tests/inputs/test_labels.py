"""Labels of every kind: answered in their own type, or refused with a conversion."""

import datetime
import enum
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from skvmdls import VMDLSbDetector
from skvmdls.inputs.labels import as_labels, positions


class Word(enum.Enum):
    A = "a"
    B = "b"


class Loud(str):
    """A string that says something else when asked for its text."""

    def __str__(self):
        return "loud"


def series(values, dtype):
    return pd.Series(values, dtype=dtype)


@pytest.mark.parametrize(
    ("given", "kind", "labels"),
    [
        ([3, 5], "i", [3, 5]),
        ([np.int8(3), np.uint64(5)], "i", [3, 5]),
        ([1.0, 2], "f", [1.0, 2.0]),
        ([True, np.False_], "b", [True, False]),
        (["a", np.str_("b")], "U", ["a", "b"]),
        ([Loud("x"), Loud("y")], "U", ["x", "y"]),
        (["a ", "a"], "U", ["a ", "a"]),
        (["a\0", "a"], "O", ["a\0", "a"]),
        (["a" * 5000, "b"], "O", ["a" * 5000, "b"]),
        (np.array(["a", "b"], object), "O", ["a", "b"]),
        (np.array([3, 5], object), "i", [3, 5]),
        (np.array([[3], [5]]), "i", [3, 5]),
        (torch.tensor([3, 5]), "i", [3, 5]),
        (torch.tensor([3.0, 5.0]).bfloat16(), "f", [3.0, 5.0]),
        (series([3, 5], "Int64"), "i", [3, 5]),
        (series([3, 5], "UInt8"), "u", [3, 5]),
        (series([True, False], "boolean"), "b", [True, False]),
        (series([3.0, 5.0], "Float64"), "f", [3.0, 5.0]),
        (series(["a", "b"], "string"), "U", ["a", "b"]),
        (series(["a", "b"], "category"), "U", ["a", "b"]),
        (series([3, 5], "category"), "i", [3, 5]),
        (pd.Index(["a", "b"]), "U", ["a", "b"]),
        (pd.DataFrame({"label": [3, 5]}), "i", [3, 5]),
        ((3, 5), "i", [3, 5]),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_what_can_be_answered_comes_in_its_own_type(given, kind, labels):
    found = as_labels(given)
    assert found.tolist() == labels
    assert found.dtype.kind in (kind, {"U": "O", "u": "i"}.get(kind, kind))


@pytest.mark.parametrize(
    "given",
    [
        ["a", None],
        ["a", np.nan],
        [1.0, float("nan")],
        np.array([1.0, np.nan]),
        series(["a", pd.NA], object),
        series(["a", pd.NA], "string"),
        series(["a", None], "category"),
        series([1, None], "Int64"),
        series([True, None], "boolean"),
        [pd.NaT, "a"],
        np.ma.array([1, 2], mask=[0, 1]),
    ],
    ids=repr,
)
def test_missing_labels_are_refused(given):
    """Regression: "boolean value of NA is ambiguous"."""
    with pytest.raises(ValueError, match=r"missing labels.*y.notna\(\)"):
        as_labels(given)


@pytest.mark.parametrize(
    ("given", "way"),
    [
        (np.array(["2020-01-01", "2020-01-02"], "M8[D]"), r"y.astype\(str\)"),
        (np.array([1, 2], "m8[s]"), r"y.astype\(str\)"),
        (series(["2020-01-01", "2020-01-02"], "datetime64[ns]"), r"y.astype\(str\)"),
        (series(pd.date_range("2020", periods=2, tz="UTC"), None), r"str\(label\)"),
        (series(pd.period_range("2020", periods=2), None), r"str\(label\)"),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], r"str\(label\)"),
        ([Decimal("1.5"), Decimal(2)], r"str\(label\)"),
        ([Fraction(1, 2), Fraction(1, 3)], r"str\(label\)"),
        ([(1, 2), (3, 4)], r"str\(label\)"),
        (np.array([1j, 2.0]), r"str\(label\)"),
        (np.array([(1, 2), (3, 4)], dtype=[("a", int), ("b", int)]), r"str\(label\)"),
        ([b"a", b"b"], r"label.decode\(\)"),
        (np.array([b"a", b"b"]), r"label.decode\(\)"),
        (list(Word), "label.name"),
    ],
    ids=repr,
)
def test_other_types_are_refused_with_the_conversion(given, way):
    """Regression: unknown points came out as the date 1969-12-31."""
    with pytest.raises(ValueError, match=f"holds labels of .*{way}"):
        as_labels(given)
    names = {"y": given, "list": list, "str": str}
    found = as_labels(
        eval(
            way.replace("\\", "")
            if "astype" in way
            else "[" + way.replace("\\", "") + " for label in y]",
            names,
        )
    )
    assert len(set(found.tolist())) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, "1"], "two types, integer .* and string"),
        ([True, 1], "two types, boolean .* and integer"),
        ([1.0, "a"], "two types, float .* and string"),
        ([1, "a", True], "3 types"),
        ([2**53 + 1, 1.0], "too large to be distinct"),
        ([2**64, 1], "too large to be distinct"),
        ([2**63, -5], "too large to be distinct"),
    ],
    ids=repr,
)
def test_nothing_is_merged_or_rounded(given, message):
    with pytest.raises(ValueError, match=message):
        as_labels(given)
    text = [str(label) for label in given]
    assert as_labels(text).tolist() == text


@pytest.mark.parametrize(
    "names",
    [
        series(["ant", "bee", "cow"], "string"),
        series(["ant", "bee", "cow"], "category"),
        series([3, 5, 7], "Int64"),
        ["a\0", "a", "b" * 3000],
    ],
    ids=["string", "category", "Int64", "NUL"],
)
def test_a_detector_answers_in_the_type_that_it_was_given(names, table):
    X, y = table
    labels = (
        names.iloc[y].reset_index(drop=True)
        if hasattr(names, "iloc")
        else [names[i] for i in y]
    )
    detector = VMDLSbDetector(max_epochs=2, contamination=0.1, random_state=0)
    answers = detector.fit(X, labels).predict(np.concatenate([X, 1e4 * X]))
    unknown = "-1" if isinstance(next(iter(names)), str) else -1
    assert set(answers.tolist()) == {*list(names), unknown}
    assert detector.score(X, labels) > 0.5


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([5, 3, 9, -1], [3, 5], [1, 0, 2, 2]),
        ([5.0, 9.0], [3, 5], [1, 2]),
        ([5, 9], [3.0, 5.0], [1, 2]),
        (["b", "zebra", "-1"], ["a", "b"], [1, 2, 2]),
        (["b", -1], ["a", "b"], [1, 2]),
        ([5, "-1"], [3, 5], [1, 2]),
        (["-1", "-1"], [3, 5], [2, 2]),
        ([True, False], [False, True], [1, 0]),
        ([1, 0, -1], [False, True], [1, 0, 2]),
        ([True, False], [0, 1], [1, 0]),
        ([2**53 + 1], [2.0**53, 1.0], [2]),
        ([], [3, 5], []),
        ([4, 4], [], [0, 0]),
        (["b"], ["b", "a"], [0]),
    ],
    ids=repr,
)
def test_labels_are_found_among_the_classes(labels, classes, expected):
    assert positions(labels, np.array(classes)).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "classes", "found"),
    [
        (["3", "5"], [3, 5], "string.*integer"),
        ([3, 5], ["3", "5"], "integer.*string"),
        ([0.5, 3.0], [3, 5], r"float, such as 0.5.*integer"),
        ([True], [1, 2], "boolean.*integer"),
        ([True], ["a"], "boolean.*string"),
        (["True"], [False, True], "string.*boolean"),
    ],
    ids=repr,
)
def test_labels_of_another_type_than_the_classes_are_refused(labels, classes, found):
    """Regression: all of them counted as unknown, and the score was almost zero."""
    with pytest.raises(ValueError, match=f"of type {found}.*Give both in one type"):
        positions(labels, np.array(classes))

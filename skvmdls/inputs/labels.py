"""Labels of every kind: in an array of their own type, or refused with a conversion.

Nothing is merged or rounded on the way: 1 and True, 1 and "1", 2**53 and 2**53 + 1, "a"
and "a" with a NUL behind it stay apart, or are refused.
"""

from collections.abc import Set
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from skvmdls._support.values import as_numpy, is_missing, listed, plain

__all__ = [
    "as_labels",
    "check_known_labels",
    "check_labels",
    "labels_with_unknown",
    "positions",
]

# Beyond it, strings stay objects: in an array, each takes the room of the longest.
LONGEST_STRING = 1000
MARKERS = (-1, "-1")
KINDS = (
    ("boolean", bool | np.bool_),
    ("integer", int | np.integer),
    ("float", float | np.floating),
    ("string", str),
)


def as_labels(y: ArrayLike, name: str = "y") -> np.ndarray:
    """Make a one-dimensional array of labels, in a type that holds each exactly.

    Takes strings, integers, whole floats or booleans, in lists, arrays, tensors,
    pandas' or other libraries' columns. Missing labels, labels of two types, and types
    that cannot be answered are a ValueError that says how to convert them.

    Examples
    --------
    >>> as_labels([3, 5, 3])
    array([3, 5, 3])
    >>> as_labels([1, "1"])
    Traceback (most recent call last):
        ...
    ValueError: y holds labels of two types, integer (1) and string ('1'). ...
    """
    if isinstance(y, np.ma.MaskedArray) and np.ma.is_masked(y):
        raise _missing(name, int(np.ma.getmaskarray(y).sum()))
    array = _one_dimensional(y, name)
    if array.dtype.kind in "biuU":
        return array
    if array.dtype.kind == "f":
        if n_missing := int(np.isnan(array).sum()):
            raise _missing(name, n_missing)
        return array
    if array.dtype.kind not in ("O", "T"):
        raise _unanswerable(name, f"dtype {array.dtype}", array[:1].tolist())
    values = array.astype(object).tolist()
    if n_missing := sum(map(is_missing, values)):
        raise _missing(name, n_missing)
    return _of_one_type(values, name, was_array=isinstance(y, np.ndarray))


def _one_dimensional(y: Any, name: str) -> np.ndarray:
    """One entry a label; numpy's own conversion of lists makes 1 and "1" the same."""
    if isinstance(y, Tensor):
        y = as_numpy(y, name)
    # An array, or a column of a library that knows how its types become one.
    is_column = isinstance(y, np.ndarray) or hasattr(y, "shape")
    array = np.asarray(y) if is_column else _objects(y)
    if array.dtype.kind == "c":
        raise _unanswerable(name, f"dtype {array.dtype}", array[:1].tolist())
    return np.asarray(column_or_1d(array, warn=True))


def _objects(y: Any) -> np.ndarray:
    if isinstance(y, str | bytes | Set) or not hasattr(y, "__len__"):
        return np.asarray(y, dtype=object)
    values = list(y)
    if any(isinstance(value, list | np.ndarray) for value in values):
        return np.asarray(values)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _kind(value: Any) -> str:
    if isinstance(value, Enum):
        return type(value).__name__
    for kind, types in KINDS:
        if isinstance(value, types):
            return kind
    return type(value).__name__


def _of_one_type(values: list[Any], name: str, was_array: bool) -> np.ndarray:
    examples: dict[str, Any] = {}
    for value in values:
        examples.setdefault(_kind(value), value)
    kinds = set(examples)
    if unknown := kinds - {kind for kind, _ in KINDS}:
        kind = min(unknown)
        raise _unanswerable(name, f"type {kind}", [examples[kind]])
    if kinds == {"string"}:
        return _strings(values, was_array)
    if len(kinds) > 1 and kinds != {"integer", "float"}:
        shown = " and ".join(f"{k} ({v!r})" for k, v in sorted(examples.items()))
        raise ValueError(
            f"{name} holds labels of {'two' if len(kinds) == 2 else len(kinds)} types, "
            f"{shown}. Make them one: {name} = [str(label) for label in {name}]."
        )
    values = [plain(value) for value in values]
    array = np.array(values)
    # Floats do not hold all integers, and integers beyond 64 bits are objects.
    is_whole = kinds == {"integer"} and array.dtype.kind not in "iu"
    if is_whole or any(
        label != value for label, value in zip(array.tolist(), values, strict=True)
    ):
        raise ValueError(
            f"{name} holds integers too large to be distinct from the other "
            f"labels or -1, such as {max(values, key=abs)}. Use strings: {name} = "
            f"[str(label) for label in {name}]."
        )
    return array


def _strings(values: list[str], was_array: bool) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = [str.__str__(value) for value in values]
    longest = max(map(len, values), default=0)
    # An array of fixed width drops NULs at the end, and is as wide as the longest.
    ends_in_nul = any(value.endswith("\0") for value in values)
    is_kept = was_array or ends_in_nul or longest > LONGEST_STRING
    return array if is_kept else array.astype(str)


def _missing(name: str, n_missing: int) -> ValueError:
    return ValueError(
        f"{name} contains missing labels ({n_missing} of None, NaN, NaT or NA). Drop "
        f"these rows: an unlabelled point can be neither trained on nor measured. In "
        f"pandas: keep = {name}.notna(); X[keep], {name}[keep]."
    )


def _unanswerable(name: str, found: str, examples: list[Any]) -> ValueError:
    way = f"[str(label) for label in {name}]"
    if examples and isinstance(examples[0], Enum):
        way = f"[label.name for label in {name}]"
    elif examples and isinstance(examples[0], bytes):
        way = f"[label.decode() for label in {name}]"
    elif found.startswith("dtype datetime") or found.startswith("dtype timedelta"):
        way = f"{name}.astype(str)"
    shown = f", such as {examples[0]!r}" if examples else ""
    return ValueError(
        f"{name} holds labels of {found}{shown}; expected strings, integers or "
        f"booleans. Convert them: {name} = {way}."
    )


def positions(labels: ArrayLike, classes: np.ndarray, name: str = "y") -> np.ndarray:
    """Position (n,) of each label in the classes; ``len(classes)`` for all others.

    Labels of another type than the classes are a ValueError: integers and whole floats
    are one, and booleans too, where the classes are 0 and 1. ``-1`` and ``"-1"`` mean
    unknown anywhere.

    Examples
    --------
    >>> positions([5, 7, -1, 3], np.array([3, 5]))
    array([1, 2, 2, 0])
    """
    array = _one_dimensional(labels, name)
    is_unknown = np.array([_is_marker(label) for label in array.tolist()], dtype=bool)
    values, known = as_labels(array[~is_unknown], name), as_labels(classes, "classes")
    _check_same_type(values, known, name)
    place = {label: i for i, label in enumerate(known.tolist())}
    found = np.full(len(array), len(known), dtype=np.int64)
    found[~is_unknown] = [place.get(label, len(known)) for label in values.tolist()]
    return found


def _is_marker(label: Any) -> bool:
    return isinstance(label, int | float | str) and label in MARKERS


def _check_same_type(values: np.ndarray, classes: np.ndarray, name: str) -> None:
    if not len(values) or not len(classes):
        return
    kinds = [
        "string" if array.dtype.kind in "OU" else _kind(array[0])
        for array in (values, classes)
    ]
    are_numbers = "string" not in kinds
    # True is 1: of classes 1 and 2 it would be the first, and False unknown.
    if kinds[0] == "boolean" and kinds[1] != "boolean":
        are_numbers = are_numbers and set(classes.tolist()) <= {0, 1}
    example = values.tolist()[0]
    if are_numbers and kinds[0] == "float" and np.all(classes == np.round(classes)):
        broken = values[values != np.round(values)]
        are_numbers = not len(broken)
        example = float(broken[0]) if len(broken) else example
    if are_numbers or kinds == ["string", "string"]:
        return
    way = (
        f"[str(label) for label in {name}]"
        if kinds[1] == "string"
        else (f"np.asarray({name}).astype(int)")
    )
    raise ValueError(
        f"{name} holds labels of type {kinds[0]}, such as {example!r}, but the "
        f"classes are of type {kinds[1]}, such as {classes[:1].tolist()[0]!r}. Give "
        f"both in one type: {name} = {way}, say. (Only -1, for 'unknown', may stand "
        "among labels of either.)"
    )


def check_labels(y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Find the classes of labels (n,), sorted, and the position (n,) of each in them.

    Examples
    --------
    >>> classes, encoded = check_labels(np.array(["cat", "dog", "dog", "cat"]))
    >>> encoded
    array([0, 1, 1, 0])
    """
    y = as_labels(y)
    check_classification_targets(y)
    if y.dtype.kind == "u" and y.max(initial=0) > np.iinfo(np.int64).max:
        raise ValueError(
            f"y holds the label {y.max()}, too large to stand in one array with -1 for "
            "'unknown'. Use labels below 2**63, or strings."
        )
    classes, encoded, counts = np.unique(y, return_inverse=True, return_counts=True)
    if any(label in (-1, "-1") for label in classes.tolist()):
        raise ValueError(
            "y contains the label -1, which stands for 'unknown' in the predictions. "
            "Train on known classes only: rename the class, or drop its rows."
        )
    if len(classes) < 2:
        raise ValueError(
            f"y holds 1 class, {classes.tolist()}; at least 2 classes are needed. For "
            "a single class use an outlier detector such as "
            "sklearn.ensemble.IsolationForest."
        )
    if counts.min() < 2:
        lonely = classes[counts < 2].tolist()
        raise ValueError(
            f"Classes with one sample in y: [{listed(map(repr, lonely))}]. "
            "Each class needs at least 2 samples; drop these classes or add to them."
        )
    return classes, encoded


def check_known_labels(classes: np.ndarray, y: ArrayLike) -> np.ndarray:
    """Find the position (n,) of each label; a ValueError names those not known.

    Examples
    --------
    >>> check_known_labels(np.array([3, 5]), [5, 3])
    array([1, 0])
    """
    found = positions(y, classes)
    unknown = found == len(classes)
    if unknown.any():
        shown = listed(map(repr, dict.fromkeys(np.asarray(y)[unknown].tolist())))
        raise ValueError(
            f"y holds labels that the detector does not know: {shown}. Its classes are "
            f"{listed(map(repr, classes.tolist()))}. Give known points only."
        )
    return found


def labels_with_unknown(classes: np.ndarray) -> np.ndarray:
    """Put the label for "unknown" behind the classes, in one array.

    Strings get ``"-1"``. Booleans and unsigned integers become signed integers, since
    they cannot hold -1.

    Examples
    --------
    >>> labels_with_unknown(np.array([3, 5]))
    array([ 3,  5, -1])
    >>> labels_with_unknown(np.array(["a", "b"]))
    array(['a', 'b', '-1'], dtype='<U2')
    """
    if classes.dtype.kind == "U" or isinstance(classes[0], str):
        return np.append(classes, np.array("-1", dtype=classes.dtype.kind))
    if classes.dtype.kind in "bu":
        signed = np.promote_types(classes.dtype, np.int8)
        classes = classes.astype(np.int64 if signed.kind == "f" else signed)
    return np.append(classes, np.array(-1, dtype=classes.dtype))

"""What users give, made plain: parameters, and inputs of any container."""

import os
import sys
import warnings
from collections.abc import Mapping, Set
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.sparse import issparse
from torch import Tensor

__all__ = ["as_array", "as_numpy", "is_missing", "plain", "warn"]


def plain(value: Any) -> Any:
    """Turn a parameter's number or word into Python's own, exactly.

    ``torch`` wants Python's ints, and small types of numpy overflow in sums.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def warn(message: str) -> None:
    """Warn, as of the line of the caller's own code that called the package."""
    level = 2
    while _is_ours(sys._getframe(level - 1).f_globals.get("__name__", "")):
        level += 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_ours(module: str) -> bool:
    # Decorated methods have frames of others between ours.
    packages = ("skvmdls", "contextlib", "sklearn.callback")
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def as_numpy(tensor: Tensor, name: str = "X") -> np.ndarray:
    """Take a tensor's plain numbers to numpy, exactly, from whatever device.

    Types that numpy lacks (bfloat16 and smaller) become float32.
    """
    way = None
    if tensor.is_meta:
        raise ValueError(
            f"{name} is a tensor on torch's meta device, which holds no numbers. Make "
            "it with device='cpu'."
        )
    if tensor.layout != torch.strided:
        way = ".to_dense()"
    elif tensor.is_quantized:
        way = ".dequantize()"
    if way:
        raise ValueError(
            f"{name} is a tensor of {tensor.dtype} and layout {tensor.layout}; "
            f"expected a dense one of plain numbers: pass {name}{way}."
        )
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.float().numpy()


def as_array(X: Any) -> Any:
    """Make an array of X, or leave frames and sparse matrices to scikit-learn's checks.

    Tensors of any float type and on any device, lists of equally large arrays, tensors
    or pictures, and object arrays of such, become one array. If none can be made, the
    message of the ValueError has the line that makes one.
    """
    _refuse_other_things(X)
    if isinstance(X, Tensor):
        return as_numpy(X)
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        raise ValueError(
            "X is a masked array with masked values, which have no numbers. Fill them, "
            "X.filled(value), or drop their rows."
        )
    if hasattr(X, "dtypes") and hasattr(X, "columns"):
        _check_columns(X)
        return X
    if isinstance(X, np.ndarray):
        return _checked_dtype(X)
    if hasattr(X, "shape"):
        return X
    if hasattr(X, "__array__"):
        return _checked_dtype(np.asarray(X))
    rows = list(X)
    if any(hasattr(row, "shape") or hasattr(row, "size") for row in rows):
        return _stacked(rows)
    try:
        return _checked_dtype(np.asarray(X))
    except ValueError as error:
        lengths = sorted({len(row) for row in rows if hasattr(row, "__len__")})
        found = f" of {lengths[0]} to {lengths[-1]} entries" if len(lengths) > 1 else ""
        raise ValueError(
            f"X is a list of rows{found} that do not make one array: {error}. Every "
            "row needs the same number of numbers."
        ) from error


def _refuse_other_things(X: Any) -> None:
    if isinstance(X, str | bytes | os.PathLike):
        raise ValueError(
            f"X is {X!r}, a name; expected the numbers themselves. Read the file "
            "first: X = np.load(path) or X = pd.read_csv(path).to_numpy(); of a folder "
            "of images, X, y = skvmdls.datasets.image_folder(path)."
        )
    if issparse(X):  # scikit-learn says what it thinks of these.
        return
    known = ("__len__", "shape", "__array__")
    if isinstance(X, Mapping | Set) or not any(hasattr(X, name) for name in known):
        raise ValueError(
            f"X is a {type(X).__name__}; expected an array of shape (n, features), (n, "
            "height, width) or (n, channels, height, width)."
        )


def _stacked(rows: list[Any]) -> np.ndarray:
    """Put arrays, tensors or pictures of one shape behind one another."""
    arrays = [
        as_numpy(row, "a row of X") if isinstance(row, Tensor) else np.asarray(row)
        for row in rows
    ]
    shapes = list(dict.fromkeys(array.shape for array in arrays))
    if len(shapes) > 1:
        raise ValueError(
            f"X holds inputs of {len(shapes)} different shapes, such as {shapes[0]} "
            f"and {shapes[1]}; expected one shape. Bring images to one size first: "
            "X = np.stack([torchvision.transforms.functional.resize(torch.as_tensor(x)"
            "[None], [height, width])[0] for x in X])."
        )
    return _checked_dtype(np.stack(arrays))


def _checked_dtype(X: np.ndarray) -> np.ndarray:
    kind = X.dtype.kind
    if kind == "O" and X.ndim == 1 and len(X) and hasattr(X[0], "shape"):
        return _stacked(list(X))
    text = next(filter(_is_text, X.flat), None) if kind in "OUST" else None
    if text is not None:
        raise ValueError(
            f"X holds text (dtype {X.dtype}), such as {text!r}, which could not be "
            "converted to numbers. Turn categories into columns of numbers first: "
            "sklearn.preprocessing.OneHotEncoder(sparse_output=False).fit_transform(X)."
        )
    if kind in "UST":
        return X.astype(np.float64)
    if kind in "mM":
        raise ValueError(
            f"X holds times (dtype {X.dtype}); expected numbers. Say in which unit: "
            "(X - X.min()) / np.timedelta64(1, 'D')."
        )
    if kind == "V":
        raise ValueError(
            f"X is a structured array with the fields {X.dtype.names}; expected plain "
            "columns: numpy.lib.recfunctions.structured_to_unstructured(X)."
        )
    return X


def _is_text(value: Any) -> bool:
    """Whether it is a word, and not a number in words."""
    if not isinstance(value, str | bytes):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


TIMES = ("date", "time", "duration", "period", "interval")


def _check_columns(frame: Any) -> None:
    """Raise a ValueError that names the columns of a frame that hold no numbers."""
    bad = []
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        kind = str(dtype).lower()
        is_plain = kind.startswith(("int", "uint", "float", "bool", "sparse"))
        if kind.startswith(TIMES) or (not is_plain and _has_text(frame[name])):
            bad.append(f"{name!r} ({dtype})")
    if bad:
        raise ValueError(
            f"X has columns that hold no numbers: {', '.join(bad[:5])}"
            f"{', ...' * (len(bad) > 5)}. Turn categories into numbers, "
            "pd.get_dummies(X), and dates into a duration, (X['date'] - start)"
            ".dt.days; or leave these columns out."
        )


def _has_text(column: Any) -> bool:
    return any(map(_is_text, np.asarray(column, dtype=object).ravel()))


def is_missing(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, NaT or pandas' NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas' NA is neither equal nor unequal.
        return True
    except ValueError:  # An array.
        return False

"""Small helpers for values of users: plain copies, messages, conversion to numpy."""

import sys
import warnings
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["InputLike", "as_numpy", "is_missing", "listed", "plain", "warn"]


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


def listed(names: Iterable[str], most: int = 5) -> str:
    """Join names by commas, and only the first of many.

    Examples
    --------
    >>> listed("abcdefg")
    'a, b, c, d, e, ...'
    """
    shown = list(names)
    if len(shown) > most:
        shown[most:] = ["..."]
    return ", ".join(shown)


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


# X as users give it.
InputLike = ArrayLike | Dataset[Any]

"""Stored arrays: their names, and checks that they are what was written."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "check_shape",
    "expected",
    "is_finite",
    "stored_array",
    "with_prefix",
    "without_prefix",
]


def stored_array(
    state: Mapping[str, Any], name: str, ndim: int, of: str = ""
) -> np.ndarray:
    """Take an array out of a state: finite float64, not empty, with `ndim` axes."""
    array = np.asarray(state[name])
    name = f"{of}.{name}" if of else name
    if array.dtype != np.float64 or array.ndim != ndim or array.size == 0:
        raise ValueError(
            f"{name} is an array of {array.dtype} and shape {array.shape}, expected "
            f"float64 with {ndim} axes"
        )
    if not is_finite(array):
        raise ValueError(f"{name} holds numbers that are not finite")
    return array


def is_finite(array: np.ndarray) -> bool:
    """Whether all numbers are: asked piece by piece, as the answers take memory too."""
    flat = array.reshape(-1)
    pieces = (flat[start : start + 2**20] for start in range(0, flat.size, 2**20))
    return all(np.isfinite(piece).all() for piece in pieces)


def check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise a ValueError that names an array of another shape than expected."""
    if found != expected:
        raise ValueError(f"{name} has shape {found}, expected {expected}")


def with_prefix(role: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Put a role and a dot before the names of arrays."""
    return {f"{role}.{name}": array for name, array in arrays.items()}


def without_prefix(
    role: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Select the arrays whose names begin with a role and a dot, without these."""
    return {
        name.removeprefix(f"{role}."): array
        for name, array in arrays.items()
        if name.startswith(f"{role}.")
    }


def expected(value: Any, kind: type) -> Any:
    """Return the value, or raise a ValueError if it is not of exactly this type."""
    if type(value) is not kind:
        raise ValueError(f"expected {kind.__name__}, found {str(value)[:50]!r}")
    return value

"""Rows that must stay together: equal ones, and those of one group."""

from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_consistent_length, column_or_1d

from skvmdls._support.values import is_missing
from skvmdls.inputs.rows import Rows, rows_of

__all__ = ["group_ids"]


def group_ids(X: np.ndarray | Rows, groups: Any) -> np.ndarray | None:
    """Give a number to the rows that must stay together, (n,); None if there are none.

    Rows are together if they are equal, if they have the same group, and if others join
    them: the connected components of both.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [0.0], [2.0]])
    >>> group_ids(X, None)
    array([0, 1, 0, 2])
    >>> group_ids(X, ["a", "b", "c", "b"])
    array([0, 1, 0, 1])
    """
    X = rows_of(X)
    ids = _equal_rows(X)
    if groups is not None:
        ids = _joined(ids, _numbered(_checked_groups(X, groups)))
    return None if len(np.unique(ids)) == len(ids) else ids


def _equal_rows(X: Rows) -> np.ndarray:
    """Give equal rows one number, in the order of the first of them."""
    _, first, ids = np.unique(X.digests, return_index=True, return_inverse=True)
    return first.argsort().argsort()[ids]


def _checked_groups(X: Rows, groups: Any) -> list[Any]:
    values = np.asarray(column_or_1d(groups), dtype=object).tolist()
    check_consistent_length(X, values)
    if n_missing := sum(map(is_missing, values)):
        raise ValueError(
            f"groups has {n_missing} missing values. Give each of these rows a group "
            "of its own, or drop them."
        )
    return values


def _numbered(values: list[Any]) -> np.ndarray:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values])


def _joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Join what either joins: rows are edges between the groups of both kinds."""
    n_one, n_other = one.max() + 1, other.max() + 1
    edges = coo_array(
        (np.ones(len(one), dtype=bool), (one, n_one + other)),
        shape=(n_one + n_other,) * 2,
    )
    _, component = connected_components(edges, directed=False)
    return _numbered(component[one].tolist())

"""Nearest training rows as a part of the evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["NearestRows"]

# Kept training rows: at most so many in all, and so many bytes.
MOST_ROWS, MOST_BYTES = 10_000, 2**26


@dataclass(frozen=True)
class NearestRows:
    """Training rows of each class; half of the squared distance to the nearest [1]_.

    The score under a class is ``-|z - r|^2 / 2`` for its nearest kept row r. For rows
    of unit length this is their cosine less one. These are kept in single precision,
    which doubles the speed. The kept rows are **training data that is stored with the
    detector**. At most 10,000 rows or 64 MiB are kept, drawn at random, with the same
    number from each class as far as it has them.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, D), float32 or float64
        One class after the other.
    counts : tuple of int
        Rows of each class.

    References
    ----------
    .. [1] Y. Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors",
       ICML 2022.

    Examples
    --------
    >>> nearest = NearestRows.fit(np.array([[0.0], [4.0], [9.0]]), np.array([0, 0, 1]))
    >>> nearest.scores(torch.tensor([[5.0]]).double())
    tensor([[-0.5000, -8.0000]], dtype=torch.float64)
    """

    rows: Tensor
    counts: tuple[int, ...]

    @classmethod
    def fit(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        random_state: int = 0,
        *,
        most_rows: int = MOST_ROWS,
        dtype: torch.dtype = torch.float64,
    ) -> "NearestRows":
        """Keep rows (n, D) of the classes that labels (n,) name, from 0 on."""
        by_bytes = MOST_BYTES // (dtype.itemsize * rows.shape[1])
        counts = np.bincount(labels)
        most = most_of_each(counts, max(len(counts), min(most_rows, by_bytes)))
        rng = np.random.RandomState(random_state)
        kept = [
            np.sort(rng.permutation(np.flatnonzero(labels == label))[:most])
            for label in range(len(counts))
        ]
        tensor = torch.from_numpy(rows[np.concatenate(kept)]).to(dtype)
        return cls(tensor, tuple(len(own) for own in kept))

    @property
    def labels(self) -> np.ndarray:
        """Position (n_rows,) of each kept row's class."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def squares(self) -> Tensor:
        """Squared length (n_rows,) of each kept row."""
        return self.rows.square().sum(dim=1)

    def scores(self, rows: Tensor) -> Tensor:
        """Score rows (n, D) under each class, (n, n_classes)."""
        distances = self._squared_distances(rows)
        if len(set(self.counts)) == 1:
            shape = rows.shape[0], len(self.counts), self.counts[0]
            nearest = distances.reshape(shape).amin(dim=2)
        else:
            by_class = distances.split(self.counts, dim=1)
            nearest = torch.stack([own.amin(dim=1) for own in by_class], dim=1)
        return -nearest.double() / 2

    def _squared_distances(self, rows: Tensor) -> Tensor:
        rows = rows.to(self.rows)
        squares = rows.square().sum(dim=1, keepdim=True) + self.squares
        return (squares - 2 * (rows @ self.rows.T)).clamp_min(0)

    def terms(self, rows: Tensor, classes: Tensor) -> Tensor:
        """Split the scores under classes (n,) into dimensions (n, D) that sum to it."""
        is_other = torch.from_numpy(self.labels)[None] != classes[:, None]
        distances = self._squared_distances(rows).masked_fill(is_other, torch.inf)
        return -(rows - self.rows[distances.argmin(dim=1)]).square() / 2

    def with_classes(self, rows: Tensor, labels: np.ndarray) -> "NearestRows":
        """Append classes; rows (n, D) and labels (n,) from 0 on."""
        most = max(self.counts)
        rows = rows.to(self.rows)
        own = [rows[torch.from_numpy(labels == c)][:most] for c in np.unique(labels)]
        return NearestRows(torch.cat([self.rows, *own]), (*self.counts, *map(len, own)))

    def of_classes(self, positions: np.ndarray) -> "NearestRows":
        """Keep the classes at some positions."""
        by_class = self.rows.split(self.counts)
        return NearestRows(
            torch.cat([by_class[c] for c in positions]),
            tuple(self.counts[c] for c in positions),
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        counts = np.array(self.counts, dtype=np.float64)
        return {"rows": self.rows.numpy(), "counts": counts}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], n_dimensions: int) -> "NearestRows":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        given = np.asarray(state["rows"])
        if given.dtype not in (np.float32, np.float64):
            raise ValueError(f"neighbours.rows is an array of {given.dtype}")
        wide = {"rows": given.astype(np.float64)}
        rows = stored_array(wide, "rows", 2, of="neighbours").astype(given.dtype)
        counts = stored_array(state, "counts", 1, of="neighbours")
        check_shape("neighbours.rows", rows.shape, (int(counts.sum()), n_dimensions))
        if counts.min() < 1 or (counts != np.floor(counts)).any():
            raise ValueError("neighbours.counts must be whole numbers from 1 on")
        return cls(torch.from_numpy(rows), tuple(map(int, counts)))


def most_of_each(counts: np.ndarray, n_rows: int) -> int:
    """Find how many rows of each class may be kept so that all are at most `n_rows`.

    Examples
    --------
    >>> most_of_each(np.array([5, 100, 100]), 45)
    20
    """
    low, high = 1, int(counts.max())
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(counts, middle).sum() <= n_rows:
            low = middle
        else:
            high = middle - 1
    return low

"""Parts of the evidence that need no trained net, for vectors and tables.

Class means under one covariance, the same relative to all classes, a covariance for
each class, nearest training rows, prototypes, a linear classifier, and randomised
trees. A :class:`DirectParts` holds those that were asked for. It scores rows under each
class, and it adds and drops classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support.stored_arrays import check_shape, stored_array
from skvmdls.direct.linear import (
    C_OF_COLUMNS,
    C_OF_UNIT_ROWS,
    LinearClassifier,
)
from skvmdls.direct.means import (
    ClassMoments,
    SeparateCovariances,
    fit_moments,
)
from skvmdls.direct.neighbours import NearestRows
from skvmdls.direct.row_space import RowSpace
from skvmdls.direct.trees import TreeVotes

__all__ = [
    "DIRECT_PARTS",
    "PARTS_OF_TABLES",
    "PARTS_OF_VECTORS",
    "PRIOR_WEIGHTS",
    "PRIOR_WEIGHTS_OF_TABLES",
    "DirectParts",
    "fit_direct_parts",
    "fit_scores",
    "usual_parts",
]

SHARED, RELATIVE, SEPARATE = "shared", "relative", "separate"
NEIGHBOURS, PROTOTYPE, LINEAR, TREES = "neighbours", "prototype", "linear", "trees"
DIRECT_PARTS = (SHARED, RELATIVE, SEPARATE, NEIGHBOURS, PROTOTYPE, LINEAR, TREES)
PARTS_OF_VECTORS = (SHARED, RELATIVE, NEIGHBOURS, PROTOTYPE, LINEAR)
PARTS_OF_TABLES = (SHARED, SEPARATE, NEIGHBOURS, LINEAR, TREES)
# How much a part counts before anything is learned. On sentence embeddings the other
# three are enough, where classes are many.
PRIOR_WEIGHTS = dict.fromkeys(DIRECT_PARTS, 1.0) | {SHARED: 0.25, PROTOTYPE: 0.25}
PRIOR_WEIGHTS_OF_TABLES = dict.fromkeys(DIRECT_PARTS, 1.0)

# Every part is fitted to at most so many rows.
MOST_ROWS = 50_000
# A covariance for each class takes at most so many bytes, and is for at most so many
# dimensions: beyond, rows are too few to tell the classes' covariances apart.
MOST_SEPARATE_BYTES, MOST_SEPARATE_DIMENSIONS = 2**28, 256
# Beyond, the shares of the classes in the leaves take too much memory.
MOST_CLASSES_OF_TREES = 50
# Rows that are scored at once: their distances to 10,000 kept rows take 20 MB.
BATCH = 500
OF_MOMENTS = (SHARED, RELATIVE, PROTOTYPE)


def usual_parts(n_features: int, n_classes: int, *, normalize: bool) -> tuple[str, ...]:
    """Name the parts that are used where nothing else is asked for.

    Parameters
    ----------
    n_features, n_classes : int
    normalize : bool
        Whether rows are compared at unit length, as vectors are.

    Returns
    -------
    names : tuple of str

    Examples
    --------
    >>> usual_parts(384, 150, normalize=True)
    ('shared', 'relative', 'neighbours', 'prototype', 'linear')
    >>> usual_parts(20, 3, normalize=False)
    ('shared', 'separate', 'neighbours', 'linear', 'trees')
    >>> usual_parts(5000, 3, normalize=False)
    ('shared', 'neighbours', 'linear', 'trees')
    """
    if normalize:
        return PARTS_OF_VECTORS
    absent = set()
    n_bytes = 8 * n_classes * n_features**2
    if n_features > MOST_SEPARATE_DIMENSIONS or n_bytes > MOST_SEPARATE_BYTES:
        absent.add(SEPARATE)
    if n_classes > MOST_CLASSES_OF_TREES:
        absent.add(TREES)
    return tuple(name for name in PARTS_OF_TABLES if name not in absent)


@dataclass(frozen=True)
class DirectParts:
    """Parts that need no trained net, fitted to rows of known classes.

    Parameters
    ----------
    names : tuple of str
        Some of :data:`DIRECT_PARTS`, in the order of the scores' last axis.
    space : RowSpace
        From raw rows (n, features) to what the parts compare.
    is_added : tuple of bool
        For each class, whether it was added after the fit.
    moments : ClassMoments
        For ``"shared"``, ``"relative"`` and ``"prototype"``.
    separate : SeparateCovariances, optional
        For ``"separate"``.
    neighbours : NearestRows, optional
        For ``"neighbours"``.
    linear : LinearClassifier, optional
        For ``"linear"``.
    trees : TreeVotes, optional
        For ``"trees"``.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(90) % 3
    >>> X = rng.normal(size=(90, 4)) + 6 * np.eye(4)[y]
    >>> parts = fit_direct_parts(X, y, 3, names=("shared", "neighbours"))
    >>> parts.class_scores(X[:2]).shape
    torch.Size([2, 3, 2])
    """

    names: tuple[str, ...]
    space: RowSpace
    is_added: tuple[bool, ...]
    moments: ClassMoments
    separate: SeparateCovariances | None = None
    neighbours: NearestRows | None = None
    linear: LinearClassifier | None = None
    trees: TreeVotes | None = None

    @property
    def n_classes(self) -> int:
        """Number of known classes."""
        return len(self.is_added)

    @property
    def speaks(self) -> np.ndarray:
        """Mask (n_classes, n_parts), False where a part cannot score a class.

        Trees have no leaf for a class that was added, and give it the score 0.
        """
        mask = np.ones((self.n_classes, len(self.names)), dtype=bool)
        mask[np.ix_(self.is_added, [name == TREES for name in self.names])] = False
        return mask

    def class_scores(self, rows: Tensor | np.ndarray) -> Tensor:
        """Score raw rows under each class by each part.

        Parameters
        ----------
        rows : Tensor or ndarray of shape (n, features)

        Returns
        -------
        scores : Tensor of shape (n, n_classes, n_parts), float64
            Higher for better known rows. A part's score of a row is its largest.
        """
        z = self.space(torch.as_tensor(rows))
        return torch.stack([self._scores(name, z) for name in self.names], dim=2)

    def as_module(self) -> nn.Module:
        """Wrap :meth:`class_scores` as a module, to be exported.

        What follows from the arrays is computed first, so that it becomes constants.

        Returns
        -------
        module : nn.Module
            From raw rows (n, features) to scores (n, n_classes, n_parts).
        """
        self.class_scores(torch.zeros(1, len(self.space.centre)))
        return _ClassScores(self)

    def _scores(self, name: str, z: Tensor) -> Tensor:
        if name in OF_MOMENTS:
            return getattr(self.moments, name)(z)
        return getattr(self, name).scores(z)

    @property
    def has_column_terms(self) -> bool:
        """Whether scores can be split by column. Not where rows are very wide."""
        return self.space.basis is None

    def column_terms(self, rows: Tensor | np.ndarray, classes: Tensor) -> Tensor:
        """Split the scores under one class a row into a term for each column.

        Parameters
        ----------
        rows : Tensor or ndarray of shape (n, features)
            As they were given to the fit.
        classes : Tensor of shape (n,), int64
            Under which class to look at each row.

        Returns
        -------
        terms : Tensor of shape (n, features, n_parts), float64
            The terms of a row sum to its score. Trees have no terms, theirs are zero.

        Raises
        ------
        ValueError
            If rows are so wide that they are compared in the span of training rows.
        """
        if self.space.basis is not None:
            raise ValueError(
                f"rows of {len(self.space.centre)} columns are compared in "
                f"{self.space.n_dimensions} dimensions, which have no terms by column. "
                "Select or reduce columns before fit, to at most 2,048."
            )
        z = self.space(torch.as_tensor(rows))
        return torch.stack([self._terms(name, z, classes) for name in self.names], 2)

    def _terms(self, name: str, z: Tensor, classes: Tensor) -> Tensor:
        if name == TREES:
            return torch.zeros_like(z)
        if name in OF_MOMENTS:
            return getattr(self.moments, f"{name}_terms")(z, classes)
        return getattr(self, name).terms(z, classes)

    def with_classes(self, X: np.ndarray, labels: np.ndarray) -> "DirectParts":
        """Append classes from their rows alone. The others' scores stay as they are.

        Parameters
        ----------
        X : ndarray of shape (n, features)
        labels : ndarray of shape (n,), int
            Positions of the new classes, from 0 on. Each has a row or more.

        Returns
        -------
        parts : DirectParts
        """
        z = self.space(torch.as_tensor(X))
        known, known_labels = self.moments.means, np.arange(self.n_classes)
        if self.neighbours is not None:
            known, known_labels = self.neighbours.rows.double(), self.neighbours.labels
        n_new = int(labels.max()) + 1
        return replace(
            self,
            is_added=(*self.is_added, *[True] * n_new),
            moments=self.moments.with_classes(z, labels),
            separate=self.separate and self.separate.with_classes(z, labels),
            neighbours=self.neighbours and self.neighbours.with_classes(z, labels),
            linear=self.linear
            and self.linear.with_classes(z, labels, known, known_labels),
            trees=self.trees and self.trees.with_silent_classes(n_new),
        )

    def of_classes(self, positions: np.ndarray) -> "DirectParts":
        """Keep the classes at some positions (k,), in that order."""
        return replace(
            self,
            is_added=tuple(self.is_added[c] for c in positions),
            moments=self.moments.of_classes(positions),
            separate=self.separate and self.separate.of_classes(positions),
            neighbours=self.neighbours and self.neighbours.of_classes(positions),
            linear=self.linear and self.linear.of_classes(positions),
            trees=self.trees and self.trees.of_classes(positions),
        )

    def of_parts(self, names: Sequence[str]) -> "DirectParts":
        """Keep some of the parts, in that order, for example those with a weight."""
        return replace(
            self,
            names=tuple(names),
            separate=self.separate if SEPARATE in names else None,
            neighbours=self.neighbours if NEIGHBOURS in names else None,
            linear=self.linear if LINEAR in names else None,
            trees=self.trees if TREES in names else None,
        )

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, by name, for :meth:`from_state`."""
        state = {"is_added": np.array(self.is_added, dtype=np.float64)}
        rooms: dict[str, Any] = {"space": self.space, "moments": self.moments} | {
            name: getattr(self, name) for name in STORED if name in self.names
        }
        for room, held in rooms.items():
            state |= {f"{room}.{name}": a for name, a in held.state_dict().items()}
        return state

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], names: Sequence[str]
    ) -> "DirectParts":
        """Rebuild from a `state_dict`. A ValueError if it is not of these parts."""
        if unknown := [name for name in names if name not in DIRECT_PARTS]:
            raise ValueError(f"{unknown[0]!r} is not one of {DIRECT_PARTS}")
        is_added = stored_array(state, "is_added", 1, of="direct parts")
        space = RowSpace.from_state(_of_room(state, "space"))
        size = space.n_dimensions
        moments = ClassMoments.from_state(_of_room(state, "moments"), size)
        check_shape("moments.means", moments.means.shape[:1], is_added.shape)
        held = {
            name: kind.from_state(_of_room(state, name), size)
            for name, kind in STORED.items()
            if name in names
        }
        parts = cls(tuple(names), space, tuple(map(bool, is_added)), moments, **held)
        n_scored = parts.class_scores(torch.zeros(1, len(space.centre))).shape[1]
        check_shape("direct parts", (n_scored,), is_added.shape)
        return parts


class _ClassScores(nn.Module):
    """Scores (n, n_classes, n_parts) of raw rows (n, features)."""

    def __init__(self, parts: DirectParts) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, rows: Tensor) -> Tensor:
        return self.parts.class_scores(rows)


STORED: dict[str, Any] = {
    SEPARATE: SeparateCovariances,
    NEIGHBOURS: NearestRows,
    LINEAR: LinearClassifier,
    TREES: TreeVotes,
}


def _of_room(state: Mapping[str, Any], room: str) -> dict[str, Any]:
    """Take the arrays of one room out of a state. A ValueError if there are none."""
    prefix = f"{room}."
    found = {
        name.removeprefix(prefix): array
        for name, array in state.items()
        if name.startswith(prefix)
    }
    if not found:
        raise ValueError(f"the state holds no arrays of {room!r}")
    return found


def fit_direct_parts(
    X: np.ndarray,
    labels: np.ndarray,
    n_classes: int,
    *,
    names: Sequence[str],
    normalize: bool = False,
    space: RowSpace | None = None,
    random_state: int = 0,
    tolerance: float = 1e-4,
) -> DirectParts:
    """Fit parts to rows of known classes.

    Parameters
    ----------
    X : ndarray of shape (n, features)
        Raw rows. Of more than 50,000, so many are drawn, stratified.
    labels : ndarray of shape (n,), int
        Positions of the classes. Each has a row or more.
    n_classes : int
    names : sequence of str
        Some of :data:`DIRECT_PARTS`.
    normalize : bool, default=False
        Whether rows are compared at unit length. Else columns are standardised.
    space : RowSpace, optional
        Fitted before, for example with robust scales, in place of `normalize`.
    random_state : int, default=0
        Seed of the rows that are kept, and of the trees.
    tolerance : float, default=1e-4
        Gradient at which the linear classifier's training stops.

    Returns
    -------
    parts : DirectParts

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [7.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> parts = fit_direct_parts(X, y, 2, names=("neighbours", "linear"))
    >>> parts.class_scores(X).argmax(dim=1).T
    tensor([[0, 0, 1, 1],
            [0, 0, 1, 1]])
    """
    if len(X) > MOST_ROWS:
        drawn = _stratified(labels, MOST_ROWS, random_state)
        X, labels = X[drawn], labels[drawn]
    if space is None:
        space = RowSpace.fit(X, normalize=normalize)
    z = space(torch.as_tensor(X)).numpy()
    moments = fit_moments(z, labels, n_classes, space.n_folded)
    held: dict[str, Any] = {}
    if SEPARATE in names:
        held[SEPARATE] = SeparateCovariances.fit(z, labels, moments)
    if NEIGHBOURS in names:
        dtype = torch.float32 if space.normalize else torch.float64
        held[NEIGHBOURS] = NearestRows.fit(z, labels, random_state, dtype=dtype)
    if LINEAR in names:
        strength = C_OF_UNIT_ROWS if space.normalize else C_OF_COLUMNS
        held[LINEAR] = LinearClassifier.fit(z, labels, n_classes, strength, tolerance)
    if TREES in names:
        held[TREES] = TreeVotes.fit(z, labels, n_classes, random_state)
    return DirectParts(tuple(names), space, (False,) * n_classes, moments, **held)


def fit_scores(
    names: Sequence[str],
    *,
    normalize: bool = False,
    space: RowSpace | None = None,
    random_state: int = 0,
    tolerance: float = 1e-4,
) -> Callable[[np.ndarray, np.ndarray, int], Callable[[np.ndarray], np.ndarray]]:
    """Make a function that fits parts, for trials and for cross-fitting.

    Parameters
    ----------
    names, normalize, space, random_state, tolerance
        As of :func:`fit_direct_parts`.

    Returns
    -------
    fit : callable
        Takes rows (n, features), labels (n,) and the number of classes. Returns a
        function from rows (m, features) to scores (m, n_classes, n_parts), an ndarray
        computed batch by batch.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [7.0], [9.0]]), np.array([0, 0, 1, 1])
    >>> fit_scores(("neighbours",))(X, y, 2)(X).shape
    (4, 2, 1)
    """

    def fit(
        X: np.ndarray, labels: np.ndarray, n_classes: int
    ) -> Callable[[np.ndarray], np.ndarray]:
        parts = fit_direct_parts(
            X,
            labels,
            n_classes,
            names=names,
            normalize=normalize,
            space=space,
            random_state=random_state,
            tolerance=tolerance,
        )

        def scores(rows: np.ndarray) -> np.ndarray:
            batches = np.array_split(rows, max(1, -(-len(rows) // BATCH)))
            return torch.cat([parts.class_scores(batch) for batch in batches]).numpy()

        return scores

    return fit


def _stratified(labels: np.ndarray, n_drawn: int, seed: int) -> np.ndarray:
    """Draw positions (about n_drawn,) of rows, at least one of each class."""
    rng = np.random.RandomState(seed)
    drawn = []
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        drawn.append(own[: max(1, round(len(own) * n_drawn / len(labels)))])
    return np.sort(np.concatenate(drawn))

"""Extremely randomised trees as a part of the evidence, evaluated as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.stored_arrays import check_shape, stored_array

__all__ = ["TreeVotes"]

N_TREES = 100
# Leaves of so large a share of the rows bound the nodes of a tree to a few thousand.
SMALLEST_LEAF_SHARE = 1 / 2000


@dataclass(frozen=True)
class TreeVotes:
    """Share of each class among the leaves that a row falls into [1]_.

    All trees stand one behind the other, a node a place. A leaf is its own child, so
    that every row takes the same number of steps.

    Parameters
    ----------
    features : Tensor of shape (n_nodes,), int64
    thresholds : Tensor of shape (n_nodes,), float64
        A row goes left where its feature is at most the threshold.
    left, right : Tensor of shape (n_nodes,), int64
    shares : Tensor of shape (n_nodes, n_classes), float64
        Shares of the classes among a node's training rows, zero but in leaves.
    roots : Tensor of shape (n_trees,), int64
    depth : int
        Steps to the deepest leaf.

    References
    ----------
    .. [1] P. Geurts et al., "Extremely randomized trees", Machine Learning 63, 2006.

    Examples
    --------
    >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([0, 0, 1, 1])
    >>> TreeVotes.fit(X, y, 2, n_trees=3).scores(torch.tensor([[0.0], [9.0]]))
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.float64)
    """

    features: Tensor
    thresholds: Tensor
    left: Tensor
    right: Tensor
    shares: Tensor
    roots: Tensor
    depth: int

    @classmethod
    def fit(
        cls,
        rows: np.ndarray,
        labels: np.ndarray,
        n_classes: int,
        random_state: int = 0,
        n_trees: int = N_TREES,
    ) -> "TreeVotes":
        """Fit to rows (n, D) and labels (n,), of classes that all have rows."""
        # It would make `import skvmdls` slower.
        from sklearn.ensemble import ExtraTreesClassifier

        model = ExtraTreesClassifier(
            n_trees,
            min_samples_leaf=max(1, round(SMALLEST_LEAF_SHARE * len(rows))),
            random_state=random_state,
        ).fit(rows, labels)
        trees = [tree.tree_ for tree in model.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
        is_leaf = np.concatenate([tree.children_left < 0 for tree in trees])
        left, right = (
            np.concatenate(
                [
                    np.where(children < 0, np.arange(tree.node_count), children) + root
                    for tree, root in zip(trees, roots, strict=True)
                    for children in [getattr(tree, side)]
                ]
            )
            for side in ("children_left", "children_right")
        )
        shares = np.concatenate([tree.value[:, 0, :] for tree in trees])
        shares /= shares.sum(axis=1, keepdims=True)
        features = np.concatenate([tree.feature for tree in trees])
        thresholds = np.concatenate([tree.threshold for tree in trees])
        return cls(
            torch.from_numpy(np.where(is_leaf, 0, features).astype(np.int64)),
            torch.from_numpy(np.where(is_leaf, 0.0, thresholds)),
            torch.from_numpy(left.astype(np.int64)),
            torch.from_numpy(right.astype(np.int64)),
            torch.from_numpy(np.where(is_leaf[:, None], shares, 0.0)),
            torch.from_numpy(roots.astype(np.int64)),
            max(tree.max_depth for tree in trees),
        )

    def scores(self, rows: Tensor) -> Tensor:
        """Shares (n, n_classes) of the classes in the leaves of rows (n, D)."""
        # The trees were grown on numbers of single precision.
        rows = rows.float().double()
        nodes = self.roots.expand(rows.shape[0], -1)
        for _ in range(self.depth):
            values = rows.gather(1, self.features[nodes])
            goes_left = values <= self.thresholds[nodes]
            nodes = torch.where(goes_left, self.left[nodes], self.right[nodes])
        return self.shares[nodes].mean(dim=1)

    def with_silent_classes(self, n_new: int) -> "TreeVotes":
        """Append classes that no leaf votes for."""
        none = self.shares.new_zeros(len(self.shares), n_new)
        return replace(self, shares=torch.cat([self.shares, none], dim=1))

    def of_classes(self, positions: np.ndarray) -> "TreeVotes":
        """Keep the classes at some positions."""
        return replace(self, shares=self.shares[:, torch.from_numpy(positions)])

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the arrays, all float64, by name, for :meth:`from_state`."""
        arrays = {
            name: getattr(self, name).double().numpy() for name in (*_NODES, "roots")
        }
        return {
            **arrays,
            "shares": self.shares.numpy(),
            "depth": np.array([self.depth], float),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], n_dimensions: int) -> "TreeVotes":
        """Rebuild from a `state_dict`; a ValueError if it cannot be one."""
        shares = stored_array(state, "shares", 2, of="trees")
        vectors = {name: stored_array(state, name, 1, of="trees") for name in _NODES}
        for name, vector in vectors.items():
            check_shape(f"trees.{name}", vector.shape, shares.shape[:1])
        roots = stored_array(state, "roots", 1, of="trees")
        depth = stored_array(state, "depth", 1, of="trees")
        check_shape("trees.depth", depth.shape, (1,))
        bounds = {
            "features": n_dimensions,
            "left": len(shares),
            "right": len(shares),
        }
        for name, bound in bounds.items():
            _check_places(name, vectors[name], bound)
        _check_places("roots", roots, len(shares))
        _check_places("depth", depth, 10_000)
        features, left, right, places = (
            torch.from_numpy(array.astype(np.int64))
            for array in (vectors["features"], vectors["left"], vectors["right"], roots)
        )
        return cls(
            features,
            torch.from_numpy(vectors["thresholds"]),
            left,
            right,
            torch.from_numpy(shares),
            places,
            int(depth[0]),
        )


_NODES = ("features", "thresholds", "left", "right")


def _check_places(name: str, array: np.ndarray, bound: int) -> None:
    """Raise a ValueError unless all numbers are whole, from 0 and below a bound."""
    if array.min() < 0 or array.max() >= bound or (array != np.floor(array)).any():
        raise ValueError(f"trees.{name} must be whole numbers from 0 to {bound - 1}")

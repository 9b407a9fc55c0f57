"""Fit the parts that need no trained net, and learn their weights."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from skvmdls.direct.parts import (
    PRIOR_WEIGHTS,
    PRIOR_WEIGHTS_OF_TABLES,
    DirectParts,
    fit_direct_parts,
    fit_scores,
    usual_parts,
)
from skvmdls.direct.row_space import RowSpace, looks_like_vectors
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.scoring.class_offsets import class_offsets, rows_for_offsets
from skvmdls.scoring.cross_fitting import CrossFitted, cross_fitted_scores
from skvmdls.scoring.evidence import PartSelection
from skvmdls.scoring.part_weights import FitScores, learn_part_weights
from skvmdls.scoring.trials import PartTrials

__all__ = [
    "DirectRows",
    "automatic_parts",
    "cross_fit",
    "direct_offsets",
    "direct_rows",
    "fit_direct",
    "learn_weights",
    "most_cross_fitted",
    "offsets_of",
]

# Up to so many rows all are scored by parts that have not seen them, and none is held
# out. Of larger tables, the net earns its time. See docs/recipe.md.
MOST_CROSS_FITTED_VECTORS, MOST_CROSS_FITTED_ROWS = 5000, 2000
# Gradient at which the linear classifier of a trial stops: it need not be exact.
TOLERANCE_OF_TRIALS = 1e-3
# Rows that decide whether a table holds vectors.
N_LOOKED_AT = 1000


@dataclass(frozen=True, eq=False)
class DirectRows:
    """Rows (n, features) as the direct parts take them, and their classes (n,)."""

    X: np.ndarray
    labels: np.ndarray
    n_classes: int
    names: tuple[str, ...]
    unit_rows: bool
    groups: np.ndarray | None
    seed: int

    def take(self, positions: np.ndarray) -> "DirectRows":
        """Keep the rows at some positions (k,)."""
        groups = None if self.groups is None else self.groups[positions]
        kept = self.X[positions], self.labels[positions]
        return replace(self, X=kept[0], labels=kept[1], groups=groups)


def most_cross_fitted(*, unit_rows: bool) -> int:
    """Rows up to which every row sets the threshold, of vectors and of tables."""
    return MOST_CROSS_FITTED_VECTORS if unit_rows else MOST_CROSS_FITTED_ROWS


def automatic_parts(X: Rows, n_classes: int) -> tuple[tuple[str, ...], bool]:
    """Choose the direct parts of a table, and whether its rows are vectors."""
    some = X.take(np.linspace(0, len(X) - 1, min(len(X), N_LOOKED_AT)).astype(int))
    looked_at = torch.cat(list(some.in_chunks())).numpy()
    unit_rows = looks_like_vectors(looked_at)
    return usual_parts(X.shape[1], n_classes, normalize=unit_rows), unit_rows


def direct_rows(
    X: Rows,
    labels: np.ndarray,
    n_classes: int,
    groups: np.ndarray | None,
    selection: PartSelection,
    standardizer: Standardizer,
    seed: int,
) -> DirectRows:
    """Read all rows: vectors as they came, others standardised."""
    chunks = X.in_chunks()
    if selection.unit_rows:
        rows = np.concatenate([chunk.numpy() for chunk in chunks])
    else:
        as_double = partial(standardizer.transform, dtype=torch.float64)
        rows = np.concatenate([as_double(chunk).numpy() for chunk in chunks])
    return DirectRows(
        rows, labels, n_classes, selection.direct, selection.unit_rows, groups, seed
    )


def fit_direct(rows: DirectRows) -> DirectParts:
    """Fit the parts to rows."""
    return fit_direct_parts(
        rows.X,
        rows.labels,
        rows.n_classes,
        names=rows.names,
        normalize=rows.unit_rows,
        space=_space(rows),
        random_state=rows.seed,
    )


def _space(rows: DirectRows) -> RowSpace | None:
    """Make the space of a table: its rows are standardised already."""
    if rows.unit_rows:
        return None
    n_features = rows.X.shape[1]
    centre, scale = np.zeros(n_features), np.ones(n_features)
    return RowSpace.fit(rows.X, normalize=False, centre=centre, scale=scale)


def _refit(rows: DirectRows, *, tolerance: float = 1e-4) -> FitScores:
    """Make the function that fits the parts to other rows of this kind."""
    return fit_scores(
        rows.names,
        normalize=rows.unit_rows,
        space=_space(rows),
        random_state=rows.seed,
        tolerance=tolerance,
    )


def learn_weights(rows: DirectRows, part_weights: object) -> PartTrials:
    """Learn the weights by leaving classes out, or take those that are given."""
    usual = PRIOR_WEIGHTS if rows.unit_rows else PRIOR_WEIGHTS_OF_TABLES
    prior = np.array([usual[name] for name in rows.names])
    if part_weights not in ("auto", "learned"):
        return PartTrials.untried(rows.names, prior, rows.n_classes)
    return learn_part_weights(
        rows.X,
        rows.labels,
        rows.n_classes,
        _refit(rows, tolerance=TOLERANCE_OF_TRIALS),
        rows.names,
        prior=prior,
        groups=rows.groups,
        random_state=rows.seed,
    )


def cross_fit(rows: DirectRows) -> CrossFitted:
    """Score every row by parts that were fitted without its fold."""
    return cross_fitted_scores(
        rows.X,
        rows.labels,
        rows.n_classes,
        _refit(rows),
        groups=rows.groups,
        random_state=rows.seed,
    )


def direct_offsets(rows: DirectRows) -> np.ndarray | None:
    """Compute the offsets (n_classes, n_parts) of small classes, if there are any."""
    some = rows_for_offsets(rows.labels, rows.seed)
    if not len(some):
        return None
    kept = rows.take(some)
    found = cross_fit(kept)
    return offsets_of(found.scores, kept.labels[found.positions])


def offsets_of(scores: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Compute offsets from cross-fitted scores of labels (k,); None if zero."""
    offsets = class_offsets(scores, labels)
    return offsets if offsets.any() else None

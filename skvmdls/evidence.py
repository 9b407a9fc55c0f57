"""What each part of the features says of a point, in common units, and their sum.

A part is a depth of the net (or the input itself), with a Gaussian for each class on
it; the classification head's largest logit; or what the autoencoder could not
reconstruct. Their raw scores differ in unit and spread by orders of magnitude, so that
in one joint Gaussian the largest and sharpest decide. Held-out known points that do not
set the threshold bring them to one unit: 0 is a known point's median, -1 the end of the
usual range below it. Then they can be added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvmdls._validation import check_shape, stored_array
from skvmdls.network import ENSEMBLE_PARTS

__all__ = [
    "INPUT",
    "JOINT",
    "LOGIT",
    "RESIDUAL",
    "Evidence",
    "View",
    "part_weights",
    "residual_features",
    "resolve_features",
    "unit_and_length",
]

INPUT, LOGIT, RESIDUAL = "x", "logit", "residual"
# The single block of early fusion, the paper's ensemble.
JOINT = "ensemble"

# Share of known points that lies below a part's usual range.
TAIL = 0.05
# The first stages, and what is reconstructed there, see little of what tells similar
# classes apart, and mu says again what g says: each counts half. See docs/recipe.md.
HALF = ("t1", "t2", "mu", RESIDUAL)

# Below as many held-out points, training points help to tell the usual range.
FEW_POINTS = 200
PRIOR_POINTS = 20

SMALLEST_LENGTH = 1e-12


def resolve_features(
    features: Any, *, fusion: str, is_table: bool, has_head: bool
) -> tuple[str, ...]:
    """Turn the parameter `features` into the parts that are used.

    Parameters
    ----------
    features : "auto" or sequence of str
    fusion : {"late", "early"}
    is_table : bool
        Whether inputs are rows of features, for which ``"x"`` is a part.
    has_head : bool
        Whether the net has the logits of a classification head.

    Returns
    -------
    parts : tuple of str

    Raises
    ------
    ValueError
        If a name is unknown, stands twice, or is of something that is not there.

    Examples
    --------
    >>> resolve_features("auto", fusion="late", is_table=True, has_head=True)
    ('x', 't1', 't2', 't3', 'g', 'mu', 'logit')
    >>> resolve_features("auto", fusion="early", is_table=True, has_head=True)
    ('t1', 't2', 't3', 'g', 'mu')
    """
    there = {INPUT: is_table, **dict.fromkeys(ENSEMBLE_PARTS, True), LOGIT: has_head}
    if isinstance(features, str) and features == "auto":
        if fusion == "early":
            return ENSEMBLE_PARTS
        return tuple(name for name, is_there in there.items() if is_there)
    if isinstance(features, str):
        raise ValueError(
            f"features={features!r} must be 'auto' or a sequence of names, some of "
            f"{tuple(there)}; a single one as ({features!r},)."
        )
    chosen = list(features)
    is_part = [isinstance(name, str) and name in there for name in chosen]
    if not chosen or not all(is_part) or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"features={features!r} must be 'auto' or name parts of the evidence, each "
            f"once: some of {tuple(there)}."
        )
    reasons = {
        INPUT: "the input itself is a part for tables only, and X holds images",
        LOGIT: "with classification_weight=0 there is no head that gives logits",
    }
    if missing := [name for name in chosen if not there[name]]:
        raise ValueError(
            f"features={features!r} names {missing[0]!r}, but {reasons[missing[0]]}. "
            "Leave it out, or use features='auto'."
        )
    return tuple(chosen)


@dataclass(frozen=True)
class View:
    """Which parts of the net are looked at, and how.

    Parameters
    ----------
    features : tuple of str
        Parts of the ensemble.
    fusion : {"late", "early"}
    normalize : bool
        Whether each part is L2-normalised (see :func:`unit_and_length`).
    residual : bool
        Whether the reconstruction's residual is one more part.

    Examples
    --------
    >>> View(("g", "mu", "logit"), "late", True, residual=True).names
    ('g', 'mu', 'residual', 'logit')
    >>> View(("g", "mu"), "early", False, residual=False).blocks
    {'ensemble': ('g', 'mu')}
    """

    features: tuple[str, ...]
    fusion: str
    normalize: bool
    residual: bool

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Parts that share one Gaussian for each class, by the block's name.

        Of early fusion one block of all parts; of late fusion a block a part, the
        largest logit aside, which needs no Gaussian. The residual's is not among them.
        """
        if self.fusion == "early":
            return {JOINT: self.features}
        return {name: (name,) for name in self.features if name != LOGIT}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the evidence: the blocks, the residual, the largest logit."""
        has_logit = self.fusion == "late" and LOGIT in self.features
        return (*self.blocks, *[RESIDUAL] * self.residual, *[LOGIT] * has_logit)

    def lengths(self, sizes: Mapping[str, int], first_places: int) -> dict[str, int]:
        """Columns of each block that has Gaussians, the residual's included.

        Parameters
        ----------
        sizes : mapping of str to int
            Length of each part (see ``VariationalNetwork.ensemble_sizes``).
        first_places : int
            Places at which the first tap is taken.

        Returns
        -------
        lengths : dict of str to int
        """

        def length(name: str) -> int:
            return sizes[name] + (self.normalize and name != INPUT)

        lengths = {
            block: sum(length(name) for name in names)
            for block, names in self.blocks.items()
        }
        if self.residual:
            lengths[RESIDUAL] = sizes["t1"] * (1 if first_places == 1 else 2)
        return lengths

    def state_dict(self) -> dict[str, Any]:
        """Hand out what was decided, of JSON's types, for :meth:`from_state`.

        Returns
        -------
        state : dict of str
        """
        return {**asdict(self), "features": list(self.features)}

    @classmethod
    def from_state(cls, state: Any, *, is_table: bool, has_head: bool) -> "View":
        """Rebuild from a `state_dict`.

        Parameters
        ----------
        state : dict of str
        is_table, has_head : bool
            As of :func:`resolve_features`.

        Returns
        -------
        view : View

        Raises
        ------
        ValueError
            If the state is not one of a view, or not of one that can be had here.
        """
        if not isinstance(state, dict) or set(state) != {f.name for f in fields(cls)}:
            raise ValueError(f"a view of {str(state)[:80]}")
        view = cls(**{**state, "features": tuple(state["features"])})
        are_bools = [isinstance(flag, bool) for flag in (view.normalize, view.residual)]
        if view.fusion not in ("late", "early") or not all(are_bools):
            raise ValueError(f"a view of {str(state)[:80]}")
        resolve_features(
            view.features, fusion=view.fusion, is_table=is_table, has_head=has_head
        )
        return view


def part_weights(names: Sequence[str]) -> np.ndarray:
    """How much each part counts in the sum.

    Parameters
    ----------
    names : sequence of str

    Returns
    -------
    weights : ndarray of shape (n_parts,), float64

    Examples
    --------
    >>> part_weights(["t1", "g"])
    array([0.5, 1. ])
    """
    return np.array([0.5 if name in HALF else 1.0 for name in names])


def unit_and_length(features: Tensor) -> Tensor:
    """Divide each row by its length, kept as one more column, in logarithms [1]_.

    Parameters
    ----------
    features : Tensor of shape (n, D)

    Returns
    -------
    normalized : Tensor of shape (n, D + 1)

    References
    ----------
    .. [1] M. Mueller and M. Hein, "Mahalanobis++: Improving OOD Detection via Feature
       Normalization", ICML 2025.

    Examples
    --------
    >>> unit_and_length(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000, 1.6094]])
    """
    lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    lengths = lengths.clamp_min(SMALLEST_LENGTH)
    return torch.cat([features / lengths, lengths.log()], dim=1)


def residual_features(first_map: Tensor, reconstructed: Tensor) -> Tensor:
    """Compare the first tap of points and of reconstructions, channel by channel.

    Parameters
    ----------
    first_map, reconstructed : Tensor of shape (n, channels, places)
        First tap of the points, and of their reconstructions.

    Returns
    -------
    features : Tensor of shape (n, 2 * channels)
        The mean difference over the places, and the logarithm of its mean size, which
        sees what cancels out in the mean. Of a single place, the differences alone.

    Examples
    --------
    >>> t1 = torch.tensor([[[1.0, -1.0]]])
    >>> residual_features(t1, torch.zeros(1, 1, 2))
    tensor([[0., 0.]])
    """
    difference = first_map - reconstructed
    mean = difference.mean(dim=2)
    if difference.shape[2] == 1:
        return mean
    size = difference.abs().mean(dim=2)
    return torch.cat([mean, size.clamp_min(SMALLEST_LENGTH).log()], dim=1)


@dataclass(frozen=True)
class Evidence:
    """Constants that bring the parts' raw scores to one unit, and their weights.

    Parameters
    ----------
    names : tuple of str
        The parts.
    typical : ndarray of shape (n_parts,), float64
        Median raw score of known points.
    spread : ndarray of shape (n_parts,), float64
        From there down to the end of the usual range; positive.
    weights : ndarray of shape (n_parts,), float64
        Of the parts in the sum.

    Examples
    --------
    >>> raw = np.arange(21.0)[:, None] * [1.0, 100.0]
    >>> evidence = Evidence.fit(("g", "logit"), raw)
    >>> evidence.standardize(np.array([[10.0, 100.0]])).round(2)
    array([[ 0., -1.]])
    """

    names: tuple[str, ...]
    typical: np.ndarray
    spread: np.ndarray
    weights: np.ndarray

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        raw: np.ndarray,
        raw_of_training: np.ndarray | None = None,
    ) -> "Evidence":
        """Take the constants from held-out known points.

        The range of a few points says little of that of all. That of the training
        points is narrower, by about as much in each part, and stands in as a prior that
        is worth :data:`PRIOR_POINTS` points.

        Parameters
        ----------
        names : sequence of str
        raw : ndarray of shape (n, n_parts)
            Raw scores of points that neither the net nor the Gaussians saw, and that do
            not set the threshold.
        raw_of_training : ndarray of shape (m, n_parts), optional
            Raw scores of training points, where the held-out ones are few.

        Returns
        -------
        evidence : Evidence
        """
        spread = _range_below(raw)
        if raw_of_training is not None:
            share = len(raw) / (len(raw) + PRIOR_POINTS)
            spread = spread**share * _range_below(raw_of_training) ** (1 - share)
        return cls(tuple(names), np.median(raw, axis=0), spread, part_weights(names))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Hand out the constants, for :meth:`from_state`.

        Returns
        -------
        state : dict of str to ndarray of shape (n_parts,)
        """
        return {name: getattr(self, name) for name in ("typical", "spread", "weights")}

    @classmethod
    def from_state(
        cls, state: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> "Evidence":
        """Rebuild from a `state_dict`.

        Parameters
        ----------
        state : mapping of str to ndarray
        names : sequence of str
            The parts.

        Returns
        -------
        evidence : Evidence

        Raises
        ------
        ValueError
            If the state is not one of these parts.
        KeyError
            If something is missing.
        """
        arrays = {
            name: stored_array(state, name, 1, of="evidence")
            for name in ("typical", "spread", "weights")
        }
        for name, array in arrays.items():
            check_shape(f"evidence.{name}", array.shape, (len(names),))
        if arrays["spread"].min() <= 0:
            raise ValueError("evidence.spread must be positive")
        return cls(tuple(names), **arrays)

    @property
    def typical_logit(self) -> float:
        """Median of the largest logit of known points; 0 where it is no part."""
        if LOGIT not in self.names:
            return 0.0
        return float(self.typical[self.names.index(LOGIT)])

    def standardize(self, raw: np.ndarray) -> np.ndarray:
        """Bring raw scores to the common unit.

        Parameters
        ----------
        raw : ndarray of shape (..., n_parts)

        Returns
        -------
        evidence : ndarray of shape (..., n_parts)
            0 at the known points' median, -1 at the end of their usual range.
        """
        return (raw - self.typical) / self.spread

    def total(self, raw: np.ndarray) -> np.ndarray:
        """Weighted sum of the standardised scores.

        Parameters
        ----------
        raw : ndarray of shape (..., n_parts)

        Returns
        -------
        scores : ndarray of shape (...)
            Higher is more in-distribution.
        """
        return self.standardize(raw) @ self.weights


def _range_below(raw: np.ndarray) -> np.ndarray:
    """From the median down to the end of the usual range, of each column; positive."""
    typical = np.median(raw, axis=0)
    below = typical - np.quantile(raw, TAIL, axis=0)
    # Points that all score alike have no range: any difference is then a large one.
    rounding = np.finfo(np.float32).eps * np.maximum(1, np.abs(typical))
    return np.maximum(below, rounding)

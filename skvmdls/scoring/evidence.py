"""The parts of the evidence, their standardisation, and their weighted sum.

A part is a depth of the net (or the input itself) with a Gaussian for each class, the
largest logit of the classification head, or the residual of the autoencoder. Their raw
scores differ in unit and spread by orders of magnitude, so that the largest would
decide their sum. Held-out known points that do not set the threshold bring them to one
unit: 0 is the median of known points, -1 the end of their usual range. Far below, the
scale becomes logarithmic, so that no part outvotes all others. Some parts count only
where they are below the median. Then the parts can be added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvmdls._support.stored_arrays import (
    check_shape,
    stored_array,
    with_prefix,
    without_prefix,
)
from skvmdls.calibration.hold_out import Split
from skvmdls.direct.parts import DIRECT_PARTS
from skvmdls.nets.network import ENSEMBLE_PARTS
from skvmdls.scoring.trials import PartTrials

__all__ = [
    "BELOW_MEDIAN",
    "BELOW_RANGE",
    "BOUNDARY",
    "INPUT",
    "JOINT",
    "LOGIT",
    "OF_HEAD",
    "RESIDUAL",
    "TEXTURE",
    "Evidence",
    "PartSelection",
    "default_weights",
    "given_weights",
    "log_tail",
    "prior_rows",
    "residual_features",
    "unit_and_length",
]

INPUT, LOGIT, RESIDUAL, TEXTURE = "x", "logit", "residual", "texture"
BOUNDARY = "boundary"

# Parts of the head, which need no Gaussians.
OF_HEAD = (LOGIT, BOUNDARY)

# The single block of early fusion, the paper's ensemble.
JOINT = "ensemble"

# Share of known points that lies below a part's usual range.
TAIL = 0.05

# From here down, standardised scores grow as logarithms do; and none is above its
# mirror image, for a logit without bounds is how a net answers numbers without bounds.
BEND = -4.0

# The first stages and the residual hold little of what separates similar classes, and
# mu repeats g. Each has weight 0.5, and counts only below the median; of images, only
# below the usual range. On images the head separates best. See docs/recipe.md.
ONLY_BELOW = ("t1", "t2", "mu", RESIDUAL, TEXTURE)
WEIGHT_ONLY_BELOW, WEIGHT_OF_HEAD_OF_IMAGES = 0.5, 2.0
BELOW_MEDIAN, BELOW_RANGE = 0.0, -1.0

# The texture of an image has no weight in the sum, as other classes have the same one.
# Below VETO no other part outvotes it: nothing above the usual sum counts then, and the
# range of the sum is subtracted for each range below.
VETO = -2.0

# With fewer held-out points, training points help to tell the usual range, together
# worth PRIOR_POINTS of them.
FEW_POINTS, PRIOR_POINTS = 200, 20
SMALLEST_LENGTH = 1e-12

# What every file holds of the evidence, for each part.
CONSTANTS = ("typical", "spread", "weights")


def resolve_features(
    features: Any,
    *,
    fusion: str,
    is_table: bool,
    has_head: bool,
    automatic: Sequence[str] = (),
) -> tuple[str, ...]:
    """Turn the parameter `features` into the parts that are used, if they are there.

    `automatic` are the parts without a net that ``"auto"`` adds.

    Examples
    --------
    >>> resolve_features("auto", fusion="late", is_table=True, has_head=True)
    ('x', 't1', 't2', 't3', 'g', 'mu', 'logit')
    >>> resolve_features("auto", fusion="early", is_table=True, has_head=True)
    ('t1', 't2', 't3', 'g', 'mu')
    """
    there = {INPUT: is_table, **dict.fromkeys(ENSEMBLE_PARTS, True)}
    is_late_image = not is_table and fusion == "late"
    there |= {TEXTURE: is_late_image, LOGIT: has_head}
    there |= {BOUNDARY: is_late_image and has_head}
    if isinstance(features, str) and features == "auto":
        if fusion == "early":
            return ENSEMBLE_PARTS
        of_net = [name for name, is_there in there.items() if is_there]
        if automatic:
            # The part "separate" is the same idea, and steps aside where it is dear.
            of_net.remove(INPUT)
        return (*of_net, *automatic)
    if fusion == "late":
        there |= dict.fromkeys(DIRECT_PARTS, is_table)
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
        TEXTURE: "it is a part for images with fusion='late'",
        INPUT: "the input itself is a part for tables only, and X holds images",
        LOGIT: "with classification_weight=0 there is no head that gives logits",
        BOUNDARY: "it is a part for images, with fusion='late' and a head",
        **dict.fromkeys(DIRECT_PARTS, "it is a part for tables, and X holds images"),
    }
    if missing := [name for name in chosen if not there[name]]:
        raise ValueError(
            f"features={features!r} names {missing[0]!r}, but {reasons[missing[0]]}. "
            "Leave it out, or use features='auto'."
        )
    return tuple(map(str, chosen))


@dataclass(frozen=True)
class PartSelection:
    """Parts of the net that are used, and how.

    Parameters
    ----------
    features : tuple of str
        Parts of the ensemble.
    fusion : {"late", "early"}
    normalize : bool
        Whether each part is L2-normalised (see :func:`unit_and_length`).
    residual : bool
        Whether the reconstruction's residual is one more part.
    average_flips : bool, default=False
        Whether each part is the mean of an image's and of its mirror image's.
    unit_rows : bool, default=False
        Whether parts without a net compare rows at unit length, as vectors are.

    Examples
    --------
    >>> PartSelection(("g", "mu", "logit"), "late", True, residual=True).names
    ('g', 'mu', 'residual', 'logit')
    >>> PartSelection(("g", "mu"), "early", False, residual=False).blocks
    {'ensemble': ('g', 'mu')}
    """

    features: tuple[str, ...]
    fusion: str
    normalize: bool
    residual: bool
    average_flips: bool = False
    unit_rows: bool = False

    @classmethod
    def resolve(
        cls,
        features: str | Sequence[str],
        *,
        fusion: str,
        normalize: bool | str,
        average_flips: bool,
        has_head: bool,
        has_residual: bool,
        is_table: bool,
        automatic: Sequence[str] = (),
        unit_rows: bool = False,
    ) -> "PartSelection":
        """Resolve the parameters of a detector that select its parts."""
        if average_flips and is_table:
            raise ValueError(
                "average_flips=True mirrors images, but X is a table, (n, features). "
                "Use average_flips=False."
            )
        late = fusion == "late"
        return cls(
            features=resolve_features(
                features,
                fusion=fusion,
                is_table=is_table,
                has_head=has_head,
                automatic=automatic,
            ),
            fusion=fusion,
            # On tables lengths separate unknown points well; see docs/recipe.md.
            normalize=late and not is_table if normalize == "auto" else bool(normalize),
            residual=has_residual,
            average_flips=average_flips,
            unit_rows=unit_rows,
        )

    @property
    def direct(self) -> tuple[str, ...]:
        """The parts that need no trained net."""
        return tuple(name for name in self.features if name in DIRECT_PARTS)

    @property
    def of_ensemble(self) -> tuple[str, ...]:
        """The parts that are features of a point, or its input if there is no net."""
        others = (TEXTURE, BOUNDARY, *DIRECT_PARTS)
        return tuple(name for name in self.features if name not in others) or (INPUT,)

    @property
    def needs_net(self) -> bool:
        """Whether a part is computed by the trained net."""
        return len(self.direct) < len(self.features)

    @property
    def blocks(self) -> dict[str, tuple[str, ...]]:
        """Parts that share one Gaussian for each class, by the block's name.

        Early fusion has one block of all parts. Late fusion has a block for each part,
        except those of the head, which need no Gaussian. The residual's and the
        texture's are not among them.
        """
        if self.fusion == "early":
            return {JOINT: self.features}
        without = (TEXTURE, *OF_HEAD, *self.direct)
        return {name: (name,) for name in self.features if name not in without}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the evidence: blocks, residual, texture, head, then without net."""
        is_late = self.fusion == "late"
        of_head = [name for name in OF_HEAD if is_late and name in self.features]
        of_net = (*self.blocks, *[RESIDUAL] * self.residual)
        return (*of_net, *[TEXTURE] * self.has_texture, *of_head, *self.direct)

    @property
    def has_texture(self) -> bool:
        """Whether the texture of images is a part."""
        return TEXTURE in self.features and self.fusion == "late"

    def lengths(self, sizes: Mapping[str, int], first_places: int) -> dict[str, int]:
        """Columns of each block that has Gaussians, residual and texture included.

        From the length of each part, and the places at which the first tap is taken.
        """

        def length(name: str) -> int:
            return sizes[name] + (self.normalize and name != INPUT)

        lengths = {
            block: sum(length(name) for name in names)
            for block, names in self.blocks.items()
        }
        if self.residual:
            lengths[RESIDUAL] = sizes["t1"] * (1 if first_places == 1 else 2)
        if self.has_texture:
            lengths[TEXTURE] = sizes[TEXTURE]
        return lengths

    def state_dict(self) -> dict[str, Any]:
        """Hand out what was decided, of JSON's types, for :meth:`from_state`."""
        return {**asdict(self), "features": list(self.features)}

    @classmethod
    def from_state(
        cls, state: Any, *, is_table: bool, has_head: bool
    ) -> "PartSelection":
        """Rebuild from a `state_dict`. A ValueError if it cannot be had here."""
        if not isinstance(state, dict):
            raise ValueError(f"a view of {str(state)[:80]}")
        # Older files of this format lack these.
        state = {"average_flips": False, "unit_rows": False} | state
        if set(state) != {f.name for f in fields(cls)}:
            raise ValueError(f"a view of {str(state)[:80]}")
        names = ("normalize", "residual", "average_flips", "unit_rows")
        flags = [state[name] for name in names]
        if (
            not isinstance(state["features"], list)
            or state["fusion"] not in ("late", "early")
            or not all(isinstance(flag, bool) for flag in flags)
        ):
            raise ValueError(f"a view of {str(state)[:80]}")
        if is_table and state["average_flips"]:
            raise ValueError("a view of mirrored images, of a table")
        view = cls(**{**state, "features": tuple(state["features"])})
        resolve_features(
            view.features, fusion=view.fusion, is_table=is_table, has_head=has_head
        )
        return view


def default_weights(names: Sequence[str], *, is_table: bool) -> np.ndarray:
    """How much each part counts in the sum, shape (n_parts,).

    Examples
    --------
    >>> default_weights(("t1", "g", "logit"), is_table=False).tolist()
    [0.5, 1.0, 2.0]
    """
    weights = dict.fromkeys(ONLY_BELOW, WEIGHT_ONLY_BELOW)
    if len(names) > 1:
        weights[TEXTURE] = 0.0
    if not is_table:
        weights |= dict.fromkeys(OF_HEAD, WEIGHT_OF_HEAD_OF_IMAGES)
    return np.array([weights.get(name, 1.0) for name in names])


def given_weights(
    names: Sequence[str], usual: np.ndarray, given: Mapping[str, float]
) -> np.ndarray:
    """Replace usual weights (n_parts,) by those that were given. Check these.

    Examples
    --------
    >>> given_weights(("t1", "g"), np.array([0.5, 1.0]), {"t1": 2})
    array([2., 1.])
    """
    if unknown := [name for name in given if name not in names]:
        raise ValueError(
            f"part_weights names {unknown[0]!r}, which is not a part of the evidence: "
            f"the parts are {tuple(names)}."
        )
    bad = [
        name
        for name, weight in given.items()
        if not (isinstance(weight, Real) and 0 <= weight < np.inf)
    ]
    if bad:
        raise ValueError(
            f"part_weights[{bad[0]!r}] is {given[bad[0]]!r}, expected a number of at "
            "least 0."
        )
    pairs = zip(names, usual, strict=True)
    weights = np.array([float(given.get(name, weight)) for name, weight in pairs])
    if not weights.any():
        raise ValueError("part_weights are all 0. Give one part a positive weight.")
    return weights


def unit_and_length(features: Tensor) -> Tensor:
    """Divide rows (n, D) by their lengths, kept in logarithms as column D + 1 [1]_.

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
    """Compare two first taps (n, channels, places), of points and reconstructions.

    Gives (n, 2 * channels): the mean difference over the places, and the logarithm of
    its mean size, which sees what cancels out in the mean. Of a single place, the
    differences alone.
    """
    difference = first_map - reconstructed
    mean = difference.mean(dim=2)
    if difference.shape[2] == 1:
        return mean
    size = difference.abs().mean(dim=2)
    return torch.cat([mean, size.clamp_min(SMALLEST_LENGTH).log()], dim=1)


def log_tail(scores: Tensor, start: Tensor) -> Tensor:
    """Replace the part of scores below `start` (negative) by its logarithm.

    The result has no step and no kink. A known point far in the tail of one part, as in
    a column that is almost constant, would outvote all other parts.

    Examples
    --------
    >>> scores = torch.tensor([1.0, -4.0, -5.0, -50_000.0]).double()
    >>> log_tail(scores, torch.tensor(-4.0).double()).numpy().round(4)
    array([  1.    ,  -4.    ,  -4.8926, -41.7339])
    """
    beyond = (start - scores).clamp_min(0)
    return torch.maximum(scores, start) + start * torch.log1p(-beyond / start)


def standardized(
    raw: Tensor, typical: Tensor, spread: Tensor, highest: Tensor, bend: Tensor | None
) -> Tensor:
    """Bring raw scores (..., n_parts) to the common unit. See :class:`Evidence`."""
    in_spreads = (raw - typical) / spread
    if bend is None:
        return in_spreads
    scores = log_tail(torch.minimum(in_spreads, highest), bend)
    # Parts that count only below some score are 0 above it.
    return scores - highest.clamp_max(0)


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
        From there down to the end of the usual range. Positive.
    weights : ndarray of shape (n_parts,), float64
        Of the parts in the sum.
    highest : ndarray of shape (n_parts,), float64
        In spreads from the median, where a part no longer grows: 0 for parts that count
        only below the median, -1 for those that count only below the usual range, else
        4. It is infinity where the scale is linear.
    bend : float, default=-4.0
        Standardised score below which the scale is logarithmic. Minus infinity for a
        single part, which cannot outvote others.
    trials : PartTrials, default=None
        Trials that the weights were learned from, if they were learned.
    offsets : ndarray of shape (n_classes, n_parts), float64, default=None
        Subtracted from raw scores under each class, if some classes are small next to
        others.
    usual_sum : ndarray of shape (2,), float64, default=None
        Median of the sum of known points, and from there down to the end of its usual
        range. There if the texture of images is a part, to which it gives a veto.

    Examples
    --------
    >>> raw = np.arange(21.0)[:, None] * [1.0, 100.0]
    >>> evidence = Evidence.fit(("g", "logit"), raw, np.array([1.0, 2.0]))
    >>> evidence.standardize(np.array([[10.0, 100.0], [-80.0, -80.0]])).round(2)
    array([[ 0.  , -1.  ],
           [-7.67, -1.2 ]])
    """

    names: tuple[str, ...]
    typical: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    highest: np.ndarray
    bend: float = BEND
    trials: PartTrials | None = None
    offsets: np.ndarray | None = None
    usual_sum: np.ndarray | None = None

    @classmethod
    def unfitted(cls, names: Sequence[str]) -> "Evidence":
        """Make the constants that leave raw scores as they are."""
        zeros, ones = np.zeros(len(names)), np.ones(len(names))
        return cls(
            tuple(names), zeros, ones, ones, np.full(len(names), np.inf), -np.inf
        )

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        raw: np.ndarray,
        weights: np.ndarray,
        raw_of_training: np.ndarray | None = None,
        only_below: float = BELOW_MEDIAN,
    ) -> "Evidence":
        """Take the constants from raw scores (n, n_parts) of held-out known points.

        The range of a few points says little of that of all. That of the training
        points is narrower, by about as much in each part, and stands in as a prior that
        is worth :data:`PRIOR_POINTS` points. The parts in :data:`ONLY_BELOW` count
        below `only_below` alone, in spreads from the median.
        """
        spread = _range_below(raw)
        if raw_of_training is not None:
            share = len(raw) / (len(raw) + PRIOR_POINTS)
            spread = spread**share * _range_below(raw_of_training) ** (1 - share)
        constants = (np.median(raw, axis=0), spread, weights)
        if len(names) == 1:
            return cls(tuple(names), *constants, np.array([np.inf]), -np.inf)
        is_only_below = np.isin(names, ONLY_BELOW)
        # One part at least has to count for a point.
        is_only_below &= not is_only_below.all()
        highest = np.where(is_only_below, only_below, -BEND)
        evidence = cls(tuple(names), *constants, highest)
        if TEXTURE not in names:
            return evidence
        totals = evidence.total(raw)[:, None]
        spread = _range_below(totals)
        if raw_of_training is not None:
            of_training = _range_below(evidence.total(raw_of_training)[:, None])
            spread = spread**share * of_training ** (1 - share)
        return replace(evidence, usual_sum=np.append(np.median(totals), spread))

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return the constants, (n_parts,) but for the bend, for `from_state`."""
        arrays = {name: getattr(self, name) for name in CONSTANTS}
        if self.offsets is not None:
            arrays["offsets"] = self.offsets
        if self.usual_sum is not None:
            arrays["usual_sum"] = self.usual_sum
        if self.trials is not None:
            arrays |= with_prefix("trials", self.trials.state_dict())
        if not self.is_bent:
            return arrays
        return arrays | {"highest": self.highest, "bend": np.array([self.bend])}

    @property
    def is_bent(self) -> bool:
        """Whether scores are bent and cut, so that no part outvotes the others."""
        return bool(np.isfinite(self.bend))

    @classmethod
    def from_state(
        cls, state: Mapping[str, np.ndarray], names: Sequence[str], n_classes: int
    ) -> "Evidence":
        """Rebuild from a `state_dict`. A ValueError if it is not one of these parts."""
        evidence = cls._constants_from(state, names)
        offsets, trials, usual_sum = None, None, None
        if "usual_sum" in state:
            usual_sum = stored_array(state, "usual_sum", 1, of="evidence")
            check_shape("evidence.usual_sum", usual_sum.shape, (2,))
        if (usual_sum is not None) != (len(names) > 1 and TEXTURE in names):
            raise ValueError("evidence.usual_sum must be there with texture alone")
        if "offsets" in state:
            offsets = stored_array(state, "offsets", 2, of="evidence")
            shape = (n_classes, len(names))
            check_shape("evidence.offsets", offsets.shape, shape)
        if stored := without_prefix("trials", state):
            direct = [name for name in names if name in DIRECT_PARTS]
            trials = PartTrials.from_state(stored, direct)
        return replace(evidence, offsets=offsets, trials=trials, usual_sum=usual_sum)

    @classmethod
    def _constants_from(
        cls, state: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> "Evidence":
        is_bent = "bend" in state
        # Files of format 3 have a flag instead.
        limit = "highest" if "highest" in state else "only_against"
        stored = (*CONSTANTS, limit) if is_bent else CONSTANTS
        arrays = {name: stored_array(state, name, 1, of="evidence") for name in stored}
        for name, array in arrays.items():
            check_shape(f"evidence.{name}", array.shape, (len(names),))
        if arrays["spread"].min() <= 0:
            raise ValueError("evidence.spread must be positive")
        if not is_bent:
            highest = np.full(len(names), np.inf)
            constants = (arrays["typical"], arrays["spread"], arrays["weights"])
            return cls(tuple(names), *constants, highest, -np.inf)
        bend = stored_array(state, "bend", 1, of="evidence")
        check_shape("evidence.bend", bend.shape, (1,))
        if bend[0] >= 0:
            raise ValueError("evidence.bend must be negative")
        highest = arrays[limit]
        if limit == "only_against":
            highest = np.where(highest > 0, BELOW_MEDIAN, -bend)
        constants = (arrays["typical"], arrays["spread"], arrays["weights"])
        return cls(tuple(names), *constants, highest, float(bend[0]))

    def standardize(self, raw: np.ndarray) -> np.ndarray:
        """Bring raw scores (..., n_parts) to the common unit.

        0 is at the median of known points, and -1 at the end of their usual range.
        Parts that count only below the median or the range are 0 above it.
        """
        scores = standardized(
            torch.from_numpy(raw),
            torch.from_numpy(self.typical),
            torch.from_numpy(self.spread),
            torch.from_numpy(self.highest),
            torch.tensor(self.bend) if self.is_bent else None,
        )
        return scores.numpy()

    def in_spreads(self, raw: np.ndarray) -> np.ndarray:
        """Distance of raw scores (..., n_parts) from the median, in spreads."""
        return (raw - self.typical) / self.spread

    def total(self, raw: np.ndarray) -> np.ndarray:
        """Weighted sum (...) of the standardised scores, higher for known points.

        Before the veto of the texture.
        """
        return self.standardize(raw) @ self.weights

    def of_classes(self, order: np.ndarray) -> "Evidence":
        """Reorder classes (k,) by their positions. -1 stands for a new class."""
        if self.offsets is None:
            return self
        offsets = np.where(order[:, None] < 0, 0.0, self.offsets[order])
        return replace(self, offsets=offsets)

    def of_parts(self, names: Sequence[str]) -> "Evidence":
        """Constants for some of the parts alone, in the order of `names`."""
        places = [self.names.index(name) for name in names]
        return replace(
            self,
            names=tuple(names),
            typical=self.typical[places],
            spread=self.spread[places],
            weights=self.weights[places],
            highest=self.highest[places],
            offsets=None if self.offsets is None else self.offsets[:, places],
        )

    def typical_of(self, name: str) -> float:
        """Median raw score of a part for known points, or 0 where it is no part."""
        if name not in self.names:
            return 0.0
        return float(self.typical[self.names.index(name)])


def prior_rows(split: Split, n_rows: int) -> np.ndarray | None:
    """Pick training rows (k,) to help where few held-out rows tell the usual range.

    Examples
    --------
    >>> few, many = np.arange(100), np.arange(200)
    >>> len(prior_rows(Split(np.arange(3000), few, few), 3200))
    1000
    >>> prior_rows(Split(np.arange(3000), many, few), 3300)
    """
    if len(split.evidence) >= FEW_POINTS:
        return None
    return split.training[:: max(1, n_rows // (5 * FEW_POINTS))]


def _range_below(raw: np.ndarray) -> np.ndarray:
    """From the median down to the end of the usual range, of each column. Positive."""
    typical = np.median(raw, axis=0)
    below = typical - np.quantile(raw, TAIL, axis=0)
    # Points that all score alike have no range: any difference is then a large one.
    rounding = np.finfo(np.float32).eps * np.maximum(1, np.abs(typical))
    return np.maximum(below, rounding)

"""What a fit learned, and how it scores points."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support.devices import (
    float64_device,
    place,
    place_to_score,
    resolve_device,
)
from skvmdls._support.estimators import Detector
from skvmdls._support.values import InputLike
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.calibration.verdicts import Calibration
from skvmdls.direct.parts import DirectParts
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.network import VariationalNetwork
from skvmdls.scoring.decisions import Decided, Decision
from skvmdls.scoring.evidence import BOUNDARY, LOGIT, Evidence, PartSelection
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.features import blocks_of, map_batches, point_features
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = [
    "FittedDetector",
    "FittedModel",
    "Measured",
    "decide_scores",
    "joined",
    "measure",
    "place_model",
    "standardized_batches",
]

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class FittedModel:
    """What a fit learned, all that scoring a point needs.

    Parameters
    ----------
    input_shape : tuple of int
        (features,) or (channels, height, width).
    standardizer : Standardizer
    network : VariationalNetwork or None
        None where no part needs it.
    autoencoder : nn.Module or None
    selection : PartSelection
        The parts of the evidence.
    gaussians : ModuleDict of str to ClassGaussians
        By block of the selection.
    evidence : Evidence
    fit_positions : ndarray of shape (n_classes,), int
        Position of each class among those of `fit`; -1 if it was added since.
    weight_calibration : WeightCalibration or None
        With it, the score is the paper's product.
    expected_images : ExpectedImages or None
        For images.
    direct : DirectParts or None
        The parts that need no trained net.
    """

    input_shape: tuple[int, ...]
    standardizer: Standardizer
    network: VariationalNetwork | None
    autoencoder: nn.Module | None
    selection: PartSelection
    gaussians: nn.ModuleDict
    evidence: Evidence
    fit_positions: np.ndarray
    weight_calibration: WeightCalibration | None = None
    expected_images: ExpectedImages | None = None
    direct: DirectParts | None = None

    @property
    def is_table(self) -> bool:
        """Whether the inputs are rows of a table, not images."""
        return len(self.input_shape) == 1

    @property
    def blocks(self) -> dict[str, ClassGaussians]:
        """The Gaussians by block."""
        blocks: Any = dict(self.gaussians.items())
        return blocks

    @property
    def has_added_classes(self) -> bool:
        """Whether classes were added since the fit."""
        return bool((self.fit_positions < 0).any())

    def without_autoencoder(self) -> "FittedModel":
        """Return a model that chooses classes as this one, but reconstructs nothing.

        Next to added classes all parts take part in the choice.
        """
        if self.has_added_classes:
            return self
        selection = replace(self.selection, residual=False)
        return replace(
            self,
            autoencoder=None,
            selection=selection,
            evidence=self.evidence.of_parts(selection.names),
            weight_calibration=None,
        )

    def decision(self) -> Decision:
        """Make the module that decides from the scores of the parts."""
        names = self.selection.names
        can_score = None
        if self.direct is not None:
            can_score = np.ones((len(self.fit_positions), len(names)), dtype=bool)
            can_score[:, -len(self.direct.names) :] = self.direct.speaks
        head = None
        if self.network is not None and BOUNDARY in names:
            assert self.network.head is not None
            head = self.network.head.weight.detach().cpu()
        return Decision(
            names,
            len(self.selection.blocks),
            self.selection.unit_rows,
            self.fit_positions,
            self.evidence,
            self.weight_calibration,
            can_score,
            head,
        )

    def direct_scores(self, raw: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Score raw rows (n, features), or standardised ones x, by the direct parts.

        Vectors are compared as they came, rows of a table standardised.
        """
        if self.direct is None:
            return {}
        scores = self.direct.class_scores(raw if self.selection.unit_rows else x)
        return dict(zip(self.direct.names, scores.unbind(dim=2), strict=True))

    def on_cpu(self) -> "FittedModel":
        """Return a copy whose arrays are on the CPU, as files and pickles hold them."""
        return replace(
            self,
            network=self.network and _copy_on_cpu(self.network),
            autoencoder=self.autoencoder and _copy_on_cpu(self.autoencoder),
            gaussians=_copy_on_cpu(self.gaussians),
            expected_images=self.expected_images and _copy_on_cpu(self.expected_images),
        )


class FittedDetector(Detector, Protocol):
    """A fitted detector, as exporters use it."""

    model_: FittedModel
    calibration_: Calibration
    threshold: float | None
    guarantee: Literal["marginal", "class"]
    confidence: float | None

    def evidence(self, X: InputLike) -> np.ndarray:
        """Standardise the parts, shape (n, n_parts)."""

    def class_log_likelihood(self, X: InputLike) -> np.ndarray:
        """Compute log-likelihoods, shape (n, n_classes)."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model computes for each point.

    `class_log_likelihood` (n, n_classes), in nats; `raw` (n, n_parts) scores of the
    evidence; `score` (n,); `most_likely` (n,), the position of the class that each
    point is given; the reconstruction `weight` (n,), zero without an autoencoder. Where
    they were asked for, else None: `winners` (n, n_parts), the position of the class
    under which each raw score was found, `class_scores` (n, n_classes), and
    `label_scores` (n, n_classes), by which the class is chosen.
    """

    class_log_likelihood: np.ndarray
    raw: np.ndarray
    score: np.ndarray
    most_likely: np.ndarray
    weight: np.ndarray
    winners: np.ndarray | None = None
    class_scores: np.ndarray | None = None
    label_scores: np.ndarray | None = None

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)

    def take(self, positions: np.ndarray) -> "Measured":
        """Keep the points at some positions (k,)."""
        kept: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            array = getattr(self, name)
            kept[name] = None if array is None else array[positions]
        return Measured(**kept)


def joined(parts: Sequence[Measured]) -> Measured:
    """Append what was measured of other points, all with the same arrays."""
    found: dict[str, Any] = {}
    for name in (f.name for f in fields(Measured)):
        arrays = [getattr(part, name) for part in parts]
        found[name] = None if arrays[0] is None else np.concatenate(arrays)
    return Measured(**found)


@torch.inference_mode()
def measure(
    X: Rows,
    model: FittedModel,
    *,
    batch_size: int,
    device: str | torch.device,
    by_class: bool = False,
) -> Measured:
    """Score rows, one forward pass a batch.

    `by_class` adds the scores under each class, and the classes that won.
    """
    n, n_classes = len(X), len(model.fit_positions)
    n_parts = len(model.selection.names)
    # Filled in place: many small arrays, kept between the large ones that each batch
    # needs for a moment, would keep the allocator from using their memory again.
    measured = Measured(
        class_log_likelihood=np.empty((n, n_classes)),
        raw=np.empty((n, n_parts)),
        score=np.empty(n),
        most_likely=np.empty(n, dtype=np.int64),
        weight=np.zeros(n),
        winners=np.empty((n, n_parts), dtype=np.int64) if by_class else None,
        class_scores=np.empty((n, n_classes)) if by_class else None,
        label_scores=np.empty((n, n_classes)) if by_class else None,
    )
    decision = model.decision()

    placement = place_model(model, device)

    def decide(raw: Tensor) -> tuple[Decided, Tensor | None]:
        x = model.standardizer.standardize(raw, *placement)
        return _decided(raw, x, model, decision, by_class)

    start = 0
    for decided, weight in map_batches(decide, X.in_order(batch_size)):
        rows = slice(start, start + len(decided.score))
        measured.class_log_likelihood[rows] = decided.class_log_likelihood
        measured.raw[rows] = decided.raw
        measured.score[rows] = decided.score
        measured.most_likely[rows] = decided.most_likely
        if weight is not None:
            measured.weight[rows] = weight
        for filled, found in (
            (measured.winners, decided.winners),
            (measured.class_scores, decided.class_scores),
            (measured.label_scores, decided.label_scores),
        ):
            if filled is not None:
                filled[rows] = found
        start = rows.stop
    return measured


def _decided(
    raw: Tensor, x: Tensor, model: FittedModel, decision: Decision, by_class: bool
) -> tuple[Decided, Tensor | None]:
    found = point_features(model.network, model.autoencoder, x, model.selection)
    gaussians = model.blocks
    scores = {
        name: gaussians[name].log_likelihood(block).cpu()
        for name, block in blocks_of(found, model.selection).items()
    } | model.direct_scores(raw, x.cpu())
    logits = None
    if LOGIT in found.parts:
        logits = found.parts[LOGIT].cpu().double()
    weight = found.weight()
    weight = None if weight is None else weight.cpu().double()
    return decision(scores, logits, weight, by_class), weight


@torch.inference_mode()
def decide_scores(model: FittedModel, scores: np.ndarray) -> Measured:
    """Decide from scores (n, n_classes, n_parts) of the direct parts alone."""
    by_part = torch.from_numpy(scores).unbind(dim=2)
    named = dict(zip(model.selection.names, by_part, strict=True))
    decided = model.decision()(named, None, None, by_class=True)
    assert decided.winners is not None
    assert decided.class_scores is not None
    assert decided.label_scores is not None
    return Measured(
        class_log_likelihood=decided.class_log_likelihood.numpy(),
        raw=decided.raw.numpy(),
        score=decided.score.numpy(),
        most_likely=decided.most_likely.numpy(),
        weight=np.zeros(len(scores)),
        winners=decided.winners.numpy(),
        class_scores=decided.class_scores.numpy(),
        label_scores=decided.label_scores.numpy(),
    )


def standardized_batches(
    X: Rows, model: FittedModel, *, batch_size: int, device: str | torch.device
) -> Iterator[Tensor]:
    """Standardise rows batch by batch, on the device to which the nets are brought."""
    placement = place_model(model, device)
    return model.standardizer.batches(X, batch_size, *placement)


@torch.inference_mode(mode=False)
def place_model(
    model: FittedModel, device: str | torch.device
) -> tuple[torch.device, torch.dtype]:
    """Bring the nets, loaded or trained elsewhere, to where they score.

    Weights that are moved in inference mode could not be trained any more.
    """
    device = resolve_device(device)
    nets = (model.network, model.autoencoder)
    placement = place_to_score(device, model.is_table, *nets)
    place(model.gaussians, float64_device(device), torch.float64)
    return placement


def _copy_on_cpu(module: Module) -> Module:
    return deepcopy(module).cpu()

"""What a fit learned, and how it scores points."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

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
from skvmdls.inputs.rows import Rows
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.nets.network import VariationalNetwork
from skvmdls.scoring.decisions import Decided, Decision
from skvmdls.scoring.evidence import LOGIT, Evidence, PartSelection
from skvmdls.scoring.expected_images import ExpectedImages
from skvmdls.scoring.features import blocks_of, map_batches, point_features
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = [
    "FittedDetector",
    "FittedModel",
    "Measured",
    "measure",
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
    network : VariationalNetwork
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
    """

    input_shape: tuple[int, ...]
    standardizer: Standardizer
    network: VariationalNetwork
    autoencoder: nn.Module | None
    selection: PartSelection
    gaussians: nn.ModuleDict
    evidence: Evidence
    fit_positions: np.ndarray
    weight_calibration: WeightCalibration | None = None
    expected_images: ExpectedImages | None = None

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
        return Decision(
            self.selection.names,
            len(self.selection.blocks),
            self.fit_positions,
            self.evidence,
            self.weight_calibration,
        )

    def on_cpu(self) -> "FittedModel":
        """Return a copy whose arrays are on the CPU, as files and pickles hold them."""
        return replace(
            self,
            network=_copy_on_cpu(self.network),
            autoencoder=self.autoencoder and _copy_on_cpu(self.autoencoder),
            gaussians=_copy_on_cpu(self.gaussians),
            expected_images=self.expected_images and _copy_on_cpu(self.expected_images),
        )


class FittedDetector(Detector, Protocol):
    """A fitted detector, as exporters use it."""

    model_: FittedModel
    calibration_: Calibration
    threshold: float | None
    guarantee: str

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
    under which each raw score was found, and `class_scores` (n, n_classes).
    """

    class_log_likelihood: np.ndarray
    raw: np.ndarray
    score: np.ndarray
    most_likely: np.ndarray
    weight: np.ndarray
    winners: np.ndarray | None = None
    class_scores: np.ndarray | None = None

    @property
    def log_likelihood(self) -> np.ndarray:
        """``l(x)``: the log-likelihood of the most likely class, shape (n,)."""
        return self.class_log_likelihood.max(axis=1)


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
    )
    decision = model.decision()

    def decide(x: Tensor) -> tuple[Decided, Tensor | None]:
        return _decided(x, model, decision, by_class)

    start = 0
    batches = standardized_batches(X, model, batch_size=batch_size, device=device)
    for decided, weight in map_batches(decide, batches):
        rows = slice(start, start + len(decided.score))
        measured.class_log_likelihood[rows] = decided.class_log_likelihood
        measured.raw[rows] = decided.raw
        measured.score[rows] = decided.score
        measured.most_likely[rows] = decided.most_likely
        if weight is not None:
            measured.weight[rows] = weight
        if measured.winners is not None and measured.class_scores is not None:
            measured.winners[rows] = decided.winners
            measured.class_scores[rows] = decided.class_scores
        start = rows.stop
    return measured


def _decided(
    x: Tensor, model: FittedModel, decision: Decision, by_class: bool
) -> tuple[Decided, Tensor | None]:
    found = point_features(model.network, model.autoencoder, x, model.selection)
    gaussians = model.blocks
    scores = {
        name: gaussians[name].log_likelihood(block).cpu()
        for name, block in blocks_of(found, model.selection).items()
    }
    logits = None
    if LOGIT in found.parts:
        logits = found.parts[LOGIT].cpu().double()
    weight = found.weight()
    weight = None if weight is None else weight.cpu().double()
    return decision(scores, logits, weight, by_class), weight


def standardized_batches(
    X: Rows, model: FittedModel, *, batch_size: int, device: str | torch.device
) -> Iterator[Tensor]:
    """Standardise rows batch by batch, on the device to which the nets are brought.

    Loaded or trained elsewhere, the nets are moved to where they score.
    """
    device = resolve_device(device)
    nets = (model.network, model.autoencoder)
    placement = place_to_score(device, model.is_table, *nets)
    place(model.gaussians, float64_device(device), torch.float64)
    return model.standardizer.batches(X, batch_size, *placement)


def _copy_on_cpu(module: Module) -> Module:
    return deepcopy(module).cpu()

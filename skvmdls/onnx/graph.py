"""What a detector computes from a raw input to its answers, as one torch module.

The exporter of torch traces it. From the scores of the parts on, it runs the code of
the detector itself, :class:`~skvmdls.scoring.decisions.Decision` and
:mod:`skvmdls.calibration.verdicts`.
"""

import math
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls.calibration.verdicts import (
    Calibration,
    RankTable,
    ThresholdSettings,
    least_excluded,
)
from skvmdls.inputs.standardizer import FARTHEST
from skvmdls.nets.network import FIRST_MAP
from skvmdls.scoring.decisions import Decided
from skvmdls.scoring.evidence import INPUT, LOGIT
from skvmdls.scoring.features import PointFeatures, blocks_of, point_features
from skvmdls.scoring.gaussians import ClassGaussians
from skvmdls.scoring.model import FittedModel

__all__ = ["Answers", "Graph", "Precision", "WhiteDistances"]

CPU = torch.device("cpu")
LOG_2_PI = math.log(2 * math.pi)


class Precision(NamedTuple):
    """In which types a graph takes its input, runs its nets, and its Gaussians."""

    inputs: torch.dtype
    nets: torch.dtype
    gaussians: torch.dtype

    def __str__(self) -> str:
        return ", ".join(
            f"{role} {str(dtype).removeprefix('torch.')}"
            for role, dtype in self._asdict().items()
        )


class Answers(NamedTuple):
    """What a graph gives, by the names of the file's outputs.

    `label` (n,), int64, the position in the classes or -1; `score` and `p_value` (n,),
    `evidence` (n, n_parts) and `class_log_likelihood` (n, n_classes), float64.
    """

    label: Tensor
    score: Tensor
    p_value: Tensor
    evidence: Tensor
    class_log_likelihood: Tensor


class Graph(nn.Module):
    """A fitted detector's raw input (n, *input_shape) to its :class:`Answers`.

    It holds copies: the detector stays as it is. The numbers that decide, behind the
    likelihoods, are float64 in any precision.
    """

    def __init__(
        self,
        model: FittedModel,
        calibration: Calibration,
        settings: ThresholdSettings,
        classes: np.ndarray,
        precision: Precision,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.input_shape = model.input_shape
        self.selection = model.selection
        self.standardized = _Standardized(model)
        self.network = None
        if model.network is not None:
            self.network = _copied(model.network, precision.nets)
        self.autoencoder = None
        if model.autoencoder is not None:
            self.autoencoder = _copied(model.autoencoder, precision.nets)
        self.gaussians = nn.ModuleDict(
            {
                name: WhiteDistances(gaussians, precision.gaussians)
                for name, gaussians in model.blocks.items()
            }
        )
        self.direct = None if model.direct is None else model.direct.as_module()
        self.decision = model.decision()
        self.verdict = _Verdict(calibration, settings, classes)
        self.by_class = settings.by_class

    def forward(self, X: Tensor) -> Answers:
        """Answer raw inputs (n, *input_shape)."""
        x = self.standardized(X)
        found = self._features(x.to(self.precision.nets))
        parts = found.parts
        if x.ndim == 2:
            # A table's nets may be float32, but its own numbers are not to be rounded.
            parts = {name: part.double() for name, part in parts.items()}
        parts = {**parts, INPUT: x.flatten(start_dim=1)}
        found = found._replace(parts=parts)
        blocks = blocks_of(found, self.selection)
        scores = {name: self.gaussians[name](t) for name, t in blocks.items()}
        if self.direct is not None:
            by_part = self.direct(X if self.selection.unit_rows else x).unbind(dim=2)
            scores |= dict(zip(self.selection.direct, by_part, strict=True))
        logits = parts[LOGIT].double() if LOGIT in parts else None
        weight = found.weight()
        weight = None if weight is None else weight.double()
        decided = self.decision(scores, logits, weight, self.by_class)
        label, p_value = self.verdict(decided)
        evidence = self.decision.standardized(decided.raw)
        likelihood = decided.class_log_likelihood
        answers = Answers(label, decided.score, p_value, evidence, likelihood)
        if X.dtype == torch.uint8:
            return answers
        return _unless_missing(X, answers, self.verdict.smallest_p_value)

    def _features(self, x: Tensor) -> PointFeatures:
        found = point_features(self.network, None, x, self.selection)
        if self.autoencoder is None:
            return found
        # `first_map` ends a forward pass by an exception, which cannot be traced. The
        # file keeps of this pass the first stage alone, since nothing else is used.
        assert self.network is not None
        rebuilt = self.network.ensemble(self.autoencoder(x))
        return found._replace(reconstructed=rebuilt[FIRST_MAP])


class _Standardized(nn.Module):
    """Raw inputs in standard units, float64, as of ``Standardizer.transform``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, model: FittedModel) -> None:
        super().__init__()
        standardizer = model.standardizer
        were_images = standardizer.were_bytes_ and not model.is_table
        self.largest = 255.0 if were_images else 1.0
        self.columns = standardizer.columns_
        self.register_buffer("mean", torch.from_numpy(standardizer.mean_))
        self.register_buffer("scale", torch.from_numpy(standardizer.scale_))

    def forward(self, X: Tensor) -> Tensor:
        x = X.double()
        if self.largest != 1:
            x = x / self.largest
        if self.columns is not None:
            x = self.columns.bounded(x)
        return ((x - self.mean) / self.scale).clamp(-FARTHEST, FARTHEST)


class WhiteDistances(nn.Module):
    """Log-likelihoods (n, n_classes), float64, of a block's features (n, D).

    The distances, all of the work, are computed in a type of choice; each class's
    constant is float64. All classes at once: in memory of n x n_classes x D.
    """

    centre: Tensor
    means: Tensor
    whitening: Tensor
    constant: Tensor

    def __init__(self, gaussians: ClassGaussians, dtype: torch.dtype) -> None:
        super().__init__()
        gaussians = deepcopy(gaussians).to(CPU, torch.float64)
        self.covariance_type = gaussians.covariance_type
        centre = torch.zeros(gaussians.means.shape[1], dtype=torch.float64)
        means, whitening = gaussians.means, gaussians.precisions_cholesky
        if self.covariance_type == "tied":
            centre, means = gaussians.centre, gaussians.white_means
        else:
            means = means[:, None]
        if self.covariance_type == "diag":
            whitening = whitening[:, None]
        n_features = gaussians.means.shape[1]
        constant = gaussians.half_log_precision() - n_features * LOG_2_PI / 2
        self.register_buffer("centre", centre.to(dtype))
        self.register_buffer("means", means.to(dtype))
        self.register_buffer("whitening", whitening.to(dtype))
        self.register_buffer("constant", constant)

    def forward(self, features: Tensor) -> Tensor:
        """Compute log-likelihoods (n, n_classes) of features (n, D)."""
        t = features.to(self.means.dtype)
        if self.covariance_type == "full":
            white = (t - self.means) @ self.whitening
        elif self.covariance_type == "tied":
            white = (t - self.centre) @ self.whitening
            white = white - self.means[:, None]
        else:
            white = (t - self.means) * self.whitening
        # (n_classes, n, D) to (n, n_classes).
        distances = white.square().sum(dim=2).transpose(0, 1).double()
        return self.constant - 0.5 * distances


class _Verdict(nn.Module):
    """From scores to labels, -1 for unknown, and p-values, (n,)."""

    threshold: Tensor

    def __init__(
        self, calibration: Calibration, settings: ThresholdSettings, classes: np.ndarray
    ) -> None:
        super().__init__()
        self.ranks = RankTable.of(calibration)
        self.class_ranks = None
        if settings.by_class:
            limits = calibration.class_thresholds(settings, classes)
            self.class_ranks = RankTable.by_class(calibration, len(classes))
        else:
            limits = np.array(calibration.threshold(settings))
        self.register_buffer("threshold", torch.from_numpy(limits))

    def forward(self, decided: Decided) -> tuple[Tensor, Tensor]:
        """Label what was decided of each point."""
        score, class_scores = decided.score, decided.class_scores
        if self.class_ranks is None or class_scores is None:
            label = torch.where(score >= self.threshold, decided.most_likely, -1)
        else:
            p_values = self.class_ranks(class_scores)
            label = least_excluded(class_scores, self.threshold, p_values)
        return label, self.ranks(score[:, None])[:, 0]

    @property
    def smallest_p_value(self) -> Tensor:
        """The p-value of a point that is stranger than all held-out ones."""
        return 1 / (self.ranks.sizes[0] + 1).double()


def _unless_missing(X: Tensor, answers: Answers, least: Tensor) -> Answers:
    """Call unknown, with scores of NaN, what holds NaN or infinity.

    A detector refuses such inputs, which a file cannot.
    """
    is_there = (X.abs() < math.inf).flatten(start_dim=1).all(dim=1)
    return Answers(
        torch.where(is_there, answers.label, -1),
        torch.where(is_there, answers.score, math.nan),
        torch.where(is_there, answers.p_value, least),
        torch.where(is_there[:, None], answers.evidence, math.nan),
        torch.where(is_there[:, None], answers.class_log_likelihood, math.nan),
    )


def _copied(net: nn.Module, dtype: torch.dtype) -> Any:
    return deepcopy(net).to(CPU, dtype).eval().requires_grad_(False)

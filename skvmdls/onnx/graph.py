"""What a detector computes from a raw input to its answers, as one torch module.

Torch's exporter traces it, so it is written in operations that ONNX has, without a
branch on a number. It decides as :class:`~skvmdls.scoring.decisions.KnownClasses` and
:mod:`skvmdls.calibration` do in numpy; the tests compare the two.
"""

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from skvmdls.inputs.standardizer import FARTHEST
from skvmdls.nets.network import FIRST_MAP
from skvmdls.scoring.decisions import MARGIN, PARTS_IN_LABEL, KnownClasses
from skvmdls.scoring.evidence import INPUT, LOGIT
from skvmdls.scoring.features import OWN_FIRST, blocks_of, parts_of
from skvmdls.scoring.gaussians import ClassGaussians

__all__ = ["Answers", "Graph", "Precision", "WhiteDistances"]

CPU = torch.device("cpu")
LOG_2_PI = math.log(2 * math.pi)

# The first tap of the reconstruction, beside the parts of the point itself.
AGAIN = "t1 map of the reconstruction"


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

    def __init__(self, detector: Any, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self.view = detector.view_
        self.standardized = _Standardized(detector)
        self.network = _copied(detector.network_, precision.nets)
        autoencoder = getattr(detector, "autoencoder_", None)
        self.autoencoder = None
        if autoencoder is not None:
            self.autoencoder = _copied(autoencoder, precision.nets)
        self.gaussians = nn.ModuleDict(
            {
                name: WhiteDistances(gaussians, precision.gaussians)
                for name, gaussians in detector.gaussians_.items()
            }
        )
        self.decision = _Decision(detector)

    def forward(self, X: Tensor) -> Answers:
        """Answer raw inputs (n, *input_shape)."""
        x = self.standardized(X)
        parts = self._parts(x.to(self.precision.nets))
        if x.ndim == 2:
            # A table's nets may be float32, but its own numbers are not to be rounded.
            parts = {name: part.double() for name, part in parts.items()}
        parts[INPUT] = x.flatten(start_dim=1)
        reconstructed = parts.get(AGAIN)
        blocks = blocks_of(parts, reconstructed, self.view)
        likelihoods = {name: self.gaussians[name](t) for name, t in blocks.items()}
        logits = parts[LOGIT].double() if LOGIT in parts else None
        weight = None
        if reconstructed is not None:
            difference = parts[OWN_FIRST] - reconstructed.mean(dim=2)
            weight = difference.square().sum(dim=1).double()
        answers = self.decision(likelihoods, logits, weight)
        if X.dtype == torch.uint8:
            return answers
        return _unless_missing(X, answers, self.decision.p_value.least)

    def _parts(self, x: Tensor) -> dict[str, Tensor]:
        parts = parts_of(self.network, x, self.view)
        if self.autoencoder is not None:
            # Of this pass the file keeps the first stage alone: nothing asks for more.
            again = self.network.ensemble(self.autoencoder(x))
            parts[AGAIN] = again[FIRST_MAP]
        return parts


class _Standardized(nn.Module):
    """Raw inputs in standard units, float64, as of ``Standardizer.transform``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        standardizer = detector.standardizer_
        is_image = len(detector.input_shape_) == 3
        self.largest = 255.0 if standardizer.were_bytes_ and is_image else 1.0
        self.register_buffer("mean", torch.from_numpy(standardizer.mean_))
        self.register_buffer("scale", torch.from_numpy(standardizer.scale_))

    def forward(self, X: Tensor) -> Tensor:
        x = X.double()
        if self.largest != 1:
            x = x / self.largest
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


class _Decision(nn.Module):
    """From scores under each class to the answers, all in float64."""

    typical: Tensor
    spread: Tensor
    weights: Tensor
    highest: Tensor
    bend: Tensor
    typical_logit: Tensor
    threshold: Tensor
    shift: Tensor
    largest_weight: Tensor
    positions: Tensor
    is_of_fit: Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        view, known, evidence = detector.view_, detector._known, detector.evidence_
        self.names, self.blocks = view.names, tuple(view.blocks)
        self.is_product = known.product is not None
        self.is_bent = evidence.is_bent
        numbers = {
            "typical": evidence.typical,
            "spread": evidence.spread,
            "weights": evidence.weights,
            "highest": evidence.highest,
            "bend": evidence.bend,
            "typical_logit": evidence.typical_logit,
            "threshold": detector.offset_,
            "shift": known.product.shift if known.product else 0.0,
            "largest_weight": known.product.scale if known.product else 1.0,
        }
        # As tensors: the exporter rounds a number of Python's to float32.
        for name, number in numbers.items():
            self.register_buffer(name, torch.as_tensor(number, dtype=torch.float64))
        self.register_buffer("positions", torch.from_numpy(known.positions.clip(0)))
        self.register_buffer("is_of_fit", torch.from_numpy(known.positions >= 0))
        self.added = _Added(known) if len(known.added) else None
        self.p_value = _Ranks(detector.calibration_scores_)
        self.by_class = None
        if detector._promises_by_class():
            self.by_class = _ByClass(detector)

    def forward(
        self,
        likelihoods: Mapping[str, Tensor],
        logits: Tensor | None,
        weight: Tensor | None,
    ) -> Answers:
        """Decide from likelihoods (n, n_classes), the head's logits and weight (n,)."""
        scores = dict(likelihoods)
        if logits is not None:
            of_class = logits[:, self.positions]
            scores[LOGIT] = torch.where(self.is_of_fit, of_class, self.typical_logit)
        raw = torch.stack([scores[name] for name in self.names], dim=2)
        likelihood = reduce(
            torch.add, [scores[name] for name in self.blocks or (LOGIT,)]
        )
        label_scores = self._label_scores(scores.get(LOGIT), raw, likelihood)
        if self.added is None:
            best, most_likely = raw.amax(dim=1), label_scores.argmax(dim=1)
        else:
            raw = self.added.with_silent_parts(raw)
            best, most_likely = self.added(
                raw, likelihood, weight, label_scores, self.score
            )
        score = self.score(best, likelihood.amax(dim=1), weight)
        if self.by_class is None:
            label = torch.where(score >= self.threshold, most_likely, -1)
        else:
            by_column = None if weight is None else weight[:, None]
            label = self.by_class(self.score(raw, likelihood, by_column))
        evidence = self.standardized(best)
        return Answers(label, score, self.p_value(score), evidence, likelihood)

    def score(
        self, raw: Tensor, log_likelihood: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Score raw evidence (n, ..., n_parts) and what goes along with it."""
        if not self.is_product:
            return self.standardized(raw) @ self.weights
        assert weight is not None
        relative = weight / self.largest_weight
        shortfall = log_likelihood - self.shift
        beyond = shortfall / relative.clamp_min(1)
        return torch.where(shortfall < 0, shortfall * relative, beyond)

    def _label_scores(
        self, logits: Tensor | None, raw: Tensor, likelihood: Tensor
    ) -> Tensor:
        if logits is None:
            return likelihood
        n = len(self.blocks)
        if not n:
            return logits
        in_spreads = (raw[..., :n] - self.typical[:n]) / self.spread[:n]
        return logits + PARTS_IN_LABEL * (in_spreads @ self.weights[:n])

    def standardized(self, raw: Tensor) -> Tensor:
        """Bring raw evidence (..., n_parts) to the common unit."""
        scores = (raw - self.typical) / self.spread
        if not self.is_bent:
            return scores
        scores = torch.minimum(scores, self.highest)
        beyond = (self.bend - scores).clamp_min(0)
        logarithm = (1 - beyond / self.bend).log()
        return torch.maximum(scores, self.bend) + self.bend * logarithm


class _Added(nn.Module):
    """What is said of classes that were added, as ``KnownClasses`` says it.

    Of an added class some parts are silent, and go along with those that speak. The
    candidates are the classes of `fit` together, and each of those added.
    """

    fitted: Tensor
    added: Tensor
    is_silent: Tensor
    typical: Tensor
    spread: Tensor
    shares: Tensor
    margin: Tensor

    def __init__(self, known: KnownClasses) -> None:
        super().__init__()
        assert known.evidence is not None
        constants = {
            "fitted": known.fitted,
            "added": known.added,
            "is_silent": (known.positions < 0)[:, None] & known.silent,
            "typical": known.evidence.typical,
            "spread": known.evidence.spread,
            "shares": known.shares,
            "margin": np.array(MARGIN),
        }
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(array))
        self.n_fitted, self.is_product = len(known.fitted), known.product is not None

    def with_silent_parts(self, raw: Tensor) -> Tensor:
        """Let the silent parts of raw evidence (n, n_classes, n_parts) go along."""
        said = self._said_by_some(raw)[:, :, None]
        return torch.where(self.is_silent, self.typical + said * self.spread, raw)

    def forward(
        self,
        raw: Tensor,
        likelihood: Tensor,
        weight: Tensor | None,
        label_scores: Tensor,
        score: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Give the best candidate's evidence (n, n_parts), and the answer (n,)."""
        candidates, likelihoods = raw[:, self.added], likelihood[:, self.added]
        classes = self.added + torch.zeros_like(likelihoods, dtype=torch.int64)
        if self.n_fitted:
            of_fit = raw[:, self.fitted].amax(dim=1, keepdim=True)
            largest = likelihood[:, self.fitted].amax(dim=1, keepdim=True)
            first = label_scores[:, self.fitted].argmax(dim=1, keepdim=True)
            candidates = torch.cat([of_fit, candidates], dim=1)
            likelihoods = torch.cat([largest, likelihoods], dim=1)
            classes = torch.cat([self.fitted[first], classes], dim=1)
        by_column = None if weight is None else weight[:, None]
        scores = score(candidates, likelihoods, by_column)
        best = scores.argmax(dim=1, keepdim=True)
        if self.n_fitted and not self.is_product:
            said = self._said_by_some(candidates)
            scores = torch.cat([said[:, :1] + self.margin, said[:, 1:]], dim=1)
        answered = scores.argmax(dim=1, keepdim=True)
        places = best[:, :, None].expand(-1, -1, raw.shape[2])
        evidence = candidates.gather(1, places)[:, 0]
        return evidence, classes.gather(1, answered)[:, 0]

    def _said_by_some(self, raw: Tensor) -> Tensor:
        return ((raw - self.typical) / self.spread) @ self.shares


class _Ranks(nn.Module):
    """Conformal p-values (n,) of scores (n,), among held-out ones.

    Counted in two steps, first in rows and then within one, which takes about twice the
    square root of their number instead of all.
    """

    table: Tensor
    least: Tensor

    def __init__(self, calibration_scores: np.ndarray) -> None:
        super().__init__()
        self.n = len(calibration_scores)
        self.register_buffer(
            "least", torch.tensor(1 / (self.n + 1), dtype=torch.float64)
        )
        side = math.isqrt(self.n - 1) + 1
        table = np.full(side * side, np.inf)
        table[: self.n] = np.sort(calibration_scores)
        self.register_buffer("table", torch.from_numpy(table.reshape(side, side)))

    def forward(self, scores: Tensor) -> Tensor:
        column = scores[:, None]
        row = ((self.table[:, 0] <= column).long().sum(dim=1) - 1).clamp_min(0)
        within = (self.table[row] <= column).long().sum(dim=1)
        n_below = row * len(self.table) + within
        return (1 + n_below).double() / (self.n + 1)


class _ByClass(nn.Module):
    """The class of the largest p-value that is not excluded, or -1, shape (n,)."""

    own: Tensor
    sizes: Tensor
    thresholds: Tensor

    def __init__(self, detector: Any) -> None:
        super().__init__()
        scores, labels = detector._calibration
        n_classes = len(detector.classes_)
        sizes = np.bincount(labels, minlength=n_classes)
        own = np.full((n_classes, max(1, sizes.max())), np.inf)
        for label in range(n_classes):
            own[label, : sizes[label]] = scores[labels == label]
        self.register_buffer("own", torch.from_numpy(own))
        self.register_buffer("sizes", torch.from_numpy(sizes))
        thresholds = torch.from_numpy(detector._class_thresholds())
        self.register_buffer("thresholds", thresholds)

    def forward(self, class_scores: Tensor) -> Tensor:
        is_possible = class_scores >= self.thresholds
        n_below = (self.own <= class_scores[:, :, None]).long().sum(dim=2)
        p_values = (1 + n_below).double() / (self.sizes + 1).double()
        p_values = torch.where(is_possible, p_values, -1.0)
        is_largest = p_values == p_values.amax(dim=1, keepdim=True)
        best = torch.where(is_largest, class_scores, -math.inf).argmax(dim=1)
        return torch.where(is_possible.any(dim=1), best, -1)


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

"""How far a file's answers are from those of its detector, and on which rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skvmdls.calibration.rounding import lowered, unit_of
from skvmdls.calibration.verdicts import ThresholdSettings
from skvmdls.inputs.checking import check_inputs
from skvmdls.inputs.labels import labels_with_unknown
from skvmdls.scoring.evidence import INPUT
from skvmdls.scoring.gaussians import ClassGaussians
from skvmdls.scoring.model import FittedDetector

__all__ = [
    "PROMISED",
    "Differences",
    "Expected",
    "drawn_features",
    "drawn_inputs",
    "one_by_one",
]

# Guaranteed for scores, in units of their spread.
PROMISED = 1e-4
DRAWN_INPUTS = 64


@dataclass(frozen=True)
class Differences:
    """How far a file's answers are from its detector's.

    Parameters
    ----------
    n : int
        Rows that were compared.
    labels : int
        Rows with another label, those at a tie aside.
    ties : int
        Rows with another label or p-value whose score is within 1e-4 of the spread of
        the threshold, or of a held-out score.
    score : float
        Greatest difference, in units of the spread of known points (the interquartile
        range of the held-out scores, or of the rows for the log-likelihoods). For
        points that are farther from the median than that, in units of their distance.
    p_value : float
        Greatest difference, ties aside.
    evidence, class_log_likelihood : float
        Greatest difference, in the same units as that of the score.

    Examples
    --------
    >>> print(Differences(100, 0, 1, 2e-6, 0.0, 1e-6, 3e-7))
    100 rows: 0 with another label, 1 at a tie; greatest differences: score 2e-06 ...
    """

    n: int
    labels: int
    ties: int
    score: float
    p_value: float
    evidence: float
    class_log_likelihood: float

    def __str__(self) -> str:
        return (
            f"{self.n} rows: {self.labels} with another label, {self.ties} at a tie; "
            f"greatest differences: score {self.score:.1g} of its spread, p-value "
            f"{self.p_value:.1g}, evidence {self.evidence:.1g}, log-likelihood "
            f"{self.class_log_likelihood:.1g}"
        )

    @property
    def largest(self) -> float:
        """The greatest of the differences in units of a spread."""
        return max(self.score, self.evidence, self.class_log_likelihood)


@dataclass(frozen=True)
class Expected:
    """Rows (n, *input_shape), what the detector answers, and what counts as equal."""

    X: np.ndarray
    labels: np.ndarray
    answers: dict[str, np.ndarray]
    held_out: np.ndarray
    threshold: float | None

    @classmethod
    def of(cls, detector: FittedDetector, X: Any) -> "Expected":
        """Ask a detector for its answers on rows X."""
        scores = detector.score_samples(X)
        classes = labels_with_unknown(detector.classes_)
        position = {label: i for i, label in enumerate(classes.tolist())}
        labels = np.array([position[label] for label in detector.predict(X).tolist()])
        labels[labels == len(detector.classes_)] = -1
        held_out = detector.calibration_.scores
        return cls(
            _raw(detector, X),
            labels,
            {
                "score": scores,
                "p_value": detector.calibration_.p_values(scores),
                "evidence": detector.evidence(X),
                "class_log_likelihood": detector.class_log_likelihood(X),
            },
            held_out,
            None
            if ThresholdSettings.of(detector).by_class
            else float(detector.offset_),
        )

    def differences(self, found: Any) -> Differences:
        """Compare with what a file gives, of arrays."""
        by_name = {name: np.asarray(array) for name, array in found._asdict().items()}
        relative = {
            name: _relative(by_name[name], self.answers[name], reference)
            for name, reference in (
                ("score", self.held_out),
                ("evidence", None),
                ("class_log_likelihood", self.answers["class_log_likelihood"]),
            )
        }
        scores = self.answers["score"]
        near = PROMISED * unit_of(scores, self.held_out)
        at_threshold = np.zeros(len(scores), dtype=bool)
        if self.threshold is not None:
            at_threshold = np.abs(scores - self.threshold) <= near
        sorted_scores = np.sort(lowered(self.held_out))
        between = np.searchsorted(sorted_scores, scores + near, side="right")
        between -= np.searchsorted(sorted_scores, scores - near, side="left")
        n_ranks = np.abs(by_name["p_value"] - self.answers["p_value"])
        n_ranks *= len(self.held_out) + 1
        is_tied = n_ranks <= between + 1e-6
        other = by_name["label"] != self.labels
        if self.threshold is None:
            # Classes' own held-out scores decide: as often as not at a tie of these.
            at_threshold = between > 0
        ties = (other & at_threshold) | (is_tied & (n_ranks > 1e-6))
        p_values = np.where(is_tied, 0, n_ranks) / (len(self.held_out) + 1)
        return Differences(
            len(scores),
            int((other & ~at_threshold).sum()),
            int(ties.sum()),
            relative["score"],
            float(p_values.max(initial=0)),
            relative["evidence"],
            relative["class_log_likelihood"],
        )


def _relative(
    found: np.ndarray, expected: np.ndarray, reference: np.ndarray | None
) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    ratios = np.abs(found - expected) / unit_of(expected, reference)
    return float(ratios.max(initial=0))


def _raw(detector: FittedDetector, X: Any) -> np.ndarray:
    """Rows as they are given to the file: bytes, or floats in float64."""
    X = np.asarray(check_inputs(detector, X, detector.model_.input_shape))
    if not detector.model_.standardizer.were_bytes_:
        is_image = len(detector.model_.input_shape) == 3
        return X / 255 if X.dtype == np.uint8 and is_image else X.astype(np.float64)
    as_bytes = X.astype(np.uint8)
    are_bytes = X.dtype == np.uint8 or len(detector.model_.input_shape) == 1
    if not are_bytes or (as_bytes != X).any():
        raise ValueError(
            f"X holds {X.dtype}, but the detector was fitted on bytes, and so its file "
            "takes uint8. Give X as it was given to fit."
        )
    return as_bytes


def drawn_inputs(detector: FittedDetector) -> np.ndarray:
    """Draw rows: of tables from the classes' Gaussians, of images coarse noise."""
    rng = np.random.default_rng(0)
    shape, standardizer = detector.model_.input_shape, detector.model_.standardizer
    blocks = detector.model_.blocks
    if INPUT in blocks:
        gaussians = blocks[INPUT]
        n = max(1, DRAWN_INPUTS // len(gaussians.means))
        drawn = [
            drawn_features(one, n, size)
            for one in one_by_one(gaussians)
            for size in (1, 3)
        ]
        x = np.concatenate([t.numpy() for t in drawn])
    elif len(shape) == 1:
        x = rng.normal(size=(DRAWN_INPUTS, *shape))
    else:
        channels, height, width = shape
        coarse = rng.normal(
            size=(DRAWN_INPUTS, channels, -(-height // 4), -(-width // 4))
        )
        smooth = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, :height, :width]
        x = smooth + rng.normal(scale=0.2, size=(DRAWN_INPUTS, *shape))
    X = x * standardizer.scale_ + standardizer.mean_
    X = X.clip(standardizer.smallest_, standardizer.largest_)
    if not standardizer.were_bytes_:
        return X
    return np.round(X * (255 if len(shape) == 3 else 1)).astype(np.uint8)


def one_by_one(gaussians: ClassGaussians) -> Iterator[ClassGaussians]:
    """Each class's Gaussian, alone, on the CPU."""
    kind, common = gaussians.covariance_type, gaussians.common()
    precisions = gaussians.precisions_cholesky.cpu().numpy()
    for label, mean in enumerate(gaussians.means.cpu().numpy()):
        own = precisions if kind == "tied" else precisions[label : label + 1]
        yield ClassGaussians(mean[None], own, kind, common)


def drawn_features(gaussian: ClassGaussians, n: int, size: float) -> Tensor:
    """Draw n features (n, D) of one class, their deviations times a size."""
    generator = torch.Generator().manual_seed(0)
    [mean], precision = gaussian.means, gaussian.precisions_cholesky
    z = torch.randn(n, len(mean), generator=generator, dtype=torch.float64) * size
    if gaussian.covariance_type == "diag":
        return mean + z / precision
    # z = (t - mean) W, solved for t.
    whitening = precision if precision.ndim == 2 else precision[0]
    return mean + torch.linalg.solve(whitening, z, left=False)

"""What the package asks of a fitted detector, and how to find it in an estimator."""

from typing import Any, Protocol

import numpy as np
from sklearn.pipeline import Pipeline

from skvmdls._support.values import InputLike

__all__ = ["Detector", "detector_and_inputs"]


class Detector(Protocol):
    """Either of the two detectors, fitted, as figures and pictures use it."""

    classes_: np.ndarray
    contamination: float

    @property
    def offset_(self) -> float:
        """Threshold on the scores."""

    def predict(self, X: InputLike) -> np.ndarray:
        """Label with a known class or as unknown, shape (n,)."""

    def predict_known(self, X: InputLike) -> np.ndarray:
        """Label with a known class, shape (n,)."""

    def score_samples(self, X: InputLike) -> np.ndarray:
        """Score, higher for the known, shape (n,)."""

    def transform(self, X: InputLike) -> np.ndarray:
        """Compute feature ensembles, shape (n, D)."""


def detector_and_inputs(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Reach through searches and pipelines to the detector, and to what it is given."""
    if hasattr(estimator, "best_estimator_"):
        return detector_and_inputs(estimator.best_estimator_, X)
    if isinstance(estimator, Pipeline):
        X = estimator[:-1].transform(X) if len(estimator) > 1 else X
        return detector_and_inputs(estimator[-1], X)
    return estimator, X

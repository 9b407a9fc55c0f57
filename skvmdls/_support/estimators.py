"""What the package asks of a fitted detector, and how to find it in an estimator."""

from typing import Any, Protocol

import numpy as np
from sklearn.pipeline import Pipeline

from skvmdls._support.values import InputLike

__all__ = ["Detector", "column_names", "detector_and_inputs", "way_into"]


class Detector(Protocol):
    """Either of the two detectors, fitted, as metrics and plots use it."""

    classes_: np.ndarray
    contamination: float
    threshold: float | None

    @property
    def calibration_scores_(self) -> np.ndarray:
        """Scores of the points that set the threshold, shape (n_calibration,)."""

    @property
    def offset_(self) -> float:
        """Threshold on the scores."""

    def predict(self, X: InputLike) -> np.ndarray:
        """Label with a known class or as unknown, shape (n,)."""

    def predict_known(self, X: InputLike) -> np.ndarray:
        """Label with a known class, shape (n,)."""

    def score_samples(self, X: InputLike) -> np.ndarray:
        """Score, higher for the known, shape (n,)."""

    def p_value(self, X: InputLike) -> np.ndarray:
        """Compute conformal p-values of "it is known", shape (n,)."""

    def transform(self, X: InputLike) -> np.ndarray:
        """Compute feature ensembles, shape (n, D)."""


def detector_and_inputs(estimator: Any, X: Any = None) -> tuple[Any, Any]:
    """Reach through searches and pipelines to the detector, and to its inputs.

    scikit-learn's ``Pipeline`` and searches hand on `predict` and `score_samples`, but
    not `p_value`, `explain` or what else a detector alone has.

    Parameters
    ----------
    estimator : estimator
        A fitted detector, or a fitted pipeline or search that ends in one.
    X : array-like, default=None
        As for the estimator's `predict`; None if only the detector is asked for.

    Returns
    -------
    detector : VMDLSDetector or VMDLSbDetector
    X : array-like or None
        As the steps before the detector transform it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> pipeline = make_pipeline(StandardScaler().fit([[0.0], [2.0]]), "passthrough")
    >>> detector_and_inputs(pipeline, [[4.0]])
    ('passthrough', array([[3.]]))
    """
    if hasattr(estimator, "best_estimator_"):
        return detector_and_inputs(estimator.best_estimator_, X)
    if isinstance(estimator, Pipeline):
        X = X if X is None or len(estimator) == 1 else estimator[:-1].transform(X)
        return detector_and_inputs(estimator[-1], X)
    return estimator, X


def column_names(estimator: Any) -> list[str] | None:
    """Names of the columns that the detector in an estimator sees, if they are known.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import PolynomialFeatures
    >>> steps = PolynomialFeatures(include_bias=False).fit([[0.0]])
    >>> column_names(make_pipeline(steps, "passthrough"))
    ['x0', 'x0^2']
    """
    if hasattr(estimator, "best_estimator_"):
        return column_names(estimator.best_estimator_)
    if isinstance(estimator, Pipeline):
        names = column_names(estimator[-1])
        if names is None and len(estimator) > 1:
            try:
                names = list(map(str, estimator[:-1].get_feature_names_out()))
            except (AttributeError, ValueError):
                # A step does not name its columns.
                return None
        return names
    names = getattr(estimator, "feature_names_in_", None)
    return None if names is None else list(map(str, names))


def way_into(estimator: Any) -> str:
    """Return a sentence for those who give a pipeline where a detector is expected.

    It is empty for anything else.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> way_into(make_pipeline("passthrough"))
    ' Give the detector in it, skvmdls.detector_and_inputs(estimator)[0]. The steps ...'
    """
    if not isinstance(estimator, Pipeline) and not hasattr(estimator, "estimator"):
        return ""
    return (
        " Give the detector in it, skvmdls.detector_and_inputs(estimator)[0]. The "
        "steps before it stay outside: apply them to X first, or leave out a scaler, "
        "since the detector scales its inputs itself."
    )

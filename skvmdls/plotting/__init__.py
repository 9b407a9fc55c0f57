"""Plots of a detector, in the style of scikit-learn's Display classes.

``from_estimator`` calls a fitted detector (or a pipeline or search with one), where
labels that are not in ``classes_`` are unknown points. ``from_predictions`` takes its
results. Both draw on given axes `ax`, or make a figure, and ``plot`` draws again.
``ax_`` and ``figure_`` are where it was drawn. Needs matplotlib (the extra
``plot``), but only once something is drawn. Colours are those of Okabe and Ito,
which colour-blind readers can tell apart.
"""

from skvmdls.plotting.curves import KnownUnknownRocDisplay, ThresholdCurveDisplay
from skvmdls.plotting.ensemble import EnsembleDisplay
from skvmdls.plotting.explanation import ExplanationDisplay
from skvmdls.plotting.guarantees import (
    AcceptanceDisplay,
    RejectionCalibrationDisplay,
)
from skvmdls.plotting.reconstruction import ReconstructionDisplay
from skvmdls.plotting.scores import ScoreHistogramDisplay
from skvmdls.plotting.shift import ShiftDisplay

__all__ = [
    "AcceptanceDisplay",
    "EnsembleDisplay",
    "ExplanationDisplay",
    "KnownUnknownRocDisplay",
    "ReconstructionDisplay",
    "RejectionCalibrationDisplay",
    "ScoreHistogramDisplay",
    "ShiftDisplay",
    "ThresholdCurveDisplay",
]

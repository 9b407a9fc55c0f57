"""Calibrate on held-out known points: thresholds and conformal p-values."""

from skvmdls.calibration.conformal import (
    class_p_values,
    conformal_p_value,
    conformal_threshold,
)
from skvmdls.calibration.paper_product import WeightCalibration

__all__ = [
    "WeightCalibration",
    "class_p_values",
    "conformal_p_value",
    "conformal_threshold",
]

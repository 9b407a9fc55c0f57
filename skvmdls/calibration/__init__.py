"""Calibrate on held-out known points: thresholds, p-values and what they guarantee."""

from skvmdls.calibration.conformal import (
    class_p_values,
    class_thresholds,
    conformal_p_value,
    conformal_rank,
    conformal_threshold,
    discoveries,
    held_out_needed,
    rejection_range,
)
from skvmdls.calibration.false_discoveries import false_discovery_bound
from skvmdls.calibration.paper_product import WeightCalibration

__all__ = [
    "WeightCalibration",
    "class_p_values",
    "class_thresholds",
    "conformal_p_value",
    "conformal_rank",
    "conformal_threshold",
    "discoveries",
    "false_discovery_bound",
    "held_out_needed",
    "rejection_range",
]

"""Calibrate on held-out known points: thresholds, p-values and what they guarantee."""

from skvmdls.calibration.conformal import (
    class_p_values,
    class_thresholds,
    conformal_p_value,
    conformal_rank,
    conformal_threshold,
    held_out_needed,
    rejection_range,
)
from skvmdls.calibration.exchangeability import exchangeability_p_value
from skvmdls.calibration.false_discoveries import false_discovery_bound
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.calibration.probabilities import (
    ClassProbabilities,
    unknown_probability,
    with_unknown,
)
from skvmdls.calibration.recalibration import (
    RecalibrationReport,
    compare_with_calibration,
)
from skvmdls.calibration.summary import (
    Acceptance,
    FalseAlarms,
    RejectionSummary,
    acceptance_by,
    acceptance_lines,
    expected_false_alarms,
)

__all__ = [
    "Acceptance",
    "ClassProbabilities",
    "FalseAlarms",
    "RecalibrationReport",
    "RejectionSummary",
    "WeightCalibration",
    "acceptance_by",
    "acceptance_lines",
    "class_p_values",
    "class_thresholds",
    "compare_with_calibration",
    "conformal_p_value",
    "conformal_rank",
    "conformal_threshold",
    "exchangeability_p_value",
    "expected_false_alarms",
    "false_discovery_bound",
    "held_out_needed",
    "rejection_range",
    "unknown_probability",
    "with_unknown",
]

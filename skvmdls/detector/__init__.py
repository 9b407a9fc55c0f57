"""The two estimators."""

from skvmdls.detector.vmdls import VMDLSbDetector, VMDLSDetector

__all__ = ["VMDLSDetector", "VMDLSbDetector"]

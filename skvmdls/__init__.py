"""Open-set classification: a known label, or -1 for "never seen anything like it"."""

from skvmdls.detector import VMDLSbDetector, VMDLSDetector

__all__ = ["VMDLSDetector", "VMDLSbDetector"]
__version__ = "0.1.0"

"""Open-set classification: a known label, or -1 for "never seen anything like it"."""

from skvmdls.detector import VMDLSbDetector, VMDLSDetector
from skvmdls.persistence import load, save

__all__ = ["VMDLSDetector", "VMDLSbDetector", "load", "save"]
__version__ = "0.1.0"

"""Open-set classification: a known label, or -1 for "never seen anything like it"."""

from skvmdls.detector import VMDLSbDetector, VMDLSDetector
from skvmdls.onnx import export_onnx
from skvmdls.persistence import load, save

__all__ = ["VMDLSDetector", "VMDLSbDetector", "export_onnx", "load", "save"]
__version__ = "0.1.0"

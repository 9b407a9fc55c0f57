"""Open-set classification: a known label, or -1 for "never seen anything like it"."""

from skvmdls._support.version import __version__
from skvmdls.detector import VMDLSbDetector, VMDLSDetector
from skvmdls.onnx import export_onnx
from skvmdls.persistence import load, save

__all__ = [
    "VMDLSDetector",
    "VMDLSbDetector",
    "__version__",
    "export_onnx",
    "load",
    "save",
]

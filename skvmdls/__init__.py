"""Open-set classification: a known label, or -1 for "never seen anything like it"."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from skvmdls._support.estimators import detector_and_inputs
from skvmdls._support.version import __version__
from skvmdls.detector import VMDLSbDetector, VMDLSDetector
from skvmdls.onnx import export_onnx
from skvmdls.persistence import load, save

if TYPE_CHECKING:
    from skvmdls import (
        calibration,
        datasets,
        detector,
        direct,
        explanation,
        metrics,
        model_selection,
        monitoring,
        nets,
        onnx,
        persistence,
        plotting,
        scoring,
        training,
    )

__all__ = [
    "VMDLSDetector",
    "VMDLSbDetector",
    "__version__",
    "calibration",
    "datasets",
    "detector",
    "detector_and_inputs",
    "direct",
    "explanation",
    "export_onnx",
    "load",
    "metrics",
    "model_selection",
    "monitoring",
    "nets",
    "onnx",
    "persistence",
    "plotting",
    "save",
    "scoring",
    "training",
]

# `skvmdls.metrics` and the other folders and files of `__all__` can be used after
# `import skvmdls`: each is imported when it is first used. Type checkers read the
# imports above, because with a `__getattr__` they would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> ModuleType:
        if name in __all__:
            return import_module(f"skvmdls.{name}")
        raise AttributeError(f"module 'skvmdls' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

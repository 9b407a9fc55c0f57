"""Export of a detector to one ONNX file, for use without Python.

ONNX is the format that phones, browsers, inspection lines and services in other
languages run. Writing one needs the extra ``onnx`` (``pip install -e ".[onnx]"``).
Running one needs a run time for ONNX, and neither torch nor skvmdls.

A file holds every step from a raw input to the results: standardisation, nets,
Gaussians, evidence, threshold and p-values. It takes raw inputs ``X``, as given to
`fit`: of shape (n, features) or (n, channels, height, width), uint8 if `fit` was given
bytes, else floats. It gives

- ``label`` (n,), int64: the position in ``classes_``, or -1 for unknown.
- ``score`` (n,), ``p_value`` (n,), ``evidence`` (n, n_parts) and
  ``class_log_likelihood`` (n, n_classes), float64, as the detector's methods do.

Rows with missing or infinite numbers, for which a detector raises an error, get -1 and
a score of NaN. The metadata, strings of JSON but for the version, are ``classes``,
``unknown``, ``evidence_names``, ``feature_names``, ``input_shape``, ``input_units``,
``input_range``, ``threshold``, ``contamination``, ``guarantee``, ``precision``,
``check`` (the :class:`Differences`), ``detector`` and ``skvmdls_version``.
"""

from skvmdls.onnx.comparison import Differences
from skvmdls.onnx.export import check, export_onnx

__all__ = ["Differences", "check", "export_onnx"]

"""Do ONNX files answer what their detectors answer? Every named net, both detectors.

The nets learn six digits for three epochs, at the smallest size that they take; `mlp`
has the pixels as a table. Compared are 1,000 test points, of known digits and unknown.
(``onnx_speed.py`` measures times, at a usual size.)

    python examples/benchmarks/onnx_answers.py --output onnx_answers.json

``score`` is the greatest difference of a score in units of the known points' spread (or
of a point's distance from them, where that is more); ``own rounding`` the detector's
from its own nets in float64, in the same units; ``float64`` says what of the file is.
"""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from records import (
    circumstances,
    laid_out,
    parsed_or_shown,
    rounded,
    script_parser,
    write,
)
from skvmdls import VMDLSbDetector, VMDLSDetector, export_onnx
from skvmdls.calibration.verdicts import ThresholdSettings
from skvmdls.datasets import load_digits
from skvmdls.nets import BACKBONES
from skvmdls.onnx.comparison import Expected
from skvmdls.onnx.files import run, session_of
from skvmdls.onnx.graph import Answers, Graph, Precision

DETECTORS = {cls.__name__: cls for cls in (VMDLSDetector, VMDLSbDetector)}
# Channels, and how often a digit's 8 x 8 pixels are repeated.
SIZES = {"photo_cnn": (3, 2)}
EPOCHS, N_TRAINED, N_CHECKED = 3, 600, 200
COLUMNS = {
    "net": "",
    "detector": "",
    "points": "d",
    "other labels": "d",
    "at a tie": "d",
    "p-value": ".0e",
    "score": ".0e",
    "own rounding": ".0e",
    "float64": "",
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--nets", nargs="+", choices=BACKBONES, default=[*BACKBONES])
    parser.add_argument("--only", choices=DETECTORS, help="one of the detectors")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    options = parsed_or_shown(parser, table)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {
        "rows": [],
        "onnxruntime": onnxruntime.__version__,
        **circumstances(),
    }
    for net in options.nets:
        for detector in [options.only] if options.only else DETECTORS:
            row = compared(net, detector, options.points)
            found["rows"].append(rounded(row))
            print(table({"rows": [row]}), flush=True)
            write(found, options.output)


def compared(net: str, detector: str, n: int) -> dict[str, Any]:
    """Fit, write a file, and compare; the table's row."""
    X, y, tests = digits(net)
    fitted = DETECTORS[detector](
        backbone=net, max_epochs=EPOCHS, calibration_fraction=0.3, random_state=0
    ).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        # On rows that are not those that count, so that these choose nothing.
        export_onnx(fitted, path, tests[-N_CHECKED:] * 0.9)
        session = session_of(path)
    expected = Expected.of(fitted, tests[:n])
    found = expected.differences(run(session, expected.X))
    precision = json.loads(session.get_modelmeta().custom_metadata_map["precision"])
    float64 = [role for role, kind in precision.items() if kind == "float64"]
    return {
        "net": net,
        "detector": detector,
        "points": found.n,
        "other labels": found.labels,
        "at a tie": found.ties,
        "p-value": found.p_value,
        "score": found.score,
        "own rounding": expected.differences(in_float64(fitted, expected.X)).score,
        "float64": ", ".join(float64) or "nothing",
    }


def in_float64(fitted: Any, X: np.ndarray) -> Answers:
    """Answers of the same nets and Gaussians in float64, in torch."""
    graph = Graph(
        fitted.model_,
        fitted.calibration_,
        ThresholdSettings.of(fitted),
        fitted.classes_,
        Precision(*[torch.float64] * 3),
    ).eval()
    with torch.no_grad():
        batches = [graph(batch.double()) for batch in torch.from_numpy(X).split(100)]
    return Answers(*map(torch.cat, zip(*batches, strict=True)))


def digits(net: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, and test images, of the shape that a net takes."""
    found = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    order = np.random.default_rng(0).permutation(len(found.X_test))
    X, y, tests = found.X_train[:N_TRAINED], found.y_train[:N_TRAINED], found.X_test
    if net == "mlp":
        return X.reshape(-1, 64), y, tests[order].reshape(-1, 64)
    channels, times = SIZES.get(net, (1, 1))
    X, tests = (
        images.repeat(times, axis=1).repeat(times, axis=2)[:, None].repeat(channels, 1)
        for images in (X, tests[order])
    )
    return X, y, tests


def table(found: dict[str, Any]) -> str:
    return laid_out(found["rows"], COLUMNS)


if __name__ == "__main__":
    main()

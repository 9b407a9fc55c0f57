"""Do ONNX files answer what their detectors answer? Every named net, both detectors.

The nets learn six digits for three epochs. Then a thousand test points are compared,
known and unknown, at the smallest size that the net takes. (``onnx_speed.py`` measures
times, at a usual size.)

    python examples/benchmarks/onnx_answers.py --output onnx_answers.json
"""

import argparse
import json
import shlex
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import skvmdls.onnx
from records import surroundings
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._onnx_graph import Graph, Precision
from skvmdls.backbones import BACKBONES
from skvmdls.datasets import load_digits

DETECTORS = {cls.__name__: cls for cls in (VMDLSDetector, VMDLSbDetector)}
# Channels, and how often a digit's 8 x 8 pixels are repeated; tables are their pixels.
SIZES = {"photo_cnn": (3, 2)}
COVARIANCES = ("full", "tied", "diag")
EPOCHS, N_TRAINED, N_CHECKED = 3, 600, 200
COLUMNS = {
    "net": "",
    "detector": "",
    "covariances": "",
    "points": "d",
    "other labels": "d",
    "at a tie": "d",
    "score": ".0e",
    "own rounding": ".0e",
    "score, known": ".0e",
    "p-value": ".0e",
    "float64": "",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=BACKBONES, default=[*BACKBONES])
    parser.add_argument("--only", choices=DETECTORS, help="one of the detectors")
    parser.add_argument("--covariances", nargs="+", choices=COVARIANCES, default=None)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--show", type=Path, help="JSON file to print as a table")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.show.read_text())))
        return
    torch.set_num_threads(options.threads)
    found: dict[str, Any] = {
        "rows": [],
        "command": shlex.join(["python", *sys.argv]),
        "surroundings": surroundings(),
        "onnxruntime": onnxruntime.__version__,
    }
    for net in options.nets:
        for detector in [options.only] if options.only else DETECTORS:
            # Which covariances does not depend on the net: all of them for two.
            kinds = COVARIANCES if net in ("mlp", "cnn") else COVARIANCES[:1]
            for kind in options.covariances or kinds:
                found["rows"].append(compared(net, detector, kind, options.points))
                print(table({"rows": found["rows"][-1:]}).splitlines()[-1], flush=True)
                if options.output:
                    options.output.write_text(json.dumps(found, indent=1) + "\n")


def compared(net: str, detector: str, covariance_type: str, n: int) -> dict[str, Any]:
    images, labels, tests = digits(net)
    tests = tests[:n]
    fitted = DETECTORS[detector](
        backbone=net,
        max_epochs=EPOCHS,
        covariance_type=covariance_type,
        calibration_fraction=0.3,
        random_state=0,
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted.fit(images, labels)
        path = Path(folder) / "detector.onnx"
        # On fewer rows than those that count afterwards, so that these choose nothing.
        skvmdls.export_onnx(fitted, path, tests[-N_CHECKED:] * 0.9)
        found = skvmdls.onnx.check(path, tests, fitted, verbose=False)
        session = onnxruntime.InferenceSession(path)
    [given] = session.get_inputs()
    X = tests.astype("float64" if given.type == "tensor(double)" else "float32")
    [answered] = session.run(["score"], {"X": X})
    scores = fitted.score_samples(tests)
    precision = json.loads(session.get_modelmeta().custom_metadata_map["precision"])
    float64 = [role for role, kind in precision.items() if kind == "float64"]
    return {
        "net": net,
        "detector": detector,
        "covariances": covariance_type,
        "points": found.n,
        "other labels": found.labels,
        "at a tie": found.ties,
        "score": float(np.abs(answered - scores).max() / scores.std()),
        "own rounding": float(
            np.abs(exact(fitted, tests) - scores).max() / scores.std()
        ),
        "score, known": found.score,
        "p-value": found.p_value,
        "float64": ", ".join(float64) or "nothing",
    }


def exact(fitted: Any, X: np.ndarray) -> np.ndarray:
    """Scores (n,) of the same nets in float64, in torch."""
    graph = Graph(fitted, Precision(*[torch.float64] * 3)).eval()
    with torch.no_grad():
        return np.concatenate(
            [graph(batch.double()).score for batch in torch.from_numpy(X).split(100)]
        )


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
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|" + "---:|" * 7 + "---|"]
    for row in found["rows"]:
        cells = [format(row[name], form) for name, form in COLUMNS.items()]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

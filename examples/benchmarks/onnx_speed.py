"""ONNX files beside their detectors: the same answers, how large, and how fast.

The nets learn digits for three epochs: what is asked is whether the file answers what
the detector answers, not how well. Answers are compared on a thousand test points,
known and unknown, at the smallest size that the net takes; times are of inputs of the
usual size. The file and ``score_samples`` take turns; the figures are medians.

    python examples/benchmarks/onnx_speed.py --threads 2 --output onnx_speed.json
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

import skvmdls.onnx
from records import surroundings
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.backbones import BACKBONES
from skvmdls.datasets import load_digits
from speed import alternate

DETECTORS = {cls.__name__: cls for cls in (VMDLSDetector, VMDLSbDetector)}
# Channels and side of what each net answers here, and of what it is timed on.
SMALL = {"photo_cnn": (3, 16), "mlp": None}
USUAL = {
    "mlp": None,
    "cnn": (1, 28),
    "plain_cnn": (1, 28),
    "photo_cnn": (3, 32),
    "resnet18": (3, 32),
}
COVARIANCES = ("full", "tied", "diag")
BATCHES = (1, 256)
EPOCHS, N_TRAINED, N_CHECKED = 3, 600, 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nets", nargs="+", choices=BACKBONES, default=[*BACKBONES])
    parser.add_argument("--only", choices=DETECTORS, help="one of the detectors")
    parser.add_argument("--points", type=int, default=1000, help="to compare on")
    parser.add_argument("--turns", type=int, default=20, help="of each measured time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--show", type=Path, help="JSON file to print as tables")
    options = parser.parse_args()
    if options.show:
        print(tables(json.loads(options.show.read_text())))
        return
    torch.set_num_threads(options.threads)
    found: dict = {"answers": [], "times": []}
    found["command"] = shlex.join(["python", *sys.argv])
    found["threads"] = options.threads
    found["surroundings"] = surroundings()
    found["onnxruntime"] = onnxruntime.__version__
    for name, row in measured(options):
        found[name].append(row)
        print(name, row, flush=True)
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(tables(found))


def measured(options: argparse.Namespace) -> Iterator[tuple[str, dict]]:
    detectors = [options.only] if options.only else [*DETECTORS]
    for net in options.nets:
        for detector in detectors:
            kinds = COVARIANCES if net in ("mlp", "cnn") else COVARIANCES[:1]
            for kind in kinds:
                yield "answers", compared(net, detector, kind, options.points)
    for net in options.nets:
        if net in USUAL:
            for detector in detectors:
                yield "times", timed(net, detector, options.turns, options.threads)


def compared(net: str, detector: str, covariance_type: str, n: int) -> dict:
    images, labels, tests = digits(SMALL.get(net, (1, 8)))
    fitted = learned(net, detector, images, labels, covariance_type)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        start = time.perf_counter()
        skvmdls.export_onnx(fitted, path, tests[:N_CHECKED])
        seconds = time.perf_counter() - start
        found = skvmdls.onnx.check(path, tests[:n], fitted, verbose=False)
        scores = fitted.score_samples(tests[:n])
        X = tests[:n].astype(np.float32)
        [answered] = onnxruntime.InferenceSession(path).run(["score"], {"X": X})
        lower, upper = np.quantile(scores, [0.25, 0.75])
        return {
            "net": net,
            "detector": detector,
            "covariances": covariance_type,
            "points": found.n,
            "other labels": found.labels,
            "at a tie": found.ties,
            "score": float(np.abs(answered - scores).max() / (upper - lower)),
            "score, known": found.score,
            "p-value": found.p_value,
            "float64": ", ".join(in_float64(path)) or "nothing",
            "export, s": seconds,
        }


def in_float64(path: Path) -> list[str]:
    session = onnxruntime.InferenceSession(path)
    precision = session.get_modelmeta().custom_metadata_map["precision"]
    return [role for role, kind in json.loads(precision).items() if kind == "float64"]


def timed(net: str, detector: str, turns: int, threads: int) -> dict:
    images, labels, tests = digits(USUAL[net])
    fitted = learned(net, detector, images, labels, "full")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        skvmdls.export_onnx(fitted, path, tests[:N_CHECKED])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options)
        row: dict = {"net": net, "detector": detector, "input": list(tests.shape[1:])}
        row["file, MiB"] = path.stat().st_size / 2**20
    for batch in BATCHES:
        X = np.ascontiguousarray(tests[:batch], dtype=np.float32)
        competitors: dict[str, Callable[[], Any]] = {
            "onnxruntime, us": partial(session.run, None, {"X": X}),
            "score_samples, us": partial(fitted.score_samples, X),
        }
        seconds = alternate(competitors, turns if batch == 1 else turns // 4 + 1)
        row[f"batch {batch}"] = {
            name: float(np.median(times)) / batch * 1e6
            for name, times in seconds.items()
        }
    return row


def digits(size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, and test images, of channels x side x side."""
    found = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    order = np.random.default_rng(0).permutation(len(found.X_test))
    X, tests = found.X_train[:N_TRAINED], found.X_test[order]
    if size is None:
        return X.reshape(-1, 64), found.y_train[:N_TRAINED], tests.reshape(-1, 64)
    X, tests = (resized(images, *size) for images in (X, tests))
    return X, found.y_train[:N_TRAINED], tests


def resized(images: np.ndarray, channels: int, side: int) -> np.ndarray:
    times = -(-side // 8)
    large = images.repeat(times, axis=1).repeat(times, axis=2)[:, :side, :side]
    return np.repeat(large[:, None], channels, axis=1).astype(np.float32)


def learned(
    net: str, detector: str, X: np.ndarray, y: np.ndarray, covariance_type: str
) -> VMDLSbDetector | VMDLSDetector:
    fitted = DETECTORS[detector](
        backbone=net,
        max_epochs=EPOCHS,
        covariance_type=covariance_type,
        calibration_fraction=0.3,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fitted.fit(X, y)


def tables(found: dict) -> str:
    lines = [
        "| net | detector | covariances | points | other labels | at a tie | score "
        "| score, known | p-value | float64 |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| {row['net']} | {row['detector']} | {row['covariances']} | {row['points']} "
        f"| {row['other labels']} | {row['at a tie']} | {row['score']:.0e} "
        f"| {row['score, known']:.0e} | {row['p-value']:.0e} | {row['float64']} |"
        for row in found["answers"]
    ]
    lines += [
        "",
        "| net | detector | input | file, MiB | "
        + " | ".join(f"batch {n}: onnxruntime, us | score_samples, us" for n in BATCHES)
        + " |",
        "|---|---|---|---:|" + "---:|---:|" * len(BATCHES),
    ]
    for row in found["times"]:
        cells = [
            f"{row[f'batch {n}'][who]:,.0f}"
            for n in BATCHES
            for who in ("onnxruntime, us", "score_samples, us")
        ]
        size = "x".join(map(str, row["input"]))
        lines.append(
            f"| {row['net']} | {row['detector']} | {size} | {row['file, MiB']:.1f} | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

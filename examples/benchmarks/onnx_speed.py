"""ONNX files of every named net: how large they are, and how fast.

Random images of five patterns; the nets train for one epoch: more changes no cost, but
the answers' rounding (``onnx_answers.py`` measures that).
Microseconds a point are medians, of onnxruntime and of `score_samples`, in turns.

    python examples/benchmarks/onnx_speed.py --output onnx_speed.json
"""

import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch

from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector, VMDLSDetector, export_onnx
from skvmdls.nets import BACKBONES

N_TRAIN, N_TEST = 300, 1000
BATCHES = {1: 30, 256: 3}
# Stored, not shown.
ANSWERS = ("other labels", "at a tie", "score, spreads", "p-value")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nets", nargs="+", default=list(BACKBONES))
    options = parsed_or_shown(parser, table)
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {
        "rows": [],
        "threads": options.threads,
        **circumstances(),
    }
    for net in options.nets:
        for detector in (VMDLSDetector, VMDLSbDetector):
            row = measured(detector, net, options.threads)
            found["rows"].append(row)
            print(table({"rows": [row]}), flush=True)
            write(found, options.output)


def measured(detector: Any, net: str, threads: int) -> dict[str, Any]:
    shape = (12,) if net == "mlp" else (3, 32, 32)
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(7, *shape))
    # Five known classes, and two that are not.
    y = np.arange(N_TRAIN) % 5
    X = (patterns[y] + 0.5 * rng.normal(size=(N_TRAIN, *shape))).astype(np.float32)
    which = np.arange(N_TEST) % 7
    test = patterns[which] + 0.5 * rng.normal(size=(N_TEST, *shape))
    test = test.astype(np.float32)
    fitted = detector(backbone=net, max_epochs=1, random_state=0).fit(X, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.onnx"
        differences = export_onnx(fitted, path, test)
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        # Else its threads wait busily, while torch's turn is timed.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(path, settings)
        is_double = session.get_inputs()[0].type == "tensor(double)"
        row: dict[str, Any] = {
            "net": net,
            "detector": detector.__name__,
            "other labels": differences.labels,
            "at a tie": differences.ties,
            "score, spreads": differences.score,
            "p-value": differences.p_value,
            "file, MiB": size / 2**20,
        }
        for n, repeats in BATCHES.items():
            some = test[:n].astype(np.float64) if is_double else test[:n]
            theirs, ours = in_turns(
                partial(session.run, None, {"X": some}),
                partial(fitted.score_samples, some),
                repeats,
            )
            row[f"onnxruntime, {n}"] = 1e6 * theirs / n
            row[f"score_samples, {n}"] = 1e6 * ours / n
    return row


def in_turns(
    one: Callable[[], Any], other: Callable[[], Any], repeats: int
) -> tuple[float, float]:
    """Median seconds of each, one after the other, so that noise is shared."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for run, taken in zip((one, other), seconds, strict=True):
            start = time.perf_counter()
            run()
            if repeat:
                taken.append(time.perf_counter() - start)
    return median(seconds[0]), median(seconds[1])


def table(found: dict[str, Any]) -> str:
    """Lay the costs out as a table of Markdown; the answers are another script's."""
    columns = {
        name: "" if isinstance(value, str) else ".3g"
        for name, value in found["rows"][0].items()
        if name not in ANSWERS
    }
    return laid_out(found["rows"], columns)


if __name__ == "__main__":
    main()

"""How a detector of a table grows with classes and with rows.

One epoch of VMDLSbDetector on rows of 32 numbers, each fit in a process of its own:
its memory beyond X (RssAnon), its seconds of the CPU in one thread, what the file is
made of, and how many rows are scored in a second of the CPU. Needs Linux.

    python examples/benchmarks/scale.py
"""

import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import skvmdls
from children import in_child
from fit_memory import watched
from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector

N_FEATURES = 32
N_SCORED = 5000
POINTS = [
    *((c, 100_000, kind) for c in (10, 100, 1000) for kind in ("full", "tied")),
    *((10, n, "full") for n in (10_000, 1_000_000)),
]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--largest", type=int, default=1_000_000, help="rows at most")
    options = parsed_or_shown(parser, table)
    found: dict[str, Any] = {"rows": [], **circumstances()}
    for point in sorted(POINTS, key=lambda point: (point[1], point[0])):
        if point[1] <= options.largest:
            found["rows"].append(in_child(measured, *point))
            write(found, options.output)
    print(table(found))


def drawn(n_classes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    centres = rng.normal(size=(n_classes, N_FEATURES)).astype(np.float32)
    X = rng.standard_normal((n, N_FEATURES), dtype=np.float32)
    X += 4 * centres[y]
    return X, y


def measured(
    n_classes: int, n: int, kind: Literal["full", "tied", "diag"]
) -> dict[str, Any]:
    torch.set_num_threads(1)
    detector = VMDLSbDetector(
        max_epochs=1, covariance_type=kind, device="cpu", random_state=0
    )
    # So that what is imported and started once does not count.
    detector.fit(*drawn(10, 1000))
    X, y = drawn(n_classes, n)
    peak, seconds = watched(lambda: detector.fit(X, y))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "detector"
        skvmdls.save(detector, path)
        size = path.stat().st_size
    start = time.process_time()
    detector.score_samples(X[:N_SCORED])
    scored = N_SCORED / (time.process_time() - start)
    return {
        "classes": n_classes,
        "rows": n,
        "covariances": kind,
        "fit, CPU s": seconds,
        "beyond X, MiB": peak,
        "file, MiB": size / 2**20,
        "net, MiB": mebibytes(detector.network_),
        "Gaussians, MiB": mebibytes(detector.gaussians_),
        "rows scored a second": scored,
    }


def mebibytes(net: nn.Module) -> float:
    return sum(tensor.nbytes for tensor in net.state_dict().values()) / 2**20


def table(found: dict) -> str:
    columns = {
        "classes": ",",
        "rows": ",",
        "covariances": "",
        "fit, CPU s": ".0f",
        "beyond X, MiB": ",.0f",
        "net, MiB": ".2f",
        "Gaussians, MiB": ",.1f",
        "file, MiB": ",.1f",
        "rows scored a second": ",.0f",
    }
    return laid_out(found["rows"], columns)


if __name__ == "__main__":
    main()

"""Memory and time of fits that read X from files.

`--memory N ...`: peak of a fit's own memory, one epoch on N byte images of 3x64x64
from a memory map; each fit in a process of its own. Own is what no file stands behind
(RssAnon), looked at every 5 ms and less what the process had after a small fit; the
map's pages are X. Needs Linux.

`--folder N`: the same fit of N PNG images of 3x64x64 from the array of their pixels,
from a folder, and from a folder read by two worker processes, in turns.

    python examples/benchmarks/fit_memory.py --memory 2000 20000 --folder 2000
"""

import argparse
import json
import multiprocessing
import shlex
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from records import surroundings
from skvmdls import VMDLSbDetector
from skvmdls.datasets import image_folder

SHAPE = (3, 64, 64)
N_CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", type=int, nargs="+", default=[])
    parser.add_argument("--folder", type=int, default=0)
    parser.add_argument("--backbone", default="auto")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    fit = partial(detector, options.backbone, options.epochs)
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = {
            "memory": [memory(Path(name), n, fit) for n in options.memory],
            "folder": folder(Path(name), options.folder, fit) if options.folder else {},
            "backbone": options.backbone,
            "epochs": options.epochs,
            "command": shlex.join(["python", *sys.argv]),
            "surroundings": surroundings(),
        }
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def detector(backbone: str, epochs: int) -> VMDLSbDetector:
    return VMDLSbDetector(
        backbone=backbone, max_epochs=epochs, device="cpu", random_state=0
    )


def images(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise about a level of the class's own."""
    levels = 20 * (np.arange(n) % N_CLASSES).reshape(-1, 1, 1, 1)
    return levels.astype(np.uint8) + rng.integers(0, 60, (n, *SHAPE), dtype=np.uint8)


def memory(place: Path, n: int, fit: Any) -> dict[str, float]:
    """Fit a memory map of n images in a process of its own."""
    rng = np.random.default_rng(0)
    path = place / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for start in range(0, n, 1000):
        X[start : start + 1000] = images(len(X[start : start + 1000]), rng)
    X.flush()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        peak, seconds = pool.apply(_fitted, (path, fit))
    mebibytes = X.nbytes / 2**20
    return {"images": n, "X, MiB": mebibytes, "own, MiB": peak, "seconds": seconds}


def _fitted(path: Path, fit: Any) -> tuple[float, float]:
    X = np.load(path, mmap_mode="r")
    y = np.arange(len(X)) % N_CLASSES
    fit().fit(X[:400], y[:400])
    before, peak, is_over = _anonymous(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.005):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    fit().fit(X, y)
    seconds = time.perf_counter() - start
    is_over.set()
    watcher.join()
    return peak - before, seconds


def _anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon.")


def folder(place: Path, n: int, fit: Any) -> dict[str, Any]:
    """Fit the array of n images, and the same images as files."""
    X = images(n, np.random.default_rng(0))
    y = np.arange(n) % N_CLASSES
    for i, (x, label) in enumerate(zip(X, y, strict=True)):
        path = place / "images" / str(label) / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(path, compress_level=1)
    rows, names = image_folder(place / "images")
    order = np.argsort(y, kind="stable")
    X, y = X[order], names
    seconds, scores = {}, {}
    for name, given, num_workers in (
        ("array", X, 0),
        ("folder", rows, 0),
        ("folder, 2 workers", rows, 2),
    ):
        start = time.perf_counter()
        fitted = fit().set_params(num_workers=num_workers).fit(given, y)
        seconds[name] = time.perf_counter() - start
        scores[name] = fitted.score_samples(X[:500])
    differences = {
        name: float(np.abs(found - scores["array"]).max())
        for name, found in scores.items()
    }
    return {"images": n, "seconds": seconds, "largest difference": differences}


if __name__ == "__main__":
    main()

"""Memory and time of fits that read X from files.

One epoch on byte images of 3x64x64, from memory maps of more and more of them; each fit
in a process of its own. Own memory is what no file stands behind (RssAnon), looked at
every 5 ms and less what the process had after a small fit; the map's pages are X. Then
the same fit of PNG images: from the array of their pixels, from a folder, and from a
folder read by two worker processes. Needs Linux.

    python examples/benchmarks/fit_memory.py --memory tiny:20000 auto:4000
"""

import gc
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from children import in_child
from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.datasets import image_folder

__all__ = ["watched"]

SHAPE = (3, 64, 64)
N_CLASSES = 10
DEFAULTS = {
    "memory": [("tiny", 20_000), ("tiny", 200_000), ("auto", 1000), ("auto", 4000)],
    "folder": [("tiny", 2000), ("auto", 1000)],
}


def tiny(input_shape: tuple[int, ...]) -> nn.Module:
    """Make a net that costs little beside the reading."""
    channels = (input_shape[0], 4, 8, 16)
    stages = [
        nn.Sequential(nn.Conv2d(a, b, 3, stride=4, padding=1), nn.ReLU())
        for a, b in pairwise(channels)
    ]
    net: Any = nn.Sequential(*stages, nn.Flatten())
    net.taps = ("0", "1", "2")
    return net


def main() -> None:
    parser = script_parser(__doc__)
    for name, default in DEFAULTS.items():
        parser.add_argument(
            f"--{name}",
            type=net_and_number,
            nargs="*",
            default=default,
            help="net:images; a net is tiny, or a name",
        )
    options = parsed_or_shown(parser, table)
    found: dict[str, Any] = {"memory": [], "folder": []}
    for net, n in options.memory:
        with tempfile.TemporaryDirectory() as place:
            row = memory(Path(place), n, partial(detector, net))
        found["memory"].append({"net": net, **row})
    for net, n in options.folder:
        with tempfile.TemporaryDirectory() as place:
            rows = folder(Path(place), n, partial(detector, net))
        found["folder"] += [{"net": net, **row} for row in rows]
    found |= circumstances()
    write(found, options.output)
    print(table(found))


def net_and_number(text: str) -> tuple[str, int]:
    net, _, n = text.partition(":")
    return net, int(n)


def detector(net: str, num_workers: int = 0) -> VMDLSbDetector:
    return VMDLSbDetector(
        backbone=tiny if net == "tiny" else net,
        max_epochs=1,
        num_workers=num_workers,
        device="cpu",
        random_state=0,
    )


def images(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise about a level of the class's own."""
    levels = 20 * (np.arange(n) % N_CLASSES).reshape(-1, 1, 1, 1)
    return levels.astype(np.uint8) + rng.integers(0, 60, (n, *SHAPE), dtype=np.uint8)


def memory(place: Path, n: int, make: Callable) -> dict[str, float]:
    """Fit a memory map of n images in a process of its own."""
    rng = np.random.default_rng(0)
    path = place / "X.npy"
    X = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for start in range(0, n, 1000):
        X[start : start + 1000] = images(len(X[start : start + 1000]), rng)
    X.flush()
    peak, seconds = in_child(_fitted, path, make)
    return {"images": n, "X, MiB": X.nbytes / 2**20, "own, MiB": peak, "CPU s": seconds}


def _fitted(path: Path, make: Callable) -> tuple[float, float]:
    X = np.load(path, mmap_mode="r")
    y = np.arange(len(X)) % N_CLASSES
    make().fit(X[:400], y[:400])
    return watched(lambda: make().fit(X, y))


def watched(function: Callable[[], Any]) -> tuple[float, float]:
    """Measure what a call takes of the process's own memory at its peak, and its time.

    Parameters
    ----------
    function : callable

    Returns
    -------
    peak, seconds : float
        In MiB; of the CPU.

    Examples
    --------
    Memory that the process has freed and not given back is not seen again: the example
    takes more at once than is likely to lie about.

    >>> watched(lambda: (np.ones(2**26), time.sleep(0.1)))[0] > 400
    True
    """
    # What earlier calls left in cycles must not be set free while this one is measured.
    gc.collect()
    before, peak, is_over = _anonymous(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.005):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    try:
        function()
    finally:
        seconds = time.process_time() - start
        is_over.set()
        watcher.join()
    return peak - before, seconds


def _anonymous() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no RssAnon.")


def folder(place: Path, n: int, make: Callable) -> list[dict[str, Any]]:
    """Fit the array of n images, and the same images as files."""
    X = images(n, np.random.default_rng(0))
    y = np.arange(n) % N_CLASSES
    for i, (x, label) in enumerate(zip(X, y, strict=True)):
        path = place / "images" / str(label) / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.transpose(1, 2, 0)).save(path, compress_level=1)
    rows, names = image_folder(place / "images")
    X = X[np.argsort(y, kind="stable")]
    found, expected = [], np.empty(0)
    for name, given, workers in (("array", X, 0), ("folder", rows, 0), ("", rows, 2)):
        start = time.perf_counter()
        fitted = make(workers).fit(given, names)
        seconds = time.perf_counter() - start
        scores = fitted.score_samples(X[:500])
        expected = expected if len(expected) else scores
        difference = float(np.abs(scores - expected).max())
        name = name or f"folder, {workers} workers"
        found.append({"X": name, "images": n, "s": seconds, "difference": difference})
    return found


def table(found: dict) -> str:
    memory_columns = {
        "images": ",",
        "net": "",
        "X, MiB": ",.0f",
        "own, MiB": ".0f",
        "CPU s": ".0f",
    }
    folder_columns = {
        "X": "",
        "images": ",",
        "net": "",
        "s": ".1f",
        "difference": ".2g",
    }
    titles = {
        "own, MiB": "beyond X, MiB",
        "s": "seconds",
        "difference": "scores differ by",
    }
    of_memory = laid_out(found["memory"], memory_columns, titles)
    return f"{of_memory}\n\n{laid_out(found['folder'], folder_columns, titles)}"


if __name__ == "__main__":
    main()

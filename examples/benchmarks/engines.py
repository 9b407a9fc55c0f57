"""Scoring a table and images in process, and on clusters of two workers here.

Each way is a process of its own that scores the same files with the same detector, and
is told apart by what it writes; the seconds are of the scoring, without the start of
the cluster. Memory is that of the process and of all that it starts (PSS, which counts
shared pages once, looked at every quarter of a second; with pages of the rows while
they are read). Needs Linux and the extra `engines`; `--ways spark` needs pyspark and
Java as well.

    python examples/benchmarks/engines.py --rows 1000000 --images 100000
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import skvmdls
from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector

EXAMPLES = Path(__file__).parents[1]
WAYS = ("in process", "dask", "ray", "spark")
SHAPES = {"table": (16,), "images": (3, 32, 32)}
FILE = 10_000
N_CLASSES = 10
IN_PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
import torch
import skvmdls

torch.set_num_threads(1)
detector = skvmdls.load(sys.argv[1])
files = sorted(Path(sys.argv[2]).glob("*.npy"), key=lambda path: int(path.stem))
start = time.perf_counter()
scores = np.concatenate([detector.score_samples(np.load(path)) for path in files])
seconds = time.perf_counter() - start
np.save(sys.argv[3], scores)
print(f"{len(scores)} rows in {seconds:.2f} s")
"""


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:3])
    options = parsed_or_shown(parser, table)
    found: dict[str, Any] = {"rows": []}
    for kind, n in (("table", options.rows), ("images", options.images)):
        if n:
            with tempfile.TemporaryDirectory() as place:
                found["rows"] += measured(Path(place), kind, n, options.ways)
    found |= circumstances()
    write(found, options.output)
    print(table(found))


def measured(place: Path, kind: str, n: int, ways: list[str]) -> list[dict]:
    prepare(place, kind, n)
    rows, expected = [], np.empty(0)
    for way in ways:
        seconds, total, peak = run(way, place)
        scores = scores_of(place, way)
        expected = expected if len(expected) else scores
        rows.append(
            {
                "X": kind,
                "rows": n,
                "way": way,
                "rows a second": n / seconds,
                "with start, s": total,
                "peak, MiB": peak,
                "difference, spreads": float(
                    np.abs(scores - expected).max() / expected.std()
                ),
            }
        )
    return rows


def prepare(place: Path, kind: str, n: int) -> None:
    """Write a detector and, in files of ten thousand, rows for it."""
    rng = np.random.default_rng(0)
    shape = SHAPES[kind]
    centres = rng.integers(0, 120, (N_CLASSES, *shape))

    def drawn(k: int) -> np.ndarray:
        noise = rng.integers(0, 100, (k, *shape))
        X = (centres[np.arange(k) % N_CLASSES] + noise).astype(np.uint8)
        return X if kind == "images" else X.astype(np.float32)

    backbone = "auto" if kind == "table" else "cnn"
    detector = VMDLSbDetector(backbone, max_epochs=1, device="cpu", random_state=0)
    detector.fit(drawn(1000), np.arange(1000) % N_CLASSES)
    skvmdls.save(detector, place / "detector")
    (place / "rows").mkdir()
    for i, start in enumerate(range(0, n, FILE)):
        np.save(place / "rows" / f"{i}.npy", drawn(min(FILE, n - start)))


def run(way: str, place: Path) -> tuple[float, float, float]:
    """Seconds of the scoring, seconds in all, and peak memory in MiB."""
    if way == "spark":
        to_parquet(place)
    script = ["-c", IN_PROCESS] if way == "in process" else [script_of(way)]
    rows = place / ("rows.parquet" if way == "spark" else "rows")
    command = [sys.executable, *script, place / "detector", rows, place / f"{way}.out"]
    start = time.perf_counter()
    with (place / "told").open("w") as told:
        # Ray's workers give way to whatever else runs, unless they are told not to.
        env = os.environ | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*map(str, command)], stdout=told, env=env)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.25)
    total = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{way} ended with {process.returncode}")
    [seconds] = re.findall(r"rows in ([\d.]+) s", (place / "told").read_text())
    return float(seconds), total, peak


def script_of(way: str) -> Path:
    return EXAMPLES / f"score_with_{way}.py"


def memory(pid: int) -> float:
    import psutil  # Dask needs it.

    try:
        process = psutil.Process(pid)
        members = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0
    for member in members:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 2**20


def to_parquet(place: Path) -> None:
    """Write the rows as Spark's example takes them, and where each stood."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (place / "rows.parquet").mkdir()
    for path in (place / "rows").glob("*.npy"):
        X = np.load(path)
        X = X.reshape(len(X), -1)
        flat = pa.array(X.astype(np.float32).ravel())
        offsets = pa.array(np.arange(len(X) + 1, dtype=np.int32) * X.shape[1])
        column = pa.ListArray.from_arrays(offsets, flat)
        row = pa.array(int(path.stem) * FILE + np.arange(len(X)))
        pq.write_table(
            pa.table({"row": row, "x": column}),
            place / "rows.parquet" / f"{path.stem}.parquet",
        )


def scores_of(place: Path, way: str) -> np.ndarray:
    path = place / f"{way}.out"
    if way != "spark":
        return np.load(path if path.exists() else path.with_name(f"{path.name}.npy"))
    import pyarrow.parquet as pq

    scored = pq.read_table(path).sort_by("row")
    return scored["score"].to_numpy()


def table(found: dict) -> str:
    columns = {
        "X": "",
        "rows": ",",
        "way": "",
        "rows a second": ",.0f",
        "with start, s": ".0f",
        "peak, MiB": ",.0f",
        "difference, spreads": ".1g",
    }
    return laid_out(found["rows"], columns, {"difference, spreads": "differ by"})


if __name__ == "__main__":
    main()

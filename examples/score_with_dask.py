"""
Scoring on Dask
================

Each worker of a Dask cluster loads the detector once and scores blocks of rows.

Without arguments the script makes a detector and rows, starts a cluster of two
processes on this machine, and compares its scores with those of one process::

    pip install -e ".[engines]"
    python examples/score_with_dask.py

Give a detector, a folder of numpy files (``0.npy``, ``1.npy``, ...) and a file for the
scores. The workers read the files themselves. ``--scheduler ADDRESS`` uses a cluster
that is running, whose workers must see the same files::

    python examples/score_with_dask.py detector.safetensors rows/ scores.npy
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, Worker, WorkerPlugin, get_worker

import skvmdls
from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits


class Detector(WorkerPlugin):
    """The detector that each worker holds."""

    name = "detector"

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def setup(self, worker: Worker) -> None:
        """Load the file: Dask calls it in every worker, also in those that join."""
        self.detector = skvmdls.load(self.path)


def score(block: np.ndarray) -> np.ndarray:
    return get_worker().plugins["detector"].detector.score_samples(block)


def rows_of(folder: Path) -> da.Array:
    """Files as one array, a block each. Only their heads are read here."""
    paths = sorted(folder.absolute().glob("*.npy"), key=lambda path: int(path.stem))
    heads = [np.load(path, mmap_mode="r") for path in paths]
    read = dask.delayed(np.load)
    blocks = [
        da.from_delayed(read(path), head.shape, head.dtype)
        for path, head in zip(paths, heads, strict=True)
    ]
    return da.concatenate(blocks)


def make_data(folder: Path) -> tuple[Path, Path]:
    """Write a detector of six digits, and a folder of rows."""
    digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    detector = VMDLSbDetector(max_epochs=5, random_state=0)
    detector.fit(digits.X_train, digits.y_train)
    path, rows = folder / "detector.safetensors", folder / "rows"
    skvmdls.save(detector, path)
    rows.mkdir()
    for number, block in enumerate(np.array_split(digits.X_test, 4)):
        np.save(rows / f"{number}.npy", block)
    return path, rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", type=Path, nargs="?")
    parser.add_argument("rows", type=Path, nargs="?", help="folder of numpy files")
    parser.add_argument("scores", type=Path, nargs="?", help="numpy file to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler", help="address of a cluster that is there")
    options = parser.parse_args()
    if options.scores is not None:
        np.save(options.scores, score_all(options.detector, options.rows, options))
        return
    with TemporaryDirectory() as folder:
        path, rows = make_data(Path(folder))
        scores = score_all(path, rows, options)
        blocks = [np.load(rows / f"{number}.npy") for number in range(4)]
        here = skvmdls.load(path).score_samples(np.concatenate(blocks))
    print(f"largest difference from one process: {np.abs(scores - here).max():.1e}")


def score_all(path: Path, folder: Path, options: argparse.Namespace) -> np.ndarray:
    """Scores of all rows of a folder, in order."""
    cluster = options.scheduler or LocalCluster(
        n_workers=options.workers, threads_per_worker=1, dashboard_address=None
    )
    with Client(cluster) as client:
        client.register_plugin(Detector(path))
        rows = rows_of(folder)
        start = time.perf_counter()
        # One number replaces the axes of a row. With meta, Dask makes no trial call.
        scores = rows.map_blocks(
            score, drop_axis=list(range(1, rows.ndim)), meta=np.empty(0)
        ).compute()
        seconds = time.perf_counter() - start
    print(f"{len(scores)} rows in {seconds:.2f} s")
    return scores


if __name__ == "__main__":
    main()

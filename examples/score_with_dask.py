"""Scoring on Dask
===============

Score on a Dask cluster: every worker loads the detector once.

Rows come as a folder of numpy files, `0.npy`, `1.npy` and so on, which the workers
read themselves. Here the cluster is of processes on this machine; `--scheduler ADDRESS`
takes one that is there, whose workers see the same files.

    pip install "skvmdls[engines]"
    python examples/score_with_dask.py detector.safetensors rows/ scores.npy
"""

import argparse
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, Worker, WorkerPlugin, get_worker

import skvmdls


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
    """Files as one array, of which each is a block; only their heads are read here."""
    paths = sorted(folder.absolute().glob("*.npy"), key=lambda path: int(path.stem))
    heads = [np.load(path, mmap_mode="r") for path in paths]
    read = dask.delayed(np.load)
    blocks = [
        da.from_delayed(read(path), head.shape, head.dtype)
        for path, head in zip(paths, heads, strict=True)
    ]
    return da.concatenate(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", type=Path)
    parser.add_argument("rows", type=Path, help="folder of numpy files")
    parser.add_argument("scores", type=Path, help="numpy file to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler", help="address of a cluster that is there")
    options = parser.parse_args()
    cluster = options.scheduler or LocalCluster(
        n_workers=options.workers, threads_per_worker=1, dashboard_address=None
    )
    with Client(cluster) as client:
        client.register_plugin(Detector(options.detector))
        rows = rows_of(options.rows)
        start = time.perf_counter()
        # The axes of a row go; meta says what comes, so that nothing is tried out.
        scores = rows.map_blocks(
            score, drop_axis=list(range(1, rows.ndim)), meta=np.empty(0)
        ).compute()
        seconds = time.perf_counter() - start
    np.save(options.scores, scores)
    print(f"{len(scores)} rows in {seconds:.2f} s")


if __name__ == "__main__":
    main()

"""Scoring on Ray
==============

Score on a Ray cluster: every worker loads the detector once.

Rows come as a folder of numpy files, `0.npy`, `1.npy` and so on, which the workers
read themselves. Here the cluster is of processes on this machine; `--address auto`
takes the one that it belongs to, whose workers see the same files.

    pip install "skvmdls[engines]"
    python examples/score_with_ray.py detector.safetensors rows/ scores.npy
"""

import argparse
import time
from pathlib import Path

import numpy as np
import ray

import skvmdls

BATCH = 4096


class Scorer:
    """The detector that each worker holds: Ray makes one there."""

    def __init__(self, path: Path) -> None:
        self.detector = skvmdls.load(path)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score a batch of the column that `read_numpy` gives."""
        return {"score": self.detector.score_samples(batch["data"])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", type=Path)
    parser.add_argument("rows", type=Path, help="folder of numpy files")
    parser.add_argument("scores", type=Path, help="numpy file to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", help="of a cluster that is there")
    options = parser.parse_args()
    here = {"num_cpus": options.workers + 1, "include_dashboard": False}
    ray.init(options.address, **({} if options.address else here))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Else the batches come as they are finished.
    context.execution_options.preserve_order = True
    paths = options.rows.absolute().glob("*.npy")
    files = [str(path) for path in sorted(paths, key=lambda path: int(path.stem))]
    start = time.perf_counter()
    scored = ray.data.read_numpy(files).map_batches(
        Scorer,
        fn_constructor_args=(options.detector.absolute(),),
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        batch_size=BATCH,
        batch_format="numpy",
    )
    batches = scored.iter_batches(batch_format="numpy")
    scores = np.concatenate([batch["score"] for batch in batches])
    seconds = time.perf_counter() - start
    ray.shutdown()
    np.save(options.scores, scores)
    print(f"{len(scores)} rows in {seconds:.2f} s")


if __name__ == "__main__":
    main()

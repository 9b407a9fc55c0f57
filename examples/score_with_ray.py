"""
Scoring on Ray
===============

Each worker of a Ray cluster loads the detector once and scores blocks of rows.

Without arguments the script makes a detector and rows, starts a cluster of two
processes on this machine, and compares its scores with those of one process::

    pip install -e ".[engines]"
    python examples/score_with_ray.py

Give a detector, a folder of numpy files (``0.npy``, ``1.npy``, ...) and a file for the
scores. The workers read the files themselves. ``--address auto`` uses a cluster that is
running, whose workers must see the same files::

    python examples/score_with_ray.py detector.safetensors rows/ scores.npy
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ray

import skvmdls
from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits

BATCH = 4096


class Scorer:
    """The detector that each worker holds: Ray makes one there."""

    def __init__(self, path: Path) -> None:
        self.detector = skvmdls.load(path)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Score a batch of the column that `read_numpy` gives."""
        return {"score": self.detector.score_samples(batch["data"])}


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
    parser.add_argument("--address", help="of a cluster that is there")
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
    here = {"num_cpus": options.workers + 1, "include_dashboard": False}
    ray.init(options.address, **({} if options.address else here))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # Without this, batches arrive as they are finished.
    context.execution_options.preserve_order = True
    paths = folder.absolute().glob("*.npy")
    files = [str(file) for file in sorted(paths, key=lambda file: int(file.stem))]
    start = time.perf_counter()
    scored = ray.data.read_numpy(files).map_batches(
        Scorer,
        fn_constructor_args=(path.absolute(),),
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        batch_size=BATCH,
        batch_format="numpy",
    )
    batches = scored.iter_batches(batch_format="numpy")
    scores = np.concatenate([batch["score"] for batch in batches])
    seconds = time.perf_counter() - start
    ray.shutdown()
    print(f"{len(scores)} rows in {seconds:.2f} s")
    return scores


if __name__ == "__main__":
    main()

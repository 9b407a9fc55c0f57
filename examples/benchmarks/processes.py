"""Two gloo processes that fit one detector, against one process.

Digits of 8x8, six of them known, on the CPU: how far the scores are from those of one
process, what the detector knows, and the seconds of the fit. `own losses` lets each
process take the losses of its own half of a batch, as data-parallel training usually
does, in place of those of the joint batch. `one bit` is one process whose X differs in
the last bit: what rounding alone does to a training. Seconds are of the CPU, of both
processes together: what they are more than those of one is what two cost.

    python examples/benchmarks/processes.py
"""

import itertools
import multiprocessing
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.metrics import roc_auc_score

from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.training import loops
from skvmdls.training.distributed import all_reduce, shard, sum_gradients

WAYS = ("one process", "one bit", "two processes", "own losses")
SETTINGS: dict[str, dict[str, Any]] = {
    "head alone, 1 epoch": {"metric_weight": 0, "max_epochs": 1},
    "defaults, 1 epoch": {"max_epochs": 1},
    "defaults, 20 epochs": {"max_epochs": 20},
    # Images four times as high, for which the net takes more of the time.
    "32x32, 1 epoch": {"max_epochs": 1, "backbone": "cnn"},
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    options = parsed_or_shown(parser, table)
    found = {
        "rows": measured(options.seeds),
        **circumstances(),
    }
    write(found, options.output)
    print(table(found))


def measured(n_seeds: int) -> list[dict]:
    """Means over the seeds; of the differences, the median and the largest seed's."""
    fits = [
        (name, seed, settings | {"random_state": seed})
        for name, settings in SETTINGS.items()
        for seed in range(n_seeds)
    ]
    digits = load_digits(random_state=0)
    is_known = np.isin(digits.y_test, digits.known)
    one, two = in_two_processes(fits)
    rows = []
    for name, way in itertools.product(SETTINGS, WAYS):
        figures = []
        for seed in range(n_seeds):
            expected, *_ = one["one process", name, seed]
            scores, labels, seconds = one[way, name, seed]
            differences = np.abs(scores - expected)[is_known] / expected[is_known].std()
            of_other = two[way, name, seed][2] if (way, name, seed) in two else 0.0
            figures.append(
                {
                    "largest difference": float(differences.max()),
                    "median difference": float(np.median(differences)),
                    "AUROC": float(roc_auc_score(is_known, scores)),
                    "accuracy": float((labels == digits.y_test)[is_known].mean()),
                    "CPU s": seconds + of_other,
                }
            )
        means = {k: float(np.mean([row[k] for row in figures])) for k in figures[0]}
        of_seeds = [row["largest difference"] for row in figures]
        means |= {
            "median difference": float(
                np.median([row["median difference"] for row in figures])
            ),
            "largest difference": max(of_seeds),
            "within 0.001": sum(largest < 1e-3 for largest in of_seeds),
        }
        rows.append({"training": name, "way": way, "seeds": n_seeds, **means})
    return rows


def in_two_processes(fits: list) -> list[dict]:
    """Fit in all ways; give what each process found, by way, name and seed."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        started = [
            context.Process(target=run, args=(rank, Path(place), fits))
            for rank in (0, 1)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        files = [Path(place) / str(rank) for rank in (0, 1)]
        return [pickle.loads(file.read_bytes()) for file in files]


def run(rank: int, place: Path, fits: list) -> None:
    torch.set_num_threads(1)
    found = {}
    for way in WAYS:
        if way == "two processes":
            store = f"file://{place}/store"
            dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
        if way == "own losses":
            take_own_losses()
        if rank == 0 or dist.is_initialized():
            for name, seed, settings in fits:
                found[way, name, seed] = fit(way, settings)
    (place / str(rank)).write_bytes(pickle.dumps(found))
    dist.barrier()


def fit(way: str, settings: dict) -> tuple[np.ndarray, np.ndarray, float]:
    digits = load_digits(random_state=0)
    X, y, X_test = digits.X_train.astype(np.float32), digits.y_train, digits.X_test
    if "backbone" in settings:
        X, y, X_test = larger(X), y, larger(X_test)
    if way == "one bit":
        X = np.nextafter(X, np.float32(2))
    detector = VMDLSbDetector(**settings, device="cpu", precision="float32")
    start = time.process_time()
    detector.fit(X, y)
    seconds = time.process_time() - start
    return detector.score_samples(X_test), detector.predict_known(X_test), seconds


def larger(X: np.ndarray) -> np.ndarray:
    return X.repeat(4, axis=-1).repeat(4, axis=-2)


def take_own_losses() -> None:
    """Let each process see the triplets of its half alone, and average gradients."""
    of_batch, finish = loops._losses, loops.ClassMeans.finish_epoch

    def losses(network: Any, x: Any, y: Any, *others: Any) -> dict:
        return of_batch(network, x, shard(y), *others)

    def finish_epoch(means: Any) -> None:
        means.sums, means.counts = all_reduce(means.sums), all_reduce(means.counts)
        finish(means)

    def mean_gradients(parameters: Any) -> None:
        parameters = list(parameters)
        sum_gradients(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= dist.get_world_size()

    patched: Any = loops
    patched._losses, patched.ClassMeans.finish_epoch = losses, finish_epoch
    patched.sum_gradients = mean_gradients
    patched.all_gather = lambda part, n_rows: part
    patched.broadcast = lambda drawn: drawn


def table(found: dict) -> str:
    columns = {
        "training": "",
        "way": "",
        "median difference": ".1g",
        "largest difference": ".1g",
        "within 0.001": "d",
        "AUROC": ".4f",
        "accuracy": ".4f",
        "CPU s": ".1f",
    }
    titles = {"way": "fitted in", "within 0.001": "seeds within 0.001"}
    return laid_out(found["rows"], columns, titles)


if __name__ == "__main__":
    main()

"""Two gloo processes that fit one detector, against one process.

Digits of 8x8, six of them known, on the CPU: how far the scores are from those of one
process, what the detector knows, and the seconds of the fit. `own losses` lets each
process take the losses of its own half of a batch, as data-parallel training usually
does, in place of those of the joint batch. `one bit` is one process whose X differs in
the last bit: what rounding alone does to a training. With all on one core, two
processes can be no faster than one: the difference is what they tell each other.

    python examples/benchmarks/processes.py
"""

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from sklearn.metrics import roc_auc_score

from records import circumstances, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector, training
from skvmdls._processes import own_share, sum_gradients, summed
from skvmdls.datasets import load_digits

WAYS = ("one process", "one bit", "two processes", "own losses")
SETTINGS: dict[str, dict[str, Any]] = {
    "head alone": {"metric_weight": 0},
    "defaults": {},
}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    options = parsed_or_shown(parser, table)
    found = {
        "rows": [
            row
            for name in SETTINGS
            for row in measured(name, options.seeds, options.epochs)
        ],
        "epochs": options.epochs,
        **circumstances(),
    }
    write(found, options.output)
    print(table(found))


def measured(name: str, n_seeds: int, epochs: int) -> list[dict]:
    """Means over the seeds, and the largest difference."""
    digits = load_digits(random_state=0)
    is_known = np.isin(digits.y_test, digits.known)
    rows: dict[str, list[dict]] = {way: [] for way in WAYS}
    for seed in range(n_seeds):
        settings = SETTINGS[name] | {"random_state": seed, "max_epochs": epochs}
        expected = np.empty(0)
        for way in WAYS:
            seconds, scores, labels = fit_in_processes(way, settings)
            expected = expected if len(expected) else scores
            differences = np.abs(scores - expected)[is_known] / expected[is_known].std()
            rows[way].append(
                {
                    "difference, spreads": float(differences.max()),
                    "AUROC": float(roc_auc_score(is_known, scores)),
                    "accuracy": float((labels == digits.y_test)[is_known].mean()),
                    "s": seconds,
                }
            )
    summary = []
    for way, of_seeds in rows.items():
        means = {k: float(np.mean([row[k] for row in of_seeds])) for k in of_seeds[0]}
        means["difference, spreads"] = max(r["difference, spreads"] for r in of_seeds)
        summary.append({"losses": name, "way": way, "seeds": n_seeds, **means})
    return summary


def fit_in_processes(way: str, settings: dict) -> tuple[float, np.ndarray, np.ndarray]:
    n = 1 if way.startswith("one") else 2
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        started = [
            context.Process(target=fit, args=(rank, n, Path(place), way, settings))
            for rank in range(n)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        with np.load(Path(place) / "found.npz") as found:
            return float(found["seconds"]), found["scores"], found["labels"]


def fit(rank: int, n: int, place: Path, way: str, settings: dict) -> None:
    torch.set_num_threads(1)
    digits = load_digits(random_state=0)
    X = digits.X_train.astype(np.float32)
    if way == "one bit":
        X = np.nextafter(X, np.float32(2))
    if n > 1:
        store = f"file://{place}/store"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=n)
    if way == "own losses":
        take_own_losses()
    detector = VMDLSbDetector(**settings, device="cpu", precision="float32")
    start = time.perf_counter()
    detector.fit(X, digits.y_train)
    seconds = time.perf_counter() - start
    if rank == 0:
        scores = detector.score_samples(digits.X_test)
        labels = detector.predict_known(digits.X_test)
        found = {"seconds": seconds, "scores": scores, "labels": labels}
        np.savez(place / "found.npz", **found)
    if n > 1:
        dist.barrier()


def take_own_losses() -> None:
    """Let each process see the triplets of its half alone, and average gradients."""
    of_batch, finish = training._losses, training._ClassMeans.finish_epoch

    def losses(network: Any, x: Any, y: Any, *others: Any) -> dict:
        return of_batch(network, x, own_share(y), *others)

    def finish_epoch(means: Any) -> None:
        means.sums, means.counts = summed(means.sums), summed(means.counts)
        finish(means)

    def mean_gradients(parameters: Any) -> None:
        parameters = list(parameters)
        sum_gradients(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= dist.get_world_size()

    patched: Any = training
    patched._losses, patched._ClassMeans.finish_epoch = losses, finish_epoch
    patched.sum_gradients = mean_gradients
    patched.joint = lambda part, n_joint: part
    patched.same_for_all = lambda drawn: drawn


def table(found: dict) -> str:
    lines = [
        "| losses | fitted in | differ by, spreads | AUROC | accuracy | seconds |",
        "|---|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['losses']} | {row['way']} | {row['difference, spreads']:.2g} "
        f"| {row['AUROC']:.4f} | {row['accuracy']:.4f} | {row['s']:.1f} |"
        for row in found["rows"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Thresholds from few rows: cross-fitted scores of all next to those of a tenth.

    python examples/benchmarks/cross_calibration.py --output found.json
    python examples/benchmarks/cross_calibration.py --data-home ../shared/data

- digits: 758 rows of scikit-learn's digits, six of them known, as rows and as images.
- tables, router: small tables, and CLINC150's intents with few messages each. Classes
  are left out, and training and test rows drawn again for each resample.

With --runs, each run is stored as soon as it is there, and a later call goes on there.
The output holds means over the runs, and the range that they have.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from records import circumstances, laid_out, rounded, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits
from skvmdls.metrics import auroc
from tables import UNKNOWN, table_tasks
from vectors import ROUTER_SIZES, tasks

TABLES = ("wine", "iris", "zoo", "glass", "vehicle")
METHODS = ("split", "cross")
# The guarantee of a split needs no test here: its rows are held out.
SPLIT_RESAMPLES = 20


class Data(NamedTuple):
    """Rows to train on, new known ones with their labels, and unknown ones."""

    X: np.ndarray
    y: np.ndarray
    X_known: np.ndarray
    y_known: np.ndarray
    X_unknown: np.ndarray


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--repeats", type=int, default=200, help="resamples")
    parser.add_argument("--seeds", type=int, default=12, help="seeds of digits")
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--runs", type=Path, help="single runs, to go on with")
    parser.add_argument("--show", type=Path, help="JSON file to print as tables")
    options = parser.parse_args()
    if options.show:
        stored = json.loads(options.show.read_text())
        print("\n\n".join(table(stored[name]["rows"]) for name in options.only))
        return
    found: dict[str, Any] = {}
    if options.output and options.output.exists():
        found = json.loads(options.output.read_text())
    for group in options.only:
        runs = finished(options.runs)
        # By seed, so that an interrupted call has as many of each.
        for name, seed, method, load in sorted(GROUPS[group](options), key=by_seed):
            if method == "split" and seed >= SPLIT_RESAMPLES:
                continue
            run = f"{group}; {name}; {method}; {seed}"
            if run in runs:
                continue
            runs[run] = measured(load(), method, seed)
            if options.runs:
                with options.runs.open("a") as file:
                    file.write(json.dumps([run, runs[run]]) + "\n")
        rows = summarized(runs, group)
        found[group] = {"rows": rounded(rows), **circumstances()}
        print(table(rows), end="\n\n", flush=True)
        write(found, options.output)


def finished(path: Path | None) -> dict[str, dict[str, float]]:
    """Read the runs of an interrupted call, one a line."""
    if path is None or not path.exists():
        return {}
    return dict(json.loads(line) for line in path.read_text().splitlines())


def measured(data: Data, method: Any, seed: int) -> dict[str, float]:
    """Fit with nothing set but the way of calibrating, and count."""
    detector = VMDLSbDetector(calibration=method, random_state=seed)
    with warnings.catch_warnings():
        # Of small classes, and of too few held-out rows: the table shows both.
        warnings.simplefilter("ignore", UserWarning)
        detector.fit(data.X, data.y)
        known, unknown = (
            detector.score_samples(X) for X in (data.X_known, data.X_unknown)
        )
        threshold = detector.offset_
    is_known = np.arange(len(known) + len(unknown)) < len(known)
    right = detector.predict_known(data.X_known) == data.y_known
    return {
        "rows": len(data.X),
        "scores": len(detector.calibration_scores_),
        "known rejected": float(np.mean(known < threshold)),
        "unknown rejected": float(np.mean(unknown < threshold)),
        "AUROC": auroc(is_known, np.concatenate([known, unknown])),
        "accuracy": float(np.mean(right)),
    }


# ------------------------------------------------------------ the data

Run = tuple[str, int, str, Callable[[], Data]]


def by_seed(run: Run) -> int:
    return run[1]


def digits(options: argparse.Namespace) -> Iterator[Run]:
    for as_rows in (True, False):
        name = "rows" if as_rows else "images"
        for seed in range(options.seeds):
            for method in METHODS:
                yield name, seed, method, partial(digits_of, seed, as_rows=as_rows)


def digits_of(seed: int, *, as_rows: bool) -> Data:
    data = load_digits(known=range(6), random_state=seed)
    X, X_test = data.X_train, data.X_test
    if as_rows:
        X, X_test = X.reshape(len(X), -1), X_test.reshape(len(X_test), -1)
    known = data.y_test < 6
    return Data(X, data.y_train, X_test[known], data.y_test[known], X_test[~known])


def small_tables(options: argparse.Namespace) -> Iterator[Run]:
    given = SimpleNamespace(
        data_home=options.data_home,
        seeds=options.repeats,
        n_train=10_000,
        n_test=10_000,
        settings={},
    )
    for named, load in table_tasks(TABLES, given):
        name, seed = named.split("; seed ")
        for method in METHODS:
            yield name, int(seed), method, partial(table_of, load)


def table_of(load: Callable[[], Any]) -> Data:
    task = load()
    known = task.X_known, task.y_known
    return Data(task.X_train, task.y_train, *known, task.unknown[UNKNOWN])


def router(options: argparse.Namespace) -> Iterator[Run]:
    sizes = {f"{n_known} intents x {n_rows}" for n_known, n_rows in ROUTER_SIZES[:3]}
    found = tasks("osr-vectors", options.data_home, options.repeats, tuning=False)
    seeds = dict.fromkeys(sizes, 0)
    for named, load in found:
        name = named.removeprefix("CLINC150, ")
        if name in sizes:
            for method in METHODS:
                yield name, seeds[name], method, partial(vectors_of, load)
            seeds[name] += 1


def vectors_of(load: Callable[[], Any]) -> Data:
    task = load()
    return Data(task.X_train, task.y_train, task.X_known, task.y_known, task.X_unknown)


GROUPS: dict[str, Callable[[argparse.Namespace], Iterator[Run]]] = {
    "digits": digits,
    "tables": small_tables,
    "router": router,
}


# ------------------------------------------------------------ the tables


def summarized(runs: dict[str, dict[str, float]], group: str) -> list[dict[str, Any]]:
    """Take means and ranges over the runs of each data set and method."""
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for run, values in runs.items():
        of_group, name, method, _ = run.split("; ")
        if of_group == group:
            found.setdefault((name, method), []).append(values)
    rows = []
    for (name, method), values_of_runs in found.items():
        of = {
            column: np.array([values[column] for values in values_of_runs])
            for column in values_of_runs[0]
        }
        known, unknown = of["known rejected"], of["unknown rejected"]
        row = {"data": name, "calibration": method, "fits": len(known)}
        row |= {column: float(np.median(of[column])) for column in ("rows", "scores")}
        row["known rejected"] = float(known.mean())
        row["standard error"] = float(known.std() / len(known) ** 0.5)
        row["lowest"], row["highest"] = float(known.min()), float(known.max())
        row["2 to 8 %"] = float(np.mean((known >= 0.02) & (known <= 0.08)))
        row["unknown rejected"] = float(unknown.mean())
        row["lowest unknown"] = float(unknown.min())
        row["highest unknown"] = float(unknown.max())
        row |= {column: float(of[column].mean()) for column in ("AUROC", "accuracy")}
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    whole = dict.fromkeys(("fits", "rows", "scores"), ".0f")
    words = dict.fromkeys(("data", "calibration"), "")
    return laid_out(rows, {n: (words | whole).get(n, ".3f") for n in rows[0]})


if __name__ == "__main__":
    main()

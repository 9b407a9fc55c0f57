"""Simulate what the calibration guarantees, group by group.

    python examples/benchmarks/guarantees.py --output docs/results/guarantees.json
    python examples/benchmarks/guarantees.py --only confidence --repeats 2000

- confidence: share of thresholds that reject more than `contamination`, marginal and
  by class.
- false discoveries: how often the bound fails for the worst set of a batch, and how
  tight it is.

All are simulations on scores, which is all that the guarantees are about. Each group is
stored as soon as it is there, and the others that the file holds stay.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from open_world_figures import tables
from records import circumstances, rounded, script_parser, write
from skvmdls.calibration import (
    class_thresholds,
    conformal_p_value,
    conformal_rank,
    conformal_threshold,
    false_discovery_bound,
)

Row = dict[str, Any]

# Scores of known points: heavy tails, as log-likelihoods have.
KNOWN = student_t(4)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--repeats", type=int, default=500, help="simulations")
    parser.add_argument("--show", type=Path, help="JSON file to print as tables")
    options = parser.parse_args()
    if options.show:
        stored = json.loads(options.show.read_text())
        print(tables({name: stored[name] for name in options.only if name in stored}))
        return
    found: dict[str, Any] = {}
    if options.output and options.output.exists():
        found = json.loads(options.output.read_text())
    for name in options.only:
        start = time.perf_counter()
        rows = rounded([plain(row) for row in GROUPS[name](options)])
        found[name] = {
            "rows": rows,
            "seconds": round(time.perf_counter() - start, 1),
            **circumstances(),
        }
        print(tables({name: found[name]}), flush=True)
        write(found, options.output)


def plain(row: Row) -> Row:
    """Turn numpy's numbers into Python's."""
    return {
        name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()
    }


def standard_error(share: float, repeats: int) -> float:
    return float(np.sqrt(share * (1 - share) / repeats))


def confidence(options: argparse.Namespace) -> list[Row]:
    """Draw held-out scores, and count the thresholds that reject too much."""
    rng, repeats, rows = np.random.default_rng(0), options.repeats, []
    n_classes = 5
    for contamination in (0.01, 0.05, 0.1):
        for n in (100, 500, 2000):
            labels = np.repeat(np.arange(n_classes), n)
            over: dict[str, list[float]] = {"average": [], "sure": [], "by class": []}
            rejected = []
            for _ in range(repeats):
                scores = KNOWN.rvs(n * n_classes, random_state=rng)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    thresholds = {
                        "average": conformal_threshold(scores[:n], contamination),
                        "sure": conformal_threshold(scores[:n], contamination, 0.9),
                        "by class": class_thresholds(
                            scores, labels, n_classes, contamination, 0.9
                        ),
                    }
                for name, threshold in thresholds.items():
                    over[name].append(np.mean(KNOWN.cdf(threshold) > contamination))
                rejected.append(KNOWN.cdf(thresholds["sure"]))
            sure = float(np.mean(over["sure"]))
            rows.append(
                {
                    "contamination": contamination,
                    "held out": n,
                    "rank": conformal_rank(n, contamination, 0.9),
                    "too much, confidence=0.9": sure,
                    "standard error": standard_error(sure, repeats),
                    "by class, the same": float(np.mean(over["by class"])),
                    "without confidence": float(np.mean(over["average"])),
                    "mean rejection, confidence=0.9": float(np.mean(rejected)),
                }
            )
    return rows


def false_discoveries(options: argparse.Namespace) -> list[Row]:
    """Pick the worst set of each batch, and two that a user would pick."""
    rng, repeats, rows = np.random.default_rng(0), options.repeats, []
    for n_held_out, m in ((200, 200), (1000, 1000)):
        for share in (0.0, 0.01, 0.1, 0.5):
            failed, found = 0, []
            for _ in range(repeats):
                is_unknown = np.arange(m) < round(share * m)
                scores = KNOWN.rvs(m, random_state=rng)
                scores[is_unknown] -= rng.normal(8, 3, is_unknown.sum())
                p_values = conformal_p_value(
                    KNOWN.rvs(n_held_out, random_state=rng), scores
                )
                failed += fails(p_values, is_unknown, n_held_out)
                # A threshold picked after looking: the largest gap among the lowest.
                order = np.argsort(scores)
                at = np.diff(scores[order[: m // 2 + 20]]).argmax()
                chosen = np.isin(np.arange(m), order[: at + 1])
                for marked in (p_values <= 0.05, chosen):
                    found.append(
                        (
                            marked.sum(),
                            (marked & ~is_unknown).sum(),
                            false_discovery_bound(p_values, marked, n_held_out),
                        )
                    )
            fixed, gap = np.mean(found[::2], axis=0), np.mean(found[1::2], axis=0)
            failing = failed / repeats
            rows.append(
                {
                    "held out": n_held_out,
                    "batch": m,
                    "unknown": share,
                    "bound fails": failing,
                    "standard error": standard_error(failing, repeats),
                    "marked, p <= 0.05": fixed[0],
                    "known among them": fixed[1],
                    "bound": fixed[2],
                    "marked, largest gap": gap[0],
                    "known among these": gap[1],
                    "their bound": gap[2],
                }
            )
    return rows


def fails(p_values: np.ndarray, is_unknown: np.ndarray, n_held_out: int) -> bool:
    """Whether some set holds more known points than its bound.

    The worst sets hold the known points below a threshold, and nothing else.
    """
    for threshold in np.unique(p_values[p_values <= 0.3]):
        marked = ~is_unknown & (p_values <= threshold)
        if marked.sum() > false_discovery_bound(p_values, marked, n_held_out):
            return True
    return False


GROUPS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "confidence": confidence,
    "false discoveries": false_discoveries,
}


if __name__ == "__main__":
    main()

"""Measure what a fitted detector promises and does after `predict`, group by group.

    python examples/benchmarks/open_world_figures.py --only guarantee selection stream
    python examples/benchmarks/open_world_figures.py --data-home ../shared/data

- guarantee: rejection of each class with guarantee="class", over resampled splits.
- selection: known points among those that select_unknown selects, over batches.
- stream: false alarms of ShiftMonitor over streams without a change.
- columns: how often a disturbed column of a table ranks first in explain.
- classes, alarm, map: need MNIST and Omniglot. New digits by add_classes beside a
  refit and a nearest class mean; points until the alarm; painted squares in the map.

The first three are simulations on scores, which is all that the promises are about.
Each group is stored as soon as it is there; the others that the file holds stay.
"""

import argparse
import json
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from records import circumstances, script_parser, write
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.calibration.conformal import (
    class_p_values,
    conformal_p_value,
    conformal_threshold,
    discoveries,
)
from skvmdls.datasets import load_mnist, load_omniglot
from skvmdls.metrics import auroc
from skvmdls.monitoring import ShiftMonitor

Row = dict[str, Any]
KNOWN, NEW = np.arange(6), np.arange(6, 10)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=None, help="of simulations")
    parser.add_argument("--n-train", type=int, default=6000, help="MNIST images")
    parser.add_argument("--epochs", type=int, default=20)
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
        rows = GROUPS[name](options)
        found[name] = {
            "rows": rows,
            "seconds": time.perf_counter() - start,
            **circumstances(),
        }
        print(tables({name: found[name]}), flush=True)
        write(found, options.output)


# ------------------------------------------------------------ simulations on scores


def guarantee(options: argparse.Namespace) -> list[Row]:
    """Reject by class over splits: a tenth of each class is held out."""
    repeats = options.repeats or 200
    rng = np.random.default_rng(0)
    # Classes of other spread and place: one threshold for all would be unfair.
    sizes, places, spreads = (30, 300, 3000), (-3.0, 1.0, 0.0), (2.0, 0.5, 1.0)
    rows = []
    for contamination in (0.01, 0.05, 0.1):
        own, common = np.empty((repeats, 3)), np.empty((repeats, 3))
        for i in range(repeats):
            held_out = [
                place + spread * rng.standard_t(4, size // 10)
                for size, place, spread in zip(sizes, places, spreads, strict=True)
            ]
            new = np.column_stack(
                [
                    place + spread * rng.standard_t(4, 2000)
                    for place, spread in zip(places, spreads, strict=True)
                ]
            )
            labels = np.repeat(np.arange(3), [len(scores) for scores in held_out])
            scores = np.concatenate(held_out)
            own[i] = np.mean(class_p_values(scores, labels, new) <= contamination, 0)
            common[i] = np.mean(new < conformal_threshold(scores, contamination), 0)
        for c, size in enumerate(sizes):
            n = size // 10
            rows.append(
                {
                    "contamination": contamination,
                    "rows of the class": size,
                    "held out": n,
                    "bound": int(contamination * (n + 1) + 1e-9) / (n + 1),
                    "rejected, by class": own[:, c].mean(),
                    "standard error": own[:, c].std() / repeats**0.5,
                    "rejected, marginal": common[:, c].mean(),
                }
            )
    return rows


def selection(options: argparse.Namespace) -> list[Row]:
    """Select from batches of 500 at fdr 0.1, and reject by the fixed threshold."""
    repeats, n, fdr = options.repeats or 200, 500, 0.1
    rng = np.random.default_rng(0)
    rows = []
    for share in (0.01, 0.05, 0.2):
        figures: dict[str, list[tuple[float, float]]] = {"BH": [], "fixed": []}
        for _ in range(repeats):
            calibration = rng.standard_t(4, 1000)
            is_unknown = np.arange(n) < share * n
            scores = np.where(
                is_unknown, rng.normal(-12, 4, size=n), rng.standard_t(4, n)
            )
            p_values = conformal_p_value(calibration, scores)
            for name, called in (
                ("BH", discoveries(p_values, fdr)),
                ("fixed", p_values <= 0.05),
            ):
                false = np.sum(called & ~is_unknown) / max(1, called.sum())
                figures[name].append((false, called[is_unknown].mean()))
        means = {name: np.mean(values, axis=0) for name, values in figures.items()}
        false = [value for value, _ in figures["BH"]]
        rows.append(
            {
                "unknown": share,
                "fdr": fdr,
                "known among selected": means["BH"][0],
                "standard error": np.std(false) / repeats**0.5,
                "unknown selected": means["BH"][1],
                "known among rejected at 0.05": means["fixed"][0],
                "unknown rejected at 0.05": means["fixed"][1],
            }
        )
    return rows


class Scores:
    """Stands for a detector: X are the scores."""

    def __init__(self, calibration_scores: np.ndarray) -> None:
        self.calibration_scores_ = calibration_scores

    def score_samples(self, X: np.ndarray) -> np.ndarray:
        """Give X back."""
        return X


def stream(options: argparse.Namespace) -> list[Row]:
    """Count alarms over streams of 1,000 points without a change."""
    repeats, rng = options.repeats or 1000, np.random.default_rng(0)
    highest = np.array(
        [
            ShiftMonitor(Scores(rng.standard_t(4, n_held_out)), random_state=i)
            .update(rng.standard_t(4, 1000))
            .course_.max()
            for i in range(repeats)
            for n_held_out in [(20, 100, 1000)[i % 3]]
        ]
    )
    return [
        {
            "stated": stated,
            "streams": repeats,
            "false alarms": np.mean(highest >= -np.log(stated)),
        }
        for stated in (0.01, 0.05, 0.1)
    ]


# ------------------------------------------------------------ tables


def columns(options: argparse.Namespace) -> list[Row]:
    """Disturb one column of each row by ten standard deviations."""
    rows = []
    loaders = {
        "iris": load_iris,
        "wine": load_wine,
        "breast cancer": load_breast_cancer,
        "digits as rows": load_digits,
    }
    for name, load in loaders.items():
        X, y = load(return_X_y=True)
        X_train, X_new, y_train, _ = train_test_split(
            X, y, test_size=0.3, stratify=y, random_state=0
        )
        # Of three, half of them are of use for the threshold: these tables are small.
        detector = VMDLSbDetector(calibration_fraction=0.3, random_state=0)
        detector.fit(X_train, y_train)
        scale, rng = X_train.std(axis=0), np.random.default_rng(0)
        varying = np.flatnonzero(
            scale > 0.05 * scale.max() if len(scale) > 40 else scale
        )
        first, unknown = [], []
        for _ in range(10):
            column = rng.choice(varying, size=len(X_new))
            disturbed, at = X_new.copy(), np.arange(len(X_new))
            sign = rng.choice([-1, 1], size=len(X_new))
            disturbed[at, column] += 10 * sign * scale[column]
            is_unknown = detector.predict(disturbed) == -1
            worst = detector.explain(disturbed).contributions.argmin(axis=1)
            first.extend((worst == column)[is_unknown])
            unknown.extend(is_unknown)
        rows.append(
            {
                "table": name,
                "rows": len(unknown),
                "made unknown": np.mean(unknown),
                "column ranks first": np.mean(first),
            }
        )
    return rows


# ------------------------------------------------------------ MNIST


def six_digits(options: argparse.Namespace) -> tuple[VMDLSDetector, Any, np.ndarray]:
    """Fit on six digits; give MNIST too, and the rows that were fitted."""
    mnist = load_mnist(options.data_home)
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.flatnonzero(np.isin(mnist.y_train, KNOWN)))
    rows = rows[: options.n_train]
    return detector_for(VMDLSDetector, options, mnist, rows), mnist, rows


def detector_for(
    kind: type,
    options: argparse.Namespace,
    mnist: Any,
    rows: np.ndarray,
    **settings: Any,
) -> Any:
    detector = kind(max_epochs=options.epochs, random_state=0, **settings)
    return detector.fit(mnist.X_train[rows], mnist.y_train[rows])


def classes(options: argparse.Namespace) -> list[Row]:
    """Add four digits; beside a refit, and a nearest class mean on a softmax net."""
    detector, mnist, rows = six_digits(options)
    softmax = detector_for(
        VMDLSbDetector, options, mnist, rows, metric_weight=0, features=("g",)
    )
    X, y = mnist.X_test[:3000], mnist.y_test[:3000]
    omniglot, rng = load_omniglot(options.data_home)[:1000], np.random.default_rng(1)
    found = [{"images of each": 0, "method": "before", **judged(detector, X, y)}]
    for n in (20, 100, 500):
        new = np.concatenate(
            [
                rng.choice(np.flatnonzero(mnist.y_train == digit), n, replace=False)
                for digit in NEW
            ]
        )
        added, start = deepcopy(detector), time.perf_counter()
        added.add_classes(mnist.X_train[new], mnist.y_train[new])
        seconds = [time.perf_counter() - start]
        both, start = np.concatenate([rows, new]), time.perf_counter()
        refitted = detector_for(VMDLSDetector, options, mnist, both)
        seconds.append(time.perf_counter() - start)
        centroids = make_pipeline(
            FunctionTransformer(softmax.transform), NearestCentroid()
        )
        centroids.fit(mnist.X_train[both], mnist.y_train[both])
        for name, fitted in (("add_classes", added), ("refit", refitted)):
            found.append(
                {
                    "images of each": n,
                    "method": name,
                    **judged(fitted, X, y),
                    "AUROC Omniglot": auroc_against(fitted, X, omniglot),
                    "seconds": seconds.pop(0),
                }
            )
        method = {"images of each": n, "method": "nearest class mean"}
        found.append(method | shares(centroids.predict(X) == y, y))
    return found


def shares(right: np.ndarray, y: np.ndarray) -> Row:
    """Share of all points, of the six digits, and of the four others."""
    return {
        "accuracy": right.mean(),
        "old": right[y < 6].mean(),
        "new": right[y >= 6].mean(),
    }


def judged(fitted: Any, X: np.ndarray, y: np.ndarray) -> Row:
    accepted = fitted.predict(X) != -1
    return {
        **shares(fitted.predict_known(X) == y, y),
        "accepted, old": accepted[y < 6].mean(),
        "accepted, new": accepted[y >= 6].mean(),
    }


def auroc_against(fitted: Any, X: np.ndarray, unknown: np.ndarray) -> float:
    is_known = np.arange(len(X) + len(unknown)) < len(X)
    return auroc(is_known, fitted.score_samples(np.concatenate([X, unknown])))


def alarm(options: argparse.Namespace) -> list[Row]:
    """Count points until the alarm after Omniglot has come in, over 50 streams."""
    detector, mnist, _ = six_digits(options)
    known = detector.score_samples(mnist.X_test[np.isin(mnist.y_test, KNOWN)])
    strange = detector.score_samples(load_omniglot(options.data_home))
    rng, rows = np.random.default_rng(0), []
    for share in (0.05, 0.1, 0.5):
        delays, early = [], 0
        for i in range(options.repeats or 50):
            quiet, later = np.split(rng.permutation(known)[:4000], [1000])
            is_strange = rng.random(len(later)) < share
            later = np.where(is_strange, rng.choice(strange, len(later)), later)
            monitor = ShiftMonitor(Scores(detector.calibration_scores_), random_state=i)
            monitor.update(quiet)
            early += monitor.alarm_
            at = monitor.update(later).alarm_at_ or np.inf
            delays.append(at - len(quiet))
        quantiles = np.quantile(delays, [0.1, 0.5, 0.9], method="higher").tolist()
        rows.append(
            {
                "Omniglot": share,
                "streams": len(delays),
                "points, 10 %": quantiles[0],
                "points, median": quantiles[1],
                "points, 90 %": quantiles[2],
                "alarms before": early,
            }
        )
    return rows


def painted(options: argparse.Namespace) -> list[Row]:
    """Paint a square into known digits, and look where the map is largest."""
    detector, mnist, _ = six_digits(options)
    X = mnist.X_test[np.isin(mnist.y_test, KNOWN)][:1000]
    rows = []
    for size in (4, 6, 8):
        rng, images = np.random.default_rng(0), X.copy()
        corners = rng.integers(0, 29 - size, size=(len(X), 2))
        for image, (top, left) in zip(images, corners, strict=True):
            square = image[top : top + size, left : left + size]
            square[:] = 255 if square.mean() < 128 else 0
        is_unknown = detector.predict(images) == -1
        maps = detector.explain(images).residual_map
        places = np.unravel_index(maps.reshape(len(X), -1).argmax(axis=1), (28, 28))
        inside = np.all((np.column_stack(places) - corners) // size == 0, axis=1)
        rows.append(
            {
                "square": f"{size} x {size}",
                "made unknown": is_unknown.mean(),
                "largest value inside": inside.mean(),
                "of those made unknown": inside[is_unknown].mean(),
            }
        )
    return rows


GROUPS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "guarantee": guarantee,
    "selection": selection,
    "stream": stream,
    "columns": columns,
    "classes": classes,
    "alarm": alarm,
    "map": painted,
}


def tables(found: dict[str, Any]) -> str:
    """Set out each group's rows in Markdown."""
    return "\n\n".join(table(group["rows"]) for group in found.values())


def table(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    for row in rows:
        lines.append("| " + " | ".join(cell(row.get(name)) for name in names) + " |")
    return "\n".join(lines)


def cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float) or value.is_integer():
        return str(value) if not isinstance(value, float) else f"{value:g}"
    return f"{value:.1f}" if value > 1 else f"{value:.4f}".rstrip("0")


if __name__ == "__main__":
    main()

"""Simulate what the calibration guarantees, group by group.

    python examples/benchmarks/guarantees.py --output docs/results/guarantees.json
    python examples/benchmarks/guarantees.py --data-home ../shared/data --only camera

- confidence: share of thresholds that reject more than `contamination`, marginal and
  by class.
- false discoveries: how often the bound fails for the worst set of a batch, and how
  tight it is.
- order: false warnings of `exchangeability_p_value` on shuffled rows, and drifts found.
- camera, probabilities: need --data-home. Thresholds from known digits of a new camera;
  class probabilities compared with scikit-learn's CalibratedClassifierCV.

The first three are simulations on scores, which is all that the guarantees are about.
Each group is stored as soon as it is there, and the others that the file holds stay.
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
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import normalize

from records import circumstances, rounded, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.calibration import (
    ClassProbabilities,
    conformal_p_value,
    conformal_rank,
    conformal_threshold,
    exchangeability_p_value,
    false_discovery_bound,
)
from skvmdls.calibration.conformal import class_thresholds
from skvmdls.calibration.exchangeability import FALSE_ALARM
from skvmdls.datasets import load_mnist, load_omniglot
from skvmdls.metrics import auroc

Row = dict[str, Any]

# Scores of known points: heavy tails, as log-likelihoods have.
KNOWN = student_t(4)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--repeats", type=int, default=500, help="simulations")
    parser.add_argument("--data-home", type=Path, default=None)
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
                for marked in (p_values <= 0.05, picked(p_values, n_held_out)):
                    found.append(
                        (
                            marked.sum(),
                            (marked & ~is_unknown).sum(),
                            false_discovery_bound(p_values, marked, n_held_out),
                        )
                    )
            fixed, own = np.mean(found[::2], axis=0), np.mean(found[1::2], axis=0)
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
                    "picked": own[0],
                    "known among the picked": own[1],
                    "bound of the picked": own[2],
                }
            )
    return rows


def picked(p_values: np.ndarray, n_held_out: int) -> np.ndarray:
    """Mark as many points as can be with four of five unknown, after trying all."""
    best = np.zeros(len(p_values), dtype=bool)
    for threshold in np.quantile(p_values, np.linspace(0, 0.7, 50)):
        marked = p_values <= threshold
        bound = false_discovery_bound(p_values, marked, n_held_out)
        if bound <= 0.2 * marked.sum():
            best = marked
    return best


def fails(p_values: np.ndarray, is_unknown: np.ndarray, n_held_out: int) -> bool:
    """Whether some set holds more known points than its bound.

    The worst sets hold the known points below a threshold, and nothing else.
    """
    for threshold in np.unique(p_values[p_values <= 0.3]):
        marked = ~is_unknown & (p_values <= threshold)
        if marked.sum() > false_discovery_bound(p_values, marked, n_held_out):
            return True
    return False


def order(options: argparse.Namespace) -> list[Row]:
    """Count warnings on 1,000 shuffled files, and on drifting ones."""
    rng = np.random.default_rng(0)
    drifts: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "shuffled": np.zeros_like,
        "one spread, evenly": lambda time: time,
        "two spreads, evenly": lambda time: 2 * time,
        "two spreads lower from 70 % on": lambda time: -2.0 * (time > 0.7),
        "one spread lower at both ends": lambda time: -4 * (time - 0.5) ** 2,
    }
    rows = []
    for name, drift in drifts.items():
        repeats = 1000 if name == "shuffled" else 200
        row: Row = {"order": name, "files": repeats}
        for n in (60, 200, 1000):
            time_of_row = np.arange(n) / n
            warned = [
                exchangeability_p_value(
                    rng.normal(size=n) + drift(time_of_row), rng.integers(5, size=n)
                )
                <= FALSE_ALARM
                for _ in range(repeats)
            ]
            row[f"warned, {n} held out"] = np.mean(warned)
        rows.append(row)
    return rows


# ------------------------------------------------------------ with data


def camera(options: argparse.Namespace) -> list[Row]:
    """Recalibrate a detector of digits: less contrast, noise and a shift."""
    mnist = load_mnist(options.data_home)
    rng = np.random.default_rng(0)
    train = rng.choice(len(mnist.X_train), 6000, replace=False)
    detector = VMDLSbDetector(max_epochs=12, random_state=0)
    detector.fit(mnist.X_train[train], mnist.y_train[train])
    unknown = load_omniglot(options.data_home)
    known_scores, unknown_scores = (
        {
            "old": detector.score_samples(images),
            "new": detector.score_samples(through_new_camera(images, rng)),
        }
        for images in (mnist.X_test, unknown)
    )
    is_known = np.arange(len(mnist.X_test) + len(unknown)) < len(mnist.X_test)
    aurocs = {
        name: auroc(is_known, np.concatenate([of_known, unknown_scores[name]]))
        for name, of_known in known_scores.items()
    }
    old_threshold = conformal_threshold(detector.calibration_scores_, 0.05)
    rows: list[Row] = [
        {
            "camera": name,
            "threshold from": "old camera",
            "known accepted": np.mean(of_known >= old_threshold),
            "Omniglot rejected": np.mean(unknown_scores[name] < old_threshold),
            "AUROC, Omniglot": aurocs[name],
        }
        for name, of_known in known_scores.items()
    ]
    repeats = min(options.repeats, 200)
    for n in (100, 500):
        accepted, rejected = [], []
        for _ in range(repeats):
            shuffled = rng.permutation(known_scores["new"])
            threshold = conformal_threshold(shuffled[:n], 0.05)
            accepted.append(np.mean(shuffled[n:] >= threshold))
            rejected.append(np.mean(unknown_scores["new"] < threshold))
        rows.append(
            {
                "camera": "new",
                "threshold from": f"{n} points of the new",
                "known accepted": np.mean(accepted),
                "standard error": np.std(accepted) / repeats**0.5,
                "guaranteed": 1 - conformal_rank(n, 0.05) / (n + 1),
                "Omniglot rejected": np.mean(rejected),
                "AUROC, Omniglot": aurocs["new"],
            }
        )
    return rows


def through_new_camera(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Take a third of the contrast away, shift by a pixel, and add noise."""
    seen = np.roll(images / 255, (1, -1), axis=(1, 2)) * (2 / 3)
    seen = seen + 0.02 * rng.normal(size=images.shape)
    return (255 * seen.clip(0, 1)).astype(np.uint8)


def probabilities(options: argparse.Namespace) -> list[Row]:
    """Calibrate one softmax net on the same held-out points in each way."""
    rows = []
    for name, load in VECTORS.items():
        found: dict[str, list[tuple[float, float]]] = {}
        accuracy = []
        for seed in range(3):
            X, y, X_test, y_test = load(options.data_home, seed)
            X_fit, X_held, y_fit, y_held = train_test_split(
                X, y, test_size=0.1, stratify=y, random_state=seed
            )
            net = MLPClassifier((256,), learning_rate_init=2e-3, random_state=seed)
            net.set_params(max_iter=30).fit(X_fit, y_fit)
            logs = [
                np.log(np.maximum(net.predict_proba(part), 1e-30))
                for part in (X_held, X_test)
            ]
            ours = ClassProbabilities.fit(logs[0], y_held)
            by_method = {"net": np.exp(logs[1]), "ours": ours.predict(logs[1])}
            for method in ("sigmoid", "isotonic", "temperature"):
                other = CalibratedClassifierCV(FrozenEstimator(net), method=method)
                by_method[method] = other.fit(X_held, y_held).predict_proba(X_test)
            accuracy.append(np.mean(logs[1].argmax(axis=1) == y_test))
            for method, predicted in by_method.items():
                errors = (
                    calibration_error(predicted, y_test),
                    log_loss(y_test, predicted, labels=np.arange(predicted.shape[1])),
                )
                found.setdefault(method, []).append(errors)
        for method, of_seeds in found.items():
            mean_error, mean_loss = np.mean(of_seeds, axis=0)
            rows.append(
                {
                    "data": name,
                    "held out": len(y_held),
                    "accuracy": np.mean(accuracy),
                    "calibrated by": method,
                    "calibration error": mean_error,
                    "log-loss": mean_loss,
                }
            )
    return rows


def calibration_error(predicted: np.ndarray, y: np.ndarray, n_bins: int = 15) -> float:
    """Compare the most likely class's probability with accuracy, over equal bins."""
    sure = predicted.max(axis=1)
    gap = (predicted.argmax(axis=1) == y) - sure
    bins = np.minimum((sure * n_bins).astype(int), n_bins - 1)
    return float(np.abs(np.bincount(bins, weights=gap)).sum() / len(y))


Vectors = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def clinc(data_home: Path, seed: int) -> Vectors:
    return stored(data_home / "clinc150_minilm.npz", "train", "test")


def cifar_features(data_home: Path, seed: int) -> Vectors:
    return stored(data_home / "cifar_effnet.npz", "c10_train", "c10_test")


def stored(path: Path, train: str, test: str) -> Vectors:
    with np.load(path) as file:
        X, X_test = (normalize(file[part].astype(np.float32)) for part in (train, test))
        classes, y = np.unique(file[f"{train}_y"], return_inverse=True)
        return X, y, X_test, np.searchsorted(classes, file[f"{test}_y"])


def digits(data_home: Path, seed: int) -> Vectors:
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(
        X / 16, y, test_size=0.4, stratify=y, random_state=seed
    )
    return X, y, X_test, y_test


VECTORS = {"CLINC150": clinc, "CIFAR-10 features": cifar_features, "digits": digits}

GROUPS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "confidence": confidence,
    "false discoveries": false_discoveries,
    "order": order,
    "camera": camera,
    "probabilities": probabilities,
}


def tables(found: dict[str, Any]) -> str:
    """Set out each group's rows in Markdown."""
    return "\n\n".join(table(group["rows"]) for group in found.values())


def table(rows: list[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---:|" * len(names)]
    for row in rows:
        cells = [cell(row.get(name, "")) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:.3g}"
        if value < 100
        else f"{value:.0f}"
    )


if __name__ == "__main__":
    main()

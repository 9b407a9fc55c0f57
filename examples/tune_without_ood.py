"""
Choose settings without unknown data
====================================

A grid search leaves out known classes and scores each setting by how well the detector
separates them from the others (AUROC). The chosen setting and a baseline are then
fitted on all classes and compared on digits that are really unknown.

You can run this page as a script. It takes half a minute on one processor core::

    python examples/tune_without_ood.py

It uses scikit-learn's 8x8 digits, of which 0 to 6 are known. With ``--data-home`` it
uses MNIST, with Omniglot as unknown::

    python examples/tune_without_ood.py --data-home ../shared/data --output tuned.json
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.utils import Bunch

from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits, load_mnist, load_omniglot
from skvmdls.model_selection import LeaveClassesOut, get_scorer

BASELINE = {"augmentation": None, "learning_rate": 1e-3}
GRID = [
    {"augmentation": [None], "learning_rate": [1e-3, 3e-3]},
    {"augmentation": ["affine"], "learning_rate": [1e-3]},
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--n-train", type=int, default=5000, help="MNIST images")
    parser.add_argument("--epochs", type=int, default=20, help="of each training")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="of the final fits")
    parser.add_argument("--n-jobs", type=int, default=None)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    options = parser.parse_args()
    data = mnist(options) if options.data_home else digits()

    started = time.perf_counter()
    search = GridSearchCV(
        detector(max_epochs=options.epochs),
        GRID,
        scoring=get_scorer("auroc"),
        cv=LeaveClassesOut(options.splits, random_state=0),
        refit=False,
        n_jobs=options.n_jobs,
        error_score="raise",
    ).fit(data.X_train, data.y_train)
    results = {
        "data": data.name,
        "training points": len(data.X_train),
        "epochs": options.epochs,
        "search": [
            {
                "setting": setting,
                "AUROC, left-out classes": [
                    float(search.cv_results_[f"split{i}_test_score"][row])
                    for i in range(options.splits)
                ],
            }
            for row, setting in enumerate(search.cv_results_["params"])
        ],
        "search seconds": time.perf_counter() - started,
        "chosen": search.best_params_,
    }
    # The choice is made. The rest is a report.
    results["truly unknown"] = []
    for name, setting in {"baseline": BASELINE, "chosen": search.best_params_}.items():
        scores = [
            final_auroc(setting, seed, data, options.epochs)
            for seed in range(options.seeds)
        ]
        results["truly unknown"].append(
            {"setting": name, "parameters": setting, "AUROC": scores}
        )
    print("\n" + table(results))
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n")


def final_auroc(setting: dict, seed: int, data: Bunch, epochs: int) -> float:
    final = detector(max_epochs=epochs, random_state=seed, **setting)
    final.fit(data.X_train, data.y_train)
    return get_scorer("auroc")(final, data.X_test, data.y_test)


def detector(random_state: int = 0, **settings: Any) -> VMDLSbDetector:
    """Make a detector that is trained once: no AUROC depends on the threshold."""
    fixed = {"optimizer": "adamw", "calibration": "split"}
    return VMDLSbDetector(random_state=random_state, **fixed, **settings)


def mnist(options: argparse.Namespace) -> Bunch:
    images, omniglot = (load(options.data_home) for load in (load_mnist, load_omniglot))
    rows = np.random.RandomState(0).permutation(len(images.X_train))[: options.n_train]
    return Bunch(
        name="MNIST; unknown: Omniglot",
        X_train=images.X_train[rows],
        y_train=images.y_train[rows],
        X_test=np.concatenate([images.X_test, omniglot]),
        y_test=np.concatenate([images.y_test, np.full(len(omniglot), -1)]),
    )


def digits() -> Bunch:
    known = tuple(range(7))
    return Bunch(name="digits 0-6; unknown: 7-9", **load_digits(known, random_state=0))


def table(results: dict) -> str:
    """Set out the search and the final AUROCs, in Markdown."""
    lines = ["| setting | AUROC, left-out classes | each split |", "|---|---:|---|"]
    for row in results["search"]:
        scores = row["AUROC, left-out classes"]
        each = " ".join(f"{score:.4f}" for score in scores)
        lines.append(f"| {row['setting']} | {np.mean(scores):.4f} | {each} |")
    lines += ["", "| setting | AUROC, truly unknown |", "|---|---:|"]
    for row in results["truly unknown"]:
        scores = ", ".join(f"{score:.4f}" for score in row["AUROC"])
        lines.append(f"| {row['setting']}: {row['parameters']} | {scores} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

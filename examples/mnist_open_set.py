"""
MNIST against Omniglot
======================

Train both detectors on a part of MNIST, for several seeds. The table compares its test
images with three sets of unknown images: Omniglot characters, noisy digits and noise.
No setting was chosen with the unknown images::

    python examples/mnist_open_set.py --n-train 10000 --data-home ../shared/data

``--data-home`` (or ``SKVMDLS_DATA_HOME``) is the folder with MNIST and Omniglot. If
they are not there, torchvision downloads them.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.datasets import load_mnist, load_omniglot, mnist_noise, uniform_noise
from skvmdls.metrics import auroc, closed_set_accuracy, open_set_f1, tnr_at_tpr

DETECTORS = {"VMDLS": VMDLSDetector, "VMDLS_b": VMDLSbDetector}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n-train", type=int, default=10_000, help="training images")
    parser.add_argument("--n-test", type=int, default=10_000, help="test images a set")
    parser.add_argument("--epochs", type=int, default=None, help="default: detector's")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0")
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    parser.add_argument(
        "--show",
        type=Path,
        default=None,
        help="print the table of a JSON file, and end",
    )
    options = parser.parse_args()
    if options.show is not None:
        print(markdown_table(json.loads(options.show.read_text())))
        return

    mnist = load_mnist(options.data_home)
    X_known, y_known = mnist.X_test[: options.n_test], mnist.y_test[: options.n_test]
    unknown_sets = {
        "Omniglot": load_omniglot(options.data_home)[: options.n_test],
        "MNIST-noise": mnist_noise(X_known, random_state=0),
        "NOISE": uniform_noise(X_known.shape, random_state=0),
    }
    settings = {} if options.epochs is None else {"max_epochs": options.epochs}
    runs = []
    for seed in range(options.seeds):
        rows = np.random.RandomState(seed).permutation(len(mnist.X_train))
        rows = rows[: options.n_train]
        for name, detector in DETECTORS.items():
            started = time.perf_counter()
            fitted = detector(**settings, random_state=seed).fit(
                mnist.X_train[rows], mnist.y_train[rows]
            )
            seconds = time.perf_counter() - started
            measured = evaluated(fitted, X_known, y_known, unknown_sets)
            runs.append(
                {"detector": name, "seed": seed, "fit seconds": seconds, **measured}
            )
            if options.output is not None:
                options.output.write_text(json.dumps(runs, indent=1) + "\n")
    print("\n" + markdown_table(runs))


def evaluated(
    detector: VMDLSbDetector,
    X_known: np.ndarray,
    y_known: np.ndarray,
    unknown_sets: dict[str, np.ndarray],
) -> dict[str, float]:
    scores, labels = detector.score_samples(X_known), detector.predict(X_known)
    measured = {
        "closed-set accuracy": closed_set_accuracy(
            y_known, detector.predict_known(X_known), detector.classes_
        ),
        "acceptance of known": float(np.mean(labels != -1)),
    }
    for name, X_unknown in unknown_sets.items():
        is_known = np.repeat([True, False], [len(X_known), len(X_unknown)])
        all_scores = np.concatenate([scores, detector.score_samples(X_unknown)])
        all_labels = np.concatenate([labels, detector.predict(X_unknown)])
        truth = np.concatenate([y_known, np.full(len(X_unknown), -1)])
        measured[f"{name} AUROC"] = auroc(is_known, all_scores)
        measured[f"{name} TNR@TPR95"] = tnr_at_tpr(is_known, all_scores)
        measured[f"{name} macro F1"] = open_set_f1(truth, all_labels, detector.classes_)
    return measured


def markdown_table(runs: list[dict]) -> str:
    """Set out the runs in columns."""
    runs = sorted(
        runs, key=lambda run: (list(DETECTORS).index(run["detector"]), run["seed"])
    )
    titles = [f"{run['detector']}, seed {run['seed']}" for run in runs]
    lines = ["| | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(runs)]
    for name in [key for key in runs[0] if key not in ("detector", "seed")]:
        digits = 0 if name == "fit seconds" else 4
        cells = " | ".join(f"{run[name]:.{digits}f}" for run in runs)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Check the promise about known points: how many are rejected, over many splits.

One net is trained once. Known points that it never saw are then split again and again
at random into calibration points, which set the threshold, and test points, of which
the rejected ones are counted. On average at most a share `contamination` may be.

    python examples/benchmarks/threshold_coverage.py --data-home ../shared/data

Without --data-home it runs on scikit-learn's 8x8 digits.
"""

import math
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from records import laid_out, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.calibration import conformal_threshold
from skvmdls.datasets import load_digits, load_mnist


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--n-train", type=int, default=3000, help="MNIST images")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument(
        "--n-calibration", type=int, default=None, help="default: 1000, digits: 300"
    )
    options = parser.parse_args()
    if options.data_home is None:
        name, n_calibration = "digits", 300
        digits = load_digits(tuple(range(10)), test_size=0.5, random_state=0)
        X_train, y_train, X_new = digits.X_train, digits.y_train, digits.X_test
    else:
        name, n_calibration = "MNIST", 1000
        mnist = load_mnist(options.data_home)
        X_train, _, y_train, _ = train_test_split(
            mnist.X_train,
            mnist.y_train,
            train_size=options.n_train,
            stratify=mnist.y_train,
            random_state=0,
        )
        X_new = mnist.X_test
    n_calibration = options.n_calibration or n_calibration

    detector = VMDLSbDetector(max_epochs=options.epochs, verbose=1, random_state=0)
    scores = detector.fit(X_train, y_train).score_samples(X_new)
    rows = [
        coverage(scores, contamination, n_calibration, options.splits)
        for contamination in (0.01, 0.05, 0.1, 0.2)
    ]
    results = {
        "data": name,
        "training points": len(X_train),
        "epochs": options.epochs,
        "calibration points": n_calibration,
        "test points": len(scores) - n_calibration,
        "coverage": rows,
    }
    print("\n" + table(rows))
    write(results, options.output)


def coverage(
    scores: np.ndarray, contamination: float, n_calibration: int, n_splits: int
) -> dict[str, float]:
    rng = np.random.default_rng(0)
    rates = np.empty(n_splits)
    for i in range(n_splits):
        shuffled = rng.permutation(scores)
        threshold = conformal_threshold(shuffled[:n_calibration], contamination)
        rates[i] = np.mean(shuffled[n_calibration:] < threshold)
    rank = math.floor(contamination * (n_calibration + 1) + 1e-9)
    return {
        "contamination": contamination,
        "splits": n_splits,
        "mean rejection": float(rates.mean()),
        "standard error": float(rates.std() / math.sqrt(n_splits)),
        "bound": rank / (n_calibration + 1),
        "worst deviation": float(np.abs(rates - contamination).max()),
        "largest rejection": float(rates.max()),
    }


def table(rows: list[dict[str, float]]) -> str:
    """Set out the rows in Markdown."""
    names = list(rows[0])
    columns = {name: "g" if name in names[:2] else ".4f" for name in names}
    return laid_out(rows, columns)


if __name__ == "__main__":
    main()

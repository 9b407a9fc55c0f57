"""Search over many thresholds at the price of one training for each fold.

Times three single fits, one for each fold, and then a grid search over 20 thresholds on
the same folds with `memory`: 60 fits, of which 57 recall a net that is there already.

    python examples/benchmarks/grid_search_threshold.py --data-home ../shared/data

Without --data-home it runs on scikit-learn's 8x8 digits.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from records import script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.datasets import load_digits, load_mnist

N_THRESHOLDS = 20
FOLDS = StratifiedKFold(3, shuffle=True, random_state=0)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--n-train", type=int, default=3000, help="images")
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args()
    if options.data_home:
        data = load_mnist(options.data_home)
    else:
        data = load_digits(known=range(10), random_state=0)
    X, y = data.X_train[: options.n_train], data.y_train[: options.n_train]
    detector = VMDLSbDetector(max_epochs=options.epochs, random_state=0)

    started = time.perf_counter()
    scores = [
        detector.fit(X[train], y[train]).calibration_scores_
        for train, _ in FOLDS.split(X, y)
    ]
    single_seconds = time.perf_counter() - started
    print(f"Three single fits: {single_seconds:.1f} s")

    thresholds = np.quantile(np.concatenate(scores), np.linspace(0, 0.3, N_THRESHOLDS))
    with tempfile.TemporaryDirectory() as memory:
        started = time.perf_counter()
        search = GridSearchCV(
            detector.set_params(memory=memory),
            {"threshold": thresholds.tolist()},
            cv=FOLDS,
            refit=False,
        ).fit(X, y)
        search_seconds = time.perf_counter() - started
    n_fits = N_THRESHOLDS * FOLDS.get_n_splits()
    ratio = search_seconds / single_seconds
    print(f"Search, {n_fits} fits: {search_seconds:.1f} s, {ratio:.2f} times as long")
    fit_seconds = search.cv_results_["mean_fit_time"] * FOLDS.get_n_splits()
    print(f"Of that, fits that recalled the net: {fit_seconds[1:].sum():.1f} s")
    print(f"Best threshold by macro F1: {search.best_params_['threshold']:.1f}")
    results = {
        "n_train": len(X),
        "epochs": options.epochs,
        "single fits, seconds": single_seconds,
        "search, seconds": search_seconds,
        "ratio": ratio,
        "recalled fits, seconds": float(fit_seconds[1:].sum()),
        "macro F1": search.cv_results_["mean_test_score"].tolist(),
        "thresholds": thresholds.tolist(),
    }
    write(results, options.output)


if __name__ == "__main__":
    main()

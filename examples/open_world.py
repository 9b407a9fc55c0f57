"""A day in the open world: rejected, noticed, looked at, learned, known.

Six digits are known. A stream comes, at first of these, then with the seventh among
them. The detector rejects it, the monitor raises its alarm, an explanation shows why, a
hundred of the rejected are labelled and added, and the rest of the stream is known.

    python examples/open_world.py --data-home ../shared/data

Without --data-home it runs on scikit-learn's 8x8 digits, in half a minute. It writes
open_world.png beside this file.
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np

from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits, load_mnist
from skvmdls.monitoring import ShiftMonitor
from skvmdls.plotting import ExplanationDisplay, ShiftDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt

KNOWN, NEW = (0, 1, 2, 3, 4, 5), 6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--n-train", type=int, default=6000, help="MNIST images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--picture", type=Path, default=Path(__file__).with_suffix(".png")
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X, y, X_new, y_new = images(options, rng)

    print(f"Training on {len(X)} images of the digits {KNOWN} ...")
    detector = VMDLSDetector(max_epochs=options.epochs, random_state=0).fit(X, y)

    before, during, after = stream(y_new, rng)
    monitor = ShiftMonitor(detector, false_alarm=0.01, random_state=0)
    monitor.update(X_new[before])
    print(
        f"Morning: {rejected(detector, X_new[before]):.1%} of {len(before)} points "
        f"rejected; alarm: {monitor.alarm_}."
    )
    monitor.update(X_new[during])
    answers = detector.predict(X_new[during])
    is_new = y_new[during] == NEW
    print(
        f"Noon: the digit {NEW} comes in, {is_new.mean():.0%} of the stream; "
        f"{np.mean(answers[is_new] == -1):.1%} of it is rejected, and "
        f"{np.mean(answers[~is_new] == -1):.1%} of the known. Alarm after "
        f"{(monitor.alarm_at_ or np.nan) - len(before)} points."
    )

    selected = during[detector.select_unknown(X_new[during], fdr=0.1)]
    chosen = selected if len(selected) else during[answers == -1]
    print(
        f"To look at: {len(chosen)} points, of which "
        f"{np.mean(y_new[chosen] == NEW):.0%} are new."
    )
    draw(detector, monitor, X_new[chosen[:3]], options.picture)

    learned = chosen[y_new[chosen] == NEW][:100]  # somebody labelled them
    start = time.perf_counter()
    detector.add_classes(X_new[learned], y_new[learned])
    print(
        f"Afternoon: learned {NEW} from {len(learned)} points in "
        f"{time.perf_counter() - start:.1f} s."
    )
    answers, y_after = detector.predict(X_new[after]), y_new[after]
    is_new = y_after == NEW
    for name, part in (("known before", ~is_new), (f"digit {NEW}", is_new)):
        print(
            f"Evening, {name}: {np.mean(answers[part] == y_after[part]):.1%} "
            f"right, {np.mean(answers[part] == -1):.1%} rejected."
        )


def stream(y: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the rows of morning, noon and evening, the new digit in the last two."""
    known = np.array_split(rng.permutation(np.flatnonzero(y != NEW)), 3)
    new = np.array_split(rng.permutation(np.flatnonzero(y == NEW)), 2)
    later = zip(known[1:], new, strict=True)
    return [known[0], *(rng.permutation(np.concatenate(rows)) for rows in later)]


def images(
    options: argparse.Namespace, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if options.data_home is None:
        digits = load_digits(KNOWN, test_size=0.5, random_state=0)
        kept = digits.y_test <= NEW
        return digits.X_train, digits.y_train, digits.X_test[kept], digits.y_test[kept]
    mnist = load_mnist(options.data_home)
    rows = rng.permutation(np.flatnonzero(np.isin(mnist.y_train, KNOWN)))
    rows = rows[: options.n_train]
    kept = mnist.y_test <= NEW
    return (
        mnist.X_train[rows],
        mnist.y_train[rows],
        mnist.X_test[kept],
        mnist.y_test[kept],
    )


def rejected(detector: VMDLSDetector, X: np.ndarray) -> float:
    return float(np.mean(detector.predict(X) == -1))


def draw(
    detector: VMDLSDetector, monitor: ShiftMonitor, X: np.ndarray, path: Path
) -> None:
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(12, 8.5), height_ratios=(1, 1.5), layout="constrained"
    )
    ShiftDisplay.from_monitor(monitor, ax=above)
    ExplanationDisplay.from_estimator(detector, X, ax=below)
    figure.savefig(path, dpi=110)
    print(f"Drawn: {path}")


if __name__ == "__main__":
    main()

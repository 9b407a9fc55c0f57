"""Six known digits, four unknown ones, and noise
==============================================

Train on six digits, and see what becomes of four others and of noise.

Prints how well known, unknown and noise images are told apart, and writes a figure:
score histograms with the threshold, and a t-SNE of the feature ensemble. Takes under
two minutes on two CPU cores and needs no network.

    python examples/quickstart.py [--output quickstart.png]
"""

import argparse
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from sklearn.manifold import TSNE
from sklearn.utils import Bunch

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.datasets import load_digits, uniform_noise
from skvmdls.metrics import auroc, closed_set_accuracy, open_set_f1, tnr_at_tpr

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
CLASS_COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00")
CONTAMINATION = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train on six digits, and see what becomes of four others."
    )
    parser.add_argument(
        "--output", type=Path, default=Path(sys.argv[0]).with_name("quickstart.png")
    )
    output = parser.parse_args().output

    digits = load_digits(known=(0, 1, 2, 3, 4, 5), random_state=0)
    noise = 16 * uniform_noise((500, 8, 8), random_state=0)
    detectors = [
        detector(contamination=CONTAMINATION, verbose=1, random_state=0).fit(
            digits.X_train, digits.y_train
        )
        for detector in (VMDLSDetector, VMDLSbDetector)
    ]
    print_table(detectors, digits, noise)
    save_figure(detectors[0], digits, noise, output)
    print(f"\nFigure: {output}")


def print_table(
    detectors: list[VMDLSbDetector], digits: Bunch, noise: np.ndarray
) -> None:
    is_known = np.isin(digits.y_test, digits.known)
    X_known, y_known = digits.X_test[is_known], digits.y_test[is_known]
    columns = [type(detector).__name__ for detector in detectors]
    rows: dict[str, list[float]] = {
        "closed-set accuracy": [],
        f"acceptance of known points (nominal {1 - CONTAMINATION:.2f})": [],
    }
    for detector in detectors:
        accuracy, acceptance = rows.values()
        answers = detector.predict_known(X_known)
        accuracy.append(closed_set_accuracy(y_known, answers, digits.known))
        acceptance.append(float(np.mean(detector.predict(X_known) != -1)))
    for name, X_unknown in (
        ("unknown digits", digits.X_test[~is_known]),
        ("noise", noise),
    ):
        X = np.concatenate([X_known, X_unknown])
        y = np.concatenate([y_known, np.full(len(X_unknown), -1)])
        for measure in ("AUROC", "TNR@TPR95", "macro F1"):
            rows[f"{measure}, {name}"] = []
        for detector in detectors:
            scores = detector.score_samples(X)
            rows[f"AUROC, {name}"].append(auroc(y != -1, scores))
            rows[f"TNR@TPR95, {name}"].append(tnr_at_tpr(y != -1, scores))
            rows[f"macro F1, {name}"].append(
                open_set_f1(y, detector.predict(X), digits.known)
            )
    width = max(map(len, rows))
    print(f"\n{'':{width}}  " + "  ".join(columns))
    for name, values in rows.items():
        cells = (
            f"{value:{len(column)}.3f}"
            for value, column in zip(values, columns, strict=True)
        )
        print(f"{name:{width}}  " + "  ".join(cells))


def save_figure(
    detector: VMDLSDetector, digits: Bunch, noise: np.ndarray, output: Path
) -> None:
    is_known = np.isin(digits.y_test, digits.known)
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), constrained_layout=True)
    draw_scores(
        left,
        detector,
        {
            "known digits (0-5)": (digits.X_test[is_known], BLUE),
            "unknown digits (6-9)": (digits.X_test[~is_known], ORANGE),
            "noise": (noise, GREEN),
        },
    )
    draw_ensemble(right, detector, digits, is_known)
    figure.savefig(output, dpi=120)


def draw_scores(
    axes: Axes,
    detector: VMDLSDetector,
    groups: dict[str, tuple[np.ndarray, str]],
) -> None:
    # Scores spread over orders of magnitude: they are drawn as their distance below
    # the largest, on a logarithmic axis that runs from likely to unlikely.
    scores = {name: detector.score_samples(X) for name, (X, _) in groups.items()}
    top = max(part.max() for part in scores.values()) + 1
    shortfalls = {name: top - part for name, part in scores.items()}
    edges = np.geomspace(1, max(part.max() for part in shortfalls.values()), 60)
    for name, (_, colour) in groups.items():
        axes.hist(shortfalls[name], edges, alpha=0.6, color=colour, label=name)
    axes.axvline(top - detector.offset_, color="black", ls="--", label="threshold")
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("largest score minus score (in ranges of known points; log scale)")
    axes.set_ylabel("test images")
    axes.set_title("Scores: accepted right of the threshold")
    axes.legend(loc="upper right")


def draw_ensemble(
    axes: Axes, detector: VMDLSDetector, digits: Bunch, is_known: np.ndarray
) -> None:
    ensemble = detector.transform(digits.X_test)
    spread = ensemble.std(axis=0)
    ensemble = ensemble[:, spread > 0] / spread[spread > 0]
    points = TSNE(random_state=0).fit_transform(ensemble)
    for digit, colour in zip(digits.known, CLASS_COLOURS, strict=True):
        chosen = points[digits.y_test == digit].T
        axes.scatter(*chosen, s=8, color=colour, label=f"known {digit}")
    axes.scatter(
        *points[~is_known].T,
        s=8,
        color="black",
        marker="x",
        lw=0.6,
        label="unknown 6-9",
    )
    axes.set(
        xlabel="t-SNE 1 (no unit)",
        ylabel="t-SNE 2 (no unit)",
        title="Feature ensemble of the test images",
    )
    axes.legend(loc="best", markerscale=2, fontsize="small")


if __name__ == "__main__":
    main()

"""The paper's figures: what is measured for them, and how it is drawn.

The numbers are stored with the other results; the drawings are made from them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.manifold import TSNE

from peers import softmax_net, standardized
from protocol import HELD_OUT, KNOWN, Task, compare, fit, ours
from skvmdls.calibration import conformal_threshold
from skvmdls.plotting import EnsembleDisplay, ScoreHistogramDisplay

__all__ = [
    "draw_points",
    "draw_scores",
    "ranked_with_plane",
    "scores_by_weight",
    "spread_by_tsne",
]

Part = dict[str, Any]

N_SHOWN = 300


def ranked_with_plane(task: Task) -> Part:
    """Figures of the detectors, and the points of a two-dimensional latent space.

    The points are those of the first seed: one figure is enough.

    Parameters
    ----------
    task : Task
        With ``latent_dim=2`` among its settings; its first unknown set is kept too.

    Returns
    -------
    part : dict
        ``methods`` as of :func:`protocol.run`, and of the first seed ``panels``.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> settings = {"max_epochs": 1, "latent_dim": 2}
    >>> part = ranked_with_plane(Task(X, y, X, y, {"noise": X + 9}, settings))
    >>> len(part["panels"]["latent space"]["points"])
    450
    """
    fitted = fit(task)
    part: Part = {"methods": compare(task, fitted)}
    if task.seed == 0:
        X, labels = _shown(task)
        panel = _panel(_latent(fitted["VMDLS"].detector, X), labels)
        part["panels"] = {"latent space": panel}
    return part


def spread_by_tsne(task: Task) -> Part:
    """Spread a softmax net's features and our latent space out by t-SNE (figure 1).

    Parameters
    ----------
    task : Task
        Its first unknown set is shown too.

    Returns
    -------
    part : dict
        ``panels``: by name, ``points`` and ``labels`` (None for unknown points).

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X[:50], y[:50], {"noise": X[:9] + 9}, {"max_epochs": 1})
    >>> sorted(spread_by_tsne(task)["panels"])
    ['features of a softmax net', 'latent space of VMDLS']
    """
    detector = fit(task)["VMDLS"].detector
    X, labels = _shown(task)
    net, inputs, _ = softmax_net(task, detector)
    with torch.inference_mode():
        batches = standardized(detector, X).to(inputs.device).split(256)
        theirs = torch.cat([net.backbone(batch) for batch in batches]).cpu().numpy()
    return {
        "panels": {
            name: _panel(TSNE(random_state=0).fit_transform(features), labels)
            for name, features in (
                ("features of a softmax net", theirs),
                ("latent space of VMDLS", _latent(detector, X)),
            )
        }
    }


def scores_by_weight(task: Task) -> Part:
    """Scores of known and unknown points without and with the weight (figure 3).

    Parameters
    ----------
    task : Task
        Its first unknown set is shown.

    Returns
    -------
    part : dict
        ``scores``: by method, ``known``, ``unknown`` and ``threshold``.

    Examples
    --------
    >>> X, y = np.random.default_rng(0).normal(size=(400, 6)), np.arange(400) % 2
    >>> task = Task(X, y, X, y, {"noise": X + 9}, {"max_epochs": 1})
    >>> sorted(scores_by_weight(task)["scores"])
    ['with the weight (VMDLS)', 'without the weight (VMDLS_b)']
    """
    scored = ours(task, fit(task))
    [unknown, *_] = task.unknown
    titles = {
        "VMDLS_b": "without the weight (VMDLS_b)",
        "VMDLS": "with the weight (VMDLS)",
    }
    return {
        "scores": {
            title: {
                "known": _rounded(scores[KNOWN]),
                "unknown": _rounded(scores[unknown]),
                "threshold": conformal_threshold(scores[HELD_OUT], 0.05),
            }
            for method, title in titles.items()
            for scores in [scored[method].scores]
        }
    }


def draw_points(parts: Mapping[str, Part], path: Path) -> None:
    """Draw the panels of all parts, coloured by class.

    Parameters
    ----------
    parts : mapping of str to dict
        As of :func:`spread_by_tsne`. Several parts give their names to the panels;
        those without any are left out.
    path : Path
        Where the PNG goes.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> panel = {"points": [[0, 1], [2, 3]], "labels": ["4", None]}
    >>> draw_points({"seed 0": {"panels": {"latent space": panel}}}, path)
    >>> path.exists()
    True
    """
    shown = {part: c["panels"] for part, c in parts.items() if "panels" in c}
    panels = {
        _title(part if len(shown) > 1 else "", name, len(of_part)): panel
        for part, of_part in shown.items()
        for name, panel in of_part.items()
    }
    figure, axes = _axes(len(panels), (5.2, 4.4))
    for ax, (name, panel) in zip(axes, panels.items(), strict=True):
        labels = np.array([label or "unknown" for label in panel["labels"]])
        classes = np.setdiff1d(labels, "unknown")
        EnsembleDisplay(np.array(panel["points"]), labels, classes).plot(ax=ax)
        ax.set(title=name, xlabel="", ylabel="")
        ax.get_legend().remove()
    handles = axes[-1].get_legend_handles_labels()
    figure.legend(*handles, title="class", loc="outside right upper")
    _write(figure, path)


def draw_scores(parts: Mapping[str, Part], path: Path) -> None:
    """Draw histograms of the first part's scores.

    Parameters
    ----------
    parts : mapping of str to dict
        As of :func:`scores_by_weight`.
    path : Path
        Where the PNG goes.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> scores = {"known": [1.0, 2.0, 3.0], "unknown": [0.0, 0.5], "threshold": 0.7}
    >>> draw_scores({"seed 0": {"scores": {"VMDLS": scores}}}, path)
    >>> path.exists()
    True
    """
    methods = next(iter(parts.values()))["scores"]
    figure, axes = _axes(len(methods), (6, 4.2))
    for ax, (name, scores) in zip(axes, methods.items(), strict=True):
        sizes = len(scores["known"]), len(scores["unknown"])
        ScoreHistogramDisplay.from_predictions(
            np.repeat([True, False], sizes),
            np.concatenate([scores["known"], scores["unknown"]]),
            threshold=scores["threshold"],
            ax=ax,
        )
        ax.set_title(f"{name}\n{ax.get_title()}", fontsize=10)
    _write(figure, path)


def _title(part: str, name: str, n_panels: int) -> str:
    """Of a panel: no more than tells it from the others."""
    return f"{part}: {name}" if part and n_panels > 1 else part or name


def _shown(task: Task) -> tuple[np.ndarray, list[str | None]]:
    """Known points and unknown ones, no more than a drawing has room for."""
    known = task.X_known[:N_SHOWN]
    unknown = next(iter(task.unknown.values()))[: N_SHOWN // 2]
    labels = [*map(str, task.y_known[:N_SHOWN].tolist()), *[None] * len(unknown)]
    return np.concatenate([known, unknown]), labels


def _latent(detector: Any, X: np.ndarray) -> np.ndarray:
    """Mean outputs of the generator, shape (n, latent_dim)."""
    names = detector.get_feature_names_out()
    return detector.transform(X)[:, [name.startswith("mu_") for name in names]]


def _panel(points: np.ndarray, labels: list[str | None]) -> Part:
    return {"points": [_rounded(point) for point in points], "labels": labels}


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _axes(n_panels: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(3, n_panels)
    rows = -(-n_panels // columns)
    figure = Figure((size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[n_panels:]:
        unused.remove()
    return figure, axes[:n_panels]


def _write(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=80)

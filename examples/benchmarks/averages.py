"""Metrics of a stored run by task, table or unknown set, and their means."""

from typing import Any

import numpy as np

from stored_runs import (
    VECTOR_MEASURES,
    is_of_tables,
    methods_of,
    runs_by_table,
    unknown_sets,
)
from tables import TEST_TABLES

__all__ = ["mean_metrics", "metrics_by_group"]


def mean_metrics(stored: Any, chosen: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Average each metric of each method over tasks, tables or unknown sets.

    Parameters
    ----------
    stored : object
        From JSON.
    chosen : tuple of str
        Beginnings of names of tasks, or names of unknown sets. All if empty.

    Returns
    -------
    metrics : dict of str to dict of str to float
        By method and metric. A method with an error in a group is not in it.

    Examples
    --------
    >>> tasks = {"one": {"ours": {"auroc": 0.8}}, "two": {"ours": {"auroc": 0.9}}}
    >>> round(mean_metrics({"tasks": tasks}, ())["VMDLS"]["AUROC"], 2)
    0.85
    """
    groups = metrics_by_group(stored, chosen)
    methods = [m for m in groups[0] if all(m in group for group in groups)]
    return {
        method: {
            name: float(np.mean([np.mean(group[method][name]) for group in groups]))
            for name in groups[0][method]
        }
        for method in methods
    }


def metrics_by_group(
    stored: Any, chosen: tuple[str, ...]
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Give the metrics of each method, for each task, table or unknown set.

    Parameters
    ----------
    stored : object
        From JSON.
    chosen : tuple of str
        Beginnings of names of tasks, or names of unknown sets. All if empty.

    Returns
    -------
    groups : list of dict of str to dict of str to ndarray of shape (repetitions,)
        By method and metric. A method with an error in a group is not in it.

    Examples
    --------
    >>> [group] = metrics_by_group({"tasks": {"one": {"KNN": {"auroc": 0.8}}}}, ())
    >>> group["KNN"]["AUROC"], group["KNN"]["accuracy"]
    (array([0.8]), array([nan]))
    """
    if "tasks" in stored:
        names = [name for name in stored["tasks"] if name.startswith(chosen or "")]
        return [
            {
                "VMDLS" if method == "ours" else method: {
                    name: np.array([np.nan if of.get(key) is None else of[key]])
                    for name, key in VECTOR_MEASURES.items()
                }
                for method, of in stored["tasks"][task].items()
            }
            for task in names
        ]
    parts = stored["parts"]
    if is_of_tables(stored):
        of_tables = runs_by_table(parts)
        present = [of_tables[name] for name in TEST_TABLES if name in of_tables]
        return [_of_runs(runs, unknown_sets(runs)[0]) for runs in present]
    runs = list(parts.values())
    sets = [name for name in unknown_sets(runs) if not chosen or name in chosen]
    return [_of_runs(runs, name) for name in sets]


def _of_runs(
    runs: list[dict[str, Any]], unknown: str
) -> dict[str, dict[str, np.ndarray]]:
    """Metrics (runs,) of each method against one unknown set."""
    found = {}
    for method in methods_of(runs):
        entries = [run["methods"][method] for run in runs]
        if any("error" in entry for entry in entries):
            continue
        sets = [entry["sets"][unknown] for entry in entries]
        accuracy = [entry.get("closed-set accuracy") for entry in entries]
        found[method] = {
            "AUROC": np.array([of["AUROC"] for of in sets]),
            "TNR@TPR95": np.array([of["TNR@TPR95"] for of in sets]),
            "accuracy": np.array([np.nan if a is None else a for a in accuracy]),
            "known rejected": np.array([1 - e["acceptance"] for e in entries]),
            "unknown rejected": np.full(len(entries), np.nan),
        }
    return found

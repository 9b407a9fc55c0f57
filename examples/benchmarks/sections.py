"""One stored run as a section of a page: its command, its facts and its tables."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import EXPERIMENTS
from markdown_tables import mean_cell, table_head, table_row
from protocol import OURS
from stored_runs import (
    VECTOR_MEASURES,
    commits_of,
    methods_of,
    runs_by_table,
    shown_name,
    title_of,
    unknown_sets,
)
from tables import TEST_TABLES, TUNING_TABLES

__all__ = ["run_section"]

# Columns: of an unknown set, of a whole run, and of means over tables.
MEASURES = ("AUROC", "TNR@TPR95", "OSCR", "F1", "F1 at 99 %", "best F1")
COSTS = ("fit seconds", "microseconds a point", "closed-set accuracy", "acceptance")
TABLE_MEASURES = (
    *("AUROC", "TNR@TPR95", "F1"),
    *("acceptance", "closed-set accuracy", "fit seconds"),
)


def run_section(path: Path) -> str:
    """Set out one stored experiment in Markdown.

    Parameters
    ----------
    path : Path
        Of the JSON file.

    Returns
    -------
    section : str

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "osr-mnist-quick.json"
    >>> stored = {"settings": {"experiment": "osr-mnist"}, "parts": {}}
    >>> _ = path.write_text(json.dumps(stored))
    >>> run_section(path).splitlines()[0]
    '## osr-mnist-quick'
    """
    stored = json.loads(path.read_text())
    if "tasks" in stored:
        return _vectors_section(path, stored)
    return _parts_section(path, stored)


def _vectors_section(path: Path, stored: dict[str, Any]) -> str:
    """Of a run on embeddings: a table of each task with a row a method."""
    around = stored["surroundings"]
    lines = [f"## {path.stem}", "", f"{title_of(path, stored)}.", ""]
    lines += [_command_block(stored["command"]), ""]
    lines += [
        f"Run on {around['gpu'] or around['processor']} in commit {around['commit']} "
        f"([stored run](results/{path.name})).",
    ]
    for task, methods in stored["tasks"].items():
        lines += ["", f"### {task}", "", *table_head(["", *VECTOR_MEASURES])]
        for method, found in methods.items():
            cells = [
                "" if found.get(key) is None else f"{found[key]:.4f}"
                for key in VECTOR_MEASURES.values()
            ]
            shown = shown_name("VMDLS_b" if method == "ours" else method)
            lines.append(table_row([shown, *cells]))
    return "\n".join([*lines, "", ""])


def _parts_section(path: Path, stored: dict[str, Any]) -> str:
    """Of an experiment: its facts, its plot, and the tables of its layout."""
    settings, parts = stored["settings"], stored["parts"]
    experiment = EXPERIMENTS[settings["experiment"]]
    runs = list(parts.values())
    lines = [f"## {path.stem}", "", f"{experiment.title}.", ""]
    if not runs:
        return "\n".join([*lines, "Nothing is stored yet.", ""])
    minutes = sum(part["seconds"] for part in runs) / 60
    chosen = ", ".join(f"{k}={v!r}" for k, v in settings["settings"].items())
    lines += [
        _command_block(runs[0]["command"]),
        "",
        f"Settings: {f'`{chosen}`' if chosen else 'none'} "
        f"([stored run](results/{path.name})).",
        "",
        *_facts(runs, f"{settings['n_train']:,}", f"{minutes:.0f}"),
        "",
    ]
    for note in dict.fromkeys(part["note"] for part in runs if "note" in part):
        lines += [note, ""]
    if experiment.draw is not None:
        lines += [f"![{experiment.title}](results/{path.stem}.png)", ""]
    if "methods" in runs[0]:
        lines += LAYOUTS[experiment.layout](parts, experiment.paper)
    return "\n".join([*lines, ""])


def _command_block(command: str) -> str:
    """Give a command that can be copied: without folders of one machine."""
    command = re.sub(r" --(output|out) \S+", "", command)
    command = re.sub(r"--data-home \S+", "--data-home DATA", command)
    return f"```sh\n{command}\n```"


def _facts(runs: list[dict[str, Any]], n_train: str, minutes: str) -> list[str]:
    around = runs[0]["surroundings"]
    facts = {
        "repetitions": str(len(runs)),
        "training points": n_train,
        "machine": around["gpu"] or around["processor"],
        "threads": str(around["threads"]),
        "minutes": minutes,
        "commit": commits_of(runs),
    }
    return [
        *table_head(list(facts), n_texts=len(facts)),
        table_row(list(facts.values())),
    ]


def _by_method(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Costs of each method, and a table of each unknown set with a row a method."""
    runs = list(parts.values())
    lines = _costs(runs)
    for name in unknown_sets(runs):
        lines += ["", f"### {name}", "", *_table(_method_rows(runs, name))]
        reported = [f"{m} {of[name]:.3f}" for m, of in paper.items() if name in of]
        if reported:
            lines += ["", f"The paper's macro F1: {', '.join(reported)}."]
    return lines


def _costs(runs: list[dict[str, Any]]) -> list[str]:
    lines = table_head(["", *COSTS])
    for method in methods_of(runs):
        entries = [part["methods"][method] for part in runs]
        error = next((entry["error"] for entry in entries if "error" in entry), None)
        cells = (
            [error[:80], *[""] * (len(COSTS) - 1)]
            if error
            else [mean_cell([entry[cost] for entry in entries], cost) for cost in COSTS]
        )
        lines.append(table_row([shown_name(method), *cells]))
    return lines


def _method_rows(
    runs: list[dict[str, Any]], name: str
) -> dict[str, list[dict[str, float]]]:
    """Figures of each run, by method; a method with an error has no row."""
    methods = {
        method: [part["methods"][method] for part in runs]
        for method in methods_of(runs)
    }
    return {
        shown_name(method): [entry["sets"][name] for entry in entries]
        for method, entries in methods.items()
        if not any("error" in entry for entry in entries)
    }


def _by_part(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Table of each unknown set with a row a kind of part, its runs together."""
    lines = []
    measures = (*MEASURES, "closed-set accuracy")
    for name in unknown_sets(list(parts.values())):
        rows = _table(_part_rows(parts, name), measures)
        lines += ["", f"### {name}", "", *rows]
    return lines[1:]


def _part_rows(
    parts: dict[str, dict[str, Any]], name: str
) -> dict[str, list[dict[str, float]]]:
    """Figures of each kind of part, its seeds and splits together."""
    rows: dict[str, list[dict[str, float]]] = {}
    for method in OURS:
        for part, content in parts.items():
            kind, _, _ = part.partition("; ")
            entry = content["methods"][method]
            figures = {**entry, **entry["sets"][name]}
            rows.setdefault(f"{shown_name(method)}: {kind}", []).append(figures)
    return rows


def _table(
    rows: dict[str, list[dict[str, Any]]], measures: Sequence[str] = MEASURES
) -> list[str]:
    lines = table_head(["", *measures])
    for title, entries in rows.items():
        cells = [
            mean_cell([entry[measure] for entry in entries]) for measure in measures
        ]
        lines.append(table_row([title, *cells]))
    return lines


def _by_table(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Means over each half of the tables, and the AUROC of each table."""
    of_tables = runs_by_table(parts)
    methods = methods_of(list(parts.values()))
    lines = []
    for half, names in (("tuning", TUNING_TABLES), ("test", TEST_TABLES)):
        present = [name for name in names if name in of_tables]
        if present:
            lines += [f"### The {half} half: {', '.join(present)}", ""]
            lines += [*_means(methods, [of_tables[name] for name in present]), ""]
    lines += [
        "### AUROC, table by table",
        "",
        *table_head(["", "half", *map(shown_name, methods)], 2),
    ]
    for name, runs in of_tables.items():
        half = "tuning" if name in TUNING_TABLES else "test"
        cells = [
            mean_cell([_figure(run, method, "AUROC") for run in runs])
            for method in methods
        ]
        lines.append(table_row([name, half, *cells]))
    return lines


def _means(methods: list[str], tables: list[list[dict[str, Any]]]) -> list[str]:
    """Row by method: each figure's mean over splits, and of these over tables."""
    lines = table_head(["", *TABLE_MEASURES])
    for method in methods:
        cells = []
        for measure in TABLE_MEASURES:
            figures = [
                [_figure(run, method, measure) for run in runs] for runs in tables
            ]
            is_there = all(None not in of_table for of_table in figures)
            means = [np.mean(of_table) for of_table in figures] if is_there else [None]
            cells.append(mean_cell(means, measure, spread=False))
        lines.append(table_row([shown_name(method), *cells]))
    return lines


def _figure(run: dict[str, Any], method: str, measure: str) -> Any:
    """Of a run with one unknown set; None if it failed, or has no such figure."""
    entry = run["methods"][method]
    [figures] = entry.get("sets", {"": {}}).values()
    return (entry | figures).get(measure)


LAYOUTS = {"methods": _by_method, "parts": _by_part, "tables": _by_table}

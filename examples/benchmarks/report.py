"""Pages made from stored results: no number in them is typed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import EXPERIMENTS
from protocol import OURS
from speed import LIMITS
from tables import TEST_TABLES, TUNING_TABLES

__all__ = [
    "PAGES",
    "experiment_of",
    "performance_page",
    "readme_with_tables",
    "recipe_page",
    "results_page",
    "trials_page",
]

MEASURES = ("AUROC", "TNR@TPR95", "OSCR", "F1", "F1 at 99 %", "best F1")
COSTS = ("fit seconds", "microseconds a point", "closed-set accuracy", "acceptance")
TABLE_MEASURES = (
    *("AUROC", "TNR@TPR95", "F1"),
    *("acceptance", "closed-set accuracy", "fit seconds"),
)

# What recipes are chosen by has a page of its own.
FOR_RECIPES = {
    "leave-classes-out": (
        "MNIST: six digits of the training images are known, the four others play the "
        "unknown ones, on splits that no test uses."
    ),
    "leave-classes-out-cifar10": (
        "CIFAR-10: six classes of the training images are known, the four others play "
        "the unknown ones, on splits that no test uses."
    ),
    "leave-classes-out-tables": (
        "Tables: a third of the classes is left out of each table of the half that "
        "may be chosen by."
    ),
}

HEAD = """# Results

Made by `python examples/benchmarks report` from the JSON files in `results/`, which
hold every number, setting and version. The peers are pytorch-ood's detectors on one
softmax net, trained in the same run on the same rows with the same backbone, optimiser,
schedule, batch size, augmentation, epochs and precision; on tables, scikit-learn's
models at their defaults. Every method's threshold is a conformal quantile of its scores
on held-out known points, the peers' those that VMDLS sets its own by: at contamination
0.05 for F1, at 0.01 for F1 at 99 %. Best F1 is taken at the threshold that is best for
the set itself, which nobody can know. Figures are means over the parts of a run, with
the standard deviation where there are several. VMDLS_b recalls the net that VMDLS
trained, so its fit has no time of its own. No unknown set chose anything.
"""


def experiment_of(stored: Any) -> str:
    """Name the experiment of a stored file's content.

    Parameters
    ----------
    stored : object
        From JSON.

    Returns
    -------
    name : str
        Empty for what is no benchmark's.

    Examples
    --------
    >>> experiment_of({"settings": {"experiment": "osr-mnist"}}), experiment_of([1])
    ('osr-mnist', '')
    """
    settings = stored.get("settings", {}) if isinstance(stored, dict) else {}
    return settings.get("experiment", "")


def results_page(folder: Path, only: Path | None = None) -> str:
    """Set out the stored experiments in Markdown.

    Parameters
    ----------
    folder : Path
        With the JSON files.
    only : Path, optional
        A single file, without the page's head.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> results_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# Results'
    """
    sections = [] if only else [HEAD]
    for path in [only] if only else sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        if experiment_of(stored) in EXPERIMENTS.keys() - FOR_RECIPES.keys() or only:
            sections.append(_section(path, stored))
    return "\n".join(sections)


def performance_page(folder: Path) -> str:
    """Set out the stored measurements of speed and memory in Markdown.

    Parameters
    ----------
    folder : Path
        With ``speed.json``.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> performance_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# Performance'
    """
    lines = [
        "# Performance",
        "",
        "Made by `python examples/benchmarks report` from `results/speed.json`.",
        "In each line the competitors took turns in one run; the figures are medians,",
        "and the spread is that of the ratios of single turns.",
        "",
    ]
    path = folder / "speed.json"
    if not path.exists():
        return "\n".join([*lines, "Nothing is stored yet.", ""])
    parts = list(json.loads(path.read_text())["parts"].values())
    around = parts[0]["surroundings"]
    commands = dict.fromkeys(f"`{part['command']}`" for part in parts)
    lines += [
        f"{', '.join(commands)} on {around['processor']}, {around['threads']} threads, "
        f"torch {around['versions']['torch']}, {_commits(parts)}.",
        "",
        "| measure | against | ours | theirs | ratio | spread | target |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for row in parts:
        spread = row["spread"] and " to ".join(
            f"{ratio:.3f}" for ratio in row["spread"]
        )
        lines.append(
            f"| {row['measure']} | {row['peer'] or ''} | {_amount(row['ours'], row)} "
            f"| {_amount(row['theirs'], row)} "
            f"| {'' if row['ratio'] is None else format(row['ratio'], '.3f')} "
            f"| {spread or ''} | {row['target'] or ''} |"
        )
    lines += ["", "What limits each now:", ""]
    lines += [f"- {measure} ...: {limit}." for measure, limit in LIMITS.items()]
    return "\n".join([*lines, ""])


def recipe_page(folder: Path) -> str:
    """Set out what was tried by leaving known classes out, in Markdown.

    Parameters
    ----------
    folder : Path
        With the JSON files.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> recipe_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# What was tried'
    """
    lines = [
        "# What was tried",
        "",
        "Made by `python examples/benchmarks report` from the runs in `results/`.",
        "Means over the splits, with the standard deviation of the difference from the",
        "first row, split by split.",
        "",
    ]
    for experiment, meaning in FOR_RECIPES.items():
        for preset in EXPERIMENTS[experiment].presets:
            start = f"{experiment}-{preset}-"
            stored = {
                path.stem.removeprefix(start): json.loads(path.read_text())
                for path in folder.glob(f"{start}*.json")
            }
            if stored:
                lines += [f"## {experiment}, {preset}", "", meaning, ""]
                lines += [*_recipe_table(stored), ""]
    return "\n".join(lines)


def trials_page(folder: Path) -> str:
    """Set out what each training of `trials.json` gave, in Markdown.

    Parameters
    ----------
    folder : Path
        With the JSON files.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> trials_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# What each training gave'
    """
    lines = ["# What each training gave", ""]
    path = folder / "trials.json"
    if not path.exists():
        return "\n".join(lines)
    stored = json.loads(path.read_text())
    measures = list(stored["trials"][0]["AUROC"])
    lines += [stored["about"], ""]
    lines += _head(["trained by", "data", "split", "accuracy", *measures], n_texts=3)
    for trial in sorted(stored["trials"], key=lambda t: (t["data"], t["training"])):
        places = [trial["training"], trial["data"], trial["split"]]
        found = [trial["accuracy"], *(trial["AUROC"].get(name) for name in measures)]
        lines.append(_row(places + ["" if x is None else f"{x:.4f}" for x in found]))
    return "\n".join([*lines, ""])


def _recipe_table(stored: dict[str, Any]) -> list[str]:
    columns = (
        *("run", "settings", "VMDLS_b AUROC", "VMDLS AUROC", "its difference"),
        *("VMDLS OSCR", "VMDLS F1", "accuracy", "fit seconds"),
    )
    lines = _head(columns, 2)
    first = "defaults" if "defaults" in stored else min(stored)
    usual = stored[first]["parts"]
    for name in sorted(stored, key=lambda name: (name != first, name)):
        # An unfinished run has not seen all splits.
        if stored[name]["parts"].keys() == usual.keys():
            lines.append(_recipe_row(name, stored[name], usual))
    return lines


def _left_out(parts: dict[str, Any], method: str, measure: str) -> np.ndarray:
    return np.array(
        [
            figures[measure]
            for _, part in sorted(parts.items())
            for figures in part["methods"][method]["sets"].values()
        ]
    )


def _recipe_row(name: str, stored: dict[str, Any], usual: dict[str, Any]) -> str:
    parts = stored["parts"]
    weighted = [part["methods"]["VMDLS"] for part in parts.values()]
    difference = _left_out(parts, "VMDLS", "AUROC") - _left_out(usual, "VMDLS", "AUROC")
    # Where nets are kept says nothing of how they are trained.
    told = stored["settings"]["settings"].items()
    settings = ", ".join(f"{k}={v!r}" for k, v in told if k != "memory")
    cells = [
        name,
        f"`{settings}`",
        f"{_left_out(parts, 'VMDLS_b', 'AUROC').mean():.4f}",
        f"{_left_out(parts, 'VMDLS', 'AUROC').mean():.4f}",
        f"{difference.mean():+.4f} ± {difference.std():.4f}",
        f"{_left_out(parts, 'VMDLS', 'OSCR').mean():.4f}",
        f"{_left_out(parts, 'VMDLS', 'F1').mean():.4f}",
        f"{np.mean([entry['closed-set accuracy'] for entry in weighted]):.4f}",
        f"{np.mean([entry['fit seconds'] for entry in weighted]):.0f}",
    ]
    return _row(cells)


def _amount(value: float | None, row: dict[str, Any]) -> str:
    return "" if value is None else f"{value:.3g} {row['unit']}"


def _section(path: Path, stored: dict[str, Any]) -> str:
    settings, parts = stored["settings"], stored["parts"]
    experiment = EXPERIMENTS[settings["experiment"]]
    runs = list(parts.values())
    lines = [f"## {experiment.title}: {path.stem}", ""]
    if not runs:
        return "\n".join([*lines, "Nothing is stored yet.", ""])
    around = runs[0]["surroundings"]
    names = f" ({'; '.join(parts)})" if len(parts) <= 10 else ""
    minutes = sum(part["seconds"] for part in runs) / 60
    lines += [
        f"`{runs[0]['command']}`: {len(runs)} parts{names}, "
        f"{settings['n_train']:,} training points, settings {settings['settings']}, "
        f"{around['gpu'] or around['processor']}, {around['threads']} threads, "
        f"{minutes:.0f} minutes in all, {_commits(runs)}.",
        "",
    ]
    for note in dict.fromkeys(part["note"] for part in runs if "note" in part):
        lines += [note, ""]
    if experiment.draw is not None:
        lines += [f"![{experiment.title}](results/{path.stem}.png)", ""]
    if "methods" in runs[0]:
        lines += LAYOUTS[experiment.layout](parts, experiment.paper)
    return "\n".join([*lines, ""])


def _by_method(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Costs of each method, and a table of each unknown set with a row a method."""
    runs = list(parts.values())
    lines = _costs(runs)
    for name in _sets(runs):
        lines += ["", f"### {name}", "", *_table(_method_rows(runs, name))]
        reported = [f"{m} {of[name]:.3f}" for m, of in paper.items() if name in of]
        if reported:
            lines += ["", f"The paper's macro F1: {', '.join(reported)}."]
    return lines


def _by_part(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Table of each unknown set with a row a kind of part, its runs together."""
    lines = []
    measures = (*MEASURES, "closed-set accuracy")
    for name in _sets(list(parts.values())):
        rows = _table(_part_rows(parts, name), measures)
        lines += ["", f"### {name}", "", *rows]
    return lines[1:]


def _by_table(parts: dict[str, Any], paper: dict[str, dict[str, float]]) -> list[str]:
    """Means over each half of the tables, and the AUROC of each table."""
    of_tables = _of_tables(parts)
    methods = _methods(list(parts.values()))
    lines = []
    for half, names in (("tuning", TUNING_TABLES), ("test", TEST_TABLES)):
        present = [name for name in names if name in of_tables]
        if present:
            lines += [f"### The {half} half: {', '.join(present)}", ""]
            lines += [*_means(methods, [of_tables[name] for name in present]), ""]
    lines += ["### AUROC, table by table", "", *_head(["", "half", *methods], 2)]
    for name, runs in of_tables.items():
        half = "tuning" if name in TUNING_TABLES else "test"
        cells = [
            _cell([_figure(run, method, "AUROC") for run in runs]) for method in methods
        ]
        lines.append(_row([name, half, *cells]))
    return lines


def _of_tables(parts: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Give the runs of each table, its splits together."""
    of_tables: dict[str, list[dict[str, Any]]] = {}
    for part, content in parts.items():
        of_tables.setdefault(part.partition("; seed")[0], []).append(content)
    return of_tables


def _means(
    methods: list[str],
    tables: list[list[dict[str, Any]]],
    measures: Sequence[str] = TABLE_MEASURES,
    digits: int = 4,
) -> list[str]:
    """Row by method: each figure's mean over splits, and of these over tables."""
    lines = _head(["", *measures])
    for method in methods:
        cells = []
        for measure in measures:
            figures = [
                [_figure(run, method, measure) for run in runs] for runs in tables
            ]
            is_there = all(None not in of_table for of_table in figures)
            means = [np.mean(of_table) for of_table in figures] if is_there else [None]
            cells.append(_cell(means, measure, spread=False, digits=digits))
        lines.append(_row([method, *cells]))
    return lines


def _figure(run: dict[str, Any], method: str, measure: str) -> Any:
    """Of a run with one unknown set; None if it failed, or has no such figure."""
    entry = run["methods"][method]
    [figures] = entry.get("sets", {"": {}}).values()
    return (entry | figures).get(measure)


def _commits(parts: list[dict[str, Any]]) -> str:
    commits = dict.fromkeys(str(part["surroundings"]["commit"]) for part in parts)
    return f"commit {', '.join(commits)}"


def _sets(runs: list[dict[str, Any]]) -> list[str]:
    return list(runs[0]["methods"]["VMDLS"]["sets"])


def _methods(runs: list[dict[str, Any]]) -> list[str]:
    return [*OURS, *[name for name in runs[0]["methods"] if name not in OURS]]


def _costs(runs: list[dict[str, Any]]) -> list[str]:
    lines = _head(["", *COSTS])
    for method in _methods(runs):
        entries = [part["methods"][method] for part in runs]
        error = next((entry["error"] for entry in entries if "error" in entry), None)
        cells = (
            [error[:80], *[""] * (len(COSTS) - 1)]
            if error
            else [_cell([entry[cost] for entry in entries], cost) for cost in COSTS]
        )
        lines.append(_row([method, *cells]))
    return lines


def _method_rows(
    runs: list[dict[str, Any]], name: str
) -> dict[str, list[dict[str, float]]]:
    """Figures of each run, by method; a method with an error has no row."""
    methods = {
        method: [part["methods"][method] for part in runs] for method in _methods(runs)
    }
    return {
        method: [entry["sets"][name] for entry in entries]
        for method, entries in methods.items()
        if not any("error" in entry for entry in entries)
    }


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
            rows.setdefault(f"{method}: {kind}", []).append(figures)
    return rows


def _table(
    rows: dict[str, list[dict[str, Any]]], measures: Sequence[str] = MEASURES
) -> list[str]:
    lines = _head(["", *measures])
    for title, entries in rows.items():
        cells = [_cell([entry[measure] for entry in entries]) for measure in measures]
        lines.append(_row([title, *cells]))
    return lines


def _cell(
    values: Sequence[Any], measure: str = "", spread: bool = True, digits: int = 4
) -> str:
    """Mean and standard deviation; empty where a value is missing."""
    if None in values:
        return ""
    is_time = "second" in measure
    mean = np.mean(values)
    if is_time:
        digits = 0 if mean >= 10 else 1
    has_spread = spread and len(values) > 1 and not is_time
    spread_by = f" ± {np.std(values):.3f}" if has_spread else ""
    return f"{mean:.{digits}f}{spread_by}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(columns: Sequence[str], n_texts: int = 1) -> list[str]:
    return [_row(columns), "|" + "---|" * n_texts + "---:|" * (len(columns) - n_texts)]


def readme_with_tables(readme: str, folder: Path) -> str:
    """Fill in the tables that stand between ``<!-- NAME -->`` and ``<!-- end -->``.

    NAME is a stored run's. A table of images shows our detectors, the three peers of
    the highest mean AUROC, and the best on each set; one of tables all, on the test
    half.

    Parameters
    ----------
    readme : str
    folder : Path
        With the JSON files.

    Returns
    -------
    readme : str

    Examples
    --------
    >>> readme_with_tables("No table.", Path())
    'No table.'
    """

    def filled(match: re.Match[str]) -> str:
        stored = json.loads((folder / f"{match[1]}.json").read_text())
        layout = EXPERIMENTS[experiment_of(stored)].layout
        lines = SHORT_LAYOUTS[layout](stored["parts"])
        return "\n".join([f"<!-- {match[1]} -->", *lines, "<!-- end -->"])

    return re.sub(
        r"<!-- ([\w-]+) -->\n.*?<!-- end -->", filled, readme, flags=re.DOTALL
    )


def _short(parts: dict[str, Any]) -> list[str]:
    runs = list(parts.values())
    names = _sets(runs)
    by_set = [_method_rows(runs, name) for name in names]
    aurocs = {
        method: [np.mean([e["AUROC"] for e in rows[method]]) for rows in by_set]
        for method in by_set[0]
        if method not in OURS
    }
    by_mean = sorted(aurocs, key=lambda method: -np.mean(aurocs[method]))
    best = [max(aurocs, key=lambda m: aurocs[m][place]) for place in range(len(names))]
    lines = _head(["", *names, "accuracy", "acceptance"])
    shown = {*by_mean[:3], *best}
    for method in [*OURS, *(peer for peer in by_mean if peer in shown)]:
        entries = [run["methods"][method] for run in runs]
        cells = [
            " / ".join(
                f"{np.mean([e[measure] for e in rows[method]]):.3f}"
                for measure in ("AUROC", "TNR@TPR95", "F1")
            )
            for rows in by_set
        ]
        accuracy = _cell([e["closed-set accuracy"] for e in entries], spread=False)
        acceptance = f"{np.mean([e['acceptance'] for e in entries]):.3f}"
        lines.append(_row([method, *cells, accuracy, acceptance]))
    return lines


def _short_of_tables(parts: dict[str, Any]) -> list[str]:
    of_tables = _of_tables(parts)
    tables = [of_tables[name] for name in TEST_TABLES if name in of_tables]
    measures = ("AUROC", "TNR@TPR95", "F1", "closed-set accuracy")
    return _means(_methods(list(parts.values())), tables, measures, digits=3)


LAYOUTS = {"methods": _by_method, "parts": _by_part, "tables": _by_table}
SHORT_LAYOUTS = {"methods": _short, "tables": _short_of_tables}

PAGES = {
    "results.md": results_page,
    "performance.md": performance_page,
    "recipe_runs.md": recipe_page,
    "recipe_trials.md": trials_page,
}

"""Pages made from stored results: no number in them is typed."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import EXPERIMENTS
from protocol import OURS
from speed import LIMITS

__all__ = ["PAGES", "experiment_of", "performance_page", "recipe_page", "results_page"]

MEASURES = ("AUROC", "TNR@TPR95", "OSCR", "F1", "F1 at 99 %", "best F1")

# What recipes are chosen by has a page of its own.
FOR_RECIPES = "leave-classes-out"

HEAD = """# Results

Made by `python examples/benchmarks report` from the JSON files in `results/`, which
hold every number, setting and version. The peers are pytorch-ood's detectors on one
softmax net, trained in the same run on the same rows with the same backbone,
augmentation, epochs and precision. Every method's threshold is a conformal quantile of
its scores on the same held-out known points, those that VMDLS sets its own by: at
contamination 0.05 for F1, at 0.01 for F1 at 99 %. Best F1 is taken at the threshold
that is best for the set itself, which nobody can know. Figures are means over the parts
of a run, with the standard deviation where there are several. No unknown set chose
anything.
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
        if experiment_of(stored) in EXPERIMENTS.keys() - {FOR_RECIPES} or only:
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
        "Made by `python examples/benchmarks report` from the runs of "
        f"`{FOR_RECIPES}` in",
        "`results/`: six digits of MNIST's training images are known, the four others "
        "play the",
        "unknown ones, on splits that no test uses. Means over the splits, with the "
        "standard",
        "deviation of the difference from the first row, split by split.",
        "",
        "| run | settings | VMDLS_b AUROC | VMDLS AUROC | its difference | VMDLS OSCR "
        "| VMDLS F1 | accuracy | fit seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    stored = {
        path.stem.removeprefix(f"{FOR_RECIPES}-quick-"): json.loads(path.read_text())
        for path in folder.glob(f"{FOR_RECIPES}-quick-*.json")
    }
    usual = stored.get("defaults", {"parts": {}})["parts"]
    for name in sorted(stored, key=lambda name: (name != "defaults", name)):
        # An unfinished run has not seen all splits.
        if stored[name]["parts"].keys() == usual.keys():
            lines.append(_recipe_row(name, stored[name], usual))
    return "\n".join([*lines, ""])


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
    settings = ", ".join(
        f"{k}={v!r}" for k, v in stored["settings"]["settings"].items()
    )
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
    return f"| {' | '.join(cells)} |"


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
    minutes = sum(part["seconds"] for part in runs) / 60
    lines += [
        f"`{runs[0]['command']}`: {len(runs)} parts ({'; '.join(parts)}), "
        f"{settings['n_train']:,} training points, settings {settings['settings']}, "
        f"{around['gpu'] or around['processor']}, {around['threads']} threads, "
        f"{minutes:.0f} minutes in all, {_commits(runs)}.",
        "",
    ]
    for note in dict.fromkeys(part["note"] for part in runs if "note" in part):
        lines += [note, ""]
    if experiment.draw is not None:
        lines += [f"![{experiment.title}](results/{path.stem}.png)", ""]
    if "methods" not in runs[0]:
        return "\n".join(lines)
    if not experiment.compares_parts:
        lines += _costs(runs)
    for name in runs[0]["methods"]["VMDLS"]["sets"]:
        rows = _part_rows(parts, name)
        if not experiment.compares_parts:
            rows = _method_rows(runs, name)
        lines += ["", f"### {name}", "", *_table(rows)]
        reported = {
            method: figures[name]
            for method, figures in experiment.paper.items()
            if name in figures
        }
        if reported:
            figures = ", ".join(f"{m} {f1:.3f}" for m, f1 in reported.items())
            lines += ["", f"The paper's macro F1: {figures}."]
    return "\n".join([*lines, ""])


def _commits(parts: list[dict[str, Any]]) -> str:
    commits = dict.fromkeys(str(part["surroundings"]["commit"]) for part in parts)
    return f"commit {', '.join(commits)}"


def _methods(runs: list[dict[str, Any]]) -> list[str]:
    return [*OURS, *[name for name in runs[0]["methods"] if name not in OURS]]


def _costs(runs: list[dict[str, Any]]) -> list[str]:
    columns = [
        "fit seconds",
        "microseconds a point",
        "closed-set accuracy",
        "acceptance",
    ]
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    for method in _methods(runs):
        entries = [part["methods"][method] for part in runs]
        if any("error" in entry for entry in entries):
            error = next(entry["error"] for entry in entries if "error" in entry)
            lines.append(f"| {method} | {error[:80]} |" + " |" * (len(columns) - 1))
            continue
        cells = []
        for column in columns:
            values = [entry[column] for entry in entries]
            digits = 0 if "second" in column else 4
            cells.append("" if None in values else f"{np.mean(values):.{digits}f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
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
    """Figures of each kind of part, its seeds together."""
    rows: dict[str, list[dict[str, float]]] = {}
    for method in OURS:
        for part, content in parts.items():
            kind, _, _ = part.rpartition("; seed")
            figures = content["methods"][method]["sets"][name]
            rows.setdefault(f"{method}: {kind or part}", []).append(figures)
    return rows


def _table(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    lines = [f"| | {' | '.join(MEASURES)} |", "|---|" + "---:|" * len(MEASURES)]
    for title, entries in rows.items():
        cells = []
        for measure in MEASURES:
            values = [entry[measure] for entry in entries]
            spread = f" ± {np.std(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{spread}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


PAGES = {
    "results.md": results_page,
    "performance.md": performance_page,
    "recipe_runs.md": recipe_page,
}

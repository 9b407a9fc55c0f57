"""Pages made from stored results: no number in them is typed."""

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
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
    "page_head",
    "performance_page",
    "readme_with_tables",
    "recipe_page",
    "results_page",
    "runs_page",
    "stored_run",
    "summary_table",
    "trials_page",
    "vectors_section",
]

MEASURES = ("AUROC", "TNR@TPR95", "OSCR", "F1", "F1 at 99 %", "best F1")
COSTS = ("fit seconds", "microseconds a point", "closed-set accuracy", "acceptance")
TABLE_MEASURES = (
    *("AUROC", "TNR@TPR95", "F1"),
    *("acceptance", "closed-set accuracy", "fit seconds"),
)

# Runs that settings were chosen by have a page of their own.
FOR_RECIPES = {
    "leave-classes-out": (
        "MNIST: six digits of the training images are known and the four others are "
        "the unknown ones, on splits that no test uses."
    ),
    "leave-classes-out-cifar10": (
        "CIFAR-10: six classes of the training images are known and the four others "
        "are the unknown ones, on splits that no test uses."
    ),
    "leave-classes-out-tables": (
        "Tables: a third of the classes is left out of each table of the tuning half."
    ),
}

HEAD = """# Results

AUROC against unknown points for each kind of data. 1 is perfect and 0.5 is chance. The
best number of a row is bold, and the kind of data links to the run.
"""

TAIL = """
## Unknown points rejected

TNR at 95 % TPR: the share of unknown points that are rejected if 95 % of the known ones
are accepted.

{}

## How to read the tables

- **AUROC** is the chance that a known point scores higher than an unknown one.
- **Known and unknown**. For text embeddings: intents of CLINC150 and BANKING77, and
  messages about other things. For image embeddings: CIFAR-10 against CIFAR-100, and
  the other way round. For tables: nine public tables, of which a third of the classes
  is unknown. For digits: MNIST, and the letters of Omniglot. For photographs: CIFAR-10,
  and ImageNet and CIFAR-100 as other photographs.
- **Largest probability** is an ordinary classifier with a threshold on its largest
  class probability: a softmax net on images, a random forest on tables, a logistic
  regression on embeddings. **Nearest neighbours** is the distance to training points,
  on images in the features of the softmax net.
- **Best baseline** is the best of its row: of 14 on images (pytorch-ood's, on one
  softmax net), 6 on tables (scikit-learn's models at their defaults) and up to 9 on
  embeddings. Nobody knows in advance which one it will be.
- **Accuracy** counts labels of known points that are never rejected. The second number
  is the accuracy of the classifier in "largest probability".
- **Settings** are those of the run. No unknown point chose them.

## How it was measured

On images the softmax net of the baselines is trained in the same run, on the same
rows, with the same backbone, optimizer, schedule, batch size, augmentation, epochs
and precision. Every threshold is a conformal quantile of scores of held-out known
points, with contamination 0.05 for F1, and 0.01 for "F1 at 99 %". "Best F1" uses the
threshold that is best on the test set itself, which nobody knows in practice. Numbers
are means over the repetitions of a run. The number after ± is the standard deviation.
`VMDLS` is `VMDLSDetector` and `VMDLS_b` is `VMDLSbDetector`. `VMDLS_b` loads the net
that `VMDLS` trained from the cache, so its time to fit is not shown.

## All runs
"""

# Kind of data, unknown points, stored run, its tasks (embeddings) or sets (images; all
# if empty), whether the README shows it.
SUMMARY: tuple[tuple[str, str, str, tuple[str, ...], bool], ...] = (
    (
        "text embeddings",
        "other intents",
        "osr-vectors",
        ("CLINC150", "BANKING77"),
        True,
    ),
    ("text embeddings", "other messages", "ood-vectors", ("CLINC150",), False),
    ("image embeddings", "other photographs", "ood-vectors", ("CIFAR",), False),
    ("tables", "other classes", "osr-tables-cpu", (), True),
    ("digits", "letters", "osr-mnist-quick", ("Omniglot",), True),
    ("digits", "other digits", "osr-splits-quick", (), False),
    ("photographs", "digits, noise", "ood-cifar10-cpu", ("MNIST", "NOISE"), True),
    (
        "photographs",
        "other photographs",
        "ood-cifar10-cpu",
        ("ImageNet-resize", "CIFAR-100"),
        True,
    ),
    ("photographs", "other classes", "osr-splits-cifar10-cpu", (), False),
)
SIMPLE = ("MSP", "RandomForest", "linear, probability")
NEIGHBOURS = ("KNN", "cosine KNN, 1")


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


def results_page(folder: Path) -> str:
    """Summarize the stored experiments in one table, with links to the runs.

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
    >>> results_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# Results'
    """
    links = [
        f"- [{page_head(page)[2:]}]({page}): "
        + (", ".join(f"`{path.stem}`" for path in _paths(folder, page)) or "none yet")
        for page in KINDS
    ]
    made = "Pages and tables are made by `python examples/benchmarks report`."
    rejected = "\n".join(summary_table(folder, "TNR@TPR95"))
    tail = TAIL.format(rejected)
    return "\n".join([HEAD, *summary_table(folder), tail, *links, "", made, ""])


def summary_table(
    folder: Path, measure: str = "AUROC", only_headlines: bool = False
) -> list[str]:
    """Lay out a row for each kind of data: the detector next to baselines.

    Parameters
    ----------
    folder : Path
        With the JSON files. A row whose run is not stored is left out.
    measure : {"AUROC", "TNR@TPR95"}, default="AUROC"
    only_headlines : bool, default=False
        The rows of the README alone, without links.

    Returns
    -------
    lines : list of str
        Of Markdown.

    Examples
    --------
    >>> summary_table(Path("nowhere"))[0].split(" | ")[1:4]
    ['VMDLSDetector', 'largest probability', 'nearest neighbours']
    """
    columns = ["known and unknown", "VMDLSDetector", "largest probability"]
    lines = _head([*columns, "nearest neighbours", "best baseline", "accuracy"])
    for kind, unknown, run, chosen, is_headline in SUMMARY:
        path = folder / f"{run}.json"
        if not path.exists() or (only_headlines and not is_headline):
            continue
        found = _overall(json.loads(path.read_text()), chosen)
        ours = found.pop("VMDLS")
        found.pop("VMDLS_b", None)
        best = max(found, key=lambda name: found[name][measure])
        simple = next(found[name] for name in SIMPLE if name in found)
        neighbours = next(found[name] for name in NEIGHBOURS if name in found)
        shown = [one[measure] for one in (ours, simple, neighbours, found[best])]
        cells = [
            f"**{value:.3f}**" if value == max(shown) else f"{value:.3f}"
            for value in shown
        ]
        cells[-1] += f" ({best})"
        cells.append(f"{ours['accuracy']:.3f}, {simple['accuracy']:.3f}")
        title = kind if only_headlines else f"[{kind}]({_page_of(run)}#{run})"
        lines.append(_row([f"{title}, {unknown}", *cells]))
    return lines


def _overall(stored: Any, chosen: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Mean AUROC, TNR and accuracy of each method over tasks, sets or tables."""
    if "tasks" in stored:
        tasks = [of for name, of in stored["tasks"].items() if name.startswith(chosen)]
        return {
            "VMDLS" if method == "ours" else method: {
                name: float(np.mean([task[method].get(key, np.nan) for task in tasks]))
                for name, key in VECTOR_MEASURES.items()
            }
            for method in tasks[0]
        }
    parts = stored["parts"]
    if EXPERIMENTS[experiment_of(stored)].layout == "tables":
        of_tables = _of_tables(parts)
        groups = [of_tables[name] for name in TEST_TABLES if name in of_tables]
    else:
        groups = [list(parts.values())]
    found: dict[str, dict[str, float]] = {}
    for method in _methods(groups[0]):
        rows = []
        for runs in groups:
            entries = [run["methods"][method] for run in runs]
            if not any("error" in entry for entry in entries):
                rows.append(_of_entries(entries, chosen))
        if len(rows) == len(groups):
            found[method] = {
                name: float(np.mean([row[name] for row in rows])) for name in rows[0]
            }
    return found


def _of_entries(
    entries: list[dict[str, Any]], chosen: tuple[str, ...]
) -> dict[str, float]:
    sets = [
        figures
        for entry in entries
        for name, figures in entry["sets"].items()
        if not chosen or name in chosen
    ]
    accuracy = [entry.get("closed-set accuracy", np.nan) for entry in entries]
    return {
        "AUROC": float(np.mean([figures["AUROC"] for figures in sets])),
        "TNR@TPR95": float(np.mean([figures["TNR@TPR95"] for figures in sets])),
        "accuracy": float(np.mean([np.nan if a is None else a for a in accuracy])),
    }


def page_head(page: str) -> str:
    """Give the heading of a page of runs.

    Parameters
    ----------
    page : str

    Returns
    -------
    heading : str

    Examples
    --------
    >>> page_head("results_tables.md")
    '# Results on tables'
    """
    return KINDS[page][0]


def _page_of(name: str) -> str:
    return next(page for page, (_, start) in KINDS.items() if name.startswith(start))


def _paths(folder: Path, page: str) -> list[Path]:
    """Find the stored experiments that a page shows."""
    paths = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        is_shown = experiment_of(stored) in EXPERIMENTS.keys() - FOR_RECIPES.keys()
        is_of_vectors = isinstance(stored, dict) and "tasks" in stored
        if (is_shown or is_of_vectors) and _page_of(path.stem) == page:
            paths.append(path)
    return paths


def runs_page(folder: Path, page: str) -> str:
    """Set out the stored experiments of one kind of data in Markdown.

    Parameters
    ----------
    folder : Path
        With the JSON files.
    page : str
        Name of the page, one of the results.

    Returns
    -------
    text : str

    Examples
    --------
    >>> import tempfile
    >>> runs_page(Path(tempfile.mkdtemp()), "results_tables.md").splitlines()[0]
    '# Results on tables'
    """
    paths = _paths(folder, page)
    about = "[What the columns mean](results.md#how-to-read-the-tables)."
    lines = [page_head(page), "", about, ""]
    for path in paths:
        title = _title(path, json.loads(path.read_text()))
        lines.append(f"- [{path.stem}](#{path.stem}): {title}")
    lines.append("")
    return "\n".join([*lines, *[stored_run(path) for path in paths]])


def stored_run(path: Path) -> str:
    """Set out one stored experiment in Markdown.

    Parameters
    ----------
    path : Path
        Of the JSON file.

    Returns
    -------
    section : str
    """
    stored = json.loads(path.read_text())
    return (
        vectors_section(path, stored) if "tasks" in stored else _section(path, stored)
    )


def vectors_section(path: Path, stored: dict[str, Any]) -> str:
    """Set out a stored run on embeddings in Markdown.

    Parameters
    ----------
    path : Path
    stored : dict
        From JSON, with ``tasks``.

    Returns
    -------
    section : str
    """
    around = stored["surroundings"]
    lines = [f"## {path.stem}", "", f"{_title(path, stored)}.", ""]
    lines += [_command_block(stored["command"]), ""]
    lines += [
        f"Run on {around['gpu'] or around['processor']} in commit {around['commit']} "
        f"([stored run](results/{path.name})).",
    ]
    for task, methods in stored["tasks"].items():
        lines += ["", f"### {task}", "", *_head(["", *VECTOR_MEASURES])]
        for method, found in methods.items():
            cells = [
                "" if found.get(key) is None else f"{found[key]:.4f}"
                for key in VECTOR_MEASURES.values()
            ]
            lines.append(_row(["VMDLS_b" if method == "ours" else method, *cells]))
    return "\n".join([*lines, "", ""])


def _title(path: Path, stored: dict[str, Any]) -> str:
    if "tasks" in stored:
        return VECTOR_TITLES[path.stem]
    return EXPERIMENTS[experiment_of(stored)].title


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
        "commit": _commits(runs).removeprefix("commit "),
    }
    return [*_head(list(facts), n_texts=len(facts)), _row(list(facts.values()))]


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
        "How fast training and scoring are, next to other code that does the same",
        "work. A ratio below 1 means that skvmdls is faster, or takes less memory. The",
        "two took turns in one run. Times are medians, and the spread is that of the",
        "ratios of single turns. [Scaling](scale.md) shows how time and memory grow",
        "with rows and classes.",
        "",
    ]
    path = folder / "speed.json"
    if not path.exists():
        return "\n".join([*lines, "Nothing is stored yet.", ""])
    parts = list(json.loads(path.read_text())["parts"].values())
    around = parts[0]["surroundings"]
    commands = dict.fromkeys(f"`{part['command']}`" for part in parts)
    lines += [
        "| measure | against | skvmdls | the other | ratio | spread | target |",
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
    lines += ["", "## Bottlenecks", "", "| measure | what takes the time or memory |"]
    lines += ["|---|---|"]
    lines += [f"| {measure} ... | {limit} |" for measure, limit in LIMITS.items()]
    lines += [
        "",
        f"Made by {', '.join(commands)} on {around['processor']}, "
        f"{around['threads']} threads, torch {around['versions']['torch']}, "
        f"{_commits(parts)} ([stored run](results/speed.json)).",
    ]
    return "\n".join([*lines, ""])


def recipe_page(folder: Path) -> str:
    """Set out the runs that left known classes out, in Markdown.

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
    '# Trials of single parameters'
    """
    lines = [
        "# Trials of single parameters",
        "",
        "Each row changes one parameter. Numbers are means over the splits. The number",
        "after ± is the standard deviation of the difference from the first row, split",
        "by split. The page is made by `python examples/benchmarks report`.",
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
    """Set out the results of each training of ``trials.json`` in Markdown.

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
    '# Trials of losses'
    """
    lines = ["# Trials of losses", ""]
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
    # The folder of the cache does not change the training.
    chosen = stored["settings"]["settings"].items()
    settings = ", ".join(f"{k}={v!r}" for k, v in chosen if k != "memory")
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
    """Fill in the table between ``<!-- summary -->`` and ``<!-- end -->``.

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
    table = "\n".join(summary_table(folder, only_headlines=True))
    return re.sub(
        r"(<!-- summary -->\n).*?(<!-- end -->)",
        lambda match: f"{match[1]}{table}\n{match[2]}",
        readme,
        flags=re.DOTALL,
    )


LAYOUTS = {"methods": _by_method, "parts": _by_part, "tables": _by_table}
VECTOR_MEASURES = {
    "AUROC": "auroc",
    "TNR@TPR95": "tnr",
    "accuracy": "accuracy",
    "known rejected": "known rejected",
    "unknown rejected": "unknown rejected",
    "fit seconds": "fit seconds",
}
VECTOR_TITLES = {
    "osr-vectors": "Embeddings of texts and images, known classes left out",
    "ood-vectors": "Embeddings of texts and images against other data",
}
# Headings, and how the names of a page's runs begin.
KINDS = {
    "results_embeddings.md": (
        "# Results on embeddings",
        ("osr-vectors", "ood-vectors"),
    ),
    "results_tables.md": ("# Results on tables", ("osr-tables",)),
    "results_photographs.md": (
        "# Results on photographs",
        ("ood-cifar", "osr-splits-cifar10", "all-cifar10", "defaults-", "own-net-"),
    ),
    "results_digits.md": ("# Results on digits", ("osr-mnist", "osr-splits")),
    "results_ablations.md": ("# Ablations", ("",)),
}

PAGES: dict[str, Callable[[Path], str]] = {
    "results.md": results_page,
    **{page: partial(runs_page, page=page) for page in KINDS},
    "performance.md": performance_page,
    "recipe_runs.md": recipe_page,
    "recipe_trials.md": trials_page,
}

"""Tables over several stored runs: summary, details, gains and rejected points."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from averages import mean_metrics, metrics_by_group
from markdown_tables import bold_cell, number_cell, table_head, table_row
from protocol import OURS
from run_pages import page_of
from stored_runs import is_of_tables, is_older, unknown_sets

__all__ = ["details_table", "gains_table", "rejected_table", "summary_table"]


class Summarized(NamedTuple):
    """A row of the summary: known and unknown data, and the stored run.

    `tasks` are the run's tasks (embeddings) or sets (images), all if empty.
    """

    known: str
    unknown: str
    run: str
    tasks: tuple[str, ...] = ()
    is_headline: bool = False


SUMMARY = (
    Summarized(
        "text embeddings: intents of CLINC150",
        "its other intents",
        "osr-vectors",
        ("CLINC150",),
        is_headline=True,
    ),
    Summarized(
        "text embeddings: intents of BANKING77",
        "its other intents",
        "osr-vectors",
        ("BANKING77",),
        is_headline=True,
    ),
    Summarized(
        "text embeddings: intents of CLINC150",
        "messages about other things",
        "ood-vectors",
        ("CLINC150",),
    ),
    Summarized(
        "image embeddings: six classes of CIFAR-10",
        "its four others",
        "osr-vectors",
        ("six CIFAR-10",),
    ),
    Summarized(
        "image embeddings: CIFAR-10", "CIFAR-100", "ood-vectors", ("CIFAR-10 ",)
    ),
    Summarized(
        "image embeddings: CIFAR-100", "CIFAR-10", "ood-vectors", ("CIFAR-100 ",)
    ),
    Summarized(
        "tables: two thirds of the classes",
        "the other third",
        "osr-tables-cpu",
        is_headline=True,
    ),
    Summarized(
        "digits: MNIST",
        "letters of Omniglot",
        "osr-mnist-quick",
        ("Omniglot",),
        is_headline=True,
    ),
    Summarized("digits: six of MNIST", "the four others", "osr-splits-quick"),
    Summarized(
        "photographs: CIFAR-10",
        "MNIST, uniform noise",
        "ood-cifar10-cpu",
        ("MNIST", "NOISE"),
        is_headline=True,
    ),
    Summarized(
        "photographs: CIFAR-10",
        "ImageNet, CIFAR-100",
        "ood-cifar10-cpu",
        ("ImageNet-resize", "CIFAR-100"),
        is_headline=True,
    ),
    Summarized(
        "photographs: CIFAR-100",
        "ImageNet, CIFAR-10",
        "ood-cifar100-cpu",
        ("ImageNet-resize", "CIFAR-10"),
    ),
    Summarized(
        "photographs: six classes of CIFAR-10",
        "its four others",
        "osr-splits-cifar10-cpu",
    ),
)

# Names that the same kind of baseline has in runs on images, tables and embeddings.
SIMPLE = ("MSP", "RandomForest", "linear, probability")
NEIGHBOURS = ("KNN", "cosine KNN, 1")
# Ends of the names of tasks that have one repetition.
FIXED_TASKS = ("100 a class", "unknown CIFAR-100", "unknown CIFAR-10")

# Of the runs on the parts of the evidence: column, detector, kind of part.
GAINS = {
    "the paper's score": ("VMDLS", "the paper's, early, its product"),
    "without its weight": ("VMDLS_b", "the paper's, early"),
    "largest logit alone": ("VMDLS_b", "logit alone"),
    "VMDLSbDetector": ("VMDLS_b", "all, late"),
    "VMDLSDetector": ("VMDLS", "all, late"),
}

# Test sets of others, and how they may differ from their training sets.
REJECTED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("MNIST", "osr-mnist-quick", ()),
    ("CLINC150, 100 messages a class", "ood-vectors", ("CLINC150, 100 a",)),
    ("CLINC150, 20 messages a class", "ood-vectors", ("CLINC150, 20 a",)),
    ("CIFAR-10", "ood-cifar10-cpu", ()),
)


def summary_table(folder: Path, only_headlines: bool = False) -> list[str]:
    """Lay out a row for each kind of data: the detector next to baselines.

    Parameters
    ----------
    folder : Path
        With the JSON files. A row whose run is not stored is left out.
    only_headlines : bool, default=False
        The rows of the README alone, with AUROC alone and without links.

    Returns
    -------
    lines : list of str
        Of Markdown.

    Examples
    --------
    >>> summary_table(Path("nowhere"))[0].split(" | ")[1:4]
    ['unknown', 'VMDLSDetector', 'largest probability']
    """
    columns = ["known", "unknown", "VMDLSDetector", "largest probability"]
    columns += ["nearest neighbours", "best baseline"]
    if only_headlines:
        columns += ["accuracy", "of largest probability"]
    lines = table_head(columns, n_texts=2)
    for row, stored in _summarized(folder):
        if only_headlines and not row.is_headline:
            continue
        found = mean_metrics(stored, row.tasks)
        ours, baselines = found["VMDLS"], _baselines(found)
        simple = _first_of(SIMPLE, baselines)
        shown = [ours, simple, _first_of(NEIGHBOURS, baselines)]
        by_measure = [
            _compared(shown, baselines, measure)
            for measure in ("AUROC", "TNR@TPR95")[: 1 if only_headlines else 2]
        ]
        *others, of_best = zip(*by_measure, strict=True)
        cells = [" / ".join(cell) for cell in others]
        cells.append(_with_names(of_best))
        if only_headlines:
            cells += [f"{of['accuracy']:.3f}" for of in (ours, simple)]
        page = f"{page_of(row.run)}#{row.run}"
        known = row.known if only_headlines else f"[{row.known}]({page})"
        lines.append(table_row([known, row.unknown, *cells]))
    return lines


def details_table(folder: Path) -> list[str]:
    """Lay out what the rows of the summary are means of, and other metrics of ours.

    Parameters
    ----------
    folder : Path
        With the JSON files.

    Returns
    -------
    lines : list of str
        Of Markdown.

    Examples
    --------
    >>> details_table(Path("nowhere"))[0].split(" | ")[2:4]
    ['training rows', 'epochs']
    """
    columns = ["known", "unknown", "training rows", "epochs", "repetitions"]
    columns += ["standard error", "best on", "accuracy", "of largest probability"]
    columns += ["known rejected", "unknown rejected", "defaults"]
    lines = table_head(columns, n_texts=2)
    for row, stored in _summarized(folder):
        found = mean_metrics(stored, row.tasks)
        groups = metrics_by_group(stored, row.tasks)
        ours, simple = found["VMDLS"], _first_of(SIMPLE, _baselines(found))
        n_best = sum(
            np.mean(group["VMDLS"]["AUROC"])
            >= max(np.mean(of["AUROC"]) for of in _baselines(group).values())
            for group in groups
        )
        settings = stored.get("settings", {})
        n_train = settings.get("n_train")
        cells = [
            row.known,
            row.unknown,
            "" if n_train is None else f"{'up to ' * is_of_tables(stored)}{n_train:,}",
            str(settings.get("settings", {}).get("max_epochs", "")),
            _repetitions(stored, row.tasks),
            number_cell(_standard_error(groups), digits=4),
            f"{n_best} of {len(groups)}",
            *(number_cell(of["accuracy"]) for of in (ours, simple)),
            *(number_cell(ours[f"{kind} rejected"]) for kind in ("known", "unknown")),
            "older" if is_older(stored) else "",
        ]
        lines.append(table_row(cells))
    return lines


def gains_table(folder: Path) -> list[str]:
    """Lay out the AUROC of the paper's score, of the logit, and of all parts.

    Parameters
    ----------
    folder : Path
        With the JSON files. Rows whose run is not stored are left out.

    Returns
    -------
    lines : list of str
        Of Markdown.

    Examples
    --------
    >>> len(gains_table(Path("nowhere")))
    2
    """
    lines = table_head(["known", "unknown", *GAINS], n_texts=2)
    for known, run in (("MNIST", "mnist"), ("CIFAR-10", "cifar10")):
        path = folder / f"ablation-evidence-{run}-cpu.json"
        if not path.exists():
            continue
        parts = json.loads(path.read_text())["parts"]
        for name in unknown_sets(list(parts.values())):
            if name == "MNIST-noise":  # As NOISE, in every column.
                continue
            cells = [
                float(
                    np.mean([f["AUROC"] for f in _of_kind(parts, method, kind, name)])
                )
                for method, kind in GAINS.values()
            ]
            shown = [bold_cell(cell, max(cells)) for cell in cells]
            lines.append(table_row([known, name, *shown]))
    return lines


def rejected_table(folder: Path) -> list[str]:
    """Lay out the shares of known test points that are rejected in some runs.

    Parameters
    ----------
    folder : Path
        With the JSON files. Rows whose run is not stored are left out.

    Returns
    -------
    lines : list of str
        Of Markdown.

    Examples
    --------
    >>> len(rejected_table(Path("nowhere")))
    2
    """
    lines = table_head(["known data", "rejected at `contamination=0.05`"])
    for title, run, tasks in REJECTED:
        path = folder / f"{run}.json"
        if path.exists():
            ours = mean_metrics(json.loads(path.read_text()), tasks)["VMDLS"]
            link = f"[{title}]({page_of(run)}#{run})"
            lines.append(table_row([link, number_cell(ours["known rejected"])]))
    return lines


def _summarized(folder: Path) -> Iterator[tuple[Summarized, Any]]:
    for row in SUMMARY:
        path = folder / f"{row.run}.json"
        if path.exists():
            yield row, json.loads(path.read_text())


def _baselines(found: dict[str, Any]) -> dict[str, Any]:
    return {name: of for name, of in found.items() if name not in OURS}


def _first_of(names: Sequence[str], found: dict[str, Any]) -> Any:
    return next(found[name] for name in names if name in found)


def _compared(
    shown: Sequence[dict[str, float]],
    baselines: dict[str, dict[str, float]],
    measure: str,
) -> list[Any]:
    """Cells of one measure: those shown, and the best baseline's with its name."""
    best = max(baselines, key=lambda name: baselines[name][measure])
    values = [of[measure] for of in (*shown, baselines[best])]
    cells = [bold_cell(value, max(values)) for value in values]
    return [*cells[:-1], (cells[-1], best)]


def _with_names(best: Sequence[tuple[str, str]]) -> str:
    """Write the best values with the names of their methods, one name only once."""
    if len({name for _, name in best}) == 1:
        return f"{' / '.join(value for value, _ in best)} ({best[0][1]})"
    return " / ".join(f"{value} ({name})" for value, name in best)


def _repetitions(stored: Any, chosen: tuple[str, ...]) -> str:
    """Count the repetitions of each task, table or set."""
    if "tasks" not in stored:
        first, *_ = metrics_by_group(stored, chosen)[0].values()
        return str(len(first["AUROC"]))
    match = re.search(r"--seeds (\d+)", stored["command"])
    assert match is not None
    # Their rows are given, or all are taken: there is nothing to draw.
    names = [name for name in stored["tasks"] if name.startswith(chosen or "")]
    counts = {1 if name.endswith(FIXED_TASKS) else int(match[1]) for name in names}
    return " or ".join(map(str, sorted(counts)))


def _standard_error(groups: list[dict[str, Any]]) -> float:
    """Compute the standard error of our AUROC, NaN if there is one repetition."""
    of_groups = [group["VMDLS"]["AUROC"] for group in groups]
    if len({len(values) for values in of_groups}) > 1 or len(of_groups[0]) < 2:
        return np.nan
    of_repetitions = np.mean(of_groups, axis=0)
    return float(np.std(of_repetitions, ddof=1) / np.sqrt(len(of_repetitions)))


def _of_kind(
    parts: dict[str, Any], method: str, kind: str, unknown: str
) -> list[dict[str, float]]:
    """Metrics of a kind of part against an unknown set, a dict for each seed."""
    return [
        part["methods"][method]["sets"][unknown]
        for name, part in parts.items()
        if name.partition("; ")[0] == kind
    ]

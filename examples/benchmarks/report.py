"""Pages made from stored results: no number in them is typed."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments import EXPERIMENTS
from guarantees_page import few_rows_table, guarantees_page
from protocol import OURS
from skvmdls import VMDLSDetector
from speed import LIMITS
from tables import TEST_TABLES, TUNING_TABLES

__all__ = [
    "PAGES",
    "WITH_TABLES",
    "details_table",
    "experiment_of",
    "gains_table",
    "is_older",
    "page_head",
    "performance_page",
    "recipe_page",
    "rejected_table",
    "results_page",
    "runs_page",
    "stored_run",
    "summary_table",
    "trials_page",
    "vectors_section",
    "with_tables",
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

How well the detectors separate known from unknown points, next to baselines on the
same rows. They are ahead of every baseline on intents of BANKING77, on messages about
other things, on embeddings of CIFAR-10, on tables on average, on digits, and on
photographs against digits and noise. They are equal or behind on intents of CLINC150,
on embeddings of CIFAR-100, and on photographs against other photographs. There use a
linear classifier, or a softmax net with a score such as GEN, ODIN or fDBD
([limitations](not_for.md)).

Each cell is AUROC / TNR at 95 % TPR, of which 1 is best ([what they
mean](#how-to-read-the-tables)). The best AUROC and the best TNR of a row are bold. The
name of the known data links to the run.
"""

DETAILS = """
No column is the method of the paper. [How it works](method.md#gains-over-the-paper)
compares its score with ours on the same nets, and [Ablations](results_ablations.md)
have every part and loss.

## Details of the runs

{}
"""

TAIL = """
## How to read the tables

- **AUROC** is the chance that a known point scores higher than an unknown one. 0.5 is
  chance.
- **TNR at 95 % TPR** is the share of unknown points that are rejected if 95 % of the
  known ones are accepted. Its threshold is set on the known test points, for all
  methods alike.
- **VMDLSDetector** is the detector with its default evidence. On embeddings it trains
  no net, and gives the same scores as `VMDLSbDetector`, which was run.
- **Largest probability** is an ordinary classifier with a threshold on its largest
  class probability: a softmax net on images, a random forest on tables, a logistic
  regression on embeddings. **Nearest neighbours** is the distance to training points,
  on images in the features of the softmax net.
- **Best baseline** is the best of its row and measure: of 14 on images (pytorch-ood's,
  on one softmax net), 6 on tables (scikit-learn's models at their defaults) and up to
  9 on embeddings. It is picked by the result on the test set, which favours the
  baselines. Nobody knows in advance which one it will be.
- **Training rows** and **epochs** are those of the run. The nets for photographs are
  small on purpose: they train on two cores. With all 50,000 images of CIFAR-10 the
  accuracy is {} ([run](results_photographs.md#all-cifar10-cpu), without baselines).
  Empty: the runs on embeddings have the number of rows in their names.
- **Repetitions** are seeds, splits or draws of rows. **Standard error** is that of our
  AUROC over them. It is empty where only the mean is stored, and where there is one.
- **Best on** counts the tasks, tables or unknown sets of the row on which our AUROC is
  the highest of all methods.
- **Accuracy** is the share of known test points that get the right label when nothing
  is rejected (`predict_known`). The next column has that of the classifier in "largest
  probability".
- **Known rejected** and **unknown rejected** are the shares that `predict` rejects at
  `contamination=0.05`. Empty: not stored.

Each number is the mean over the tasks, tables or unknown sets of its row, and over the
repetitions. For tables these are nine public tables, of which a third of the classes is
unknown.

## How it was measured

On images the softmax net of the baselines is trained in the same run, on the same
rows, with the same backbone, optimizer, schedule, batch size, augmentation, epochs
and precision. Except for TNR, every threshold is a conformal quantile of scores of
held-out or cross-fitted known points.

Settings were chosen by leaving known classes out of training data ([how the defaults
were chosen](recipe.md)), not by the results here. There are two exceptions. A result of
CIFAR-10 against MNIST was the reason to search for another rule for the early parts
([what happened](recipe.md#one-part-against-all-others)). The part `texture` is aimed at
uniform noise, which is one of the test sets.
{}
## All runs
"""

OLDER = """
**Defaults**: "older" marks runs with fewer parameters than the detector has now, so
that their defaults are not those of today. Older runs on images have neither the part
`texture` nor `boundary`, and choose their optimizer and rates by hand. Older runs on
tables have no parts without a net.
"""


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
SIMPLE = ("MSP", "RandomForest", "linear, probability")
NEIGHBOURS = ("KNN", "cosine KNN, 1")
# Names of the classes, by those in the stored runs.
SHOWN = {"VMDLS": "VMDLSDetector", "VMDLS_b": "VMDLSbDetector"}

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
# Pages written by hand that have tables of stored runs.
WITH_TABLES = ("README.md", "docs/method.md", "docs/choosing_the_threshold.md")


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
    links = []
    for page in KINDS:
        links += [f"- [{page_head(page)[2:]}]({page})"]
        for path in _paths(folder, page):
            title = _title(path, json.loads(path.read_text()))
            links.append(f"  - [`{path.stem}`]({page}#{path.stem}): {title}")
    links.append(
        "- [Measured guarantees](results_guarantees.md): coverage of thresholds"
    )
    details = details_table(folder)
    older = OLDER if any("older" in line for line in details) else ""
    largest = folder / "all-cifar10-cpu.json"
    accuracy = "not stored"
    if largest.exists():
        found = _overall(json.loads(largest.read_text()), ())
        accuracy = f"{found['VMDLS']['accuracy']:.3f}"
    made = "Pages and tables are made by `python examples/benchmarks report`."
    middle = DETAILS.format("\n".join(details))
    tail = TAIL.format(accuracy, older)
    return "\n".join(
        [HEAD, *summary_table(folder), middle + tail, *links, "", made, ""]
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
    lines = _head(columns, n_texts=2)
    for row, stored in _summarized(folder):
        if only_headlines and not row.is_headline:
            continue
        found = _overall(stored, row.tasks)
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
        page = f"{_page_of(row.run)}#{row.run}"
        known = row.known if only_headlines else f"[{row.known}]({page})"
        lines.append(_row([known, row.unknown, *cells]))
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
    lines = _head(columns, n_texts=2)
    for row, stored in _summarized(folder):
        found, groups = _overall(stored, row.tasks), _groups(stored, row.tasks)
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
            "" if n_train is None else f"{'up to ' * _is_of_tables(stored)}{n_train:,}",
            str(settings.get("settings", {}).get("max_epochs", "")),
            _repetitions(stored, row.tasks),
            _number(_standard_error(groups), digits=4),
            f"{n_best} of {len(groups)}",
            *(_number(of["accuracy"]) for of in (ours, simple)),
            *(_number(ours[f"{kind} rejected"]) for kind in ("known", "unknown")),
            "older" if is_older(stored) else "",
        ]
        lines.append(_row(cells))
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
    lines = _head(["known", "unknown", *GAINS], n_texts=2)
    for known, run in (("MNIST", "mnist"), ("CIFAR-10", "cifar10")):
        path = folder / f"ablation-evidence-{run}-cpu.json"
        if not path.exists():
            continue
        parts = json.loads(path.read_text())["parts"]
        for name in _sets(list(parts.values())):
            if name == "MNIST-noise":  # As NOISE, in every column.
                continue
            cells = [
                float(
                    np.mean([f["AUROC"] for f in _of_kind(parts, method, kind, name)])
                )
                for method, kind in GAINS.values()
            ]
            shown = [_bold(cell, max(cells)) for cell in cells]
            lines.append(_row([known, name, *shown]))
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
    lines = _head(["known data", "rejected at `contamination=0.05`"])
    for title, run, tasks in REJECTED:
        path = folder / f"{run}.json"
        if path.exists():
            ours = _overall(json.loads(path.read_text()), tasks)["VMDLS"]
            link = f"[{title}]({_page_of(run)}#{run})"
            lines.append(_row([link, _number(ours["known rejected"])]))
    return lines


def _of_kind(
    parts: dict[str, Any], method: str, kind: str, unknown: str
) -> list[dict[str, float]]:
    """Metrics of a kind of part against an unknown set, a dict for each seed."""
    return [
        part["methods"][method]["sets"][unknown]
        for name, part in parts.items()
        if name.partition("; ")[0] == kind
    ]


def _summarized(folder: Path) -> Iterator[tuple[Summarized, Any]]:
    for row in SUMMARY:
        path = folder / f"{row.run}.json"
        if path.exists():
            yield row, json.loads(path.read_text())


def is_older(stored: Any) -> bool:
    """Whether a run was made when the detector had other parameters than now.

    Parameters
    ----------
    stored : object
        From JSON.

    Returns
    -------
    is_older : bool
        False for a run that stores no parameters.

    Examples
    --------
    >>> is_older({"settings": {"parameters": {"latent_dim": 32}}})
    True
    """
    used = stored.get("settings", {}).get("parameters")
    return used is not None and used.keys() != VMDLSDetector().get_params().keys()


def _is_of_tables(stored: Any) -> bool:
    return experiment_of(stored) in EXPERIMENTS and (
        EXPERIMENTS[experiment_of(stored)].layout == "tables"
    )


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
    cells = [_bold(value, max(values)) for value in values]
    return [*cells[:-1], (cells[-1], best)]


def _with_names(best: Sequence[tuple[str, str]]) -> str:
    """Write the best values with the names of their methods, one name only once."""
    if len({name for _, name in best}) == 1:
        return f"{' / '.join(value for value, _ in best)} ({best[0][1]})"
    return " / ".join(f"{value} ({name})" for value, name in best)


def _bold(value: float, largest: float) -> str:
    """Write three digits, in bold if they are those of the largest value."""
    cell = f"{value:.3f}"
    return f"**{cell}**" if cell == f"{largest:.3f}" else cell


def _number(value: float, digits: int = 3) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def _repetitions(stored: Any, chosen: tuple[str, ...]) -> str:
    """Count the repetitions of each task, table or set."""
    if "tasks" not in stored:
        return str(len(next(iter(_groups(stored, chosen)[0].values()))["AUROC"]))
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


def _overall(stored: Any, chosen: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Mean of each metric of each method over tasks, tables or sets."""
    groups = _groups(stored, chosen)
    methods = [m for m in groups[0] if all(m in group for group in groups)]
    return {
        method: {
            name: float(np.mean([np.mean(group[method][name]) for group in groups]))
            for name in groups[0][method]
        }
        for method in methods
    }


def _groups(
    stored: Any, chosen: tuple[str, ...]
) -> list[dict[str, dict[str, np.ndarray]]]:
    """Metrics (repetitions,) of each method, for each task, table or unknown set.

    A method with an error in a group is not in it.
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
    if _is_of_tables(stored):
        of_tables = _of_tables(parts)
        present = [of_tables[name] for name in TEST_TABLES if name in of_tables]
        return [_of_runs(runs, _sets(runs)[0]) for runs in present]
    runs = list(parts.values())
    sets = [name for name in _sets(runs) if not chosen or name in chosen]
    return [_of_runs(runs, name) for name in sets]


def _of_runs(
    runs: list[dict[str, Any]], unknown: str
) -> dict[str, dict[str, np.ndarray]]:
    """Metrics (runs,) of each method against one unknown set."""
    found = {}
    for method in _methods(runs):
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
            shown = SHOWN["VMDLS_b"] if method == "ours" else method
            lines.append(_row([shown, *cells]))
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
        *("run", "settings", "VMDLSbDetector AUROC", "VMDLSDetector AUROC"),
        *("its difference", "its OSCR", "its F1", "accuracy", "fit seconds"),
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
    lines += [
        "### AUROC, table by table",
        "",
        *_head(["", "half", *map(_shown, methods)], 2),
    ]
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
        lines.append(_row([_shown(method), *cells]))
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
        lines.append(_row([_shown(method), *cells]))
    return lines


def _method_rows(
    runs: list[dict[str, Any]], name: str
) -> dict[str, list[dict[str, float]]]:
    """Figures of each run, by method; a method with an error has no row."""
    methods = {
        method: [part["methods"][method] for part in runs] for method in _methods(runs)
    }
    return {
        _shown(method): [entry["sets"][name] for entry in entries]
        for method, entries in methods.items()
        if not any("error" in entry for entry in entries)
    }


def _shown(method: str) -> str:
    return SHOWN.get(method, method)


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
            rows.setdefault(f"{_shown(method)}: {kind}", []).append(figures)
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


def with_tables(text: str, folder: Path) -> str:
    """Fill in the tables of a page that is written by hand.

    They are between the name of a table, as ``<!-- summary -->``, and ``<!-- end -->``.

    Parameters
    ----------
    text : str
    folder : Path
        With the JSON files.

    Returns
    -------
    text : str

    Examples
    --------
    >>> with_tables("No table.", Path())
    'No table.'
    """
    tables = {
        "summary": summary_table(folder, only_headlines=True),
        "gains": gains_table(folder),
        "rejected": rejected_table(folder),
        "few rows": few_rows_table(folder),
    }
    return re.sub(
        rf"(<!-- ({'|'.join(tables)}) -->\n).*?(<!-- end -->)",
        lambda match: "\n".join([match[1].rstrip(), *tables[match[2]], match[3]]),
        text,
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
# Ends of the names of tasks that have one repetition.
FIXED_TASKS = ("100 a class", "unknown CIFAR-100", "unknown CIFAR-10")
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
    "results_guarantees.md": guarantees_page,
    **{page: partial(runs_page, page=page) for page in KINDS},
    "performance.md": performance_page,
    "recipe_runs.md": recipe_page,
    "recipe_trials.md": trials_page,
}

"""The pages of runs on one kind of data, and which of them shows which run."""

import json
from pathlib import Path

from experiments import EXPERIMENTS
from recipe_pages import FOR_RECIPES
from sections import run_section
from stored_runs import experiment_of, title_of

__all__ = ["KINDS", "page_head", "page_of", "paths_of", "runs_page"]

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
    paths = paths_of(folder, page)
    about = "[What the columns mean](results.md#how-to-read-the-tables)."
    lines = [page_head(page), "", about, ""]
    for path in paths:
        title = title_of(path, json.loads(path.read_text()))
        lines.append(f"- [{path.stem}](#{path.stem}): {title}")
    lines.append("")
    return "\n".join([*lines, *[run_section(path) for path in paths]])


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


def paths_of(folder: Path, page: str) -> list[Path]:
    """Find the stored experiments that a page shows.

    Parameters
    ----------
    folder : Path
        With the JSON files.
    page : str

    Returns
    -------
    paths : list of Path

    Examples
    --------
    >>> paths_of(Path("nowhere"), "results_tables.md")
    []
    """
    paths = []
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        is_shown = experiment_of(stored) in EXPERIMENTS.keys() - FOR_RECIPES.keys()
        is_of_vectors = isinstance(stored, dict) and "tasks" in stored
        if (is_shown or is_of_vectors) and page_of(path.stem) == page:
            paths.append(path)
    return paths


def page_of(name: str) -> str:
    """Name the page that shows a run.

    Parameters
    ----------
    name : str
        Of the run, as its file without the ending.

    Returns
    -------
    page : str

    Examples
    --------
    >>> page_of("osr-mnist-quick")
    'results_digits.md'
    """
    return next(page for page, (_, start) in KINDS.items() if name.startswith(start))

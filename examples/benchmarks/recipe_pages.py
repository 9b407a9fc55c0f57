"""The pages of trials by which settings were chosen."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments import EXPERIMENTS
from markdown_tables import table_head, table_row

__all__ = ["FOR_RECIPES", "recipe_page", "trials_page"]

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


def _recipe_table(stored: dict[str, Any]) -> list[str]:
    columns = (
        *("run", "settings", "VMDLSbDetector AUROC", "VMDLSDetector AUROC"),
        *("its difference", "its OSCR", "its F1", "accuracy", "fit seconds"),
    )
    lines = table_head(columns, 2)
    first = "defaults" if "defaults" in stored else min(stored)
    usual = stored[first]["parts"]
    for name in sorted(stored, key=lambda name: (name != first, name)):
        # An unfinished run has not seen all splits.
        if stored[name]["parts"].keys() == usual.keys():
            lines.append(_recipe_row(name, stored[name], usual))
    return lines


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
    return table_row(cells)


def _left_out(parts: dict[str, Any], method: str, measure: str) -> np.ndarray:
    return np.array(
        [
            figures[measure]
            for _, part in sorted(parts.items())
            for figures in part["methods"][method]["sets"].values()
        ]
    )


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
    lines += table_head(
        ["trained by", "data", "split", "accuracy", *measures], n_texts=3
    )
    for trial in sorted(stored["trials"], key=lambda t: (t["data"], t["training"])):
        places = [trial["training"], trial["data"], trial["split"]]
        found = [trial["accuracy"], *(trial["AUROC"].get(name) for name in measures)]
        lines.append(
            table_row(places + ["" if x is None else f"{x:.4f}" for x in found])
        )
    return "\n".join([*lines, ""])

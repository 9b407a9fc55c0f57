"""What a stored run holds: its experiment, methods, tables and unknown sets."""

from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS
from protocol import OURS
from skvmdls import VMDLSDetector

__all__ = [
    "VECTOR_MEASURES",
    "commits_of",
    "experiment_of",
    "is_of_tables",
    "is_older",
    "methods_of",
    "runs_by_table",
    "shown_name",
    "title_of",
    "unknown_sets",
]

# Of runs on embeddings: metrics as pages name them, and as they are stored.
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
# Names of the classes, by those in the stored runs.
SHOWN = {"VMDLS": "VMDLSDetector", "VMDLS_b": "VMDLSbDetector"}


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


def title_of(path: Path, stored: dict[str, Any]) -> str:
    """Give the title of a stored run, which is that of its experiment.

    Parameters
    ----------
    path : Path
        Of the JSON file.
    stored : dict
        From JSON.

    Returns
    -------
    title : str

    Examples
    --------
    >>> title_of(Path("ood-vectors.json"), {"tasks": {}})
    'Embeddings of texts and images against other data'
    """
    if "tasks" in stored:
        return VECTOR_TITLES[path.stem]
    return EXPERIMENTS[experiment_of(stored)].title


def is_of_tables(stored: Any) -> bool:
    """Whether a stored run is of tables, which has means over tables.

    Parameters
    ----------
    stored : object
        From JSON.

    Returns
    -------
    is_of_tables : bool

    Examples
    --------
    >>> is_of_tables({"settings": {"experiment": "osr-tables"}})
    True
    """
    return experiment_of(stored) in EXPERIMENTS and (
        EXPERIMENTS[experiment_of(stored)].layout == "tables"
    )


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


def methods_of(runs: list[dict[str, Any]]) -> list[str]:
    """Name the methods of a run, the detectors before the baselines.

    Parameters
    ----------
    runs : list of dict
        Parts of one stored run.

    Returns
    -------
    methods : list of str

    Examples
    --------
    >>> methods_of([{"methods": {"KNN": {}, "VMDLS_b": {}, "VMDLS": {}}}])
    ['VMDLS', 'VMDLS_b', 'KNN']
    """
    return [*OURS, *[name for name in runs[0]["methods"] if name not in OURS]]


def shown_name(method: str) -> str:
    """Name a method as pages do: a detector by its class.

    Parameters
    ----------
    method : str
        As it is stored.

    Returns
    -------
    name : str

    Examples
    --------
    >>> shown_name("VMDLS_b"), shown_name("KNN")
    ('VMDLSbDetector', 'KNN')
    """
    return SHOWN.get(method, method)


def unknown_sets(runs: list[dict[str, Any]]) -> list[str]:
    """Name the unknown sets that a run was tested on.

    Parameters
    ----------
    runs : list of dict
        Parts of one stored run.

    Returns
    -------
    names : list of str

    Examples
    --------
    >>> unknown_sets([{"methods": {"VMDLS": {"sets": {"Omniglot": {}}}}}])
    ['Omniglot']
    """
    return list(runs[0]["methods"]["VMDLS"]["sets"])


def runs_by_table(parts: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Give the runs of each table, its splits together.

    Parameters
    ----------
    parts : dict of str to dict
        Of a stored run on tables, by the name of the table and the seed.

    Returns
    -------
    of_tables : dict of str to list of dict

    Examples
    --------
    >>> runs_by_table({"wine; seed 0": {"a": 1}, "wine; seed 1": {"a": 2}})
    {'wine': [{'a': 1}, {'a': 2}]}
    """
    of_tables: dict[str, list[dict[str, Any]]] = {}
    for part, content in parts.items():
        of_tables.setdefault(part.partition("; seed")[0], []).append(content)
    return of_tables


def commits_of(parts: list[dict[str, Any]]) -> str:
    """Name the commits that the parts of a run were made in.

    Parameters
    ----------
    parts : list of dict
        With ``surroundings``.

    Returns
    -------
    commits : str

    Examples
    --------
    >>> commits_of([{"surroundings": {"commit": name}} for name in ("a1", "b2", "b2")])
    'a1, b2'
    """
    commits = dict.fromkeys(str(part["surroundings"]["commit"]) for part in parts)
    return ", ".join(commits)

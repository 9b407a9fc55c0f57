"""Results on disk, whole after every finished part, and the scripts that write them."""

import argparse
import ast
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import torch

import skvmdls

__all__ = [
    "Record",
    "circumstances",
    "command_line",
    "laid_out",
    "parsed_or_shown",
    "rounded",
    "script_parser",
    "surroundings",
    "write",
]

PACKAGES = (
    "skvmdls",
    "torch",
    "torchvision",
    "scikit-learn",
    "numpy",
    "pytorch-ood",
    "pytorch-metric-learning",
)
# The rooms here that decide a figure; the others only show it.
MEASURING = (
    *("experiments.py", "figures.py", "peers.py", "protocol.py", "speed.py"),
    "tables.py",
)


class Record:
    """Parts of a benchmark, each stored as soon as it is there.

    A file of the same settings and the same code is continued, so that an interrupted
    run keeps what it finished; another is replaced.

    Parameters
    ----------
    path : Path
        JSON file.
    settings : dict
        What decides the results, of JSON's types.

    Attributes
    ----------
    parts : dict of str to dict

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> record = Record(folder / "a.json", {"epochs": 2})
    >>> record.add("seed 0", {"auroc": 0.9})
    >>> "seed 0" in Record(folder / "a.json", {"epochs": 2}).parts
    True
    >>> Record(folder / "a.json", {"epochs": 3}).parts
    {}
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps({**settings, "code": _code()}))
        self.parts: dict[str, Any] = {}
        if path.exists():
            stored = json.loads(path.read_text())
            if stored["settings"] == self.settings:
                self.parts = stored["parts"]

    def add(self, name: str, part: dict[str, Any]) -> None:
        """Store a part; the file is replaced as a whole, never left half-written.

        Parameters
        ----------
        name : str
        part : dict
            Of JSON's types.
        """
        self.parts[name] = rounded(part) | {"surroundings": surroundings()}
        content = {"settings": self.settings, "parts": self.parts}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".unfinished")
        unfinished.write_text(_json(content))
        os.replace(unfinished, self.path)


def rounded(value: Any) -> Any:
    """Round all floats to six digits: what is beyond is noise, and half of a file.

    Parameters
    ----------
    value : object
        Of JSON's types.

    Returns
    -------
    rounded : object

    Examples
    --------
    >>> rounded({"AUROC": [0.123456789]})
    {'AUROC': [0.123457]}
    """
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def surroundings() -> dict[str, Any]:
    """Versions and hardware that a measurement ran on.

    Returns
    -------
    surroundings : dict
        ``versions``, ``commit``, ``processor``, ``threads`` and ``gpu``.

    Examples
    --------
    >>> sorted(surroundings())
    ['commit', 'gpu', 'processor', 'threads', 'versions']
    """
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def script_parser(about: str | None) -> argparse.ArgumentParser:
    """Make the command line of a script that measures, with ``--output``.

    Parameters
    ----------
    about : str
        The script's docstring, which its help shows as it is.

    Returns
    -------
    parser : ArgumentParser

    Examples
    --------
    >>> script_parser("Count.").parse_args(["--output", "a.json"]).output.name
    'a.json'
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=None, help="JSON file to write")
    return parser


def parsed_or_shown(
    parser: argparse.ArgumentParser, table: Callable[[dict[str, Any]], str]
) -> argparse.Namespace:
    """Parse the command line; with ``--show``, print a stored run and end there.

    Parameters
    ----------
    parser : ArgumentParser
    table : callable
        From a stored run to the text that shows it.

    Returns
    -------
    options : Namespace
    """
    parser.add_argument("--show", type=Path, help="JSON file to print as a table")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.show.read_text())))
        sys.exit()
    return options


def circumstances() -> dict[str, Any]:
    """Tell what was called, and where: ``command`` and ``surroundings`` of a run.

    Returns
    -------
    circumstances : dict
        See :func:`surroundings`.

    Examples
    --------
    >>> sorted(circumstances())
    ['command', 'surroundings']
    """
    return {"command": command_line(sys.argv), "surroundings": surroundings()}


def command_line(arguments: Sequence[str]) -> str:
    """Write a command of Python, without the folders of this machine.

    Parameters
    ----------
    arguments : sequence of str
        Those behind ``python``.

    Returns
    -------
    command : str

    Examples
    --------
    >>> command_line(["examples/benchmarks", "--data-home", "/somewhere/data"])
    'python examples/benchmarks --data-home data'
    """
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", *shown])


def write(found: dict[str, Any], output: Path | None) -> None:
    """Write a run to a file, if one is asked for.

    Parameters
    ----------
    found : dict
        Of JSON's types.
    output : Path or None

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.json"
    >>> write({"rows": []}, path)
    >>> json.loads(path.read_text())
    {'rows': []}
    """
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n")


def laid_out(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    titles: Mapping[str, str] | None = None,
) -> str:
    """Lay rows out as a table of Markdown, words to the left and numbers to the right.

    Parameters
    ----------
    rows : sequence of dict
    columns : dict of str to str
        The format of each column, by its name in the rows; empty for words.
    titles : dict of str to str, optional
        What stands above a column, where that is not its name.

    Returns
    -------
    table : str

    Examples
    --------
    >>> print(laid_out([{"net": "mlp", "s": 0.25}], {"net": "", "s": ".1f"}))
    | net | s |
    |---|---:|
    | mlp | 0.2 |
    """
    heads = [(titles or {}).get(name, name) for name in columns]
    sides = ["---:" if form else "---" for form in columns.values()]
    cells = [[format(row[n], form) for n, form in columns.items()] for row in rows]
    lines = [f"| {' | '.join(line)} |" for line in (heads, *cells)]
    return "\n".join([lines[0], f"|{'|'.join(sides)}|", *lines[1:]])


def _json(content: dict[str, dict[str, Any]]) -> str:
    """One line a setting and a part, so that a change of one is a change of a line."""
    blocks = [
        json.dumps(name)
        + ": {\n"
        + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in block.items())
        + "\n}"
        for name, block in content.items()
    ]
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _code() -> str:
    """Hash of the sources that decide a figure, the detectors' and the benchmarks'.

    An edit to a comment or to the layout leaves it as it is.
    """
    package = sorted(Path(skvmdls.__file__).parent.rglob("*.py"))
    paths = [*package, *(Path(__file__).with_name(name) for name in MEASURING)]
    return joblib.hash([(p.name, ast.dump(ast.parse(p.read_text()))) for p in paths])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

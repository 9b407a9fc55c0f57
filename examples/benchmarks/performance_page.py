"""The page of speed and memory next to other code."""

import json
from pathlib import Path
from typing import Any

from speed import LIMITS
from stored_runs import commits_of

__all__ = ["performance_page"]


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
        f"commit {commits_of(parts)} ([stored run](results/speed.json)).",
    ]
    return "\n".join([*lines, ""])


def _amount(value: float | None, row: dict[str, Any]) -> str:
    return "" if value is None else f"{value:.3g} {row['unit']}"

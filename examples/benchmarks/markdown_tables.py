"""Tables in Markdown: heads, rows and cells of numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["bold_cell", "mean_cell", "number_cell", "table_head", "table_row"]


def table_head(columns: Sequence[str], n_texts: int = 1) -> list[str]:
    """Write the names of columns and the line below them, which aligns the columns.

    Parameters
    ----------
    columns : sequence of str
    n_texts : int, default=1
        How many columns have text and are aligned left. Those after them have numbers.

    Returns
    -------
    lines : list of str

    Examples
    --------
    >>> table_head(["data", "AUROC"])
    ['| data | AUROC |', '|---|---:|']
    """
    return [
        table_row(columns),
        "|" + "---|" * n_texts + "---:|" * (len(columns) - n_texts),
    ]


def table_row(cells: Sequence[str]) -> str:
    """Write one row.

    Parameters
    ----------
    cells : sequence of str

    Returns
    -------
    line : str

    Examples
    --------
    >>> table_row(["digits", "0.98"])
    '| digits | 0.98 |'
    """
    return f"| {' | '.join(cells)} |"


def mean_cell(values: Sequence[Any], measure: str = "", spread: bool = True) -> str:
    """Write the mean of repetitions and their standard deviation.

    Parameters
    ----------
    values : sequence of float or None
    measure : str, default=""
        What the values measure. Seconds have few digits and no deviation.
    spread : bool, default=True
        Whether to write the deviation, if there are several values.

    Returns
    -------
    cell : str
        Empty where a value is missing.

    Examples
    --------
    >>> mean_cell([0.5, 0.7]), mean_cell([14.2, 15.1], "fit seconds")
    ('0.6000 ± 0.100', '15')
    >>> mean_cell([0.5, None])
    ''
    """
    if None in values:
        return ""
    is_time = "second" in measure
    mean = np.mean(values)
    digits = (0 if mean >= 10 else 1) if is_time else 4
    has_spread = spread and len(values) > 1 and not is_time
    spread_by = f" ± {np.std(values):.3f}" if has_spread else ""
    return f"{mean:.{digits}f}{spread_by}"


def number_cell(value: float, digits: int = 3) -> str:
    """Write a number.

    Parameters
    ----------
    value : float
    digits : int, default=3

    Returns
    -------
    cell : str
        Empty for NaN.

    Examples
    --------
    >>> number_cell(0.98765), number_cell(float("nan"))
    ('0.988', '')
    """
    return "" if np.isnan(value) else f"{value:.{digits}f}"


def bold_cell(value: float, largest: float) -> str:
    """Write three digits, in bold if they are those of the largest value.

    Parameters
    ----------
    value : float
    largest : float
        Of the row.

    Returns
    -------
    cell : str

    Examples
    --------
    >>> bold_cell(0.91, 0.91), bold_cell(0.85, 0.91)
    ('**0.910**', '0.850')
    """
    cell = f"{value:.3f}"
    return f"**{cell}**" if cell == f"{largest:.3f}" else cell

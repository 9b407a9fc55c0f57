"""Pages made from stored results: no number in them is typed."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gpu_page import gpu_page
from guarantees_page import few_rows_table, guarantees_page
from overview import gains_table, rejected_table, summary_table
from performance_page import performance_page
from recipe_pages import recipe_page, trials_page
from results_page import results_page
from run_pages import KINDS, runs_page

__all__ = ["PAGES", "WITH_TABLES", "with_tables"]

# Pages written by hand that have tables of stored runs.
WITH_TABLES = ("README.md", "docs/method.md", "docs/choosing_the_threshold.md")


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


PAGES: dict[str, Callable[[Path], str]] = {
    "results.md": results_page,
    "results_guarantees.md": guarantees_page,
    **{page: partial(runs_page, page=page) for page in KINDS},
    "performance.md": performance_page,
    "on_a_gpu.md": gpu_page,
    "recipe_runs.md": recipe_page,
    "recipe_trials.md": trials_page,
}

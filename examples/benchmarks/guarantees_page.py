"""The page of measured guarantees, made from the stored simulations and fits."""

import json
from pathlib import Path
from typing import Any

import cross_calibration
import guarantees
import open_world_figures
import threshold_coverage
from markdown_tables import table_head, table_row

__all__ = ["few_rows_table", "guarantees_page"]

HEAD = """# Measured guarantees

How often thresholds reject known points, in simulations and in fits. [Choosing the
threshold](choosing_the_threshold.md) has the conclusions. The share that is allowed is
`contamination`. The page is made by `python examples/benchmarks report`.
"""

COVERAGE = """
## On average

One net on MNIST ({training points:,} training images, {epochs} epochs). The test points
are split again and again. Of them {calibration points:,} set the threshold and
{test points:,} are new. The mean rejection is at the bound, and one split scatters
around it. "Worst deviation" is the largest difference between the rejection of one
split and `contamination` ([stored run](results/threshold_coverage.json) of
`threshold_coverage.py`):

{table}
"""

CONFIDENCE = """
## With confidence

Simulated calibrations. "Too much" is the share of thresholds that reject more than
`contamination`: for all points together, for each of five classes with as many held-out
points, and without `confidence`. With `confidence=0.9` it may be at most 0.1. Values
above that are within {excess:.1f} standard errors of it ([stored
run](results/guarantees.json) of `guarantees.py`):

{table}

Ranks are whole numbers, so that the share is below 0.1 where few held-out points lie
under the threshold. For example, {held_out} held-out points and
`contamination={contamination}` have rank {rank}. The exact share is {share:.3f}, which
the simulation estimates by {simulated:.3f}. Rank {next_rank} would have
{next_share:.3f}, which is too much.
"""

DIGITS = """
## Few rows

"Scores" is the number of scores that set the threshold. "2 to 8 %" is the share of fits
that reject as many of the new known points, where `contamination` is 0.05. All are from
a [stored run](results/cross_calibration.json) of `cross_calibration.py`, which goes on
with `--repeats` and `--seeds`.

**Digits** of six known classes, as rows and as images, where only the seed is set:

{table}
"""

TABLES = """
**Small tables** with a third of the classes left out. The rows are drawn again for each
fit. Up to 17 scores, a split accepts everything, because `contamination=0.05` needs 19:

{table}
"""

ROUTER = """
**Messages** of a router, for which CLINC150's other intents are unknown. The rows are
drawn again for each fit:

{table}
"""

BY_CLASS = """
## By class

Simulated scores of three classes with different spread, a tenth of each held out: the
rejected share of new points by the threshold of the class, and by that of all points
together. They are scores without the offsets of small classes, and there are no unknown
points ([stored run](results/open_world_figures.json) of `open_world_figures.py`):

{table}
"""

ORDER = """
## In time order

Simulated files of five classes, and the share with a p-value of at most 0.01. "Spread"
is the standard deviation of the scores ([stored run](results/guarantees.json) of
`guarantees.py`):

{table}
"""


def guarantees_page(folder: Path) -> str:
    """Set out what was measured of the guarantees, in Markdown.

    Parameters
    ----------
    folder : Path
        With the JSON files. Sections whose run is not stored are left out.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> guarantees_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# Measured guarantees'
    """
    names = ("threshold_coverage", "guarantees", "cross_calibration")
    paths = {name: folder / f"{name}.json" for name in (*names, "open_world_figures")}
    stored = {
        name: json.loads(path.read_text()) if path.exists() else {}
        for name, path in paths.items()
    }
    coverage, simulated, few, by_class = stored.values()
    sections = [HEAD]
    if coverage:
        table = threshold_coverage.table(coverage["coverage"])
        sections.append(COVERAGE.format(**coverage, table=table))
    if "confidence" in simulated:
        sections.append(_with_confidence(simulated["confidence"]["rows"]))
    for text, group in ((DIGITS, "digits"), (TABLES, "tables"), (ROUTER, "router")):
        if group in few:
            table = cross_calibration.table(few[group]["rows"])
            sections.append(text.format(table=table))
    if "guarantee" in by_class:
        table = open_world_figures.table(by_class["guarantee"]["rows"])
        sections.append(BY_CLASS.format(table=table))
    if "order" in simulated:
        table = guarantees.table(simulated["order"]["rows"])
        sections.append(ORDER.format(table=table))
    return "".join(sections)


def few_rows_table(folder: Path) -> list[str]:
    """Lay out the range of rejected points over fits to few rows, cross-calibrated.

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
    >>> len(few_rows_table(Path("nowhere")))
    2
    """
    columns = ["data", "rows", "fits", "known rejected", "unknown rejected"]
    lines = table_head(columns)
    path = folder / "cross_calibration.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    for group, content in stored.items():
        for row in content["rows"]:
            if row["calibration"] == "cross":
                title = (
                    f"digits, as {row['data']}" if group == "digits" else row["data"]
                )
                known = f"{row['lowest']:.3f} to {row['highest']:.3f}"
                unknown = f"{row['lowest unknown']:.2f} to {row['highest unknown']:.2f}"
                cells = [title, f"{row['rows']:.0f}", str(row["fits"]), known, unknown]
                lines.append(table_row(cells))
    return lines


def _with_confidence(rows: list[dict[str, Any]]) -> str:
    """Write the section on `confidence`, with the exact share of its second row."""
    from scipy.stats import binom

    name = "too much, confidence=0.9"
    excess = max(
        (row[name] - 0.1) / row["standard error"] for row in rows if row[name] > 0.1
    )
    row = rows[1]
    n, rate, rank = row["held out"], row["contamination"], row["rank"]
    # P(Beta(k, n + 1 - k) > c) = P(Binomial(n, c) < k)
    return CONFIDENCE.format(
        table=guarantees.table(rows),
        excess=excess,
        held_out=n,
        contamination=rate,
        rank=rank,
        share=binom.cdf(rank - 1, n, rate),
        simulated=row[name],
        next_rank=rank + 1,
        next_share=binom.cdf(rank, n, rate),
    )

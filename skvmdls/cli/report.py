"""A page about a folder of images: what was rejected and why, acceptance by class.

The page is written from the template ``report.html``.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np
from PIL import Image

from skvmdls.calibration.summary import acceptance_by
from skvmdls.cli.conclusion import conclusion, is_poor
from skvmdls.cli.folders import ImageReader, Judged, shown_images
from skvmdls.cli.parts import meanings_of
from skvmdls.detector.base import BaseDetector

__all__ = ["report_page"]

THUMBNAIL = 96

# Images a day, whose false alarms are counted.
A_DAY = 1000

# Bars of the evidence end here.
LONGEST_BAR = 10.0

# The most bins, and the x coordinates and largest height of the bars, in the template's
# units.
N_BINS, LEFT, RIGHT, HIGHEST = 40, 45, 630, 115


class Bar(NamedTuple):
    """One bar of the histogram, in the units of its SVG."""

    x: float
    height: float
    is_accepted: bool


class Histogram(NamedTuple):
    """Bars of the scores minus the threshold, which is at `threshold_x`."""

    bars: list[Bar]
    bar_width: float
    threshold_x: float
    most: int  # images of the highest bar
    ticks: list[tuple[float, str]]  # x and number


class Row(NamedTuple):
    """Cells of a row, and whether the result in it is a bad one."""

    cells: tuple[str, ...]
    is_bad: bool = False


class Table(NamedTuple):
    """Heads and rows of cells."""

    heads: tuple[str, ...]
    rows: Sequence[Row]


class Card(NamedTuple):
    """One rejected image: its plots are pairs of a source and a text."""

    name: Path
    pictures: list[tuple[str, str]]
    p_value: float
    nearest: Sequence[str]
    parts: list[tuple[str, float]]


def report_page(
    detector: BaseDetector,
    found: Judged,
    labels: Sequence[str] | None,
    folder: Path,
    most: int,
    reader: ImageReader,
) -> str:
    """Write the page, in HTML that needs no other file.

    `labels` are the true ones (n,), if they are known. Of the rejected images the
    `most` with the lowest scores are shown. The reader is the one that read them.
    """
    n_rejected = int(np.sum(found.is_rejected))
    rejected = np.flatnonzero(found.is_rejected)
    shown = rejected[np.argsort(found.margins[rejected], kind="stable")][:most]
    images, X = shown_images(reader, [found.paths[i] for i in shown])
    maps = None if X is None else detector.explain(X).get("residual_map")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("skvmdls", "cli"), autoescape=True
    )
    return environment.get_template("report.html").render(
        title=f"{folder.absolute().name}: {n_rejected} of {len(found.paths)} images "
        "rejected",
        detector=detector,
        summary=detector.summary(n_points=A_DAY),
        conclusion=conclusion(detector, found, labels),
        pictures=reader.pictures.described(),
        net=reader.net and reader.net.name,
        failures=found.failures,
        legend=meanings_of(found.names),
        rejected_share=np.mean(found.is_rejected),
        # Too few held-out points set no threshold, and all margins are infinite.
        histogram=_histogram(found.margins)
        if np.isfinite(found.margins).all()
        else None,
        has_labels=labels is not None,
        acceptance=_acceptance(detector, found, labels),
        n_rejected=n_rejected,
        has_maps=maps is not None,
        cards=list(_cards(found, shown, images, maps, folder)),
        longest_bar=LONGEST_BAR,
    )


def _histogram(margins: np.ndarray) -> Histogram:
    # A few very low scores would leave no room for the rest: they go to the first bin.
    low = min(np.quantile(margins, 0.02), -np.abs(margins).max() / 20)
    high = max(margins.max(), 0) or 1
    # The threshold is an edge, so that no bar is on both of its sides.
    step = (high - low) / np.clip(2 * np.sqrt(len(margins)), 10, N_BINS)
    edges = step * np.arange(np.floor(low / step), np.ceil(high / step) + 1)
    counts, _ = np.histogram(margins.clip(edges[0], edges[-1]), edges)
    x = LEFT + (edges - edges[0]) * (RIGHT - LEFT) / (edges[-1] - edges[0])
    bars = [
        Bar(x[i], counts[i] / counts.max() * HIGHEST, is_accepted=edges[i] >= 0)
        for i in np.flatnonzero(counts)
    ]
    threshold_x = float(np.interp(0, edges, x))
    return Histogram(
        bars,
        bar_width=x[1] - x[0] - 1,
        threshold_x=threshold_x,
        most=int(counts.max()),
        ticks=[
            (float(np.interp(tick, edges, x)), f"{tick:g}")
            for tick in _round_numbers(edges[0], edges[-1])
        ],
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """List about four to ten multiples of 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> _round_numbers(-4.2, 3.9)
    [-4.0, -2.0, 0.0, 2.0]
    """
    power = 10.0 ** np.floor(np.log10((high - low) / 4))
    step = max(n * power for n in (1, 2, 5) if n * power <= (high - low) / 4)
    multiples = range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)
    return [float(f"{n * step:.6g}") for n in multiples]


def _acceptance(
    detector: BaseDetector, found: Judged, labels: Sequence[str] | None
) -> Table:
    known = {str(label) for label in detector.classes_}
    if labels is None:
        counted = [
            Row((label, f"{np.sum(found.answers == label)}"))
            for label in [*sorted(known), "-1"]
        ]
        return Table(("predicted label", "images"), counted)
    truth = np.asarray(labels)
    rows = []
    for label in sorted(set(labels), key=lambda label: (label not in known, label)):
        answers = found.answers[truth == label]
        is_right = np.mean(answers == label)
        (accepted,) = acceptance_by([label] * len(answers), answers != "-1")
        cells = (
            label if label in known else f"{label} (not a known class)",
            str(len(answers)),
            f"{accepted.share:.1%}",
            f"{accepted.low:.1%} to {accepted.high:.1%}",
            f"{is_right:.1%}" if label in known else "",
        )
        is_bad = is_poor(detector, answers == "-1", is_known=label in known)
        rows.append(Row(cells, is_bad))
    heads = (
        *("sub-folder", "images", "accepted", "range, 19 times in 20"),
        "accepted as this class",
    )
    return Table(heads, rows)


def _cards(
    found: Judged,
    shown: np.ndarray,
    images: list[np.ndarray],
    maps: np.ndarray | None,
    folder: Path,
) -> Iterator[Card]:
    for place, i in enumerate(shown):
        path = found.paths[i]
        pictures = [(_data_uri(images[place]), "the image")]
        if maps is not None:
            # On one scale for all images of a page.
            grey = (maps[place][None] * (255 / maps.max())).astype(np.uint8)
            pictures.append((_data_uri(grey), "where it differs from its class"))
        yield Card(
            name=path.relative_to(folder) if path.is_relative_to(folder) else path,
            pictures=pictures,
            p_value=found.p_values[i],
            nearest=found.known_nearest(i),
            parts=list(found.parts(i)),
        )


def _data_uri(picture: np.ndarray) -> str:
    """Encode bytes (channels, height, width) as a small JPEG within the page."""
    pixels = picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0)
    image = Image.fromarray(pixels)
    if max(image.size) > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

"""A page about a folder of images: what was rejected and why, acceptance by class."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skvmdls.cli.folders import Judged, read_images

__all__ = ["report_page"]

THUMBNAIL = 96

# Further out than this, bars of the evidence are cut off.
LONGEST_BAR = 10.0
N_BINS = 40
STYLE = """
:root { --ink: #1b1f24; --faint: #5c6670; --line: #d8dee4; --paper: #ffffff;
  --known: #0072b2; --unknown: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9aa7b4;
  --line: #39424d; --paper: #14181d; --known: #56b4e9; --unknown: #f0a060; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background:
  var(--paper); max-width: 70rem; margin: 0 auto; padding: 1rem; }
h1, h2 { line-height: 1.2; } p, li { max-width: 44rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: .25rem .75rem; border-bottom: 1px solid var(--line);
  text-align: right; }
th:first-child, td:first-child { text-align: left; }
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .75rem; margin: 0;
  min-width: 0; }
.card img { width: 96px; image-rendering: pixelated; margin-right: .5rem; }
.card p { margin: .25rem 0; overflow-wrap: anywhere; font-size: .875rem; }
.bars { display: grid; grid-template-columns: auto 1fr auto; gap: 0 .5rem;
  font-size: .8125rem; align-items: center; }
.bars i { display: block; height: .5rem; background: var(--known); min-width: 1px; }
.bars i.out { background: var(--unknown); }
.faint { color: var(--faint); } svg { max-width: 44rem; width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
"""


def report_page(
    detector: Any,
    found: Judged,
    labels: Sequence[str] | None,
    folder: Path,
    most: int,
) -> str:
    """Write the page, in HTML that needs nothing else.

    `labels` are the true ones, n of them, if they are known; of the rejected images the
    `most` strangest are shown.
    """
    title = f"{folder.absolute().name}: {np.sum(found.is_rejected)} of "
    title += f"{len(found.paths)} images rejected"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        _summary(detector, found),
        "<h2>Where the threshold is</h2>",
        _histogram(found.margins),
        "<h2>Acceptance by class</h2>",
        _by_class(detector, found, labels),
        "<h2>The rejected images</h2>",
        _rejected(detector, found, folder, most),
    ]
    body = "\n".join(sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _summary(detector: Any, found: Judged) -> str:
    classes = ", ".join(map(str, detector.classes_))
    promise = (
        f"A new image of a known class is rejected with a chance of at most "
        f"{detector.contamination:.0%}, if it comes as the training images came; "
        f"{np.mean(found.is_rejected):.1%} of these images were rejected."
        if detector.threshold is None
        else "The threshold was set by hand, and so carries no promise."
    )
    return (
        f"<p>The detector knows {len(detector.classes_)} classes: "
        f"{html.escape(classes)}. {promise}</p>"
    )


def _histogram(margins: np.ndarray) -> str:
    # A few points far out would leave no room for the rest: they go to the last bin.
    low = min(np.quantile(margins, 0.02), -np.abs(margins).max() / 20)
    counts, edges = np.histogram(
        margins.clip(low), N_BINS, range=(low, max(margins.max(), 0) or 1)
    )
    width, height, base = 640, 160, 135
    scale = (width - 20) / (edges[-1] - edges[0])
    bars = "".join(
        f'<rect x="{10 + (edge - edges[0]) * scale:.1f}" '
        f'y="{base - count / counts.max() * 115:.1f}" '
        f'width="{(edges[1] - edges[0]) * scale - 1:.1f}" '
        f'height="{count / counts.max() * 115:.1f}" '
        f'fill="var(--{"known" if edge + edges[1] - edges[0] > 0 else "unknown"})"/>'
        for edge, count in zip(edges[:-1], counts, strict=True)
        if count
    )
    zero = 10 - edges[0] * scale
    side, step = ("end", -6) if zero > width / 2 else ("start", 6)
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        'aria-label="Histogram of scores with the threshold">'
        f'{bars}<line x1="{zero:.1f}" x2="{zero:.1f}" y1="5" y2="{base}" '
        'stroke="currentColor" stroke-dasharray="4 3"/>'
        f'<text x="{zero + step:.1f}" y="16" text-anchor="{side}">threshold</text>'
        f'<text x="10" y="{height - 6}">rejected, unlike the known ones</text>'
        f'<text x="{width - 10}" y="{height - 6}" text-anchor="end">accepted</text>'
        '</svg><p class="faint">Number of images by score, less the threshold. What is '
        "far out on the left is in the first bar.</p>"
    )


def _by_class(detector: Any, found: Judged, labels: Sequence[str] | None) -> str:
    known = {str(label) for label in detector.classes_}
    if labels is None:
        counted = [
            (label, f"{np.sum(found.answers == label)}")
            for label in [*sorted(known), "-1"]
        ]
        told = "<p>The images came without labels: this counts the answers.</p>"
        return told + _table(("answer", "images"), counted)
    truth, rows = np.asarray(labels), []
    for label in sorted(set(labels), key=lambda label: (label not in known, label)):
        answers = found.answers[truth == label]
        is_right = np.mean(answers == label)
        rows.append(
            (
                label if label in known else f"{label} (not a known class)",
                str(len(answers)),
                f"{np.mean(answers != '-1'):.1%}",
                f"{is_right:.1%}" if label in known else "",
            )
        )
    heads = ("sub-folder", "images", "accepted", "accepted as this class")
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _rejected(detector: Any, found: Judged, folder: Path, most: int) -> str:
    rejected = np.flatnonzero(found.is_rejected)
    rejected = rejected[np.argsort(found.margins[rejected], kind="stable")]
    if not len(rejected):
        return "<p>None.</p>"
    shown = rejected[:most]
    told = (
        "<p>The strangest first. Each bar is a part of the evidence: how far below "
        "what known images usually score, in units of their usual range (beyond 4 of "
        "them, of a logarithm); orange is outside of it. Bars end at "
        f"{LONGEST_BAR:.0f}."
    )
    images = read_images([found.paths[i] for i in shown], detector.input_shape_)
    maps = detector.explain(images).get("residual_map") if len(shown) else None
    if maps is not None:
        told += (
            " The second picture is brighter where the image is unlike those of the "
            "nearest class."
        )
    if len(shown) < len(rejected):
        told += (
            f" Shown are {len(shown)} of {len(rejected)}: --most sets how many; "
            "<code>predict</code> lists all."
        )
    cards = []
    for place, i in enumerate(shown):
        pictures = [images[place]]
        if maps is not None:
            pictures.append(_as_grey(maps[place], maps.max()))
        cards.append(_card(found, i, pictures, folder))
    return f'{told}</p>\n<div class="cards">{"".join(cards)}</div>'


def _as_grey(residual_map: np.ndarray, white: float) -> np.ndarray:
    """Bring a map (height, width) to bytes, on one scale for all of a page."""
    return (residual_map[None] * (255 / white)).astype(np.uint8)


def _card(found: Judged, i: int, pictures: list[np.ndarray], folder: Path) -> str:
    path = found.paths[i]
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    images = "".join(
        f'<img src="{_data_uri(picture)}" alt="{what}" height="{THUMBNAIL}">'
        for picture, what in zip(
            pictures, ("the image", "where it is unlike its class"), strict=False
        )
    )
    bars = "".join(
        f"<span>{html.escape(part)}</span>"
        f'<i class="{"out" if value < -1 else ""}" '
        f'style="width:{min(max(-value, 0), LONGEST_BAR) / LONGEST_BAR:.0%}"></i>'
        f"<span>{value:.1f}</span>"
        for part, value in found.parts(i)
    )
    nearest = html.escape(", ".join(found.known_nearest(i)))
    return (
        f'<figure class="card">{images}<figcaption>'
        f"<p><b>{html.escape(str(name))}</b></p>"
        f"<p>p-value {found.p_values[i]:.3f}; nearest: {nearest}</p>"
        f'<div class="bars">{bars}</div></figcaption></figure>\n'
    )


def _data_uri(picture: np.ndarray) -> str:
    """Bring bytes (channels, height, width) to a small JPEG within the page."""
    pixels = picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0)
    image = Image.fromarray(pixels)
    if max(image.size) > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()

"""The page of what was measured on a GPU."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from markdown_tables import table_head, table_row

__all__ = ["gpu_page"]

STAGES = ("tests", "scores", "speed", "photographs")
# As many of what takes the host's time as the page names.
N_SHOWN = 3


def gpu_page(folder: Path) -> str:
    """Set out the stored parts of ``on_a_gpu.py`` in Markdown.

    Parameters
    ----------
    folder : Path
        With a folder ``on_a_gpu``.

    Returns
    -------
    page : str

    Examples
    --------
    >>> import tempfile
    >>> gpu_page(Path(tempfile.mkdtemp())).splitlines()[0]
    '# On a GPU'
    """
    lines = [
        "# On a GPU",
        "",
        'With `device="auto"`, the default, a detector uses the GPU that torch finds.',
        "A detector that was trained there is saved, loaded and used without one.",
        "",
    ]
    paths = [folder / "on_a_gpu" / f"{stage}.json" for stage in STAGES]
    if not all(path.exists() for path in paths):
        return "\n".join([*lines, "Nothing is stored yet.", ""])
    tests, scores, speed, photographs = (
        json.loads(path.read_text())["parts"] for path in paths
    )
    links = [f"[{stage}](results/on_a_gpu/{stage}.json)" for stage in STAGES]
    around = next(iter(scores.values()))["surroundings"]
    lines += [
        "The command `python examples/benchmarks/on_a_gpu.py` ran on one",
        f"{around['gpu']} with torch {around['versions']['torch']}, for eight minutes",
        f"(stored: {', '.join(links)}).",
        "",
        *_score_lines(scores),
        *_speed_lines(speed),
        *_photograph_lines(photographs),
        *_test_lines(tests),
    ]
    return "\n".join(lines)


def _score_lines(parts: dict[str, Any]) -> list[str]:
    rows = [
        table_row(
            [
                name,
                f"{part['largest difference']:.1g}",
                f"{part['largest difference without TF32']:.1g}",
                f"{part['equal labels']:.2%}",
                f"{part['points']:,}",
            ]
        )
        for name, part in parts.items()
    ]
    head = ["detector", "largest difference", "without TF32", "equal answers", "points"]
    return [
        "## Scores",
        "",
        "One fitted detector scores the same points on the GPU and on the CPU.",
        "Differences are in standard deviations of the scores. The usual precision of",
        "convolutions on this GPU is TF32, which has a mantissa of 10 bits.",
        "",
        *table_head(head),
        *rows,
        "",
    ]


def _speed_lines(parts: dict[str, Any]) -> list[str]:
    head = ["net", "photographs", "fit of 3 epochs", "softmax net's training"]
    head += ["an epoch", "softmax net's epoch", "images a second", "memory at most"]
    rows, sentences = [], []
    for name, part in parts.items():
        what, _, net = name.partition(", ")
        if what == "fit":
            times = (
                *(part["fit of 3 epochs, s"], part["softmax net of 3 epochs, s"]),
                *(part["an epoch, s"], part["softmax net's epoch, s"]),
            )
            cells = [net, f"{part['training images']:,}"]
            cells += [f"{time:.2f} s" for time in times]
            cells += [f"{part['images/s']:,.0f}", f"{part['peak MiB']:.0f} MiB"]
            rows.append(table_row(cells))
        else:
            slowest = list(part["on the host, s"])[:N_SHOWN]
            sentences += [
                f"With `{net}`, the GPU computes for {part['GPU busy, share']:.0%} of",
                "a fit of one epoch. In the other time the CPU prepares and starts the",
                f"work, above all {', '.join(f'`{one}`' for one in slowest)}.",
                "A small net therefore gains little from a faster GPU.",
            ]
    return ["## Speed", "", *table_head(head), *rows, "", *sentences, ""]


def _photograph_lines(parts: dict[str, Any]) -> list[str]:
    epochs, ours = parts["epochs"], parts["ours"]["methods"]["VMDLS"]
    rows = [
        table_row([name, f"{found['AUROC']:.3f}", f"{found['TNR@TPR95']:.3f}"])
        for name, found in ours["sets"].items()
    ]
    return [
        "## A training of full size",
        "",
        "`osr-cifar10 --preset paper` trains ResNet18 on",
        f"{epochs['training images']:,} images of CIFAR-10. The time was enough for",
        f"{epochs['epochs']} of its {epochs['of the preset']} epochs. The fit took "
        f"{ours['fit seconds']:.0f} s, and the",
        f"accuracy is {ours['closed-set accuracy']:.3f}.",
        "",
        *table_head(["unknown", "AUROC", "TNR at 95 % TPR"]),
        *rows,
        "",
    ]


def _test_lines(parts: dict[str, Any]) -> list[str]:
    counts = Counter(part["outcome"] for part in parts.values())
    others = {
        name: p["outcome"] for name, p in parts.items() if p["outcome"] != "passed"
    }
    named = [f"- `{name}`: {outcome}" for name, outcome in others.items()]
    return [
        "## Tests",
        "",
        f"{counts['passed']} of {len(parts)} tests that need a GPU passed"
        + ("." if not named else ". The others:"),
        *([""] * bool(named)),
        *named,
        "",
    ]

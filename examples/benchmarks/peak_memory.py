"""Peak memory of scoring more and more images from a memory map.

Each size is scored in a process of its own, which loads a detector, scores once to have
everything imported and all threads started, and then scores the memory map. The map's
own pages count as memory while they are read, and are taken off. Needs Linux.

    python examples/benchmarks/peak_memory.py --rows 1000 10000 100000
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

import skvmdls
from children import extra_memory
from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSDetector

SHAPE = (1, 28, 28)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parsed_or_shown(parser, table)
    found = {
        "rows": measured(options.rows),
        **circumstances(),
    }
    write(found, options.output)
    print(table(found))


def measured(sizes: list[int]) -> list[dict]:
    rng = np.random.default_rng(0)
    folder = Path(tempfile.mkdtemp())
    labels = np.arange(600) % 10
    images = rng.normal(size=(600, *SHAPE)) + labels.reshape(-1, 1, 1, 1)
    detector = VMDLSDetector(max_epochs=1, autoencoder_epochs=1, random_state=0)
    skvmdls.save(detector.fit(images, labels), folder / "detector")
    rows = np.lib.format.open_memmap(
        folder / "rows.npy", "w+", np.float32, (max(sizes), *SHAPE)
    )
    for start in range(0, len(rows), 10_000):
        part = rows[start : start + 10_000]
        part[:] = rng.normal(size=part.shape)
    rows.flush()
    alone = extra_memory(partial(score, folder, 0))
    return [
        {
            "rows": n,
            "input, MiB": rows[:n].nbytes / 2**20,
            "beyond the input, MiB": extra_memory(partial(score, folder, n))
            - alone
            - rows[:n].nbytes / 2**20,
        }
        for n in sizes
    ]


def score(folder: Path, n: int) -> None:
    detector = skvmdls.load(folder / "detector")
    detector.score_samples(np.zeros((256, *SHAPE), np.float32))
    if n:
        detector.score_samples(np.load(folder / "rows.npy", mmap_mode="r")[:n])


def table(found: dict) -> str:
    columns = {"rows": ",", "input, MiB": ".0f", "beyond the input, MiB": ".0f"}
    return laid_out(found["rows"], columns)


if __name__ == "__main__":
    main()

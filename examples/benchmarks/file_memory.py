"""Peak memory of saving and of loading a detector of many classes.

Each is done in a process of its own, which has saved and loaded a small detector
before, so that imports do not count. What saving takes is beyond the detector, which is
about as large as its file; what loading takes is with it. Needs Linux.

    python examples/benchmarks/file_memory.py --classes 1000
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import skvmdls
from children import extra_memory
from records import circumstances, laid_out, parsed_or_shown, script_parser, write
from skvmdls import VMDLSbDetector
from skvmdls.scoring import ClassGaussians

N_FEATURES = 64


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--classes", type=int, default=1000)
    options = parsed_or_shown(parser, table)
    found = {
        "rows": [measured(kind, options.classes) for kind in ("full", "tied")],
        **circumstances(),
    }
    write(found, options.output)
    print(table(found))


def measured(kind: str, n_classes: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.safetensors"
        warm_up = partial(save_and_load, Path(folder) / "small")
        saving = extra_memory(
            partial(save_prepared, path), partial(prepare, kind, n_classes, path)
        )
        return {
            "classes": n_classes,
            "covariances": kind,
            "file, MiB": path.stat().st_size / 2**20,
            "saving, MiB": saving,
            "loading, MiB": extra_memory(partial(skvmdls.load, path), warm_up),
        }


def made(kind: str, n_classes: int) -> VMDLSbDetector:
    """Fit variances, which is quick, and put covariances of the same size in."""
    rng = np.random.default_rng(0)
    y = np.arange(4 * n_classes) % n_classes
    X = rng.normal(size=(len(y), N_FEATURES)).astype(np.float32)
    detector = VMDLSbDetector(
        max_epochs=1, fusion="early", covariance_type="diag", random_state=0
    )
    detector.fit(X, y)
    gaussians: Any = detector.gaussians_["ensemble"]
    means = gaussians.means.numpy()
    n = means.shape[1]
    precisions = np.zeros((n_classes, n, n) if kind == "full" else (n, n))
    precisions[..., np.arange(n), np.arange(n)] = 1.0
    # Zeros that were never written would take no memory.
    precisions += 1e-3
    detector.gaussians_["ensemble"] = ClassGaussians(means, precisions, kind)
    return detector


prepared: list[VMDLSbDetector] = []


def prepare(kind: str, n_classes: int, path: Path) -> None:
    save_and_load(path.with_name("small"))
    prepared.append(made(kind, n_classes))


def save_prepared(path: Path) -> None:
    skvmdls.save(prepared[0], path)


def save_and_load(path: Path) -> None:
    skvmdls.save(made("full", 3), path)
    skvmdls.load(path)


def table(found: dict) -> str:
    columns = {"classes": ",", "covariances": ""}
    columns |= dict.fromkeys(("file, MiB", "saving, MiB", "loading, MiB"), ",.0f")
    return laid_out(found["rows"], columns)


if __name__ == "__main__":
    main()

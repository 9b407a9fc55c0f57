"""Change random bytes of a saved detector, and count what `load` makes of it.

Every mutated file must be refused with a ValueError, or load to a detector of the same
scores. Anything else is printed, and makes the script fail.

    python examples/fuzz_load.py --mutations 10000
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

import skvmdls
from skvmdls import VMDLSDetector


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, 6)) + 4 * np.eye(6)[y]
    detector = VMDLSDetector(max_epochs=2, autoencoder_epochs=1, contamination=0.1)
    expected = detector.fit(X, y).score_samples(X)
    path = Path(tempfile.mkdtemp()) / "detector.safetensors"
    skvmdls.save(detector, path)
    content = path.read_bytes()

    counts: Counter[str] = Counter()
    for _ in tqdm(range(options.mutations), unit="file"):
        path.write_bytes(mutated(content, rng))
        try:
            scores = skvmdls.load(path).score_samples(X)
            equal = np.array_equal(scores, expected)
            counts["loaded equal" if equal else "loaded different"] += 1
        except ValueError:
            counts["refused"] += 1
        except Exception as error:
            counts[f"crashed: {type(error).__name__}: {error}"] += 1
    for outcome, count in sorted(counts.items()):
        print(f"{outcome}: {count}")
    sys.exit(any(outcome not in ("refused", "loaded equal") for outcome in counts))


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Change a few bytes, mostly of the header; now and then cut or lengthen."""
    changed = bytearray(content)
    header = int.from_bytes(content[:8], "little") + 8
    end = header if rng.random() < 0.8 else len(content)
    for place in rng.integers(0, end, rng.integers(1, 5)):
        changed[place] = rng.integers(256)
    chance = rng.random()
    if chance < 0.05:
        del changed[rng.integers(len(changed)) :]
    elif chance < 0.1:
        changed += rng.bytes(rng.integers(1, 100))
    return bytes(changed)


if __name__ == "__main__":
    main()

"""Damage and forge saved detectors by the thousand; count what `load` makes of them.

Half of the files are damaged: random bytes are changed, cut off or added. Each must be
refused with a ValueError, or load to a detector of the same scores. The other half are
forged by somebody who knows the format: values and arrays are replaced by hostile ones,
and the checksum is set right. Each must be refused with a ValueError, or load and
answer. Anything else is a crash. Python's audit hook notices whatever would run code:
compiling, unpickling, starting processes, loading libraries, connecting.

    python examples/benchmarks/fuzz_load.py --mutations 10000
"""

import json
import resource
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

import skvmdls
from records import circumstances, parsed_or_shown, script_parser, write
from skvmdls import VMDLSDetector
from skvmdls.persistence import CHECKSUM, KEY, _checksum

OUTCOMES = ("refused", "loaded equal", "loaded, other answers", "crashed")
RUNS_CODE = (
    *("compile", "exec", "pickle.find_class", "marshal.loads", "ctypes.dlopen"),
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen"),
    *("socket.connect", "urllib.Request"),
)
HOSTILE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**63, 10**400, 0.5, -1e308, 1e-320),
    *("", "-1", "mlp", "cnn", "resnet18", "full", "paper", "cuda", "os.system"),
    *("../../etc/passwd", "__class__", "\x00", "𝟙" * 1000, "%s%n{0.__class__}"),
    *([], [[]], {}, [1, 2, 3], ["a", "b", "c"], [-1, 0, 1], [1, 2048, 2048], [2**22]),
    *({"class": {}}, [None] * 3, list(range(1000))),
)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parsed_or_shown(parser, table)
    found = fuzz(options.mutations, np.random.default_rng(options.seed))
    found |= circumstances()
    write(found, options.output)
    print(table(found))
    is_clean = not any(count["crashed"] for count in found["outcomes"].values())
    damaged = found["outcomes"]["damaged"]
    sys.exit(
        not is_clean or damaged["loaded, other answers"] > 0 or found["code run"] > 0
    )


def fuzz(n_mutations: int, rng: np.random.Generator) -> dict:
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, 6)) + 4 * np.eye(6)[y]
    detector = VMDLSDetector(max_epochs=2, autoencoder_epochs=1, contamination=0.1)
    expected = detector.fit(X, y).score_samples(X)
    path = Path(tempfile.mkdtemp()) / "detector.safetensors"
    skvmdls.save(detector, path)
    skvmdls.load(path).score_samples(X)  # What is imported at first is not the file's.
    content = path.read_bytes()
    with safe_open(path, framework="numpy") as file:
        head = file.metadata()[KEY]

    watch: dict[str, Any] = {"on": False, "events": Counter()}
    sys.addaudithook(
        lambda event, _: (
            watch["events"].update([event])
            if watch["on"] and event in RUNS_CODE
            else None
        )
    )
    watch["on"] = True
    eval("1 + 1")
    watch["on"] = False
    assert watch["events"].total() > 0, "The audit hook notices nothing."
    watch["events"].clear()
    outcomes = {kind: dict.fromkeys(OUTCOMES, 0) for kind in ("damaged", "forged")}
    crashes = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in tqdm(range(n_mutations), unit="file"):
        kind = ("damaged", "forged")[i % 2]
        if kind == "damaged":
            path.write_bytes(damaged(content, rng))
        else:
            forge(path, content, head, rng)
        watch["on"] = True
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scores = skvmdls.load(path).score_samples(X)
            equal = np.array_equal(scores, expected)
            outcome = "loaded equal" if equal else "loaded, other answers"
        except ValueError:
            outcome = "refused"
        except Exception as error:
            outcome = "crashed"
            crashes.append(f"{type(error).__name__}: {error}"[:200])
        watch["on"] = False
        outcomes[kind][outcome] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print("\n".join(sorted(set(crashes))), dict(watch["events"]) or "")
    return {
        "mutations": n_mutations,
        "outcomes": outcomes,
        "crashes": crashes,
        "code run": watch["events"].total(),
        "memory grown by, MiB": grown / 1024,
    }


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
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
        changed += rng.bytes(int(rng.integers(1, 100)))
    return bytes(changed)


def forge(path: Path, content: bytes, text: str, rng: np.random.Generator) -> None:
    """Replace one or two values or arrays, and write a file that is whole."""
    path.write_bytes(content)
    head, arrays = json.loads(text), load_file(path)
    for _ in range(rng.integers(1, 3)):
        if rng.random() < 0.6:
            forge_value(head, rng)
        else:
            forge_array(arrays, rng)
    text = json.dumps(head)
    save_file(arrays, path, {KEY: text, CHECKSUM: _checksum(text, arrays)})


def forge_value(place: dict | list, rng: np.random.Generator) -> None:
    """Walk down to a random value, and replace, remove or double it."""
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    if not keys:
        return
    key = keys[rng.integers(len(keys))]
    if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
        forge_value(place[key], rng)
    elif rng.random() < 0.1:
        del place[key]
    elif isinstance(place, list) and rng.random() < 0.1:
        place.append(place[key])
    else:
        place[key] = HOSTILE[rng.integers(len(HOSTILE))]


def forge_array(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    name = list(arrays)[rng.integers(len(arrays))]
    array = arrays[name]
    choices = (
        lambda: array[:-1],
        lambda: array[None],
        lambda: array.ravel(),
        lambda: np.zeros((0, *array.shape[1:]), array.dtype),
        lambda: np.repeat(array[None], 2, 0),
        lambda: array.astype(rng.choice(["f2", "f4", "f8", "i1", "i8", "u1", "?"])),
        lambda: np.full_like(array, rng.choice([0, -1, 1e30, 1e300, 1e-300])),
        lambda: np.full_like(array, rng.choice([np.nan, np.inf])),
        lambda: -array,
        lambda: array[::-1],
        lambda: array * rng.choice([0.0, 1e10, 1e-10]).astype(array.dtype),
    )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if rng.random() < 0.1:
            arrays[f"{name}.more"] = arrays.pop(name)
        elif array.ndim:
            changed = choices[rng.integers(len(choices))]()
            arrays[name] = np.ascontiguousarray(changed)


def table(found: dict) -> str:
    rows = [
        f"| {kind} | {sum(count.values()):,} | "
        + " | ".join(f"{count[outcome]:,}" for outcome in OUTCOMES)
        + " |"
        for kind, count in found["outcomes"].items()
    ]
    return "\n".join(
        [
            f"| files | tried | {' | '.join(OUTCOMES)} |",
            "|---|" + "---:|" * (1 + len(OUTCOMES)),
            *rows,
            "",
            f"Code run: {found['code run']}. The process grew by "
            f"{found['memory grown by, MiB']:.0f} MiB at most.",
        ]
    )


if __name__ == "__main__":
    main()

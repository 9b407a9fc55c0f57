"""The paper's experiments as commands: ``python examples/benchmarks NAME``.

Every command writes a JSON file with each number, its settings, versions and hardware;
``report`` makes the pages in ``docs/`` from these files. The baselines are detectors of
pytorch-ood on one softmax net, trained in the same run, on the same rows, with the same
backbone, augmentation, epochs and precision. Needs the extra ``bench``.
"""

import argparse
import ast
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments import EXPERIMENTS, Experiment, Options
from protocol import Task
from records import Record
from records import command_line as command_of
from report import PAGES, WITH_TABLES, with_tables
from sections import run_section
from skvmdls import VMDLSDetector
from speed import GROUPS, speed
from stored_runs import experiment_of

RESULTS = Path("docs/results")
PRESETS = ("quick", "cpu", "paper")


def main(arguments: list[str] | None = None) -> None:
    """Run what the command line names."""
    options = _parser().parse_args(arguments)
    if options.name == "report":
        _report(options.output)
    elif options.name == "speed":
        _run_speed(options)
    else:
        _run_experiment(options)


def _report(folder: Path) -> None:
    for path in folder.glob("*.json"):
        stored = json.loads(path.read_text())
        experiment = EXPERIMENTS.get(experiment_of(stored))
        if experiment is not None and experiment.draw is not None:
            experiment.draw(stored["parts"], path.with_suffix(".png"))
    for name, page in PAGES.items():
        (folder.parent / name).write_text(page(folder))
        print(folder.parent / name)
    for name in WITH_TABLES:
        path = folder.parents[1] / name
        if path.exists():
            path.write_text(with_tables(path.read_text(), folder))
            print(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python examples/benchmarks",
        description="Run one of the paper's experiments next to baselines, measure the "
        "speed, or make the pages in docs/ from the stored runs.",
    )
    parser.add_argument("name", choices=[*EXPERIMENTS, "speed", "report"])
    parser.add_argument("--preset", choices=PRESETS, default="quick")
    parser.add_argument(
        "--quick", action="store_true", help="speed: once, on little data"
    )
    parser.add_argument(
        "--only", nargs="+", choices=GROUPS, default=GROUPS, help="speed: these groups"
    )
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder of the JSON files"
    )
    parser.add_argument("--seeds", type=int, help="instead of the preset's")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="only these, such as 'seed 0'"
    )
    parser.add_argument("--n-train", type=int, help="instead of the preset's")
    parser.add_argument("--n-test", type=int, help="instead of the preset's")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PARAMETER=VALUE",
        help="a parameter of the detectors, instead of the preset's",
    )
    parser.add_argument("--label", default="", help="added to the file's name")
    return parser


def _run_experiment(options: argparse.Namespace) -> None:
    experiment = EXPERIMENTS[options.name]
    if options.preset not in experiment.presets:
        raise SystemExit(
            f"{options.name} has no preset {options.preset!r}; it has "
            f"{', '.join(experiment.presets)}."
        )
    chosen = dict(experiment.presets[options.preset])
    for name in ("seeds", "n_train", "n_test"):
        if getattr(options, name) is not None:
            chosen[name] = getattr(options, name)
    chosen["settings"] = chosen["settings"] | dict(map(_setting, options.set))
    names = [options.name, options.preset] + [options.label] * bool(options.label)
    record = Record(
        options.output / f"{'-'.join(names)}.json",
        {
            "experiment": options.name,
            "preset": options.preset,
            **chosen,
            "parameters": VMDLSDetector(**chosen["settings"]).get_params(),
        },
    )
    missing = set(options.parts or ())
    for name, task in _tasks(experiment, Options(options.data_home, **chosen)):
        if options.parts and name not in options.parts:
            continue
        missing.discard(name)
        if name in record.parts:
            print(f"{name}: stored in {record.path} already.")
            continue
        print(f"{name}:", flush=True)
        started = time.perf_counter()
        part = experiment.measure(task())
        part |= {"seconds": time.perf_counter() - started, "command": _command()}
        record.add(name, part)
    if missing:
        raise SystemExit(
            f"--parts: {options.name} has no {', '.join(sorted(missing))}."
        )
    if experiment.draw is not None:
        experiment.draw(record.parts, record.path.with_suffix(".png"))
    print(run_section(record.path))


def _tasks(
    experiment: Experiment, options: Options
) -> Iterator[tuple[str, Callable[[], Task]]]:
    try:
        yield from experiment.tasks(options)
    except FileNotFoundError as error:
        raise SystemExit(f"The data cannot be had: {error}") from error


def _run_speed(options: argparse.Namespace) -> None:
    settings = {"experiment": "speed", "quick": options.quick}
    name = "speed-quick.json" if options.quick else "speed.json"
    record = Record(options.output / name, settings)
    for row in speed(options.quick, options.only):
        print(row, flush=True)
        record.add(f"{row['measure']} / {row['peer']}", row | {"command": _command()})


def _command() -> str:
    return command_of(["examples/benchmarks", *sys.argv[1:]])


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise SystemExit(f"--set {text!r} must be of the form PARAMETER=VALUE.")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value

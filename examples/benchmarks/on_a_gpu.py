"""What a GPU changes: the tests for it, scores, speed and a training of full size.

One command, of at most eight minutes on one H100:

    python examples/benchmarks/on_a_gpu.py --data-home DATA --output on_a_gpu

- `tests`: each test that is marked `gpu`.
- `scores`: one fitted detector scores the same points on the GPU and on the CPU.
- `speed`: fits and scores against a softmax net's training and the bare forward pass,
  and how much of a training the GPU is busy.
- `photographs`: `osr-cifar10 --preset paper`, with as many of its epochs as the time
  allows, next to a softmax net with as many.

Each runs in a process of its own and stores every finished part in a JSON file, named
after it, in the folder of `--output`. A second call goes on from there. DATA holds
``cifar10_jpeg.tar.xz``; the sets of unknown photographs are used where DATA has them.
Without CUDA, all of it runs on the CPU, and nothing measured there is about a GPU.
Where skvmdls is not installed, set PYTHONPATH to the folder of the repository.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from archives import load_cifar10
from experiments import EXPERIMENTS, Options, _photographs
from peers import SoftmaxNet, plan_of, softmax_net, standardized, train_softmax
from protocol import (
    HELD_OUT,
    Scored,
    Task,
    compare,
    fit,
    points_to_score,
    score,
)
from records import Record, laid_out
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._support.devices import resolve_device
from skvmdls._support.torch_state import seeded
from skvmdls.datasets import get_data_home
from skvmdls.nets.backbones import BACKBONES

ROOT = Path(__file__).parents[2]
HAS_GPU = torch.cuda.is_available()
DEVICE = resolve_device("auto")

# The share of the time by whose end each must have ended.
ENDS = {"tests": 0.3, "scores": 0.4, "speed": 0.6, "photographs": 1.0}
UNKNOWN_PHOTOGRAPHS = {
    "ImageNet-resize": "imagenet_resize_jpeg.tar.xz",
    "CIFAR-100": "cifar100_jpeg.tar.xz",
}
# Of the time for photographs: for our epochs, and for those of the softmax net.
SHARE_OF_EPOCHS = 0.75


@dataclass(frozen=True)
class Size:
    """How much is measured.

    `backbones` are those of `scores` and `speed`. They are fitted to `n_fit` images and
    score `n_scored`. `preset` changes the paper's, which has at most `epochs`.
    """

    backbones: tuple[str, ...]
    n_fit: int
    n_scored: int
    epochs: int
    preset: Mapping[str, Any]


SIZES = {
    "full": Size(("photo_cnn", "resnet18"), 10_000, 2_000, 100, {}),
    "tiny": Size(("cnn",), 270, 60, 2, {"n_train": 270, "n_test": 60}),
}


class Stage:
    """One of the four: where its parts go, and when its time is up."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.size = SIZES[options.size]
        self.output: Path = options.output
        self.data_home: Path | None = options.data_home
        self.end = time.monotonic() + options.seconds
        self.record = Record(
            options.output / f"{name}.json",
            {"stage": name, "size": options.size, "device": _device_name()},
        )

    @property
    def seconds_left(self) -> float:
        """Seconds until the stage must end."""
        return self.end - time.monotonic()

    def measure(self, part: str, make: Callable[[], dict[str, Any]]) -> None:
        """Store a part, unless it is stored, or the time is up."""
        if part in self.record.parts:
            print(f"{part}: stored already", flush=True)
        elif self.seconds_left < 0:
            print(f"{part}: no time left; call again to go on", flush=True)
        else:
            started = time.perf_counter()
            try:
                found = make()
            except Exception:
                # The others go on, and the next call tries it again.
                print(f"{part}: failed\n{traceback.format_exc()}", flush=True)
                return
            self.record.add(part, found | {"seconds": time.perf_counter() - started})
            print(f"{part}: {self.record.parts[part]['seconds']:.1f} s", flush=True)

    def images(self, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Training images with their labels, and test images: CIFAR-10's, or noise."""
        if self._has("cifar10_jpeg.tar.xz"):
            cifar = load_cifar10(self.data_home)
            chosen = np.random.RandomState(0).permutation(len(cifar.X_train))[:n]
            return cifar.X_train[chosen], cifar.y_train[chosen], cifar.X_test
        return drawn_images(n)

    def _has(self, archive: str) -> bool:
        return (get_data_home(self.data_home) / archive).exists()

    def task(self) -> Task:
        """Build the task of the paper's preset, with the unknown sets that are here."""
        preset = EXPERIMENTS["osr-cifar10"].presets["paper"] | dict(self.size.preset)
        preset["settings"] = preset["settings"] | {"backbone": self.size.backbones[-1]}
        options = Options(self.data_home, **preset)
        if self._has("cifar10_jpeg.tar.xz"):
            others = [k for k, file in UNKNOWN_PHOTOGRAPHS.items() if self._has(file)]
            [(_, make)] = _photographs("CIFAR-10", others, options)
            return make()
        X, y, X_test = drawn_images(options.n_train)
        known, far = X[: options.n_test], X_test[: options.n_test]
        unknown = {"noise": far}
        return Task(X, y, known, y[: options.n_test], unknown, options.settings)


def main() -> None:
    options = _options()
    options.output.mkdir(parents=True, exist_ok=True)
    names = options.only.split(",")
    if len(names) == 1:
        STAGES[names[0]](Stage(names[0], options))
        return
    print(plan(options), flush=True)
    started = time.monotonic()
    for name in names:
        left = started + ENDS[name] * options.seconds - time.monotonic()
        print(f"\n{name}, {left:.0f} s", flush=True)
        _run_alone(name, options, left)
    print(f"\nAll: {time.monotonic() - started:.0f} s")
    print(summary(options.output))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("on_a_gpu"))
    parser.add_argument("--data-home", type=Path, default=None)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", default=",".join(ENDS), metavar="NAME,NAME")
    parser.add_argument("--seconds", type=float, default=480)
    options = parser.parse_args()
    if unknown := set(options.only.split(",")) - set(ENDS):
        parser.error(f"--only names {sorted(unknown)}; there are {', '.join(ENDS)}")
    return options


def _run_alone(name: str, options: argparse.Namespace, seconds: float) -> None:
    """Run a stage in a process of its own: if it fails, the others still run."""
    command = [sys.executable, __file__, "--only", name, "--size", options.size]
    command += ["--output", options.output, "--seconds", str(seconds)]
    if options.data_home is not None:
        command += ["--data-home", options.data_home]
    try:
        code = subprocess.run(command, timeout=max(1.0, seconds)).returncode
        if code:
            print(f"{name} ended with {code}")
    except subprocess.TimeoutExpired:
        print(f"{name}: stopped, for its time is up; call again to go on")


def plan(options: argparse.Namespace) -> str:
    """Lay out what a call measures, where, and in which time."""
    size, rows = SIZES[options.size], []
    preset = EXPERIMENTS["osr-cifar10"].presets["paper"] | dict(size.preset)
    nets = " and ".join(size.backbones)
    measured = {
        "tests": "tests marked gpu: fit, score, save, memory, checkpoint, bfloat16, "
        "lack of memory, processes",
        "scores": f"{size.n_scored} points on the GPU and on the CPU, by {nets} and a "
        "table's detector",
        "speed": f"fits of {nets} on {size.n_fit} images: seconds an epoch, whole "
        "fit, scores, share of the time that the GPU is busy",
        "photographs": f"osr-cifar10 --preset paper: {preset['n_train']} images, at "
        f"most {size.epochs} epochs, and a softmax net with as many",
    }
    for name in options.only.split(","):
        end = ENDS[name] * options.seconds
        rows.append({"stage": name, "measures": measured[name], "ends by": end})
    where = f"on {_device_name()}"
    if not HAS_GPU:
        where += ", since there is no GPU; with one, the same is measured on it"
    return f"Measures {where}:\n\n" + laid_out(
        rows, {"stage": "", "measures": "", "ends by": ".0f"}, {"ends by": "ends by, s"}
    )


def summary(folder: Path) -> str:
    """Show what is stored, each part in a line, without its details."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        for part, found in json.loads(path.read_text())["parts"].items():
            hidden = ("surroundings", "reason")
            shown = {k: v for k, v in found.items() if k not in hidden}
            plain = {k: v for k, v in shown.items() if not isinstance(v, dict)}
            for method, figures in shown.get("methods", {}).items():
                plain[method] = [figures["closed-set accuracy"]] + [
                    [of_set["AUROC"], of_set["TNR@TPR95"], of_set["F1"]]
                    for of_set in figures["sets"].values()
                ]
            lines.append(f"{path.stem}, {part}: {plain}")
    return "\n".join(lines)


def _device_name() -> str:
    return torch.cuda.get_device_name() if HAS_GPU else "the CPU"


def drawn_images(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw three classes of noisy images 3x32x32 with their labels, and noise."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    means = rng.uniform(60, 190, (3, 3, 4, 4)).repeat(8, axis=2).repeat(8, axis=3)
    X = rng.normal(means[y], 40).clip(0, 255).astype(np.uint8)
    return X, y, rng.integers(0, 256, X.shape, dtype=np.uint8)


# -- Tests ------------------------------------------------------------------------


def run_tests(stage: Stage) -> None:
    """Run the tests marked `gpu` that have no outcome yet, and store each outcome."""
    import pytest

    class Outcomes:
        """A plugin of pytest that stores each test's outcome."""

        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items[:] = [i for i in items if i.name not in stage.record.parts]

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                name = report.nodeid.partition("::")[2]
                # Of a skipped test pytest gives a path of this machine, too.
                told = report.longrepr[2] if report.skipped else report.longrepr
                reason = "" if report.passed else str(told)[-2000:]
                outcome = {"outcome": report.outcome, "seconds": report.duration}
                stage.record.add(name, outcome | {"reason": reason})

        def pytest_runtest_setup(self) -> None:
            if stage.seconds_left < 0:
                pytest.exit("no time left; call again to go on", returncode=0)

    # Of the options in pyproject.toml some ask for plugins, which may be missing.
    arguments = ["-o", "addopts=", "-p", "no:cacheprovider", "-q", "-m", "gpu"]
    arguments += ["--rootdir", str(ROOT), str(ROOT / "tests" / "test_gpu.py")]
    pytest.main(arguments, plugins=[Outcomes()])


# -- Scores -----------------------------------------------------------------------


def compare_scores(stage: Stage) -> None:
    """Compare the scores of one fitted detector on the GPU and on the CPU."""
    size = stage.size
    X, y, X_test = stage.images(size.n_fit)
    for backbone in size.backbones:
        detector = VMDLSDetector(
            backbone, random_state=0, max_epochs=3, autoencoder_epochs=1
        )
        compared = partial(_compared, detector, X, y, X_test[: size.n_scored])
        stage.measure(f"images, {backbone}", compared)
    rng = np.random.default_rng(0)
    labels = np.arange(size.n_fit) % 5
    table = rng.normal(size=(size.n_fit, 20)) + 2 * np.eye(20)[labels]
    new = rng.normal(size=(size.n_scored, 20)) + 2 * np.eye(20)[5]
    detector = VMDLSDetector("mlp", max_epochs=3, random_state=0)
    stage.measure("table, mlp", partial(_compared, detector, table, labels, new))


def _compared(
    detector: VMDLSDetector, X: np.ndarray, y: np.ndarray, new: np.ndarray
) -> dict[str, Any]:
    detector.fit(X, y)
    points = np.concatenate([X[: len(new)], new])
    on_cpu = deepcopy(detector).set_params(device="cpu")
    expected, found = on_cpu.score_samples(points), detector.score_samples(points)
    differences = np.abs(found - expected) / expected.std()
    is_same = detector.predict(points) == on_cpu.predict(points)
    is_known_same = detector.predict_known(points) == on_cpu.predict_known(points)
    with _exact_convolutions():
        exact = np.abs(detector.score_samples(points) - expected) / expected.std()
    return {
        "largest difference": float(differences.max()),
        "median difference": float(np.median(differences)),
        "largest difference without TF32": float(exact.max()),
        "equal labels": float(is_same.mean()),
        "equal known labels": float(is_known_same.mean()),
        "points": len(points),
    }


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Compute convolutions on the GPU without TF32, which torch takes by default."""
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = True


# -- Speed ------------------------------------------------------------------------


def measure_speed(stage: Stage) -> None:
    """Time fits and scores against a softmax net's and the bare forward pass."""
    X, y, X_test = stage.images(stage.size.n_fit)
    for backbone in stage.size.backbones:
        for name, measured in (
            ("fit", _fit_speed),
            ("busy", _busy),
            ("scores", _score_speed),
        ):
            make = partial(measured, backbone, X, y, X_test[: len(X)])
            stage.measure(f"{name}, {backbone}", make)


def _seconds(function: Callable[[], Any]) -> float:
    _wait()
    started = time.perf_counter()
    function()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if HAS_GPU:
        torch.cuda.synchronize()


def _fit_speed(
    backbone: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray
) -> dict[str, Any]:
    """Seconds of whole fits of one and of three epochs, and of the softmax net's."""
    detector = VMDLSbDetector(backbone, random_state=0, max_epochs=1).fit(X, y)
    inputs, labels = _training_rows(detector, X, y)
    if HAS_GPU:
        torch.cuda.reset_peak_memory_stats()
    ours, theirs = {}, {}
    for epochs in (1, 3):
        estimator = VMDLSbDetector(backbone, random_state=0, max_epochs=epochs)
        ours[epochs] = _seconds(partial(estimator.fit, X, y))
        train = partial(_train_softmax, estimator, inputs, labels)
        theirs[epochs] = _seconds(train)
    one, its_one = (ours[3] - ours[1]) / 2, (theirs[3] - theirs[1]) / 2
    return {
        "training images": len(inputs),
        "fit of 3 epochs, s": ours[3],
        "softmax net of 3 epochs, s": theirs[3],
        "an epoch, s": one,
        "softmax net's epoch, s": its_one,
        "epoch against the softmax net's": one / its_one,
        "images/s": len(inputs) / one,
        "peak MiB": torch.cuda.max_memory_allocated() / 2**20 if HAS_GPU else None,
    }


def _training_rows(
    detector: Any, X: np.ndarray, y: np.ndarray
) -> tuple[Tensor, Tensor]:
    rows = detector.split_.training
    places = np.searchsorted(detector.classes_, y[rows])
    labels = torch.from_numpy(places).to(DEVICE)
    return standardized(detector, X[rows]).to(DEVICE), labels


def _train_softmax(detector: Any, inputs: Tensor, labels: Tensor) -> None:
    backbone, shape = detector.backbone, detector.input_shape_
    with seeded(0, DEVICE):
        net = SoftmaxNet(BACKBONES[backbone], shape, len(detector.classes_)).to(DEVICE)
        train_softmax(net, inputs, labels, plan_of(detector, DEVICE))


def _busy(
    backbone: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray
) -> dict[str, Any]:
    """Profile a fit of one epoch: how long kernels ran, and what took the time."""
    detector = VMDLSbDetector(backbone, random_state=0, max_epochs=1)
    fit_once = partial(detector.fit, X, y)
    seconds = min(_seconds(fit_once), _seconds(fit_once))
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * HAS_GPU
    with profile(activities=kinds) as profiled:
        _seconds(fit_once)
    events = profiled.key_averages()
    on_gpu = [
        e
        for e in events
        if e.device_type == DeviceType.CUDA and not e.is_user_annotation
    ]
    busy = sum(e.self_device_time_total for e in on_gpu) / 1e6
    return {
        "fit of 1 epoch, s": seconds,
        "GPU busy, s": busy,
        "GPU busy, share": busy / seconds,
        "on the GPU, s": _longest(on_gpu, "self_device_time_total"),
        "on the host, s": _longest(events, "self_cpu_time_total"),
    }


def _longest(events: Any, field: str, n: int = 12) -> dict[str, list[float]]:
    """Seconds and calls of the operations that take longest."""
    longest = sorted(events, key=lambda e: -getattr(e, field))[:n]
    return {e.key[:80]: [getattr(e, field) / 1e6, e.count] for e in longest}


@torch.inference_mode()
def _score_speed(
    backbone: str, X: np.ndarray, y: np.ndarray, X_test: np.ndarray
) -> dict[str, Any]:
    """Median seconds of scores, and of the bare forward pass over the same images."""
    detectors = {
        kind.__name__: kind(backbone, random_state=0, max_epochs=1).fit(X, y)
        for kind in (VMDLSbDetector, VMDLSDetector)
    }
    detector = detectors["VMDLSbDetector"]
    batches = standardized(detector, X_test).to(DEVICE).split(detector.batch_size)
    net = detector.network_.backbone

    def forward() -> None:
        for batch in batches:
            net(batch)

    def forward_without_tf32() -> None:
        with _exact_convolutions():
            forward()

    timed: dict[str, Callable[[], Any]] = {
        "forward pass": forward,
        "forward pass without TF32": forward_without_tf32,
    }
    timed |= {name: partial(d.score_samples, X_test) for name, d in detectors.items()}
    # The first turn does not count.
    turns = [{k: _seconds(f) for k, f in timed.items()} for _ in range(4)][1:]
    found = {name: float(np.median([turn[name] for turn in turns])) for name in timed}
    return {
        "images": len(X_test),
        **{f"{name}, s": seconds for name, seconds in found.items()},
        **{
            f"{name} against the forward pass": found[name] / found["forward pass"]
            for name in detectors
        },
    }


# -- Photographs ------------------------------------------------------------------


def run_photographs(stage: Stage) -> None:
    """Run `osr-cifar10 --preset paper` with the epochs that the time allows."""
    task = stage.task()
    epochs = partial(_epochs_that_fit, task, stage)
    stage.measure("epochs", epochs)
    if "epochs" not in stage.record.parts:
        return
    settings = task.settings | {
        "max_epochs": stage.record.parts["epochs"]["epochs"],
        "verbose": 0,
        # Trained nets stay until all is stored.
        "memory": os.fspath(stage.output / "nets"),
    }
    task = replace(task, settings=settings)
    fitted: dict[str, Any] = {}

    def ours() -> dict[str, Any]:
        fitted.update(fit(task))
        return {"methods": compare(task, fitted)}

    def softmax() -> dict[str, Any]:
        fitted.update(fitted or fit(task))
        return {"methods": compare(task, {"VMDLS": fitted["VMDLS"]}, _softmax_scores)}

    stage.measure("ours", ours)
    stage.measure("softmax net", softmax)
    if "softmax net" in stage.record.parts:
        shutil.rmtree(stage.output / "nets", ignore_errors=True)


def _epochs_that_fit(task: Task, stage: Stage) -> dict[str, Any]:
    """Time epochs on a part of the images, the first of which does not count."""
    n = min(5_000, len(task.X_train))
    X, y = task.X_train[:n], task.y_train[:n]
    kept = {k: v for k, v in task.settings.items() if k != "max_epochs"}
    seconds = [
        _seconds(partial(VMDLSbDetector(**kept, max_epochs=epochs).fit, X, y))
        for epochs in (1, 1, 3)
    ]
    an_epoch = max(1e-3, (seconds[2] - seconds[1]) / 2) * len(task.X_train) / n
    # Two nets are trained, each with so many epochs.
    fitting = int(SHARE_OF_EPOCHS * stage.seconds_left / 2 / an_epoch)
    most = min(stage.size.epochs, task.settings["max_epochs"])
    return {
        "epochs": max(1, min(most, fitting)),
        "of the preset": task.settings["max_epochs"],
        "an epoch of all images, s": an_epoch,
        "training images": len(task.X_train),
    }


def _softmax_scores(task: Task, detector: Any) -> dict[str, Callable[[], Scored]]:
    """Scores of a softmax net that need no library: MSP, MaxLogit, Energy, GEN."""
    seconds = -time.perf_counter()
    net, inputs, _ = softmax_net(task, detector)
    _wait()
    seconds += time.perf_counter()
    points = points_to_score(task, detector)
    batches = {name: standardized(detector, X).split(256) for name, X in points.items()}

    @torch.no_grad()
    def logits(parts: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([net(x.to(inputs.device)).double().cpu() for x in parts])

    answers = {
        name: detector.classes_[logits(parts).argmax(dim=1).numpy()]
        for name, parts in batches.items()
        if name != HELD_OUT
    }
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "MSP": lambda z: z.softmax(dim=1).amax(dim=1),
        "MaxLogit": lambda z: z.amax(dim=1),
        "Energy": lambda z: z.logsumexp(dim=1),
        "GEN": lambda z: -_spread_of(z.softmax(dim=1)),
    }

    def scored(rule: Callable[[Tensor], Tensor]) -> Scored:
        return score(
            batches, lambda x: rule(logits(x)).numpy(), answers, fit_seconds=seconds
        )

    return {name: partial(scored, rule) for name, rule in scores.items()}


def _spread_of(p: Tensor) -> Tensor:
    """Generalised entropy of probabilities (n, n_classes), with GEN's exponent."""
    return (p * (1 - p)).clamp_min(0).pow(0.1).sum(dim=1)


STAGES: dict[str, Callable[[Stage], None]] = {
    "tests": run_tests,
    "scores": compare_scores,
    "speed": measure_speed,
    "photographs": run_photographs,
}


if __name__ == "__main__":
    main()

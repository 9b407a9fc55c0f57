"""Kill a fit at random moments, resume it, and compare it with one that was not killed.

Each trial starts a fit in a process of its own, kills it by SIGKILL after a random
share of the time that a whole fit takes, fits again from its checkpoint, and compares
every weight, Gaussian and calibration score.

    python examples/benchmarks/kill_and_resume.py --trials 20
"""

import multiprocessing
import os
import signal
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import torch

from records import script_parser, write
from skvmdls import VMDLSDetector
from skvmdls.datasets import load_digits


def fitted(path: Path | None, epochs: int, ready: Event | None = None) -> VMDLSDetector:
    torch.set_num_threads(1)
    digits = load_digits(random_state=0)
    if ready is not None:
        ready.set()
    detector = VMDLSDetector(
        max_epochs=epochs, autoencoder_epochs=5, random_state=0, checkpoint=path
    )
    return detector.fit(digits.X_train, digits.y_train)


def numbers(detector: VMDLSDetector) -> list[np.ndarray]:
    nets = detector.network_, detector.autoencoder_, detector.gaussians_
    tensors = [value for net in nets for value in net.state_dict().values()]
    return [*map(np.asarray, tensors), detector.calibration_scores_]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp())
    started = time.perf_counter()
    whole = numbers(fitted(folder / "whole", options.epochs))
    whole_seconds = time.perf_counter() - started
    context, rng = multiprocessing.get_context("spawn"), np.random.default_rng(0)
    trials = []
    for trial in range(options.trials):
        path, ready = folder / f"fit-{trial}", context.Event()
        fit = context.Process(target=fitted, args=(path, options.epochs, ready))
        fit.start()
        assert fit.pid is not None  # It has started.
        if not ready.wait(timeout=300):
            raise RuntimeError("The fit to be killed has not begun in five minutes.")
        seconds = float(rng.uniform(0, whole_seconds))
        time.sleep(seconds)
        was_running = fit.is_alive()
        os.kill(fit.pid, signal.SIGKILL)
        fit.join()
        had_checkpoint = path.exists()
        resumed = numbers(fitted(path, options.epochs))
        same = all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
        trials.append(
            {
                "killed after, seconds": seconds,
                "was running": was_running,
                "had a checkpoint": had_checkpoint,
                "identical": same,
            }
        )
        print(trials[-1], flush=True)
    n_same = sum(trial["identical"] for trial in trials)
    print(f"{n_same} of {len(trials)} end where the uninterrupted fit ends.")
    results = {"whole fit, seconds": whole_seconds, "trials": trials}
    write(results, options.output)
    if n_same < len(trials):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

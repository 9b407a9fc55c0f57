"""Two processes that fit one detector, through torchrun on the CPU."""

import os
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from skvmdls import VMDLSDetector

SCRIPT = """
import os, pickle, signal, sys
import torch
import torch.distributed as dist
from skvmdls import VMDLSDetector
from skvmdls._checkpoints import Checkpoint

folder, mode = sys.argv[1:]
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
keep = Checkpoint._keep


def keep_and_die(self, path, name, state):
    keep(self, path, name, state)
    if state["epoch"] == 2 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


if mode == "die":
    Checkpoint._keep = keep_and_die
with open(f"{folder}/given", "rb") as file:
    fits, X, y = pickle.load(file)
answers = []
for settings in fits:
    dist.barrier()
    try:
        detector = VMDLSDetector(**settings).fit(X, y)
    except ValueError as error:
        answers.append(str(error))
        continue
    except RuntimeError as error:
        with open(f"{folder}/last words of {rank}", "w") as file:
            file.write(str(error))
        raise
    # Scoring is each process's own: no other is waited for.
    scores = detector.score_samples(X)
    history = detector.history_, detector.autoencoder_history_
    state = {k: v.numpy() for k, v in detector.network_.state_dict().items()}
    answers.append((scores, detector.offset_, history, state))
with open(f"{folder}/answers of {rank}", "wb") as file:
    pickle.dump(answers, file)
dist.barrier()
"""
SETTINGS = {
    "precision": "float32",
    "max_epochs": 4,
    "autoencoder_epochs": 2,
    "contamination": 0.2,
    # The batch of 21 has no equal halves.
    "samples_per_class": 7,
    "random_state": 0,
    "device": "cpu",
}
# Without margins, rounding stays what it is: it is not amplified in training.
STEADY = SETTINGS | {"metric_weight": 0}


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 45)
    X = rng.normal(size=(135, 2, 8, 8)).astype(np.float32)
    X += 2 * rng.normal(size=(3, 2, 8, 8))[y]
    return X, y


def launch(folder, mode, fits, X, y):
    (folder / "fit.py").write_text(SCRIPT)
    (folder / "given").write_bytes(pickle.dumps((fits, X, y)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(folder / "fit.py"), str(folder), mode]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=env)


def answers(folder):
    files = [folder / f"answers of {rank}" for rank in (0, 1)]
    return zip(*(pickle.loads(file.read_bytes()) for file in files), strict=True)


def assert_same(one, two):
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:3] == two[1:3]
    for name, value in one[3].items():
        np.testing.assert_array_equal(value, two[3][name])


def assert_close(found, expected, share_of_spread):
    difference = np.abs(found - expected).max()
    assert difference < share_of_spread * np.std(expected)


def test_two_processes_fit_what_one_fits(given, tmp_path):
    (tmp_path / "broken").write_text("no checkpoint")
    refused = [
        SETTINGS | {"memory": str(tmp_path)},
        SETTINGS | {"checkpoint": str(tmp_path / "broken")},
    ]
    unseeded = STEADY | {"random_state": None, "max_epochs": 1}
    fits = [STEADY, SETTINGS, unseeded, *refused]
    done = launch(tmp_path, "fit", fits, *given)
    assert done.returncode == 0, done.stderr
    steady, usual, drawn, *errors = answers(tmp_path)
    for one, two in (steady, usual, drawn):
        assert_same(one, two)
    for settings, (found, _) in ((STEADY, steady), (SETTINGS, usual)):
        alone = VMDLSDetector(**settings).fit(*given)
        if settings is STEADY:
            assert_close(found[0], alone.score_samples(given[0]), 1e-3)
        expected = alone.history_, alone.autoencoder_history_
        for mine, theirs in zip(found[2], expected, strict=True):
            for name, values in theirs.items():
                # The hinges of the margins amplify rounding as they are trained on.
                n = len(values) if settings is STEADY else 2
                np.testing.assert_allclose(
                    mine[name][:n], values[:n], rtol=2e-3, atol=1e-3
                )
    for of_both, message in zip(
        errors, ("memory=.* 2 fit together", "is not a checkpoint"), strict=True
    ):
        for error in of_both:
            assert re.search(message, error)


def test_when_one_is_killed_the_other_ends_and_the_checkpoint_continues(
    given, tmp_path
):
    kept = STEADY | {"checkpoint": str(tmp_path / "checkpoint")}
    start = time.perf_counter()
    died = launch(tmp_path, "die", [kept], *given)
    assert time.perf_counter() - start < 60
    assert died.returncode != 0
    words = tmp_path / "last words of 0"
    # torchrun may be quicker than its last words.
    if words.exists():
        assert "Another process of this fit has ended" in words.read_text()
    done = launch(tmp_path, "fit", [kept], *given)
    assert done.returncode == 0, done.stderr
    [(one, two)] = answers(tmp_path)
    assert_same(one, two)
    alone = VMDLSDetector(**STEADY).fit(*given)
    assert_close(one[0], alone.score_samples(given[0]), 1e-3)

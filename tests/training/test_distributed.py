"""Two processes that fit one detector, on the CPU."""

import inspect
import pickle
import re
import signal
import subprocess
import sys
import time
from itertools import zip_longest

import numpy as np
import pytest
import torch
from torch import nn

from skvmdls import VMDLSDetector
from skvmdls.nets.backbones import cnn
from skvmdls.training import distributed


def without_batch_norms(shape):
    """A net whose training does not depend on how a batch is split."""
    net = cnn(shape)
    for name, norm in list(net.named_modules()):
        if isinstance(norm, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            parent = net.get_submodule(parent)
            setattr(parent, child, nn.GroupNorm(1, norm.num_features))
    return net


pytestmark = pytest.mark.slow

SCRIPT = """
import os, pickle, signal, sys, time
import torch
import torch.distributed as dist
from skvmdls import VMDLSDetector
from skvmdls.training.checkpoints import Checkpoint
from skvmdls.nets.backbones import cnn, from_module, mlp
from torch import nn

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
store = f"file://{folder}/store"
dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
keep = Checkpoint._keep


def keep_and_die(self, path, name, state):
    keep(self, path, name, state)
    if state["epoch"] == 2 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def answer(how, settings, X, y):
    if how == "die":
        Checkpoint._keep = keep_and_die
    if how == "other labels":
        y = y + rank
    if how == "own weights":
        torch.manual_seed(rank)
        taps = ("stage1", "stage2", "stage3")
        settings["backbone"] = from_module(mlp((X.shape[1],)), taps)
    if how != "batch norms" and X.ndim == 4:
        settings["backbone"] = without_batch_norms
    start = time.perf_counter()
    try:
        detector = VMDLSDetector(**settings).fit(X, y)
    except (ValueError, RuntimeError) as error:
        return str(error), time.perf_counter() - start
    # Scoring is each process's own: no other is waited for.
    scores = detector.score_samples(X)
    history = detector.history_, detector.autoencoder_history_
    state = {k: v.numpy() for k, v in detector.network_.state_dict().items()}
    return scores, detector.offset_, history, state


with open(f"{folder}/given", "rb") as file:
    fits = pickle.load(file)
answers = []
for given in fits:
    answers.append(answer(*given))
    with open(f"{folder}/answers of {rank}", "wb") as file:
        pickle.dump(answers, file)
# Else the other would take the end of this one for its death.
if fits[-1][0] != "die":
    dist.barrier()
"""
SETTINGS = {
    "precision": "float32",
    "max_epochs": 4,
    "autoencoder_epochs": 2,
    "contamination": 0.2,
    # The batch of 21 has no equal halves.
    "samples_per_class": 7,
    # Each process draws the augmentation of its own share of a batch.
    "augmentation": None,
    "random_state": 0,
    "device": "cpu",
}
# Without margins, rounding stays what it is: it is not amplified in training.
STEADY = SETTINGS | {"metric_weight": 0}
SHORT = SETTINGS | {"max_epochs": 1}
N_CLASSES, N_EACH = 3, 45


def images():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(N_CLASSES), N_EACH)
    X = rng.normal(size=(len(y), 2, 8, 8)).astype(np.float32)
    X += 2 * rng.normal(size=(N_CLASSES, 2, 8, 8))[y]
    return X, y


def launch(folder, fits):
    """Fit in two processes; give the answers of both to each fit."""
    folder.mkdir()
    (folder / "fit.py").write_text(inspect.getsource(without_batch_norms) + SCRIPT)
    (folder / "given").write_bytes(pickle.dumps(fits))
    logs = [folder / f"errors of {rank}" for rank in (0, 1)]
    started = []
    try:
        for rank, log in enumerate(logs):
            command = [sys.executable, folder / "fit.py", folder, str(rank)]
            with log.open("w") as errors:
                started.append(subprocess.Popen(command, stderr=errors))
        end = time.monotonic() + 400
        while None in [process.poll() for process in started]:
            # One that fails never meets the other, which would wait for it.
            failed = [p.returncode not in (None, 0, -signal.SIGKILL) for p in started]
            if any(failed) or time.monotonic() > end:
                break
            time.sleep(0.1)
        codes = [process.poll() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert set(codes) <= {0, -signal.SIGKILL}, [codes, *(f.read_text() for f in logs)]
    files = [folder / f"answers of {rank}" for rank in (0, 1)]
    return list(zip_longest(*(pickle.loads(file.read_bytes()) for file in files)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def answers(folder):
    """What both processes answered, by the name of the fit; in the last, one died."""
    (folder / "broken").write_text("no checkpoint")
    X, y = images()
    fits = {
        "steady": ("fit", STEADY, X, y),
        "usual": ("fit", SETTINGS, X, y),
        "batch norms": ("batch norms", SETTINGS, X, y),
        "unseeded": ("fit", SHORT | {"random_state": None}, X, y),
        "own weights": ("own weights", SHORT, X[:, 0, 0], y),
        "memory": ("fit", SHORT | {"memory": str(folder)}, X, y),
        "checkpoint": ("fit", SHORT | {"checkpoint": str(folder / "broken")}, X, y),
        "other labels": ("other labels", SHORT, X, y),
        "died": ("die", STEADY | {"checkpoint": str(folder / "kept")}, X, y),
    }
    found = launch(folder / "fits", list(fits.values()))
    return dict(zip(fits, found, strict=True))


@pytest.fixture(scope="module")
def steady():
    """One process's detector and its scores."""
    X, y = images()
    detector = VMDLSDetector(without_batch_norms, **STEADY).fit(X, y)
    return detector, detector.score_samples(X)


def assert_same(one, two):
    np.testing.assert_array_equal(one[0], two[0])
    assert one[1:3] == two[1:3]
    for name, value in one[3].items():
        np.testing.assert_array_equal(value, two[3][name])


def assert_close(found, expected):
    assert np.abs(found - expected).max() < 1e-3 * np.std(expected)


def assert_same_history(found, detector, n_epochs):
    expected = detector.history_, detector.autoencoder_history_
    for mine, theirs in zip(found, expected, strict=True):
        for name, values in theirs.items():
            np.testing.assert_allclose(
                mine[name][:n_epochs], values[:n_epochs], rtol=2e-3, atol=1e-3
            )


@pytest.mark.parametrize(
    "name", ["steady", "usual", "batch norms", "unseeded", "own weights"]
)
def test_both_processes_end_with_the_same_detector(answers, name):
    assert_same(*answers[name])


def test_it_is_the_detector_of_one_process(answers, steady):
    detector, scores = steady
    found, _ = answers["steady"]
    assert_close(found[0], scores)
    assert_same_history(found[2], detector, STEADY["max_epochs"])


def test_the_margins_losses_are_those_of_one_process(answers):
    # Their hinges amplify rounding as they are trained on: its beginning is the same.
    detector = VMDLSDetector(without_batch_norms, **SETTINGS).fit(*images())
    assert_same_history(answers["usual"][0][2], detector, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("memory", "memory=.* is for fits in one process, but 2 fit together"),
        ("checkpoint", "broken' cannot be used: it is not a checkpoint"),
        ("other labels", "The 2 processes .* were given different y[.] Give all"),
    ],
)
def test_what_cannot_be_is_said_by_both(answers, name, message):
    for error, _ in answers[name]:
        assert re.search(message, error)


def test_when_one_is_killed_the_other_ends_and_the_checkpoint_continues(
    answers, steady, folder
):
    (error, seconds), nothing = answers["died"]
    assert "Another process of this fit has ended" in error
    assert seconds < 60
    assert nothing is None
    again = STEADY | {"checkpoint": str(folder / "kept")}
    [(one, two)] = launch(folder / "again", [("fit", again, *images())])
    assert_same(one, two)
    assert_close(one[0], steady[1])


@pytest.mark.parametrize("n", [2, 3])
def test_shards_are_gathered_in_order(n, monkeypatch):
    """Each process's own part keeps its gradients."""
    batch = torch.arange(14.0).view(7, 2).requires_grad_()
    monkeypatch.setattr(distributed, "n_processes", lambda: n)
    shards = []
    for place in range(n):
        monkeypatch.setattr(distributed, "rank", lambda place=place: place)
        shards.append(distributed.shard(batch))
    length = len(shards[0])

    def gather(parts, own):
        for part, one in zip(parts, shards, strict=True):
            part.zero_()[: len(one)] = one.detach()
        assert own.shape == (length, 2)

    monkeypatch.setattr(distributed.dist, "all_gather", gather)
    for place, one in enumerate(shards):
        monkeypatch.setattr(distributed, "rank", lambda place=place: place)
        gathered = distributed.all_gather(one, len(batch))
        assert torch.equal(gathered, batch)
        [gradient] = torch.autograd.grad(gathered.sum(), batch)
        assert torch.equal(gradient[place::n], torch.ones_like(one))
        assert gradient.sum() == one.numel()


def test_batch_norms_on_gpus_are_torchs_own_while_they_train(monkeypatch):
    monkeypatch.setattr(distributed, "n_processes", lambda: 2)
    monkeypatch.setattr(distributed.dist, "broadcast", lambda *arguments: None)
    net = cnn((1, 8, 8))
    modules, state = dict(net.named_modules()), net.state_dict(keep_vars=True)
    with distributed.synchronized_norms(net, torch.device("cuda")):
        during = [type(module) for module in net.modules()]
        assert nn.SyncBatchNorm in during
        assert nn.BatchNorm2d not in during
        trained = net.state_dict(keep_vars=True)
        assert all(trained[name] is value for name, value in state.items())
    assert dict(net.named_modules()) == modules

"""A fit that was killed, stopped or damaged goes on, and never with another's state."""

import multiprocessing
import os
import shutil
import time

import numpy as np
import pytest
import torch
from torch import nn

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.training.checkpoints import Checkpoint
from skvmdls.training.progress import Progress

QUICK = {
    "max_epochs": 6,
    "autoencoder_epochs": 4,
    "augmentation": nn.Dropout(0.1),
    "contamination": 0.1,
    "random_state": 0,
}


def all_numbers(detector):
    return {
        f"{name}.{key}": value
        for name in ("network_", "autoencoder_", "gaussians_")
        for key, value in getattr(detector, name).state_dict().items()
    }


def assert_same_fit(one, other):
    numbers, others = all_numbers(one), all_numbers(other)
    assert numbers.keys() == others.keys()
    assert all(torch.equal(numbers[name], others[name]) for name in numbers)
    assert one.history_ == other.history_
    np.testing.assert_array_equal(one.calibration_scores_, other.calibration_scores_)


@pytest.fixture(scope="module")
def uninterrupted(table):
    return VMDLSDetector(**QUICK).fit(*table)


@pytest.fixture
def stopping(monkeypatch):
    """Raise an error at the beginning of the n-th epoch, of all that are trained."""

    def stop(n, error=None):
        left = iter(range(n))
        finish = Progress.finish_epoch

        def finish_or_stop(run, *arguments):
            finish(run, *arguments)
            if next(left, None) is None:
                raise error or RuntimeError("power cut")

        monkeypatch.setattr(Progress, "finish_epoch", finish_or_stop)
        return monkeypatch

    return stop


@pytest.mark.parametrize("n_epochs", [0, 2, 5, 7, 9])
def test_an_interrupted_fit_ends_where_an_uninterrupted_one_does(
    n_epochs, table, uninterrupted, stopping, tmp_path
):
    path = tmp_path / "fit.checkpoint"
    patch = stopping(n_epochs)
    with pytest.raises(RuntimeError, match="power cut"):
        VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    patch.undo()
    stopping(9 - n_epochs)  # It must not need more epochs than were left.
    resumed = VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    assert_same_fit(resumed, uninterrupted)


def test_an_interrupted_fit_by_muon_takes_up_its_momentum(table, stopping, tmp_path):
    settings = QUICK | {"optimizer": "muon"}
    whole = VMDLSDetector(**settings).fit(*table)
    patch = stopping(2)
    with pytest.raises(RuntimeError, match="power cut"):
        VMDLSDetector(**settings, checkpoint=tmp_path / "kept").fit(*table)
    patch.undo()
    resumed = VMDLSDetector(**settings, checkpoint=tmp_path / "kept").fit(*table)
    assert_same_fit(resumed, whole)


def test_a_finished_fit_is_not_trained_again(table, uninterrupted, stopping, tmp_path):
    settings = QUICK | {"checkpoint": str(tmp_path / "fit.checkpoint")}
    assert_same_fit(VMDLSDetector(**settings).fit(*table), uninterrupted)
    stopping(0)
    changed = settings | {"contamination": 0.2, "threshold": 3.0}
    assert_same_fit(VMDLSDetector(**changed).fit(*table), uninterrupted)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"classification_weight": 0, "fusion": "early", "weighting": "paper"},
        {"features": ("logit",), "covariance_type": "diag"},
    ],
    ids=str,
)
def test_gaussians_that_were_fitted_are_taken_up(
    parameters, table, stopping, monkeypatch, tmp_path
):
    """Interrupted between the Gaussians and the threshold."""
    short = QUICK | {"max_epochs": 2, "autoencoder_epochs": 1} | parameters
    whole = VMDLSDetector(**short).fit(*table)
    settings = short | {"checkpoint": tmp_path / "fit.checkpoint"}
    VMDLSDetector(**settings).fit(*table)
    stopping(0)

    def again(*arguments):
        raise AssertionError("fitted again")

    monkeypatch.setattr("skvmdls.detector.fitting.fit_gaussians", again)
    resumed = VMDLSDetector(**settings).fit(*table)
    assert_same_fit(resumed, whole)
    assert list(resumed.gaussians_) == list(whole.gaussians_)
    np.testing.assert_array_equal(resumed.evidence(table[0]), whole.evidence(table[0]))


def test_a_fit_without_a_seed_is_taken_up_too(table, stopping, tmp_path):
    settings = QUICK | {"random_state": None, "checkpoint": tmp_path / "one"}
    patch = stopping(3)
    with pytest.raises(RuntimeError, match="power cut"):
        VMDLSDetector(**settings).fit(*table)
    patch.undo()
    shutil.copy(tmp_path / "one", tmp_path / "other")
    one = VMDLSDetector(**settings).fit(*table)
    other = VMDLSDetector(**settings | {"checkpoint": tmp_path / "other"}).fit(*table)
    assert_same_fit(one, other)


def _fit_forever(X, y, path):
    torch.set_num_threads(1)
    VMDLSDetector(**QUICK, checkpoint=path).fit(X, y)


@pytest.mark.slow
def test_a_fit_that_was_killed_at_any_moment_goes_on(table, uninterrupted, tmp_path):
    path = tmp_path / "fit.checkpoint"
    rng = np.random.default_rng(0)
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        process = context.Process(target=_fit_forever, args=(*table, path))
        process.start()
        while process.is_alive() and not path.exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        # Nothing is left to kill if it has come to its end.
        process.kill()
        process.join(timeout=60)
        assert path.exists()
    resumed = VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    assert_same_fit(resumed, uninterrupted)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 2e-3}, "learning_rate"),
        ({"random_state": 1}, "random_state"),
        ({"features": ("mu",), "max_epochs": 7}, "features, max_epochs"),
        ({"augmentation": nn.Dropout(0.2)}, "augmentation"),
        ({"fusion": "early", "normalize": True}, "fusion, normalize"),
        ({"weighting": "paper"}, "weighting"),
        (
            {"classification_weight": 0, "metric_weight": 0.5},
            "classification_weight, m",
        ),
    ],
    ids=str,
)
def test_another_fit_is_refused_by_the_name_of_what_differs(
    change, named, table, tmp_path
):
    path = tmp_path / "fit.checkpoint"
    VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=f"another fit, which differs in {named}"):
        VMDLSDetector(**QUICK | change, checkpoint=path).fit(*table)
    assert path.read_bytes() == content


def test_other_data_and_another_class_are_refused(table, tmp_path):
    X, y = table
    path = tmp_path / "fit.checkpoint"
    VMDLSDetector(**QUICK, checkpoint=path).fit(X, y)
    detector = VMDLSDetector(**QUICK, checkpoint=path)
    with pytest.raises(ValueError, match="differs in X. Fit"):
        detector.fit(X + 1e-9, y)
    with pytest.raises(ValueError, match="differs in y. Fit"):
        detector.fit(X, y + 1)
    settings = {k: v for k, v in QUICK.items() if k != "autoencoder_epochs"}
    with pytest.raises(ValueError, match="differs in autoencoder, autoencoder_epochs"):
        VMDLSbDetector(**settings, checkpoint=path).fit(X, y)


def damaged(content):
    yield content[:-1]
    yield content[:40]
    yield b""
    yield content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
    yield b"something else"


def test_a_damaged_file_gives_way_to_the_one_before(
    table, uninterrupted, stopping, tmp_path
):
    path = tmp_path / "fit.checkpoint"
    patch = stopping(3)
    with pytest.raises(RuntimeError, match="power cut"):
        VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    patch.undo()
    previous = tmp_path / "fit.checkpoint.previous"
    good, content = previous.read_bytes(), path.read_bytes()
    for bad in damaged(content):
        path.write_bytes(bad)
        previous.write_bytes(good)
        with pytest.warns(UserWarning, match=r"fit\.checkpoint' cannot be used: it is"):
            resumed = VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
        assert_same_fit(resumed, uninterrupted)


def test_a_damaged_file_never_takes_the_place_of_the_good_one_before(
    table, uninterrupted, stopping, tmp_path, monkeypatch
):
    """Regression: a full disk after a damaged file left two files of no use."""
    path = tmp_path / "fit.checkpoint"
    patch = stopping(3)
    with pytest.raises(RuntimeError, match="power cut"):
        VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    patch.undo()
    path.write_bytes(path.read_bytes()[:-1])

    def full(*arguments):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("skvmdls.training.checkpoints.write_atomically", full)
        with (
            pytest.warns(UserWarning, match="cannot be used"),
            pytest.raises(OSError, match="no space"),
        ):
            VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    with pytest.warns(UserWarning, match="goes on from the one before"):
        resumed = VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    assert_same_fit(resumed, uninterrupted)


def test_without_one_before_a_damaged_file_is_refused_and_left(table, tmp_path):
    path = tmp_path / "notes.txt"
    for bad in damaged(b"skvmdls checkpoint 1 sha256 " + 64 * b"0" + b"\nnothing"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"notes\.txt' cannot be used: it is"):
            VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
        assert path.read_bytes() == bad
    with pytest.raises(ValueError, match="there is no folder"):
        VMDLSDetector(**QUICK, checkpoint=tmp_path / "no" / "fit").fit(*table)


def test_stopping_by_hand_says_where_the_checkpoint_is(table, stopping, tmp_path):
    stopping(7, KeyboardInterrupt())
    path = tmp_path / "fit.checkpoint"
    with pytest.raises(KeyboardInterrupt, match=r"fit\.checkpoint' holds the fit up"):
        VMDLSDetector(**QUICK, checkpoint=path).fit(*table)
    with pytest.raises(KeyboardInterrupt, match="^$"):
        VMDLSDetector(**QUICK).fit(*table)


def test_a_training_that_diverges_keeps_its_last_good_state(table, tmp_path):
    path = tmp_path / "fit.checkpoint"
    kept = []

    class Exploding(nn.Module):
        def forward(self, batch):
            kept.append(path.read_bytes() if path.exists() else None)
            return batch * (torch.nan if len(kept) > 20 else 1)

    detector = VMDLSbDetector(augmentation=Exploding(), checkpoint=path)
    with pytest.raises(FloatingPointError, match="diverged: '.*' is nan in epoch"):
        detector.fit(*table)
    assert path.read_bytes() == kept[-1]


def test_no_code_from_a_checkpoint_is_run(tmp_path):
    import hashlib
    import io

    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    buffer = io.BytesIO()
    torch.save({"ingredients": {}, "seed": 0, "stages": Attack()}, buffer)
    body = buffer.getvalue()
    path = tmp_path / "fit.checkpoint"
    checksum = hashlib.sha256(body).hexdigest().encode()
    path.write_bytes(b"skvmdls checkpoint 1 sha256 " + checksum + b"\n" + body)
    with pytest.raises(ValueError, match="cannot be read"):
        Checkpoint(path, {})
    assert not (tmp_path / "attacked").exists()

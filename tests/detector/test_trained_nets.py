"""How the nets of a detector are trained, where nothing is set."""

import numpy as np
import pytest
import torch

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.nets import cnn, from_module
from skvmdls.training.whitening import whitened_layer

QUICK = {
    "max_epochs": 1,
    "random_state": 0,
    "calibration": "split",
    "contamination": 0.5,
}


@pytest.fixture(scope="module")
def photographs():
    """Smooth colours under a little noise, as (60, 3, 16, 16), in two classes."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(60, 3, 4, 4)).repeat(4, axis=2).repeat(4, axis=3)
    y = np.arange(60) % 2
    X = coarse + 0.1 * rng.normal(size=(60, 3, 16, 16)) + y[:, None, None, None]
    return X.astype(np.float32), y


def test_fit_mirrors_no_digits_and_keeps_what_it_chose(digits, tmp_path):
    detector = VMDLSbDetector(**QUICK).fit(digits.X_train, digits.y_train)
    choices = detector.training_choices_
    assert choices.augmentation == "affine"
    assert "mirror" in choices.reason
    path = tmp_path / "detector.safetensors"
    skvmdls.save(detector, path)
    assert skvmdls.load(path).training_choices_ == choices


def test_choices_are_those_of_the_parameters_that_are_given(photographs):
    given = {"optimizer": "adamw", "learning_rate": 2e-3, "augmentation": None}
    choices = VMDLSbDetector(**QUICK, **given).fit(*photographs).training_choices_
    assert (choices.optimizer, choices.learning_rate) == ("adamw", 2e-3)
    assert choices.augmentation is None
    assert choices.max_epochs == 1
    assert choices.reason == ""


def test_a_line_tells_what_was_chosen(photographs, capsys):
    VMDLSbDetector(**QUICK, verbose=1).fit(*photographs)
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("training: muon, learning rate ")
    assert "mirrored ones" in line


def test_a_net_that_was_trained_before_keeps_small_steps(photographs):
    factory = from_module(cnn((3, 16, 16)), ("stage1", "stage2", "stage3"))
    tuned = VMDLSbDetector(factory, **QUICK, augmentation=None).fit(*photographs)
    assert tuned.training_choices_.optimizer == "adamw"
    own = VMDLSbDetector(lambda shape: cnn(shape), **QUICK, augmentation=None)
    assert own.fit(*photographs).training_choices_.optimizer == "muon"


def test_no_net_no_choices(table, capsys):
    detector = VMDLSDetector(random_state=0, verbose=1).fit(*table)
    assert detector.training_choices_ is None
    parts = ", ".join(detector.evidence_names_)
    told = capsys.readouterr().err
    assert told == f"no net is trained: X is a table, scored by {parts}\n"


def test_vectors_are_told_from_tables(capsys):
    y = np.arange(60) % 3
    X = np.random.default_rng(0).normal(size=(60, 64)) + 3 * np.eye(64)[y]
    VMDLSbDetector(random_state=0, verbose=1).fit(X, y)
    assert "X is vectors, scored by shared, relative" in capsys.readouterr().err


@pytest.mark.parametrize("n_channels", [1, 3, 5])
def test_fit_sets_the_first_layer_of_photo_cnn_and_leaves_it(n_channels, photographs):
    X, y = photographs
    detector = VMDLSbDetector("photo_cnn", **QUICK, augmentation=None)
    detector.fit(X[:, np.arange(n_channels) % 3], y)
    layer = whitened_layer(detector.network_.backbone)
    half = len(layer.weight) // 2
    torch.testing.assert_close(layer.weight[half:], -layer.weight[:half])

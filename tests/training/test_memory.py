"""What is recalled, and what must never be."""

import logging
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn

import skvmdls.detector.trained_nets
import skvmdls.training.fingerprints
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.nets.backbones import mlp
from skvmdls.training.memory import cached, cached_training

QUICK = {"max_epochs": 3, "contamination": 0.1, "random_state": 0, "augmentation": None}


def scaled(factor):
    return lambda batch: batch * factor


def test_what_cannot_be_compared_is_explained(table, tmp_path):
    with open(tmp_path / "log", "w") as log:

        def augmentation(batch):
            log.write("")
            return batch

        settings = QUICK | {"augmentation": augmentation}
        for keep in ({"memory": tmp_path}, {"checkpoint": tmp_path / "fit"}):
            with pytest.raises(ValueError, match="memory and checkpoint must tell"):
                VMDLSbDetector(**settings, **keep).fit(*table)


def test_results_of_another_version_of_skvmdls_are_not_loaded(tmp_path, monkeypatch):
    for version, expected in (("1.0", 1), ("1.1", 2), ("1.0", 1)):
        monkeypatch.setattr("skvmdls._support.version.__version__", version)
        made = cached(tmp_path, "step", lambda expected=expected: expected, {})
        assert made == expected


def test_a_result_that_failed_is_not_kept(tmp_path):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        cached(tmp_path, "step", fail, {"x": 1})
    assert cached(tmp_path, "step", lambda: 5, {"x": 1}) == 5
    assert cached(tmp_path, "step", fail, {"x": 1}) == 5


@pytest.fixture
def trainings(monkeypatch):
    """Names of the nets that were trained, in order."""
    done = []
    for name in ("train_network", "train_autoencoder"):
        train = getattr(skvmdls.detector.trained_nets, name)

        def counted(*arguments, name=name, train=train):
            done.append(name)
            return train(*arguments)

        monkeypatch.setattr(skvmdls.detector.trained_nets, name, counted)
    return done


@pytest.mark.parametrize("kind", [str, Path, joblib.Memory])
@pytest.mark.slow
def test_fits_that_differ_after_training_train_once(kind, table, trainings, tmp_path):
    memory = (
        joblib.Memory(tmp_path, verbose=0) if kind is joblib.Memory else kind(tmp_path)
    )
    X, y = table
    for parameters in (
        {},
        {"threshold": -5.0},
        {"features": ("g", "mu")},
        {"covariance_type": "tied"},
        {"weighting": "paper", "contamination": 0.2},
        {"fusion": "early"},
        {"normalize": True, "covariance_pooling": 0.3},
    ):
        settings = QUICK | {"autoencoder_epochs": 2} | parameters
        recalled = VMDLSDetector(**settings, memory=memory).fit(X, y)
        made = VMDLSDetector(**settings).fit(X, y)
        np.testing.assert_array_equal(recalled.score_samples(X), made.score_samples(X))
        assert recalled.offset_ == made.offset_
        assert recalled.history_ == made.history_
    assert trainings == ["train_network", "train_autoencoder"] * 8


@pytest.mark.parametrize(
    "change",
    [
        {"random_state": 1},
        {"latent_dim": 5},
        {"learning_rate": 2e-3},
        {"classification_weight": 0},
        {"classification_weight": 2.0},
        {"backbone": lambda shape: nn.Sequential(*mlp(shape), nn.Tanh())},
        {"augmentation": scaled(1.1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_training_is_never_recalled(change, table, trainings, tmp_path):
    X, y = table
    usual = VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    if "backbone" in change:
        change = {"backbone": tapped(change["backbone"])}
    other = VMDLSbDetector(**QUICK | change, memory=tmp_path).fit(X, y)
    assert len(trainings) == 2
    assert not np.allclose(other.score_samples(X), usual.score_samples(X))
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X + 1e-3 * (y == 0)[:, None], y)
    assert len(trainings) == 3
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    assert len(trainings) == 3


def tapped(factory):
    def make(input_shape):
        module = factory(input_shape)
        module.taps = ("0", "1", "2")
        return module

    return make


def test_detectors_do_not_share_a_recalled_net(table, tmp_path):
    X, y = table
    one, other = (VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y) for _ in range(2))
    with torch.no_grad():
        one.network_.mu.weight.zero_()
    assert other.network_.mu.weight.abs().sum() > 0
    third = VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    np.testing.assert_array_equal(third.score_samples(X), other.score_samples(X))


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_search_gives_what_it_gives_without_memory(n_jobs, table, tmp_path):
    X, y = table
    grid = {"threshold": [-80.0, -40.0], "features": [("mu",), ("g", "mu")]}
    results = [
        GridSearchCV(
            VMDLSbDetector(**QUICK, memory=memory),
            grid,
            cv=StratifiedKFold(2),
            n_jobs=n_jobs,
        )
        .fit(X, y)
        .cv_results_
        for memory in (None, tmp_path)
    ]
    for name in results[0]:
        if "time" not in name:
            assert np.all(results[0][name] == results[1][name]), name


def test_the_log_says_whether_it_was_recalled(table, tmp_path, caplog):
    X, y = table
    caplog.set_level(logging.DEBUG, logger="skvmdls.training.memory")
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    steps = ["network", "gaussians", "parts without a net"]
    assert steps_and_outcomes(caplog) == [(step, "computed") for step in steps]
    caplog.clear()
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    cached = [(step, "loaded from the cache") for step in steps]
    assert steps_and_outcomes(caplog) == cached


def steps_and_outcomes(caplog):
    """Each message is the step, the key of the cache, and what came of it."""
    messages = [record.message.rsplit(": ", 1) for record in caplog.records]
    return [(step.rsplit(" ", 1)[0], outcome) for step, outcome in messages]


def test_something_that_is_no_memory_is_explained(table):
    with pytest.raises(ValueError, match="'memory' parameter"):
        VMDLSbDetector(memory=3).fit(*table)


SCRIPT = """
import sys
import numpy as np
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn
from skvmdls import VMDLSDetector

class Net(nn.Module):
    taps = ("a", "b", "c")

    def __init__(self, n):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(n, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).relu()) {change}

def net(shape):
    return Net(*shape)

if __name__ == "__main__":
    folder, n_jobs = sys.argv[1:]
    y = np.arange(90) % 3
    X = np.random.default_rng(0).normal(size=(90, 6)) + 3 * np.eye(3, 6)[y]
    GridSearchCV(
        VMDLSDetector(
            net,
            autoencoder=lambda shape: nn.Linear(6, 6),
            memory=folder,
            max_epochs=2,
            autoencoder_epochs=1,
            random_state=0,
        ),
        {"contamination": [0.3, 0.4]},
        cv=StratifiedKFold(2),
        n_jobs=int(n_jobs),
        refit=False,
        error_score="raise",
    ).fit(X, y)
"""


@pytest.mark.slow
def test_a_net_of_a_script_is_recalled_by_other_processes(tmp_path):
    """Regression: it was trained again each time, with tracebacks of joblib's."""

    def kept_after(n_jobs, change="", folder="memory"):
        script = tmp_path / f"script{len(change)}.py"
        # Comments above move the code to other lines.
        script.write_text(
            "# moved\n" * int(n_jobs) + SCRIPT.replace("{change}", change)
        )
        said = subprocess.run(
            [sys.executable, "-W", "ignore", script, tmp_path / folder, n_jobs],
            capture_output=True,
            text=True,
            check=True,
            timeout=240,
        )
        assert said.stderr == ""
        return {path.parent for path in (tmp_path / folder).rglob("output.pkl")}

    # Of two folds: network, autoencoder, Gaussians and parts without a net.
    by_workers = kept_after("2")
    assert len(by_workers) == 8
    assert kept_after("1") == by_workers
    assert len(kept_after("1", "* 2")) == 12


def test_a_recalled_training_fills_the_net_that_is_there(tmp_path):
    def trained(seed):
        torch.manual_seed(0)
        net = nn.Linear(2, 2).train()

        def train():
            torch.manual_seed(seed)
            with torch.no_grad():
                net.weight.normal_()
            return seed

        return net, cached_training(tmp_path, "step", net, train, {"what": "same"})

    (one, first), (other, second) = trained(1), trained(2)
    assert (first, second) == (1, 1)
    assert one is not other
    assert torch.equal(one.weight, other.weight)
    assert not other.training

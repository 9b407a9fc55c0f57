"""What is recalled, and what must never be."""

import logging
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn
from torchvision.transforms import v2

import skvmdls.detector
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.backbones import mlp
from skvmdls.caching import fingerprint, remembered

QUICK = {"max_epochs": 3, "contamination": 0.1, "random_state": 0}


def scaled(factor):
    return lambda batch: batch * factor


def defined_by(source):
    names = {"nn": nn, "torch": torch}
    exec(source, names)
    return names["thing"]


class Scale(nn.Module):
    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return x * self.factors[0]


class Callable:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, x):
        return x


def closing_over(value):
    class Shift(nn.Module):
        def forward(self, x):
            return x + value

    return Shift()


def data_class(result):
    source = f"class thing:\n def __call__(self, x): return {result}"
    return dataclass(defined_by(source))()


def by_keyword(factor):
    def thing(x, *, factor=factor):
        return x * factor

    return thing


def countdown():
    def thing(n):
        return n and thing(n - 1)

    return thing


def inheriting(result):
    base = defined_by(
        f"class thing(nn.Module):\n def forward(self, x): return {result}"
    )
    return type("Heir", (base,), {})()


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(3, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (1, 2.5, "a", None, torch.float32, torch.device("cpu")),
        lambda: linear(0),
        lambda: scaled(2.0),
        lambda: partial(np.add, 1),
        lambda: np.add.reduce,
        lambda: OAS(),
        lambda: (torch.arange(3), np.arange(3)),
        lambda: defined_by("thing = lambda x: x + 1"),
        lambda: Scale(factors=[1.0], act=torch.tanh),
        lambda: v2.Compose([v2.RandomRotation(10), v2.GaussianBlur(3)]),
        lambda: inheriting("x"),
        countdown,
        lambda: lambda x: math.sqrt(x) + np.add(x, 1),
        lambda: closing_over(math),
    ],
)
def test_equal_things_have_equal_fingerprints(make):
    assert fingerprint(make()) == fingerprint(make())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (linear(0), linear(1)),
        (scaled(2.0), scaled(3.0)),
        (partial(np.add, 1), partial(np.add, 2)),
        (torch.zeros(3), torch.zeros(4)),
        (torch.float32, torch.bfloat16),
        (OAS(), OAS(store_precision=False)),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (nn.ReLU(), nn.Tanh()),
        (
            defined_by("thing = lambda x: x + 1"),
            defined_by("thing = lambda x: x + 2"),
        ),
        # Regressions: only plain attributes of a module were seen.
        (Scale(factors=[1.0]), Scale(factors=[-5.0])),
        (Scale(factors={"a": 1.0}), Scale(factors={"a": 2.0})),
        (Scale(act=nn.functional.relu), Scale(act=torch.tanh)),
        (Scale(hidden=[nn.Dropout(0.1)]), Scale(hidden=[nn.Dropout(0.2)])),
        (v2.RandomRotation(10), v2.RandomRotation(90)),
        (
            v2.Compose([v2.RandomRotation(10)]),
            v2.Compose([v2.RandomRotation(10), v2.RandomHorizontalFlip()]),
        ),
        (v2.Lambda(scaled(1.0)), v2.Lambda(scaled(2.0))),
        (Callable([nn.Dropout(0.1)]), Callable([nn.Dropout(0.2)])),
        (closing_over(1.0), closing_over(2.0)),
        (data_class("x"), data_class("-x")),
        (by_keyword(1.0), by_keyword(2.0)),
        (inheriting("x"), inheriting("-x")),
        (
            defined_by("class thing(nn.Module):\n def forward(self, x): return x")(),
            defined_by("class thing(nn.Module):\n def forward(self, x): return -x")(),
        ),
    ],
)
def test_different_things_have_different_fingerprints(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_what_cannot_be_compared_is_explained(table, tmp_path):
    with open(tmp_path / "log", "w") as log:

        def augmentation(batch):
            log.write("")
            return batch

        settings = QUICK | {"augmentation": augmentation}
        for keep in ({"memory": tmp_path}, {"checkpoint": tmp_path / "fit"}):
            with pytest.raises(ValueError, match="memory and checkpoint must tell"):
                VMDLSbDetector(**settings, **keep).fit(*table)


def test_nothing_made_by_other_code_of_ours_is_recalled(tmp_path, monkeypatch):
    for code, expected in (("old", 1), ("new", 2), ("old", 1)):
        monkeypatch.setattr("skvmdls.caching.package_code", lambda code=code: code)
        made = remembered(tmp_path, "step", lambda expected=expected: expected, 0)
        assert made == expected


def test_a_result_that_failed_is_not_kept(tmp_path):
    def fail():
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        remembered(tmp_path, "step", fail, 1)
    assert remembered(tmp_path, "step", lambda: 5, 1) == 5
    assert remembered(tmp_path, "step", fail, 1) == 5


@pytest.fixture
def trainings(monkeypatch):
    """Names of the nets that were trained, in order."""
    done = []
    for name in ("train_network", "train_autoencoder"):
        train = getattr(skvmdls.detector, name)

        def counted(*arguments, name=name, train=train):
            done.append(name)
            return train(*arguments)

        monkeypatch.setattr(skvmdls.detector, name, counted)
    return done


@pytest.mark.parametrize("kind", [str, Path, joblib.Memory])
def test_fits_that_differ_after_training_train_once(kind, table, trainings, tmp_path):
    memory = (
        joblib.Memory(tmp_path, verbose=0) if kind is joblib.Memory else kind(tmp_path)
    )
    X, y = table
    for parameters in (
        {},
        {"threshold": -5.0},
        {"features": ("g", "mu")},
        {"covariance_type": "tied", "covariance_estimator": OAS()},
        {"weighting": "paper", "contamination": 0.2},
    ):
        settings = QUICK | {"autoencoder_epochs": 2} | parameters
        recalled = VMDLSDetector(**settings, memory=memory).fit(X, y)
        made = VMDLSDetector(**settings).fit(X, y)
        np.testing.assert_array_equal(recalled.score_samples(X), made.score_samples(X))
        assert recalled.offset_ == made.offset_
        assert recalled.history_ == made.history_
    assert trainings == ["train_network", "train_autoencoder"] * 6


@pytest.mark.parametrize(
    "change",
    [
        {"random_state": 1},
        {"latent_dim": 5},
        {"learning_rate": 2e-3},
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


@pytest.mark.parametrize("n_jobs", [1, 2])
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
    caplog.set_level(logging.DEBUG, logger="skvmdls.caching")
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    assert [r.message.split(":")[-1] for r in caplog.records] == [
        " not stored yet, made"
    ] * 2
    caplog.clear()
    VMDLSbDetector(**QUICK, memory=tmp_path).fit(X, y)
    assert [r.message.split()[0] for r in caplog.records] == ["network", "gaussians"]
    assert all(r.message.endswith("recalled") for r in caplog.records)


def test_something_that_is_no_memory_is_explained(table):
    with pytest.raises(ValueError, match="'memory' parameter"):
        VMDLSbDetector(memory=3).fit(*table)

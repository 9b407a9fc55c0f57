"""What counts as the same: content and code, wherever they are held."""

import importlib
import math
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from torch import nn
from torchvision.transforms import v2

from skvmdls.training.fingerprints import fingerprint


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


PLAIN = """
class Shift:
    def __call__(self, x):
        return x + 1


def shift(x, by=1):
    return x + by
"""
COMMENTED = '''
"""A module."""


class Shift:  # callable
    """Adds."""

    def __call__(self, x):
        """Add."""
        # One.
        return x + 1


def shift(
    x, by=1
):
    """Add, too."""

    return (x + by)  # two
'''


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Make a module of a source; each is imported from a folder of its own."""
    folders = iter(range(100))

    def make(source):
        path = tmp_path / str(next(folders)) / "shifting.py"
        path.parent.mkdir()
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("shifting", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "shifting", module)
        spec.loader.exec_module(module)
        return module

    return make


@pytest.mark.parametrize(
    ("source", "is_same"),
    [
        (COMMENTED, True),
        (COMMENTED.replace("x + 1", "x + 2").replace("by=1", "by=2"), False),
        (PLAIN.replace("x + 1", "1 + x").replace("x + by", "by + x"), False),
    ],
    ids=["comments", "numbers", "order"],
)
def test_code_counts_and_comments_and_docstrings_do_not(source, is_same, module_of):
    def hashes(source):
        module = module_of(source)
        return [fingerprint(module.Shift()), fingerprint(module.shift)]

    same = [a == b for a, b in zip(hashes(PLAIN), hashes(source), strict=True)]
    assert same == [is_same] * 2

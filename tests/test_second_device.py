"""No tensor is left on the wrong device: what a GPU would find, found without one."""

from contextlib import nullcontext
from copy import deepcopy

import numpy as np
import pytest
import torch

import skvmdls
from on_devices import KINDS, SETTINGS, assert_close, outcomes
from second_device import SECOND, SecondDevice
from skvmdls import VMDLSbDetector
from skvmdls._support.devices import to_device


@pytest.fixture
def second_device(monkeypatch):
    # Inference mode is for torch's own tensors.
    no_grad = lambda is_on: torch.no_grad() if is_on else nullcontext()  # noqa: E731
    monkeypatch.setattr(torch._C, "_InferenceMode", no_grad)
    with SecondDevice() as device:
        yield device


def test_the_device_computes_apart(second_device):
    there = torch.ones(2, device=SECOND)
    assert torch.equal((there + there).cpu(), torch.full((2,), 2.0))
    assert second_device.n_operations > 0
    with pytest.raises(RuntimeError, match="left on the CPU"):
        there + torch.ones(2)
    with pytest.raises((RuntimeError, TypeError)):
        there.numpy()


def test_memory_is_pinned_for_cuda_alone(second_device, monkeypatch):
    """Regression: it was for every device, and failed where there is no CUDA."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda *_: 1 / 0)
    assert to_device(torch.ones(2), SECOND).device == SECOND
    with pytest.raises(ZeroDivisionError):
        to_device(torch.ones(2), torch.device("cuda"))


QUICK = ("table", "images")


@pytest.mark.parametrize(
    "kind",
    [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS],
)
def test_every_method_computes_there_what_it_does_on_the_cpu(kind, second_device):
    make, X, y, new = KINDS[kind]
    detector = make(device=SECOND).fit(X, y)
    # Most of a training's operations.
    assert second_device.n_operations > 500
    on_cpu = deepcopy(detector).set_params(device="cpu")
    assert_close(outcomes(detector, X, y, new), outcomes(on_cpu, X, y, new))


def test_a_file_from_there_is_one_of_the_cpu(second_device, tmp_path):
    make, X, y, new = KINDS["images"]
    detector = make(device=SECOND).fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a").set_params(device="cpu")
    scores = detector.score_samples(new)
    np.testing.assert_allclose(loaded.score_samples(new), scores, rtol=1e-5)


@pytest.mark.slow
def test_the_cache_holds_tensors_of_the_cpu(second_device, tmp_path):
    """Those of one GPU cannot be loaded where there is none, or only another."""
    make, X, y, new = KINDS["images"]
    detector = make(device=SECOND, memory=str(tmp_path)).fit(X, y)
    again = make(device=SECOND, memory=str(tmp_path)).fit(X, y)
    np.testing.assert_array_equal(again.score_samples(new), detector.score_samples(new))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.slow
def test_the_optimisers_step_there(optimizer, second_device):
    _, X, y, new = KINDS["images"]
    scores = [
        VMDLSbDetector("cnn", optimizer=optimizer, device=device, **SETTINGS)
        .fit(X, y)
        .score_samples(new)
        for device in ("cpu", SECOND)
    ]
    np.testing.assert_allclose(*scores, rtol=1e-2)

"""Devices and precision."""

import pytest
import torch

from skvmdls._support.devices import (
    autocast,
    fits_on,
    float64_device,
    out_of_memory_explained,
    resolve_device,
    resolve_precision,
    scoring_placement,
)

CPU = torch.device("cpu")


def test_auto_picks_a_device_that_computes():
    device = resolve_device("auto")
    assert torch.ones(2, device=device).sum().item() == 2


@pytest.mark.parametrize("name", ["toaster", "cuda:99"])
def test_an_unusable_device_is_named_with_a_way_out(name):
    with pytest.raises(ValueError, match=rf"device='{name}' .*device='auto'"):
        resolve_device(name)


@pytest.mark.parametrize("has_instructions", [True, False])
def test_auto_precision_follows_the_hardware(monkeypatch, has_instructions):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: has_instructions, raising=False)
    expected = torch.bfloat16 if has_instructions else torch.float32
    assert resolve_precision("auto", CPU) == expected


def test_a_named_precision_is_taken_at_its_word():
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_data_may_take_half_of_a_gpus_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (800, 10**9))
    cuda = torch.device("cuda")
    assert fits_on(400, cuda)
    assert not fits_on(404, cuda)
    assert fits_on(404, CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
)
def test_a_lack_of_memory_is_told_on_every_device(error):
    with (
        pytest.raises(MemoryError, match="Buy more") as caught,
        out_of_memory_explained("Buy more."),
    ):
        raise error
    assert caught.value.__cause__ is error
    other = RuntimeError("other")
    with pytest.raises(RuntimeError, match="other"), out_of_memory_explained("Buy."):
        raise other


def test_tables_score_in_float64_wherever_there_is_one():
    mps = torch.device("mps")
    assert scoring_placement(CPU, is_table=True) == (CPU, torch.float64)
    assert scoring_placement(mps, is_table=True) == (CPU, torch.float64)
    assert scoring_placement(mps, is_table=False) == (mps, torch.float32)
    assert float64_device(torch.device("cuda")) == torch.device("cuda")

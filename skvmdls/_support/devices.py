"""Which device to compute on, and in which precision."""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

__all__ = [
    "autocast",
    "compute_in_one_thread_if_forked",
    "fits_on",
    "float64_device",
    "is_out_of_memory",
    "out_of_memory_explained",
    "place",
    "place_to_score",
    "resolve_device",
    "resolve_precision",
    "scoring_placement",
    "to_device",
]

_MOVING = threading.Lock()

# The process that imported this module: a forked child has another number.
_PROCESS = os.getpid()


def compute_in_one_thread_if_forked() -> None:
    """Keep a forked child process from waiting for its parent's threads.

    OpenMP's threads stay behind in the parent, and a child would wait for them for ever
    once it computed in more than one. So there torch computes in one thread, from the
    first `fit`, score or load on (torch's data loaders do the same to their workers).
    It stays at one: given back, the number would stop the next computation, whoever's
    it is.
    """
    if os.getpid() != _PROCESS:
        torch.set_num_threads(1)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the parameter `device` into a device that is present, or raise a ValueError.

    What computes asks for its device first, so this is also where a forked process is
    made safe.
    """
    compute_in_one_thread_if_forked()
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
        if resolved.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device={device!r} cannot be used on this machine: {error}. "
            "Use device='auto' (or set_params(device='auto') on a fitted detector), "
            "which takes what there is."
        ) from error
    return resolved


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Turn the parameter `precision` into the dtype that training computes in."""
    if precision == "auto":
        return torch.bfloat16 if _gains_from_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def autocast(
    device: torch.device, dtype: torch.dtype
) -> AbstractContextManager[object]:
    """Autocast to a dtype; float32 means none."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def _gains_from_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # torch has no public question for this; without an answer, float32 is safe.
        asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, bool)() for name in asked)
    return False


def scoring_placement(
    device: torch.device, is_table: bool
) -> tuple[torch.device, torch.dtype]:
    """Where and in which dtype trained nets score.

    The rounding of float32 depends on the size of the batch. The small nets for tables
    score in float64, where that is below 1e-12; images score in float32.
    """
    if not is_table:
        return device, torch.float32
    return float64_device(device), torch.float64


def place(net: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Bring a net to a device and a dtype, in place; threads take turns here."""
    with _MOVING:
        net.to(device, dtype)


def place_to_score(
    device: torch.device, is_table: bool, *nets: nn.Module | None
) -> tuple[torch.device, torch.dtype]:
    """Bring nets to where they score: they come from training, or from a file."""
    device, dtype = scoring_placement(device, is_table)
    for net in nets:
        if net is not None:
            place(net, device, dtype)
    return device, dtype


def float64_device(device: torch.device) -> torch.device:
    """Give the device itself, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def fits_on(n_bytes: int, device: torch.device) -> bool:
    """Whether so much data would leave half of a GPU's free memory to the training."""
    if device.type != "cuda":
        return True
    n_free, _ = torch.cuda.mem_get_info(device)
    return n_bytes <= n_free / 2


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to the device, to CUDA through pinned memory."""
    if device.type == "cuda" and batch.device.type == "cpu":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, of whatever kind, had no memory left."""
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        text in str(error) for text in texts
    )


@contextmanager
def out_of_memory_explained(advice: str) -> Iterator[None]:
    """Turn a device's lack of memory into a MemoryError that gives the advice."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"The device ran out of memory. {advice}") from error

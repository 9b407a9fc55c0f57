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

    Examples
    --------
    >>> before = torch.get_num_threads()
    >>> compute_in_one_thread_if_forked()
    >>> torch.get_num_threads() == before  # This process is not a forked one.
    True
    """
    if os.getpid() != _PROCESS:
        torch.set_num_threads(1)


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the parameter `device` into a device that is present.

    What computes asks for its device first, so this is also where a forked process is
    made safe (see :func:`compute_in_one_thread_if_forked`).

    Parameters
    ----------
    device : str or torch.device
        ``"auto"`` picks CUDA, then MPS, then the CPU.

    Returns
    -------
    device : torch.device

    Raises
    ------
    ValueError
        If the device's name is not one of torch's, or this machine lacks it.

    Examples
    --------
    >>> resolve_device("cpu")
    device(type='cpu')
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
    """Turn the parameter `precision` into the dtype that training computes in.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16"}
        ``"auto"`` picks bfloat16 where the hardware has instructions for it.
    device : torch.device

    Returns
    -------
    dtype : torch.dtype

    Examples
    --------
    >>> resolve_precision("float32", torch.device("cpu"))
    torch.float32
    """
    if precision == "auto":
        return torch.bfloat16 if _gains_from_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def autocast(
    device: torch.device, dtype: torch.dtype
) -> AbstractContextManager[object]:
    """Autocast to `dtype`; float32 means none.

    Parameters
    ----------
    device : torch.device
    dtype : torch.dtype

    Returns
    -------
    context : context manager

    Examples
    --------
    >>> with autocast(torch.device("cpu"), torch.bfloat16):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
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

    The rounding of float32 depends on the size of the batch. The small nets for
    tables score in float64, where that is below 1e-12; images score in float32.

    Parameters
    ----------
    device : torch.device
    is_table : bool
        Whether inputs are rows of features.

    Returns
    -------
    device : torch.device
        The CPU for tables on a device without float64.
    dtype : torch.dtype

    Examples
    --------
    >>> scoring_placement(torch.device("cpu"), is_table=True)
    (device(type='cpu'), torch.float64)
    """
    if not is_table:
        return device, torch.float32
    return float64_device(device), torch.float64


def place(net: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Bring a net to a device and a dtype, in place.

    Threads that score with one net take turns here, so that none of them meets a net
    that is half moved.

    Parameters
    ----------
    net : nn.Module
    device : torch.device
    dtype : torch.dtype

    Examples
    --------
    >>> net = nn.Linear(2, 2)
    >>> place(net, torch.device("cpu"), torch.float64)
    >>> net.weight.dtype
    torch.float64
    """
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
    """Give the device itself, or the CPU where it has no float64.

    Parameters
    ----------
    device : torch.device

    Returns
    -------
    device : torch.device

    Examples
    --------
    >>> float64_device(torch.device("cpu"))
    device(type='cpu')
    """
    return torch.device("cpu") if device.type == "mps" else device


def fits_on(tensor: Tensor, device: torch.device) -> bool:
    """Whether a tensor would leave half of a GPU's free memory to the training.

    Parameters
    ----------
    tensor : Tensor
    device : torch.device
        Devices other than CUDA share the machine's memory: there everything fits.

    Returns
    -------
    fits : bool

    Examples
    --------
    >>> fits_on(torch.zeros(2, 3), torch.device("cpu"))
    True
    """
    if device.type != "cuda":
        return True
    n_free, _ = torch.cuda.mem_get_info(device)
    return tensor.nbytes <= n_free / 2


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to the device, through pinned memory if it is not there already.

    Parameters
    ----------
    batch : Tensor
    device : torch.device

    Returns
    -------
    batch : Tensor

    Examples
    --------
    >>> batch = torch.zeros(2, 3)
    >>> to_device(batch, torch.device("cpu")) is batch
    True
    """
    if batch.device.type == device.type:
        return batch
    return batch.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device, of whatever kind, had no memory left.

    Parameters
    ----------
    error : RuntimeError

    Returns
    -------
    is_out_of_memory : bool

    Examples
    --------
    >>> is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: ...)"))
    True
    """
    texts = ("out of memory", "can't allocate memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(
        text in str(error) for text in texts
    )


@contextmanager
def out_of_memory_explained(advice: str) -> Iterator[None]:
    """Turn a device's lack of memory into an error that says what to do.

    Parameters
    ----------
    advice : str
        What takes less memory.

    Raises
    ------
    MemoryError
        In place of torch's error, which stays attached as its cause.

    Examples
    --------
    >>> with out_of_memory_explained("Use a smaller net."):
    ...     raise RuntimeError("CUDA out of memory. Tried to allocate ...")
    Traceback (most recent call last):
        ...
    MemoryError: The device ran out of memory. Use a smaller net.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryError(f"The device ran out of memory. {advice}") from error

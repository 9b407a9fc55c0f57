"""What the caller has set in torch has no say inside: entered at each public method.

Gradients, inference mode, autocast and the default device belong to a thread. The
default dtype, the precision of float32 products and the deterministic mode are one to a
process: these are changed only where the caller has changed them, and the last of our
threads that leaves puts them back.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

import torch

__all__ = ["ordinary_torch", "seeded", "under_ordinary_torch"]

P = ParamSpec("P")
R = TypeVar("R")
CPU = torch.device("cpu")
AUTOCAST_DEVICES = ("cpu", "cuda", "mps", "xpu")


@contextmanager
def ordinary_torch() -> Iterator[None]:
    """Compute as torch does when nothing has been set; afterwards all is as it was.

    May be nested, and entered by several threads. While one is inside, other threads
    see the process's settings as they are here, where the caller's differ.
    """
    with ExitStack() as stack:
        stack.enter_context(_process_settings())
        # Each only where it differs: a default device, for one, slows every call down.
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            stack.enter_context(torch.enable_grad())
        for name in AUTOCAST_DEVICES:
            if torch.is_autocast_enabled(name):
                stack.enter_context(torch.autocast(name, enabled=False))
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        yield


def under_ordinary_torch(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function or method within :func:`ordinary_torch`."""

    @wraps(function)
    def within(*args: P.args, **kwargs: P.kwargs) -> R:
        with ordinary_torch():
            return function(*args, **kwargs)

    return within


class _Setting(NamedTuple):
    """One of the process's settings: what it is, what it should be, how it is set."""

    read: Callable[[], Any]
    usual: Callable[[Any], Any]
    write: Callable[[Any], None]


def _matmul_precision() -> str | None:
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:  # torch no longer answers once the newer settings are in use.
        return None


def _products() -> list[Any]:
    """Where torch 2.9 and later keep the precision of float32 products."""
    backends: Any = torch.backends
    mkldnn = [getattr(backends.mkldnn, kind, None) for kind in ("matmul", "conv")]
    return [
        place
        for place in (*mkldnn, backends.cuda.matmul)
        if hasattr(place, "fp32_precision")
    ]


def _set_product_precisions(precisions: list[str]) -> None:
    for place, precision in zip(_products(), precisions, strict=True):
        if place.fp32_precision != precision:
            place.fp32_precision = precision


_SETTINGS = (
    _Setting(
        torch.get_default_dtype, lambda found: torch.float32, torch.set_default_dtype
    ),
    _Setting(
        _matmul_precision,
        lambda found: None if found is None else "highest",
        torch.set_float32_matmul_precision,
    ),
    _Setting(
        lambda: [place.fp32_precision for place in _products()],
        lambda found: [p if p in ("none", "ieee") else "ieee" for p in found],
        _set_product_precisions,
    ),
    # Deterministic where that is possible, as the caller wished; no error elsewhere.
    _Setting(
        torch.get_deterministic_debug_mode,
        lambda found: min(found, 1),
        torch.set_deterministic_debug_mode,
    ),
)

_lock = threading.Lock()

_n_inside = 0

# What this module has changed: the setting, the caller's value, and ours.
_changed: list[tuple[_Setting, Any, Any]] = []


@contextmanager
def _process_settings() -> Iterator[None]:
    global _n_inside
    with _lock:
        _n_inside += 1
        for setting in _SETTINGS:
            found = setting.read()
            usual = setting.usual(found)
            if usual != found:
                setting.write(usual)
                # In the order of the changes, so that undoing goes backwards.
                _changed.append((setting, found, usual))
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            while _n_inside == 0 and _changed:
                setting, found, usual = _changed.pop()
                # Unless someone set it again in the meantime.
                if setting.read() == usual:
                    setting.write(found)


# torch's global generators are one to a process: trainings in threads take turns.
_TURN = threading.RLock()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Run torch's global random numbers from a seed, and put them back afterwards.

    Initial weights, dropout and augmentation draw from the global generators; the
    caller's stay as they were. Only one thread at a time can be inside.
    """
    # Of the accelerators, only CUDA's generators can be put back by fork_rng.
    forked = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with _TURN, forked:
        torch.manual_seed(seed)
        yield

"""Compute small work in one thread: on busy cores, waiting threads cost far more."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from threadpoolctl import threadpool_limits

__all__ = ["one_thread_if_small"]

# Rows with fewer numbers in all are computed in one thread.
SMALL_WORK = 1_000_000

_lock = threading.Lock()
_n_inside = 0
_threads_before = 1


@contextmanager
def one_thread_if_small(n_numbers: int, *, with_blas: bool = False) -> Iterator[None]:
    """Compute in one thread if the work is small; afterwards all is as it was.

    The number of threads of torch is one to a process. The first of our threads that
    comes in sets it, and the last one that leaves restores it. `with_blas` limits the
    libraries of linear algebra as well, which takes milliseconds.

    Examples
    --------
    >>> before = torch.get_num_threads()
    >>> with one_thread_if_small(1000):
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    if n_numbers >= SMALL_WORK:
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_one_thread_of_torch())
        if with_blas:
            stack.enter_context(threadpool_limits(limits=1))
        yield


@contextmanager
def _one_thread_of_torch() -> Iterator[None]:
    global _n_inside, _threads_before
    with _lock:
        if _n_inside == 0:
            _threads_before = torch.get_num_threads()
            if _threads_before != 1:
                torch.set_num_threads(1)
        _n_inside += 1
    try:
        yield
    finally:
        with _lock:
            _n_inside -= 1
            if _n_inside == 0 and _threads_before != 1:
                torch.set_num_threads(_threads_before)

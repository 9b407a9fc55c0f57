"""Calls in a process of their own, and the memory that they take there."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["extra_memory", "in_child", "peak_growth"]


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process, and return what it returns.

    A child that ends before it returns (because it cannot import the function's module,
    say) is an error at once. A `multiprocessing.Pool` would start another one for ever.

    Parameters
    ----------
    function : callable
        Must pickle, as its arguments and its result must.

    Raises
    ------
    concurrent.futures.process.BrokenProcessPool
        If the process ends before it returns.

    Examples
    --------
    >>> in_child(divmod, 7, 2)
    (3, 1)
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def extra_memory(
    function: Callable[[], Any], warm_up: Callable[[], Any] | None = None
) -> float:
    """Memory that a call takes at its peak beyond what the process held before.

    Measured in a process of its own; needs Linux.

    Parameters
    ----------
    function : callable
        Must pickle.
    warm_up : callable, optional
        Called first, so that imports and thread pools do not count. Must pickle.

    Returns
    -------
    mebibytes : float

    Examples
    --------
    >>> from functools import partial
    >>> extra_memory(partial(bytearray, 50 * 2**20)) > 45
    True
    """
    return in_child(peak_growth, function, warm_up)


def peak_growth(
    function: Callable[[], Any], warm_up: Callable[[], Any] | None = None
) -> float:
    """Memory in MiB that a call takes at its peak, measured in this process.

    What the process has freed before and not given back is not seen when it is used
    again: :func:`extra_memory` has no such gap. Needs Linux.
    """
    if warm_up is not None:
        warm_up()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmHWM")
    function()
    return _status("VmHWM") - before


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}.")

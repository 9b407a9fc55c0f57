"""One line for somebody who waits for a fit that shows no progress."""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

__all__ = ["line_after_a_while", "say_nothing"]

SECONDS = 10.0
LINE = "skvmdls: fit is still running. verbose=1 shows its progress."

_is_said = False


@contextmanager
def line_after_a_while(*, is_quiet: bool) -> Iterator[None]:
    """Print one line if a quiet fit takes long, where somebody looks.

    That is in a terminal or in a notebook, and once in a process: a search fits often.
    """
    if not is_quiet or _is_said or not _is_watched():
        yield
        return
    timer = Timer(SECONDS, _say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say_nothing() -> None:
    """Print no line in this process, where something else shows the progress."""
    global _is_said
    _is_said = True


def _say() -> None:
    global _is_said
    if not _is_said:
        _is_said = True
        print(LINE, file=sys.stderr, flush=True)


def _is_watched() -> bool:
    if multiprocessing.parent_process() is not None:
        return False
    # A kernel of Jupyter has no terminal.
    is_notebook = "ipykernel" in sys.modules
    return is_notebook or bool(sys.stderr and sys.stderr.isatty())

"""What training made, kept on disk under all that went into it (parameter `memory`)."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sklearn.utils.validation import check_memory
from torch import nn

from skvmdls.training.fingerprints import fingerprint, what_decides

__all__ = ["remembered", "remembered_training"]


logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def remembered(
    memory: Any,
    step: str,
    make: Callable[[], Result],
    ingredients: Mapping[str, Any],
) -> Result:
    """Make something, or recall a copy of what equal ingredients made before.

    They are all that `make` depends on, by name. Logs at level DEBUG which it was.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> calls = []
    >>> for _ in range(3):
    ...     remembered(folder, "square", lambda: calls.append(1) or 2**2, {"x": 2})
    4
    4
    4
    >>> len(calls)
    1
    """
    if memory is None:
        return make()
    if isinstance(memory, os.PathLike):
        memory = os.fspath(memory)
    recall = check_memory(memory).cache(_made, ignore=["make"])
    key = fingerprint(what_decides(ingredients))
    # Stand-ins for joblib.Memory need only have `cache`, as in a Pipeline.
    is_stored = getattr(recall, "check_call_in_cache", None)
    if is_stored is not None:
        outcome = "recalled" if is_stored(step, key, make) else "not stored yet, made"
        logger.debug("%s %s: %s", step, key, outcome)
    return recall(step, key, make)


def remembered_training(
    memory: Any,
    step: str,
    net: nn.Module,
    train: Callable[[], Result],
    ingredients: Mapping[str, Any],
) -> Result:
    """Train a net, in place, or give it the weights that an equal training made.

    What is kept is the net's `state_dict`, not the net: its class may be one of a
    notebook or script, which no other process finds. It is left in evaluation mode, and
    is an ingredient itself, by its class, its weights and what it holds.
    """

    def make() -> tuple[dict[str, Any], Result]:
        result = train()
        return net.state_dict(), result

    state, result = remembered(memory, step, make, {"net": net, **ingredients})
    net.load_state_dict(state)
    net.eval()
    return result


def _made(step: str, key: str, make: Callable[[], Any]) -> Any:
    return make()

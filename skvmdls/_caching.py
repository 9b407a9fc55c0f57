"""What training made, kept on disk under all that went into it (parameter `memory`)."""

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.utils.validation import check_memory
from torch import nn

from skvmdls._fingerprints import fingerprint, what_decides

__all__ = ["remembered", "remembered_training"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def remembered(
    memory: Any, step: str, make: Callable[[], Result], *ingredients: Any
) -> Result:
    """Make something, or recall what equal ingredients made before.

    Logs at level DEBUG which of the two it was.

    Parameters
    ----------
    memory : path, joblib.Memory or None
        None always makes it.
    step : str
        What is made.
    make : callable
        Without arguments; must depend on nothing but the ingredients.
    *ingredients
        Everything that decides the result, see
        :func:`skvmdls._fingerprints.fingerprint`.

    Returns
    -------
    result
        Of `make`; recalled, it is a fresh copy.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> calls = []
    >>> for _ in range(3):
    ...     remembered(folder, "square", lambda: calls.append(1) or 2**2, 2)
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
    key = fingerprint(what_decides({str(i): x for i, x in enumerate(ingredients)}))
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
    *ingredients: Any,
) -> Result:
    """Train a net, in place, or give it the weights that an equal training made.

    What is kept is the net's `state_dict`, not the net: its class may be one of a
    notebook or script, which no other process finds.

    Parameters
    ----------
    memory, step
        As for :func:`remembered`.
    net : nn.Module
        Left in evaluation mode. Its class, its weights and what it holds are
        ingredients.
    train : callable
        Without arguments; trains `net`.
    *ingredients
        What else decides the training.

    Returns
    -------
    result
        Of `train`.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> for _ in range(2):
    ...     net = nn.Linear(1, 1)
    ...     _ = nn.init.zeros_(net.weight), nn.init.zeros_(net.bias)
    ...     _ = remembered_training(folder, "one", net, lambda: nn.init.ones_(net.bias))
    ...     float(net.bias)
    1.0
    1.0
    """

    def make() -> tuple[dict[str, Any], Result]:
        result = train()
        return net.state_dict(), result

    state, result = remembered(memory, step, make, net, *ingredients)
    net.load_state_dict(state)
    net.eval()
    return result


def _made(step: str, key: str, make: Callable[[], Any]) -> Any:
    return make()

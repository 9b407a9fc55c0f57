"""Results of trainings, cached on disk by all that they depend on (`memory`)."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sklearn.utils.validation import check_memory
from torch import nn

from skvmdls.training.fingerprints import fingerprint, what_decides

__all__ = ["cached", "cached_training"]


logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def cached(
    memory: Any,
    step: str,
    make: Callable[[], Result],
    ingredients: Mapping[str, Any],
) -> Result:
    """Compute something, or load what equal ingredients gave before.

    They are all that `make` depends on, by name. Logs at level DEBUG which it was.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> calls = []
    >>> for _ in range(3):
    ...     cached(folder, "square", lambda: calls.append(1) or 2**2, {"x": 2})
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
    load_or_make = check_memory(memory).cache(_made, ignore=["make"])
    key = fingerprint(what_decides(ingredients))
    # Stand-ins for joblib.Memory need only have `cache`, as in a Pipeline.
    is_stored = getattr(load_or_make, "check_call_in_cache", None)
    if is_stored is not None:
        outcome = "loaded from the cache" if is_stored(step, key, make) else "computed"
        logger.debug("%s %s: %s", step, key, outcome)
    return load_or_make(step, key, make)


def cached_training(
    memory: Any,
    step: str,
    net: nn.Module,
    train: Callable[[], Result],
    ingredients: Mapping[str, Any],
) -> Result:
    """Train a net, in place, or load the weights of an equal training.

    The cache holds the `state_dict` of the net, not the net: its class may be defined
    in a notebook or script, which no other process finds. The net is left in evaluation
    mode. It is an ingredient itself, by its class, its weights and its attributes.
    """

    def make() -> tuple[dict[str, Any], Result]:
        result = train()
        # On the CPU: a cache may be read where there is no GPU, or only another one.
        return {k: v.cpu() for k, v in net.state_dict().items()}, result

    state, result = cached(memory, step, make, {"net": net, **ingredients})
    net.load_state_dict(state)
    net.eval()
    return result


def _made(step: str, key: str, make: Callable[[], Any]) -> Any:
    return make()

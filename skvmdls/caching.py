"""What training made, kept on disk under all that went into it (parameter `memory`).

A net is kept under its weights before the training and the code of its modules, not
under the name of its factory: a factory that was edited, or one of the same name in
another session, never gets another's net.
"""

import inspect
import logging
import marshal
import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from typing import Any, TypeVar

import joblib
import torch
from sklearn.utils.validation import check_memory
from torch import Tensor, nn

__all__ = ["fingerprint", "remembered"]

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
        Everything that decides the result (see :func:`fingerprint`).

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
    key = fingerprint((torch.__version__, *ingredients))
    # Stand-ins for joblib.Memory need only have `cache`, as in a Pipeline.
    is_stored = getattr(recall, "check_call_in_cache", None)
    if is_stored is not None:
        outcome = "recalled" if is_stored(step, key, make) else "not stored yet, made"
        logger.debug("%s %s: %s", step, key, outcome)
    return recall(step, key, make)


def _made(step: str, key: str, make: Callable[[], Any]) -> Any:
    return make()


def fingerprint(thing: Any) -> str:
    """Hash of what decides a result: arrays, settings, nets and functions by content.

    Parameters
    ----------
    thing : object
        Tensors, arrays, numbers, strings, dataclasses, nets, functions, estimators, or
        tuples of these.

    Returns
    -------
    fingerprint : str
        Equal for equal content, in this process and in others.

    Examples
    --------
    >>> fingerprint((1, "a")) == fingerprint((1, "a"))
    True
    >>> torch.manual_seed(0) and fingerprint(nn.Linear(2, 2)) == fingerprint(
    ...     nn.Linear(2, 2)
    ... )
    False
    """
    return joblib.hash(_content(thing))


def _content(thing: Any) -> Any:
    if isinstance(thing, Tensor):
        return thing.detach().cpu().numpy()
    if isinstance(thing, tuple):
        return tuple(_content(part) for part in thing)
    if isinstance(thing, nn.Module):
        return _net_content(thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return {
            field.name: _content(getattr(thing, field.name)) for field in fields(thing)
        }
    if isinstance(thing, torch.dtype | torch.device):
        return str(thing)
    if isinstance(thing, partial):
        return tuple(map(_content, (thing.func, thing.args, *thing.keywords.items())))
    if inspect.isroutine(thing) or isinstance(thing, type):
        return _code(thing)
    return thing


def _net_content(net: nn.Module) -> Any:
    """Weights, and for each module its class's code and its plain attributes."""
    modules = [
        (
            name,
            _code(type(module)),
            {
                attribute: value
                for attribute, value in vars(module).items()
                if isinstance(value, bool | int | float | str | tuple)
            },
        )
        for name, module in net.named_modules()
    ]
    weights = {name: _content(value) for name, value in net.state_dict().items()}
    return modules, weights


def _code(thing: Any) -> Any:
    """Name and code of a class or function; of a function, all that it holds too."""
    name = f"{thing.__module__}.{thing.__qualname__}"
    held: tuple[Any, ...] = (getattr(thing, "__self__", None),)
    if inspect.isfunction(thing):
        cells = tuple(cell.cell_contents for cell in thing.__closure__ or ())
        held += (cells, thing.__defaults__ or ())
    # Looking up the source of a class parses its whole file, and a net of many modules
    # is of few classes.
    code = _class_source(thing) if isinstance(thing, type) else _source(thing)
    return name, code, _content(held)


def _source(thing: Any) -> Any:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return _compiled(thing)


_class_source = lru_cache(maxsize=1024)(_source)


def _compiled(thing: Any) -> Any:
    """Code of what has no source, because it was typed into an interpreter."""
    if isinstance(thing, type):
        functions = filter(inspect.isfunction, vars(thing).values())
        return tuple(_compiled(function) for function in functions)
    code = getattr(thing, "__code__", None)
    return code and marshal.dumps(code)

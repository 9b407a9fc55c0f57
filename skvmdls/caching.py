"""What training made, kept on disk under all that went into it (parameter `memory`).

A net is kept under its weights before the training and the code of its modules, not
under the name of its factory: a factory that was edited, or one of the same name in
another session, never gets another's net. What code reads from global variables is not
seen.
"""

import inspect
import logging
import os
import pickle
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import joblib
import numpy as np
import torch
from sklearn.utils.validation import check_memory
from torch import Tensor, nn

__all__ = ["fingerprint", "package_code", "remembered", "remembered_training"]

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
    key = fingerprint((torch.__version__, package_code(), *ingredients))
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


@cache
def package_code() -> str:
    """Hash of skvmdls's own sources: other code may train another net.

    Returns
    -------
    fingerprint : str

    Examples
    --------
    >>> package_code() == package_code()
    True
    """
    folder = Path(__file__).parent
    return joblib.hash(
        [
            (path.relative_to(folder).as_posix(), path.read_bytes())
            for path in sorted(folder.rglob("*.py"))
        ]
    )


def fingerprint(thing: Any) -> str:
    """Hash of what decides a result: arrays, settings, nets and functions by content.

    Parameters
    ----------
    thing : object
        Tensors, arrays, numbers, strings, dataclasses, nets, functions, estimators, or
        tuples, lists and dicts of these.

    Returns
    -------
    fingerprint : str
        Equal for equal content, in this process and in others.

    Raises
    ------
    ValueError
        If there is something that has no content to compare, such as an open file.

    Examples
    --------
    >>> fingerprint((1, "a")) == fingerprint((1, "a"))
    True
    >>> torch.manual_seed(0) and fingerprint(nn.Linear(2, 2)) == fingerprint(
    ...     nn.Linear(2, 2)
    ... )
    False
    """
    return joblib.hash(_Reader().content(thing))


# What every module has: its weights are read from its state, its hooks are ours.
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}


class _Reader:
    """Takes things apart until only what can be hashed by value is left."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def content(self, thing: Any) -> Any:
        if isinstance(thing, Tensor):
            return thing.detach().cpu().numpy()
        if isinstance(thing, torch.dtype | torch.device):
            return str(thing)
        if inspect.ismodule(thing):
            return thing.__name__
        # A function may hold itself, a method its class, a module another.
        if id(thing) in self._open:
            return "itself"
        self._open.add(id(thing))
        try:
            return self._taken_apart(thing)
        finally:
            self._open.discard(id(thing))

    def _taken_apart(self, thing: Any) -> Any:
        if isinstance(thing, tuple | list):
            return type(thing).__name__, [self.content(part) for part in thing]
        if isinstance(thing, dict):
            return {key: self.content(value) for key, value in thing.items()}
        if isinstance(thing, partial):
            return self.content((thing.func, thing.args, thing.keywords))
        if isinstance(thing, type):
            return self._class_code(thing)
        if inspect.isroutine(thing):
            return self._function_code(thing)
        if isinstance(thing, nn.Module):
            weights = self.content(dict(thing.state_dict()))
            modules = [
                (name, self._object(module, _OF_EVERY_MODULE))
                for name, module in thing.named_modules()
            ]
            return modules, weights
        if is_dataclass(thing):
            values = {
                f.name: self.content(getattr(thing, f.name)) for f in fields(thing)
            }
            return self.content(type(thing)), values
        if callable(thing) and hasattr(thing, "__dict__"):
            return self._object(thing)
        if not isinstance(thing, np.ndarray):
            _check_comparable(thing)
        return thing

    def _object(self, thing: Any, hidden: frozenset[str] = frozenset()) -> Any:
        attributes = {k: v for k, v in vars(thing).items() if k not in hidden}
        return self.content(type(thing)), self.content(attributes)

    def _class_code(self, cls: type) -> Any:
        """Name and code, with that of all that it inherits from."""
        return [
            (
                f"{base.__module__}.{base.__qualname__}",
                # The version of torch stands for its code.
                None if _is_torchs(base) else _class_source(base),
                None if _is_torchs(base) else self._held_by_methods(base),
            )
            for base in cls.__mro__
            if base is not object
        ]

    def _held_by_methods(self, cls: type) -> list[Any]:
        return [
            self._held(method)
            for method in vars(cls).values()
            if inspect.isfunction(method)
        ]

    def _function_code(self, function: Any) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        owner = getattr(function, "__self__", None)
        inner = getattr(function, "__func__", function)
        return name, _source(function), self.content(owner), self._held(inner)

    def _held(self, function: Any) -> Any:
        """Take what a function holds beside its code: its defaults and its closure."""
        cells = getattr(function, "__closure__", None) or ()
        return self.content(
            (
                getattr(function, "__defaults__", None),
                getattr(function, "__kwdefaults__", None),
                [_cell_content(cell) for cell in cells],
            )
        )


def _check_comparable(thing: Any) -> None:
    """Joblib's hash of what does not pickle says nothing about it."""
    try:
        pickle.dumps(thing)
    except Exception as error:
        raise ValueError(
            "memory and checkpoint must tell whether two fits are the same, but a "
            f"parameter holds something that cannot be compared: {error}. Leave it "
            "out, or use memory=None and checkpoint=None."
        ) from error


def _is_torchs(cls: type) -> bool:
    return cls.__module__.split(".")[0] == "torch"


def _cell_content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # Not filled yet.
        return None


def _source(thing: Any) -> Any:
    # What was sent to another process is there as code only, and must be the same.
    if getattr(thing, "__module__", None) == "__main__":
        return _compiled(thing)
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return _compiled(thing)


# Looking up the source of a class parses its whole file, and a net of many modules is
# of few classes.
_class_source = lru_cache(maxsize=1024)(_source)


def _compiled(thing: Any) -> Any:
    """Code of what has no source, or not in every process."""
    if isinstance(thing, type):
        functions = filter(inspect.isfunction, vars(thing).values())
        return [_compiled(function) for function in functions]
    return _instructions(getattr(thing, "__code__", None))


def _instructions(code: Any) -> Any:
    """Take of code what it does, not the file and the line that it stands in."""
    if not inspect.iscode(code):
        return code
    constants = [_instructions(constant) for constant in code.co_consts]
    return (code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)

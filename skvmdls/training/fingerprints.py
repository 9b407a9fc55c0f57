"""Whether two things are the same: hashes of content and of code.

A net is compared by its weights and the code of its modules, not by the name of its
factory: a factory that was edited, or one of the same name in another session, never
passes for another. What code reads from global variables is not seen.
"""

import ast
import inspect
import pickle
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from skvmdls._support import version

__all__ = ["fingerprint", "what_decides"]


def what_decides(ingredients: Mapping[str, Any]) -> dict[str, str]:
    """Answer, for memory and checkpoint alike, what makes a training the same.

    By name, a hash of each ingredient, and the versions of skvmdls and torch: two
    trainings are the same where all of them are.
    """
    hashes = {name: fingerprint(value) for name, value in ingredients.items()}
    return hashes | {
        "the version of skvmdls": version.__version__,
        "the version of torch": str(torch.__version__),
    }


def fingerprint(thing: Any) -> str:
    """Hash by content, equal in all processes, or a ValueError if there is none.

    Takes tensors, arrays, numbers, strings, nets, functions, estimators, dataclasses
    (the fields that count in comparisons), and tuples, lists and dicts of these.

    Examples
    --------
    >>> fingerprint((1, "a")) == fingerprint((1, "a"))
    True
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
            return type(thing).__name__, [self.content(item) for item in thing]
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
                f.name: self.content(getattr(thing, f.name))
                for f in fields(thing)
                if f.compare
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
        """Take the defaults and the closure of a function, which its code lacks."""
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
        source = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        return _compiled(thing)
    try:
        return _syntax(source)
    except SyntaxError:  # A lambda comes with the rest of its line.
        return source


def _syntax(source: str) -> str:
    """Abstract syntax of a source, without its docstrings and comments."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            is_documented = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[is_documented:]
    return ast.dump(tree)


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

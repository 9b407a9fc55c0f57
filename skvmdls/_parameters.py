"""A parameter on one line: its name, type, default and constraints."""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

__all__ = ["parameter", "with_parameters"]

Class = TypeVar("Class", bound=type)


def parameter(default: Any, *constraints: Any) -> Any:
    """Declare a parameter: its default, and what scikit-learn checks it against."""
    return field(default=default, metadata={"constraints": list(constraints)})


def with_parameters(cls: Class) -> Class:
    """Give an estimator the ``__init__`` and the constraints of its parameters.

    The dataclass only writes ``__init__``: what makes a scikit-learn estimator, its
    `repr` and its identity, stays.
    """
    made: Any = dataclass(eq=False, repr=False)(cls)
    made._parameter_constraints = {
        declared.name: declared.metadata["constraints"] for declared in fields(made)
    }
    return made

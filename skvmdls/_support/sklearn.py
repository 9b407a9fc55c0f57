"""What the package takes from scikit-learn's private modules, all in one place.

It has no public way to declare and check an estimator's parameters. Should these names
move, this file is what to mend; `.ci/run` tests it with the oldest scikit-learn that is
supported, and with the newest. Beside them, `BaseEstimator._validate_params` and the
class attribute `_parameter_constraints` that it reads are used. Its callbacks are
public, but only there from 1.9 on; before, a detector has none.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:
    Method = TypeVar("Method", bound=Callable[..., Any])

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's, and tells nobody."""

        def _init_callback_context(self, **task: Any) -> None:
            """Give no context."""

    def with_callbacks(method: Method) -> Method:
        """Leave the method as it is."""
        return method


__all__ = [
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "validate_parameter_constraints",
    "with_callbacks",
]

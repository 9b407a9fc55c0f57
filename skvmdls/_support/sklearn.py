"""scikit-learn's base classes with types, and the private names the package uses.

scikit-learn has no public way to declare and check an estimator's parameters. If the
private names move, only this file changes. `.ci/run` tests it with the oldest
supported scikit-learn and with the newest. The package also uses
`BaseEstimator._validate_params` and the class attribute `_parameter_constraints`.
Callbacks are public, but exist only from version 1.9 on.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from sklearn.utils import Tags
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)

Method = TypeVar("Method", bound=Callable[..., Any])

if TYPE_CHECKING:
    # scikit-learn has no types. A class with a base of unknown type would accept any
    # argument, so type checkers get what users call and the package overrides.

    class BaseEstimator:
        n_features_in_: int
        feature_names_in_: np.ndarray

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def set_fit_request(self, *, groups: bool | str | None = None) -> Self: ...
        def get_metadata_routing(self) -> Any: ...
        def _validate_params(self) -> None: ...
        def __sklearn_tags__(self) -> Tags: ...
        def __getstate__(self) -> dict[str, Any]: ...

    class OutlierMixin:
        pass

    class TransformerMixin:
        def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any: ...
        def set_output(self, *, transform: str | None = None) -> Self: ...

    class CallbackSupportMixin:
        def set_callbacks(self, *callbacks: Any) -> Self: ...
        def _init_callback_context(self, **task: Any) -> Any: ...

    def with_callbacks(method: Method) -> Method: ...

else:
    from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin

    try:
        from sklearn.callback import CallbackSupportMixin, with_callbacks
    except ImportError:

        class CallbackSupportMixin:
            """No callbacks before scikit-learn 1.9."""

            def _init_callback_context(self, **task: Any) -> None:
                """Return no context."""

        def with_callbacks(method: Method) -> Method:
            """Return the method as it is."""
            return method


__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "Options",
    "OutlierMixin",
    "StrOptions",
    "TransformerMixin",
    "validate_parameter_constraints",
    "with_callbacks",
]

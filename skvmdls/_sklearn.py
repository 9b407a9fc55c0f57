"""What the package takes from scikit-learn's private modules, all in one place.

It has no public way to declare and check an estimator's parameters. Should these names
move, this file is what to mend; `.ci/run` tests it with the oldest scikit-learn that is
supported, and with the newest. Beside them, `BaseEstimator._validate_params` and the
class attribute `_parameter_constraints` that it reads are used.
"""

from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    Options,
    StrOptions,
    validate_parameter_constraints,
)

__all__ = [
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "validate_parameter_constraints",
]

"""Warnings where scikit-learn takes the detector for what it is not.

A detector's -1 is no class, and its decision function is not a class's. No tag of
scikit-learn makes these callers ask; so it is the detector that looks who calls.
"""

import sys
from types import FrameType

from skvmdls._support.values import warn

__all__ = ["warn_of_misuse"]

# By method, the modules that take it for another, and what to say.
CALLERS = {
    "fit": {
        "sklearn.calibration": (
            "CalibratedClassifierCV calibrates decision functions of classes; a "
            "detector's is that of being known. Its p_value is calibrated as it is."
        ),
        "sklearn.ensemble._bagging": (
            "BaggingClassifier counts a detector's answer -1 as a vote for the last "
            "class. Fit several detectors and join their p_values."
        ),
        "sklearn.ensemble._stacking": (
            "StackingClassifier stacks decision functions of classes; a detector's is "
            "that of being known. Stack its class_log_likelihood or transform."
        ),
        "sklearn.multiclass": (
            "OneVsRestClassifier and its like compare decision functions of classes; "
            "a detector's is that of being known. Use the detector itself, which takes "
            "any number of classes."
        ),
    },
    "decision_function": {
        "sklearn.metrics": (
            "scoring='roc_auc' and its like compare the decision function with the "
            "labels; a detector's says whether a point is known, not of which class. "
            "Use scoring=skvmdls.model_selection.get_scorer('auroc')."
        ),
    },
}

BETWEEN = ("contextlib", "joblib", "sklearn", "skvmdls")


def warn_of_misuse(method: str) -> None:
    """Warn if scikit-learn calls a method in a role that it cannot play.

    Examples
    --------
    >>> warn_of_misuse("fit")
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.split(".")[0] not in BETWEEN:
            return
        for caller, advice in CALLERS[method].items():
            if module.startswith(caller):
                warn(f"{advice} See docs/in_scikit_learn.md.")
                return
        frame = frame.f_back

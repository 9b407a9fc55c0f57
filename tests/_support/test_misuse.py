"""Where scikit-learn takes the detector for what it is not."""

import warnings

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from skvmdls import VMDLSbDetector
from skvmdls.model_selection import SCORERS

FOLDS = StratifiedKFold(2)


def detector():
    return VMDLSbDetector(max_epochs=1, contamination=0.3, random_state=0)


@pytest.mark.parametrize(
    ("attempt", "advice"),
    [
        (lambda d, X, y: CalibratedClassifierCV(d, cv=FOLDS).fit(X, y), "p_value"),
        (lambda d, X, y: OneVsRestClassifier(d).fit(X, y), "detector itself"),
        (lambda d, X, y: OneVsOneClassifier(d).fit(X, y), "detector itself"),
        (lambda d, X, y: BaggingClassifier(d, 2).fit(X, y), "join their p_values"),
        (
            lambda d, X, y: StackingClassifier([("d", d)], cv=FOLDS).fit(X, y),
            "class_log_likelihood",
        ),
        (
            lambda d, X, y: BaggingClassifier(
                make_pipeline(StandardScaler(), d), 2
            ).fit(X, y),
            "join their p_values",
        ),
        (
            lambda d, X, y: cross_val_score(d, X, y > 0, cv=FOLDS, scoring="roc_auc"),
            "get_scorer\\('auroc'\\)",
        ),
        (
            lambda d, X, y: get_scorer("average_precision")(d.fit(X, y > 0), X, y > 0),
            "get_scorer\\('auroc'\\)",
        ),
    ],
)
def test_wrappers_that_take_it_for_a_classifier_are_warned_of(attempt, advice, table):
    """Regression: accuracy by chance, and far points in the last class, silently."""
    with pytest.warns(UserWarning, match=f"{advice}.*in_scikit_learn"):
        attempt(detector(), *table)


def test_wrappers_that_refuse_it_do(table):
    X, y = table
    for wrapper, message in (
        (VotingClassifier([("detector", detector())]), "should be a classifier"),
        (SelfTrainingClassifier(detector()), "predict_proba"),
        (AdaBoostClassifier(detector()), "sample_weight"),
    ):
        with pytest.raises((ValueError, AttributeError), match=message):
            wrapper.fit(X, np.where(np.arange(len(y)) % 4, y, -1))


def test_right_uses_are_not_warned_of(table):
    X, y = table
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*in_scikit_learn")
        fitted = make_pipeline(StandardScaler(), detector()).fit(X, y)
        fitted.decision_function(X)
        GridSearchCV(detector(), {"contamination": [0.3]}, cv=FOLDS).fit(X, y)
        cross_val_predict(detector(), X, y, cv=FOLDS)
        SCORERS["auroc"](fitted, np.concatenate([X, X + 50]), np.append(y, y + 9))
        is_known = np.repeat([True, False], len(X))
        roc_auc_score(is_known, fitted.decision_function(np.concatenate([X, X + 50])))

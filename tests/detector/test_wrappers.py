"""scikit-learn's wrappers of classifiers that refuse the detector."""

import numpy as np
import pytest
from sklearn.ensemble import AdaBoostClassifier, VotingClassifier
from sklearn.semi_supervised import SelfTrainingClassifier

from skvmdls import VMDLSbDetector


def detector():
    return VMDLSbDetector(max_epochs=1, contamination=0.3, random_state=0)


def test_wrappers_that_refuse_it_do(table):
    X, y = table
    for wrapper, message in (
        (VotingClassifier([("detector", detector())]), "should be a classifier"),
        (SelfTrainingClassifier(detector()), "predict_proba"),
        (AdaBoostClassifier(detector()), "sample_weight"),
    ):
        with pytest.raises((ValueError, AttributeError), match=message):
            wrapper.fit(X, np.where(np.arange(len(y)) % 4, y, -1))

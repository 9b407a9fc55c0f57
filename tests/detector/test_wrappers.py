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
        (AdaBoostClassifier(detector()), "sample_weight"),
    ):
        with pytest.raises((ValueError, AttributeError), match=message):
            wrapper.fit(X, np.where(np.arange(len(y)) % 4, y, -1))


def test_self_training_labels_rows_by_the_probabilities(table):
    X, y = table
    some = np.where(np.arange(len(y)) % 4, y, -1)
    wrapper = SelfTrainingClassifier(detector()).fit(X, some)
    assert wrapper.classes_.tolist() == [0, 1, 2]
    labelled = wrapper.labeled_iter_ > 0
    assert labelled.any()
    assert np.mean(wrapper.transduction_[labelled] == y[labelled]) > 0.9

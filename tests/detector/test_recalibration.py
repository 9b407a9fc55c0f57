"""New held-out scores from known points of another site."""

import numpy as np
import pytest

import skvmdls
from shared import blobs
from skvmdls import VMDLSbDetector


@pytest.fixture
def detector():
    X, y = blobs(3, 60)
    return VMDLSbDetector(random_state=0).fit(X, np.array(["ant", "bee", "cat"])[y])


def moved(seed, n=60):
    X, y = blobs(3, n, seed=seed)
    return X + 0.8, np.array(["ant", "bee", "cat"])[y]


def test_the_threshold_follows_the_new_site(detector):
    X, y = moved(1)
    new, _ = moved(2)
    before = detector.is_unknown(new).mean()
    evidence = detector.evidence(new)
    with pytest.warns(UserWarning, match="threshold"):
        detector.recalibrate(X, y)
    assert before > 0.2
    assert detector.is_unknown(new).mean() < 0.12
    assert detector.recalibration_report_.rejected_share > 0.2
    np.testing.assert_array_equal(detector.evidence(new), evidence)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_it_survives_a_file_and_new_classes(detector, tmp_path):
    X, y = moved(1)
    detector.recalibrate(X, y)
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    assert loaded.offset_ == detector.offset_
    rows = blobs(4, 30, seed=3)
    loaded.add_classes(rows[0][rows[1] == 3], ["dog"] * 30)
    assert loaded.calibration_scores_.shape[0] > len(X)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_classes_without_new_points_keep_theirs_and_are_named(detector):
    X, y = moved(1)
    detector.set_params(guarantee="class", contamination=0.1)
    old = detector.calibration_class_scores_[detector.calibration_labels_ == 1]
    with pytest.warns(UserWarning, match="1 of 3 classes have no new points.*'bee'"):
        detector.recalibrate(X[y != "bee"], y[y != "bee"])
    kept = detector.calibration_class_scores_[detector.calibration_labels_ == 1]
    np.testing.assert_array_equal(np.sort(kept), np.sort(old))


def test_labels_are_needed_where_each_class_has_a_threshold(detector):
    X, _ = moved(1)
    detector.set_params(guarantee="class")
    with pytest.raises(ValueError, match="needs y with guarantee='class'"):
        detector.recalibrate(X)
    with pytest.raises(ValueError, match="does not know: 'dog'"):
        detector.recalibrate(X[:1], ["dog"])


def test_of_each_group_one_point_counts(detector):
    X, _ = moved(1)
    detector.recalibrate(np.concatenate([X, X]))
    assert len(detector.calibration_scores_) == len(X)

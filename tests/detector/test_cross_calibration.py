"""Nets that are trained several times, so that all rows set the threshold."""

import numpy as np
import pytest
from sklearn.base import clone

import skvmdls
from shared import TABLE_SETTINGS, blobs
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.detector.fitting import trains_in_folds


@pytest.fixture(scope="module")
def images(digits):
    """A hundred images, for fits of a second."""
    return digits.X_train[:100], digits.y_train[:100]


def quick(detector=VMDLSbDetector, **parameters):
    return detector(max_epochs=2, random_state=0, augmentation=None, **parameters)


@pytest.fixture(scope="module")
def crossed(images):
    return quick().fit(*images)


def test_few_small_images_are_cross_calibrated_with_nothing_set(crossed, images):
    X, y = images
    n = len(X)
    assert [len(rows) for rows in crossed.split_] == [n, n, n]
    assert len(crossed.calibration_scores_) == n
    # In the order of the rows, for the test of drift.
    np.testing.assert_array_equal(crossed.classes_[crossed.calibration_labels_], y)
    # Scored by nets that had not seen them, which is lower.
    assert crossed.calibration_scores_.mean() < crossed.score_samples(X).mean()
    assert len(crossed.history_["loss"]) == 2


def test_each_row_is_scored_by_a_net_without_it(images):
    """A row whose label is wrong scores low, though the final net has seen it."""
    X, y = images
    wrong = y.copy()
    wrong[:8] = (y[:8] + 1) % 6
    detector = VMDLSbDetector(max_epochs=12, random_state=0).fit(X, wrong)
    ranks = detector.calibration_class_scores_.argsort().argsort()
    assert ranks[:8].max() < 30


def test_a_detector_with_an_autoencoder_is_cross_calibrated_too(images, tmp_path):
    X, y = images
    detector = quick(VMDLSDetector, autoencoder_epochs=1).fit(X, y)
    assert len(detector.calibration_scores_) == len(X)
    assert "residual" in detector.evidence_names_
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    np.testing.assert_array_equal(loaded.predict(X), detector.predict(X))


def test_a_table_with_a_net_can_be_asked_to(images):
    X, y = blobs(3, 20)
    settings = TABLE_SETTINGS | {"features": ("g", "mu", "linear")}
    detector = VMDLSbDetector(**settings, calibration="cross").fit(X, y)
    assert len(detector.calibration_scores_) == len(X)
    new, _ = blobs(3, 100, seed=1)
    assert detector.is_unknown(new).mean() < 0.2
    assert detector.is_unknown(X + 30).all()


def test_the_papers_product_is_cross_calibrated_when_asked(images):
    detector = VMDLSDetector.from_paper(
        max_epochs=2, autoencoder_epochs=1, random_state=0, calibration="cross"
    ).fit(*images)
    assert len(detector.calibration_scores_) == len(images[0])
    assert np.isfinite(detector.offset_)
    by_default = VMDLSDetector.from_paper().resolved()
    assert not trains_in_folds(by_default, np.repeat([0, 1], 20), None, 100)


def test_the_same_seed_gives_the_same_threshold_from_a_cache_too(
    crossed, images, tmp_path
):
    again = clone(crossed).set_params(memory=str(tmp_path)).fit(*images)
    assert again.offset_ == crossed.offset_
    recalled = clone(again).fit(*images)
    np.testing.assert_array_equal(
        recalled.calibration_scores_, crossed.calibration_scores_
    )


def test_one_image_of_each_group_counts(images):
    X, y = images
    groups = np.arange(len(X)) // 2
    y = y[groups * 2]
    detector = quick().fit(X, y, groups)
    assert len(detector.calibration_scores_) == len(X) / 2
    assert len(np.unique(groups[detector.split_.threshold])) == len(X) / 2


def test_what_is_many_or_dear_or_small_is_split():
    settings, labels = quick().resolved(), np.repeat(np.arange(5), 200)
    assert trains_in_folds(settings, labels, None, 200_000)
    assert not trains_in_folds(settings, labels, None, 200_001)
    assert not trains_in_folds(settings, np.repeat([0, 1], 501), None, 1002)
    # A class of three rows would train on two, too few for its Gaussian.
    few = np.repeat([0, 1, 2], [20, 20, 3])
    assert not trains_in_folds(settings, few, None, 100)
    # So would one whose rows are all but one of one group.
    groups = np.r_[np.arange(40), [40] * 9, [41]]
    assert not trains_in_folds(settings, np.repeat([0, 1, 2], [20, 20, 10]), groups, 99)
    own_net = quick(backbone=lambda shape: None).resolved()
    assert not trains_in_folds(own_net, labels, None, 100)


def test_a_given_fraction_or_split_is_kept(images):
    for given in ({"calibration": "split"}, {"calibration_fraction": 0.3}):
        detector = quick(**given, contamination=0.3).fit(*images)
        assert len(detector.calibration_scores_) < 30


@pytest.mark.slow
def test_the_threshold_is_no_lottery_any_more(digits, is_known):
    """By a tenth of these rows the share went from 0.003 to 0.108 with the seed."""
    rejected = []
    for seed in range(3):
        detector = VMDLSbDetector(max_epochs=10, random_state=seed)
        detector.fit(digits.X_train, digits.y_train)
        rejected.append(detector.is_unknown(digits.X_test))
    known = np.mean([of_seed[is_known] for of_seed in rejected], axis=1)
    unknown = np.mean([of_seed[~is_known] for of_seed in rejected], axis=1)
    assert ((known > 0.01) & (known < 0.09)).all()
    assert np.ptp(unknown) < 0.1

"""What a fitted detector says of its own guarantee, and of a batch."""

import warnings

import numpy as np
import pytest

import skvmdls
from shared import blobs
from skvmdls import VMDLSbDetector
from skvmdls.calibration import expected_false_alarms, held_out_needed, rejection_range

NAMES = np.array(["ant", "bee", "cat"])


@pytest.fixture(scope="module")
def rows():
    X, y = blobs(3, 70)
    return X, NAMES[y]


@pytest.fixture
def detector(rows):
    return VMDLSbDetector(random_state=0).fit(*rows)


@pytest.fixture(scope="module")
def new():
    """Known rows that were not fitted, and unknown ones."""
    X, y = blobs(3, 60, seed=1)
    return X, NAMES[y], X + 6


# ------------------------------------------------------------------- ranges, summary


def test_the_range_follows_the_settings_as_they_are_now(detector):
    n = len(detector.calibration_scores_)
    assert detector.rejection_range_ == rejection_range(n, 0.05)
    detector.set_params(contamination=0.2, confidence=0.9)
    assert detector.rejection_range_ == rejection_range(n, 0.2, 0.9)
    detector.set_params(guarantee="class", confidence=None)
    of_classes = [
        rejection_range(int(size), 0.2)
        for size in np.bincount(detector.calibration_labels_)
    ]
    low, high = detector.rejection_range_
    assert low == min(low for low, _ in of_classes)
    assert high == max(high for _, high in of_classes)


def test_a_threshold_by_hand_has_the_range_that_was_counted(detector):
    scores = np.sort(detector.calibration_scores_)
    detector.set_params(threshold=scores[40])
    low, high = detector.rejection_range_
    assert low < 40 / len(scores) < high
    assert high - low < 0.15
    assert "set by hand, so it carries no guarantee" in detector.summary()


def test_the_range_is_shown_in_the_box_of_the_estimator(detector):
    pytest.importorskip("sklearn", minversion="1.9")
    assert "rejection_range_" in detector._repr_html_()


def test_the_summary_counts_false_alarms_and_acceptance_by_class_and_group(
    detector, new
):
    X, y, _ = new
    groups = np.where(np.arange(len(y)) % 2, "night", "day")
    detector.set_params(contamination=0.1, confidence=0.9)
    told = detector.summary(1000, X, y, groups=groups)
    n = len(detector.calibration_scores_)
    alarms = expected_false_alarms(1000, n, 0.1, 0.9)
    assert f"about {alarms.expected:.0f} are false alarms" in told
    assert "At most 10 % will be (90 % sure)." in told
    assert f"With {4 * n:,} the range is" in told
    accepted = ~detector.is_unknown(X)
    for kind, names in (("class", y), ("group", groups)):
        assert f"Accepted by {kind} " in told
        for name in np.unique(names):
            own = accepted[names == name]
            assert f"  {name}: {100 * own.mean():.1f} % of {len(own)} (" in told


def test_without_new_points_the_summary_is_about_those_that_set_the_threshold(detector):
    told = detector.summary()
    for label in detector.classes_:
        own = detector.calibration_labels_ == np.flatnonzero(detector.classes_ == label)
        share = np.mean(detector.calibration_scores_[own] >= detector.offset_)
        assert f"  {label}: {100 * share:.1f} % of {own.sum()} (" in told


def test_the_summary_by_class_is_about_the_smallest_class(detector):
    detector.drop_classes(["cat"]).set_params(guarantee="class", contamination=0.1)
    smallest = detector.classes_[np.bincount(detector.calibration_labels_).argmin()]
    told = detector.summary()
    assert f"class of the fewest held-out points, {str(smallest)!r}" in told


def test_the_summary_says_how_many_points_are_missing(detector):
    detector.set_params(contamination=0.001)
    with pytest.warns(UserWarning, match="too few"):
        told = detector.summary()
    assert "No point will be rejected" in told
    assert f"At least {held_out_needed(0.001):,} are needed" in told
    assert "contamination=0." in detector.set_params(contamination=0).summary()


def test_points_for_the_summary_come_with_labels_of_known_classes(detector, new):
    X, y, _ = new
    with pytest.raises(ValueError, match="X and y together"):
        detector.summary(X=X)
    with pytest.raises(ValueError, match="groups only with both"):
        detector.summary(groups=y)
    with pytest.raises(ValueError, match="does not know: 'dog'"):
        detector.summary(X=X[:1], y=["dog"])


# ------------------------------------------------------------------- recalibration


@pytest.mark.filterwarnings("ignore:The old threshold")
def test_recalibrating_by_too_few_points_warns_at_once(detector, new):
    X, y, _ = new
    with pytest.warns(UserWarning, match="10 calibration points are too few"):
        detector.recalibrate(X[:10], y[:10])


# ------------------------------------------------------------------- false discoveries


def test_few_of_the_rejected_are_known_and_the_bound_covers_them(detector, new):
    X, _, unknown = new
    batch = np.concatenate([X, unknown])
    rejected = detector.p_value(batch) <= 0.02
    n_known = int(rejected[: len(X)].sum())
    bound = detector.false_discoveries(batch, rejected)
    assert n_known <= bound < rejected.sum() / 4
    assert bound <= detector.false_discoveries(batch, rejected, confidence=0.99)
    with pytest.raises(ValueError, match="rejected has shape"):
        detector.false_discoveries(batch, rejected[1:])


def test_selecting_names_the_number_of_points_that_it_needs(detector, new):
    with pytest.warns(UserWarning, match="at least 999 are needed"):
        detector.select_unknown(new[0], fdr=0.001)


# ------------------------------------------------------------------- probabilities


def test_probabilities_sum_to_one_and_agree_with_the_label(detector, new, tmp_path):
    X, y, unknown = new
    shares = detector.predict_proba(X)
    assert shares.shape == (len(X), 3)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    label = detector.classes_[shares.argmax(axis=1)]
    np.testing.assert_array_equal(label, detector.predict_known(X))
    of_label = shares[np.arange(len(X)), np.searchsorted(detector.classes_, y)]
    assert -np.log(of_label).mean() < 0.2
    detector.set_params(unknown_prior=0.2)
    with_unknown = detector.predict_proba(np.concatenate([X, unknown]))
    assert with_unknown.shape[1] == 4
    np.testing.assert_allclose(with_unknown.sum(axis=1), 1)
    assert with_unknown[len(X) :, 3].min() > np.median(with_unknown[: len(X), 3])
    known = with_unknown[: len(X), :3]
    np.testing.assert_allclose(known / known.sum(axis=1, keepdims=True), shares)
    skvmdls.save(detector, tmp_path / "a")
    loaded = skvmdls.load(tmp_path / "a")
    np.testing.assert_array_equal(
        loaded.predict_proba(X), with_unknown[: len(X)].copy()
    )


def test_a_larger_share_of_unknown_points_makes_unknown_likelier(detector, new):
    shares = [
        detector.set_params(unknown_prior=prior).predict_proba(new[2])[:, 3]
        for prior in (0.01, 0.1, 0.5)
    ]
    assert (np.diff(shares, axis=0) > 0).all()


# ------------------------------------------------------------------- order of the rows


def drifting(seed, slope):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([0, 1, 2], 100))
    X = rng.normal(size=(300, 6)) + 8 * np.eye(6)[y]
    return X * (1 + slope * np.linspace(0, 1, 300)[:, None] ** 4), y


def test_rows_that_drift_are_named_at_fit():
    X, y = drifting(0, slope=2)
    with pytest.warns(UserWarning, match="rows drift in the order"):
        detector = VMDLSbDetector(random_state=0).fit(X, y)
    assert detector.exchangeability_p_value_ <= 0.01
    shuffled = np.random.default_rng(1).permutation(len(X))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The rows drift")
        detector.fit(X[shuffled], y[shuffled])
    assert detector.exchangeability_p_value_ > 0.01


def test_rows_sorted_by_class_are_no_drift(rows):
    X, y = rows
    order = np.argsort(y)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The rows drift")
        VMDLSbDetector(random_state=0).fit(X[order], y[order])

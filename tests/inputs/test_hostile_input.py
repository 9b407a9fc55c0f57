"""Whatever is thrown at it: a clean refusal, or finite and consistent answers."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.calibration.paper_product import WeightCalibration
from skvmdls.inputs.labels import check_labels, labels_with_unknown
from skvmdls.inputs.standardizer import Standardizer
from skvmdls.scoring.evidence import Evidence
from skvmdls.scoring.gaussians import fit_gaussians
from skvmdls.training.losses import distancing_loss, squared_distances, triplet_loss

pytestmark = pytest.mark.filterwarnings("ignore")

CLEAN = (ValueError, TypeError, FloatingPointError)
calm = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=list(HealthCheck),
)

NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=64),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, 1e150, -1e151, 5e-324, 255.0]),
)
ORDINARY = st.floats(-1e6, 1e6, width=32)
DTYPES = st.one_of(
    hnp.floating_dtypes(),
    hnp.integer_dtypes(),
    hnp.unsigned_integer_dtypes(),
    hnp.boolean_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.unicode_string_dtypes(max_len=3),
    hnp.datetime64_dtypes(),
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=12)
ANY_ARRAY = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
LABEL_SETS = st.one_of(
    st.lists(st.integers(-3, 5), min_size=2, max_size=4),
    st.lists(st.text(max_size=3), min_size=2, max_size=4),
    st.lists(st.sampled_from([0.0, 1.0, 2.5, np.nan, np.inf, -1.0]), min_size=2),
    st.lists(st.booleans(), min_size=2, max_size=2),
    st.lists(st.sampled_from([None, "a", "-1", 1, -1, b"b"]), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(), st.integers()), min_size=2, max_size=3),
)


def answers_or_refuses(detector, X, y, X_new):
    """Fit and score; False if that was refused cleanly."""
    try:
        detector.fit(X, y)
        scores = detector.score_samples(X_new)
    except CLEAN as error:
        assert str(error).strip()
        return False
    assert scores.shape == (len(X_new),)
    assert np.isfinite(scores).all()
    assert np.isfinite(detector.class_log_likelihood(X_new)).all()
    p_values = detector.p_value(X_new)
    assert np.all((p_values > 0) & (p_values <= 1))
    known = detector.classes_.tolist()
    assert set(detector.predict(X_new).tolist()) <= {*known, -1, "-1"}
    return True


@calm
@given(X=ANY_ARRAY, labels=LABEL_SETS, draw=st.randoms(use_true_random=False))
def test_fit_takes_arrays_of_any_kind_or_says_why_not(X, labels, draw):
    n = len(X) if X.ndim else 3
    y = [draw.choice(labels) for _ in range(n)]
    answers_or_refuses(VMDLSbDetector(max_epochs=1, random_state=0), X, y, X)


@calm
@given(
    X=hnp.arrays(
        np.float64, st.tuples(st.just(24), st.integers(1, 4)), elements=NUMBERS
    ),
    kind=st.sampled_from(["full", "tied", "diag"]),
    weighting=st.sampled_from(["evidence", "paper"]),
    fusion=st.sampled_from(["late", "early"]),
    normalize=st.booleans(),
    head=st.sampled_from([0, 1]),
)
def test_tables_of_any_numbers_get_finite_scores_or_a_reason(
    X, kind, weighting, fusion, normalize, head
):
    detector = VMDLSDetector(
        max_epochs=1,
        autoencoder_epochs=1,
        covariance_type=kind,
        weighting=weighting,
        fusion=fusion,
        normalize=normalize,
        classification_weight=head,
        random_state=0,
    )
    answers_or_refuses(detector, X, np.arange(24) % 3, X)


@calm
@given(
    images=hnp.arrays(
        st.sampled_from([np.uint8, np.float16, np.float32, np.int32]),
        st.tuples(st.just(12), st.integers(1, 3), st.integers(7, 9), st.integers(7, 9)),
    )
)
def test_images_of_any_numbers_get_finite_scores_or_a_reason(images):
    # One training without a trial, for a hundred examples.
    short = {"max_epochs": 1, "calibration": "split", "augmentation": None}
    detector = VMDLSbDetector(**short, random_state=0)
    answers_or_refuses(detector, images, np.arange(12) % 2, images)


@calm
@given(labels=LABEL_SETS)
@pytest.mark.slow
def test_labels_of_any_kind_come_back_or_are_refused(labels, table):
    X, y = table
    names = [labels[i % len(labels)] for i in y]
    detector = VMDLSbDetector(max_epochs=1, contamination=0.3, random_state=0)
    if answers_or_refuses(detector, X, names, X):
        assert len(detector.classes_) == len(set(names))


WILD = st.one_of(
    st.integers(-3, 40),
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(0, 1),
    st.text(max_size=4),
    st.none(),
    st.booleans(),
    st.lists(st.sampled_from(["x", "t1", "g", "mu", "mu", "logit"]), max_size=3),
    st.just({}),
)
NAMES = sorted(
    set(VMDLSDetector().get_params())
    # Paths: any text is one.
    - {"memory", "checkpoint", "verbose"}
)


@settings(calm, max_examples=200)
@given(name=st.sampled_from(NAMES), value=WILD)
@pytest.mark.slow
def test_parameters_of_any_kind_are_used_or_refused(name, value, table):
    parameters = {"max_epochs": 1, "autoencoder_epochs": 1, "random_state": 0}
    detector = VMDLSDetector(**parameters | {name: value})
    answers_or_refuses(detector, *table, table[0][:5])


@pytest.fixture(scope="module")
def earlier(table):
    return VMDLSDetector(max_epochs=2, contamination=0.1, random_state=0).fit(*table)


@calm
@given(X=ANY_ARRAY)
def test_new_points_of_any_kind_are_scored_or_refused(X, earlier):
    try:
        scores = earlier.score_samples(X)
    except CLEAN as error:
        assert str(error).strip()
        return
    assert scores.shape == (len(X),)
    assert np.isfinite(scores).all()


@calm
@given(
    X=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 9), st.just(6)),
        elements=st.floats(-1e300, 1e300),
    )
)
def test_a_row_scores_the_same_whatever_stands_beside_it(X, earlier):
    alone = np.concatenate([earlier.score_samples(row[None]) for row in X])
    np.testing.assert_allclose(earlier.score_samples(X), alone, rtol=1e-9)


@calm
@given(
    X=hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
def test_standardised_values_are_finite(X):
    try:
        values = Standardizer().fit(X).transform(X)
    except ValueError as error:
        assert "too large to be standardised" in str(error)
    else:
        assert torch.isfinite(values).all()


@calm
@given(
    labels=st.lists(
        st.one_of(st.integers(0, 3), st.sampled_from(["a", "b", "-2"])), min_size=4
    )
)
def test_encoded_labels_decode_to_what_was_given(labels):
    y = np.array(labels)
    try:
        classes, encoded = check_labels(y)
    except ValueError:
        return
    np.testing.assert_array_equal(labels_with_unknown(classes)[encoded], y)
    assert str(labels_with_unknown(classes)[-1]) == "-1"


@calm
@given(
    features=hnp.arrays(np.float64, (3, 8, 2), elements=ORDINARY),
    scale=st.sampled_from([1e-30, 1e-6, 1.0, 1e6, 1e30]),
    kind=st.sampled_from(["full", "tied", "diag"]),
)
def test_gaussians_of_any_points_are_finite_or_refused(features, scale, kind):
    features = features * scale
    try:
        gaussians = fit_gaussians(lambda c: [{"g": features[c]}], range(3), kind)["g"]
    except ValueError as error:
        assert "singular" in str(error) or "the same for every" in str(error)
        return
    points = torch.from_numpy(features.reshape(-1, 2))
    assert torch.isfinite(gaussians.log_likelihood(points)).all()


@calm
@given(
    log_likelihood=hnp.arrays(np.float64, 8, elements=st.floats(-1e12, 1e6)),
    weight=hnp.arrays(np.float64, 8, elements=st.floats(0, 1e12)),
    point=st.floats(-1e12, 1e6),
    weights=st.tuples(st.floats(0, 1e12), st.floats(0, 1e12)),
)
def test_a_larger_weight_never_raises_a_held_out_score(
    log_likelihood, weight, point, weights
):
    calibration = WeightCalibration.fit(log_likelihood, weight)
    point = min(point, log_likelihood.max())
    scores = calibration.apply(np.full(2, point), np.sort(weights))
    assert np.isfinite(scores).all()
    assert scores[1] <= scores[0]


@calm
@given(
    raw=hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 9), st.just(2)),
        elements=st.floats(-1e12, 1e12),
    ),
    training=st.none()
    | hnp.arrays(np.float64, (12, 2), elements=st.floats(-1e12, 1e12)),
    points=hnp.arrays(np.float64, (3, 2), elements=st.floats(-1e200, 1e200)),
)
def test_evidence_of_any_raw_scores_is_finite_and_keeps_their_order(
    raw, training, points
):
    evidence = Evidence.fit(("x", "g"), raw, np.ones(2), training)
    standard = evidence.standardize(points)
    assert np.isfinite(standard).all()
    assert np.isfinite(evidence.total(points)).all()
    for scores, column in zip(standard.T, points.T, strict=True):
        assert np.all(np.diff(scores[np.argsort(column)]) >= 0)


@calm
@given(
    outputs=hnp.arrays(
        np.float32, st.tuples(st.integers(2, 9), st.just(3)), elements=ORDINARY
    ),
    labels=st.lists(st.integers(0, 3), min_size=9, max_size=9),
    margin=st.floats(0, 1e6),
)
def test_losses_of_any_batch_are_finite_and_not_negative(outputs, labels, margin):
    y = torch.tensor(labels[: len(outputs)])
    distances = squared_distances(torch.from_numpy(outputs))
    for loss in (triplet_loss, distancing_loss):
        values = loss(distances, y, margin)
        assert torch.isfinite(values).all()
        assert (values >= 0).all()

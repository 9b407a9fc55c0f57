"""Degenerate numbers: finite scores, or an error that says what is wrong."""

import numpy as np
import pytest
import sklearn
import torch

from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.nets.backbones import cnn, mlp

pytestmark = pytest.mark.filterwarnings("ignore:.*take the one pooled")

QUICK = {"max_epochs": 3, "contamination": 0.1, "random_state": 0}
COVARIANCE_TYPES = ("full", "tied", "diag")


def fitted(X, y, **parameters):
    return VMDLSDetector(**QUICK | {"autoencoder_epochs": 2} | parameters).fit(X, y)


def assert_finite(detector, X):
    methods = ("score_samples", "class_log_likelihood", "p_value", "transform")
    for method in (*methods, "evidence"):
        assert np.isfinite(getattr(detector, method)(X)).all(), method
    assert np.isfinite(detector.reconstruction_weight(X)).all()
    assert np.isfinite(detector.offset_)
    assert set(detector.predict(X)) <= {*detector.classes_, -1}


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("weighting", ["evidence", "paper"])
def test_constant_features_and_repeated_features(table, covariance_type, weighting):
    X, y = table
    X = np.column_stack([X, np.full(len(X), 7.0), np.zeros(len(X)), X[:, :3]])
    detector = fitted(X, y, covariance_type=covariance_type, weighting=weighting)
    assert_finite(detector, X)
    assert_finite(detector, 100 * X)
    assert np.mean(detector.predict_known(X) == y) > 0.9


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_repeated_rows(table, covariance_type):
    X, y = (np.repeat(part[::10], 10, axis=0) for part in table)
    parameters = {"contamination": 0.5, "covariance_type": covariance_type}
    with pytest.warns(UserWarning, match="too few different rows"):
        assert_finite(fitted(X, y, **parameters), X)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_a_class_whose_points_are_all_the_same(table, covariance_type):
    X, y = table[0].copy(), table[1]
    X[y == 1] = X[y == 1][0]
    assert_finite(fitted(X, y, covariance_type=covariance_type), X)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_two_points_a_class(covariance_type):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 2)
    X = rng.normal(size=(60, 8)) + 5 * rng.normal(size=(30, 8))[y]
    try:
        detector = fitted(X, y, covariance_type=covariance_type, contamination=0.5)
    except ValueError as error:
        assert covariance_type != "diag"
        assert "needs a class with at least 3" in str(error)
    else:
        assert_finite(detector, X)


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
def test_five_hundred_classes(covariance_type):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(500), 4)
    X = rng.normal(size=(2000, 6)) + 20 * rng.normal(size=(500, 6))[y]
    parameters = {"covariance_type": covariance_type, "features": ("g", "mu")}
    detector = fitted(X, y, max_epochs=2, calibration_fraction=0.25, **parameters)
    assert_finite(detector, X[::40])
    assert detector.class_log_likelihood(X[:3]).shape == (3, 500)


def dying_mlp(input_shape):
    """A net whose last channels are zero for every input."""
    net = mlp(input_shape)
    for parameter in list(net.parameters())[-2:]:
        torch.nn.init.constant_(parameter, -1e6)
    return net


def blind_cnn(input_shape):
    """A net that starts from weights of zero: all channels are dead."""
    net = cnn(input_shape)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    return net


@pytest.mark.parametrize("covariance_type", COVARIANCE_TYPES)
@pytest.mark.parametrize("backbone", [dying_mlp, blind_cnn])
def test_dead_channels(table, digits, backbone, covariance_type):
    X, y = (digits.X_train, digits.y_train) if backbone is blind_cnn else table
    parameters = {"backbone": backbone, "covariance_type": covariance_type}
    try:
        detector = fitted(X, y, **parameters)
    except ValueError as error:
        assert "of the features is the same for every" in str(error)
    else:
        assert_finite(detector, X[:100])


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e10, 1e30])
def test_the_unit_of_the_input_does_not_matter(table, scale):
    X, y = table
    detector = fitted(scale * X, y)
    assert_finite(detector, scale * X)
    assert_finite(detector, 1e3 * scale * X)
    usual = fitted(X, y)
    np.testing.assert_allclose(
        detector.score_samples(scale * X), usual.score_samples(X), rtol=1e-3, atol=1
    )


def test_features_of_very_different_units(table):
    X, y = table
    X = X * np.array([1e-30, 1e-12, 1.0, 1e3, 1e12, 1e30])
    detector = fitted(X, y)
    assert_finite(detector, X)
    assert np.mean(detector.predict_known(X) == y) > 0.9


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, bool])
def test_tables_of_any_number_type(table, dtype):
    X, y = table
    X = np.clip(np.round(4 * X), -100, 100).astype(dtype)
    # Of six yes-or-no columns many rows are equal, and those count once.
    assert_finite(fitted(X, y, calibration_fraction=0.5, contamination=0.3), X)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int16])
def test_images_of_any_number_type(digits, dtype):
    X = digits.X_train.astype(dtype)
    detector = fitted(X, digits.y_train)
    assert_finite(detector, X[:100])
    same = digits.X_train[:100].astype(np.float64)
    # Bytes are divided by 255: of the others, the unit is as it was.
    given = same / 255 if dtype == np.uint8 else same
    np.testing.assert_allclose(
        detector.score_samples(given),
        detector.score_samples(X[:100]),
        rtol=2e-4,
        atol=1,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("covariance_type", ["full", "tied"])
def test_covariances_of_low_rank(table, covariance_type):
    X, y = table
    X = np.column_stack([X, X])  # Of rank 6, in a latent space of 8.
    parameters = {"features": ("mu",), "latent_dim": 8, "max_epochs": 1}
    detector = fitted(X, y, covariance_type=covariance_type, **parameters)
    assert_finite(detector, X)


@pytest.mark.parametrize("detector", [VMDLSDetector, VMDLSbDetector])
def test_a_training_that_diverges_says_so_and_keeps_the_earlier_fit(table, detector):
    X, y = table
    earlier = detector(**QUICK).fit(X, y)
    before = earlier.score_samples(X)
    earlier.set_params(learning_rate=1e30)
    with pytest.raises(
        FloatingPointError, match=r"diverged: .* in epoch \d\. Try a smaller"
    ):
        earlier.fit(X, y)
    np.testing.assert_array_equal(earlier.score_samples(X), before)


class Bomb(torch.autograd.Function):
    """Passes numbers on, and gradients as infinity."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * torch.inf


class ExplodingMlp(torch.nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.net = mlp(input_shape)
        self.taps = tuple(f"net.{tap}" for tap in self.net.taps)

    def forward(self, x):
        return Bomb.apply(self.net(x))


def test_a_last_step_that_breaks_the_weights_is_noticed(table):
    """Regression: no term of the loss is computed after it."""
    one_step = {"max_epochs": 1, "samples_per_class": 36, "backbone": ExplodingMlp}
    with pytest.raises(FloatingPointError, match="a weight is no longer finite in epo"):
        fitted(*table, **one_step)


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 13, 1000])
def test_images_score_alike_in_other_threads_and_batches(
    vmdls, digits, n_threads, batch_size
):
    """The tolerance that docs/robustness.md states."""
    X = digits.X_test[:16]
    usual = vmdls.score_samples(X)
    before = torch.get_num_threads(), vmdls.batch_size
    try:
        torch.set_num_threads(n_threads)
        vmdls.set_params(batch_size=batch_size)
        scores = vmdls.score_samples(X)
    finally:
        torch.set_num_threads(before[0])
        vmdls.set_params(batch_size=before[1])
    np.testing.assert_allclose(scores, usual, rtol=1e-4, atol=1e-2)


# What each method gives for a row that holds no number, beside a far one.
OF_BAD_ROWS = {
    "predict": lambda found, counts: found == -1,
    "is_unknown": lambda found, counts: found,
    "select_unknown": lambda found, counts: found,
    "p_value": lambda found, counts: found == 1 / (counts.sum() + 1),
    "p_values": lambda found, counts: np.allclose(found, 1 / (counts + 1)),
    "decision_function": lambda found, counts: found < 0 and np.isfinite(found),
}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["a net", "no net", "images"])
def test_what_is_no_number_is_the_strangest_where_the_check_is_off(
    kind, bad, vmdls, digits, request, table
):
    """With scikit-learn's `assume_finite`, for every method."""
    if kind == "images":
        detector, X = vmdls, digits.X_test[:3].copy()
    elif kind == "a net":
        detector, X = request.getfixturevalue("of_table"), np.zeros((3, 6))
    else:
        detector = VMDLSbDetector(contamination=0.1, random_state=0).fit(*table)
        X = table[0][:3].copy()
    X[1].flat[2] = bad
    held_out = np.bincount(detector.calibration_.labels)
    with sklearn.config_context(assume_finite=True):
        alone = detector.score_samples(X[[0, 2]])
        np.testing.assert_array_equal(detector.score_samples(X)[[0, 2]], alone)
        for name, is_strange in OF_BAD_ROWS.items():
            found = getattr(detector, name)(X[[1]])[0]
            assert is_strange(found, held_out), (name, found)
        assert np.isfinite(detector.evidence(X)).all()
        assert np.isfinite(detector.predict_proba(X)).all()

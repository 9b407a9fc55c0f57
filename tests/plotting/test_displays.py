"""The displays: what is drawn, where, with what words."""

import importlib.util
import sys

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import Bunch

from skvmdls import VMDLSbDetector
from skvmdls.metrics import auroc, threshold_curve, tnr_at_tpr
from skvmdls.monitoring import ShiftMonitor
from skvmdls.plotting.curves import KnownUnknownRocDisplay, ThresholdCurveDisplay
from skvmdls.plotting.ensemble import EnsembleDisplay
from skvmdls.plotting.explanation import ExplanationDisplay
from skvmdls.plotting.reconstruction import ReconstructionDisplay
from skvmdls.plotting.scores import ScoreHistogramDisplay
from skvmdls.plotting.shift import ShiftDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt

LABELLED = [
    ScoreHistogramDisplay,
    ThresholdCurveDisplay,
    KnownUnknownRocDisplay,
    EnsembleDisplay,
]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def some(digits):
    """Known and unknown test points, few enough for a quick t-SNE."""
    return digits.X_test[::8], digits.y_test[::8]


def words(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


@pytest.mark.parametrize("kind", LABELLED)
def test_displays_take_a_detector_or_a_pipeline_and_given_axes(kind, vmdls, some):
    display = kind.from_estimator(vmdls, *some)
    assert display.figure_ is display.ax_.figure
    assert display.ax_.get_xlabel()
    assert display.ax_.get_ylabel()
    assert words(display)
    figure, axes = plt.subplots()
    pipeline = make_pipeline(FunctionTransformer(), vmdls)
    display = kind.from_estimator(pipeline, *some, ax=axes)
    assert display.ax_ is axes
    assert display.figure_ is figure
    figure.canvas.draw()


@pytest.mark.parametrize("kind", LABELLED)
def test_plot_draws_again_elsewhere(kind, vmdls, some):
    display = kind.from_estimator(vmdls, *some)
    first = display.ax_
    assert display.plot() is display
    assert display.ax_ is not first
    assert words(display) == [t.get_text() for t in first.get_legend().get_texts()]


def test_histogram_shares_sum_to_one_and_split_at_the_threshold(vmdls, some):
    X, y = some
    display = ScoreHistogramDisplay.from_estimator(vmdls, X, y)
    is_known = np.isin(y, vmdls.classes_)
    accepted = vmdls.predict(X) != -1
    for bars, part in zip(display.ax_.containers, (is_known, ~is_known), strict=True):
        heights = np.array([bar.get_height() for bar in bars])
        right = np.array([bar.get_x() + 1e-9 * bar.get_width() >= 0 for bar in bars])
        assert heights.sum() == pytest.approx(100)
        assert heights[right].sum() == pytest.approx(100 * accepted[part].mean())
    assert any(line.get_xdata()[0] == 0 for line in display.ax_.lines)
    assert f"threshold {vmdls.offset_:.4g}" in words(display)


@pytest.mark.parametrize(("n", "n_bars"), [(33, 11), (2_000, 50)])
def test_a_histogram_has_fewer_bars_for_few_points_and_room_for_its_legend(n, n_bars):
    scores = np.random.default_rng(0).normal(size=n)
    is_known = np.arange(n) % 2 == 0
    display = ScoreHistogramDisplay.from_predictions(is_known, scores, threshold=-1.0)
    bars = display.ax_.containers[0]
    assert abs(len(bars) - n_bars) <= 4
    highest = max(bar.get_height() for bar in bars)
    assert display.ax_.get_ylim()[1] > 1.3 * highest


@pytest.mark.parametrize(
    ("is_known", "scores", "threshold"),
    [
        ([True, False], [1.0, 1.0], 1.0),
        ([True], [0.0], 5.0),
        ([True] * 3, [1e9, -1e9, 1e-9], -1e12),
        ([True, True, False], [2.0, 3.0, -1e6], -np.inf),
    ],
)
def test_histogram_of_odd_scores(is_known, scores, threshold):
    display = ScoreHistogramDisplay.from_predictions(
        is_known, scores, threshold=threshold
    )
    display.figure_.canvas.draw()
    for bars in display.ax_.containers:
        assert sum(bar.get_height() for bar in bars) == pytest.approx(100)
    accepts_all = "every point is accepted" in display.ax_.get_title()
    assert accepts_all == np.isinf(threshold)


def test_curve_display_draws_the_curve_and_the_threshold(vmdls, some):
    display = ThresholdCurveDisplay.from_estimator(vmdls, *some)
    curve = threshold_curve(vmdls, *some)
    drawn = {line.get_label(): line for line in display.ax_.lines}
    for name, values in {
        "known points accepted": curve.known_acceptance,
        "unknown points accepted": curve.unknown_acceptance,
        "macro F1": curve.macro_f1,
    }.items():
        np.testing.assert_array_equal(drawn[name].get_xdata(), curve.thresholds)
        np.testing.assert_array_equal(drawn[name].get_ydata(), values)
    low, high = display.ax_.get_xlim()
    assert low < vmdls.offset_ < high


def test_curve_display_without_unknown_points_has_no_line_for_them():
    display = ThresholdCurveDisplay.from_predictions(
        [0, 1], [0, 0], [1.0, 2.0], classes=[0, 1]
    )
    assert "unknown points accepted" not in words(display)


def test_roc_marks_tnr_at_tpr95_on_the_curve(vmdls_b, some):
    X, y = some
    display = KnownUnknownRocDisplay.from_estimator(vmdls_b, X, y)
    is_known, scores = np.isin(y, vmdls_b.classes_), vmdls_b.score_samples(X)
    assert f"AUROC {auroc(is_known, scores):.3f}" in words(display)
    tnr = tnr_at_tpr(is_known, scores)
    (mark,) = (line for line in display.ax_.lines if line.get_marker() == "o")
    threshold = max(t for t in scores if np.mean(scores[is_known] >= t) >= 0.95)
    assert mark.get_xdata()[0] == pytest.approx(1 - tnr)
    assert mark.get_ydata()[0] == pytest.approx(np.mean(scores[is_known] >= threshold))
    with pytest.raises(ValueError, match="no unknown points"):
        KnownUnknownRocDisplay.from_predictions([True], [1.0])


def test_many_classes_differ_in_colour_or_marker():
    classes = np.arange(30)
    points = np.random.default_rng(0).normal(size=(30, 2))
    display = EnsembleDisplay(points, classes, classes).plot()
    looks = {
        (tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes())
        for dots in display.ax_.collections
    }
    assert len(looks) == 30
    assert "unknown" not in words(display)


def test_reconstructions_stand_beneath_their_inputs(vmdls, digits):
    X = digits.X_test[:4]
    display = ReconstructionDisplay.from_estimator(vmdls, X)
    montage = display.ax_.images[0].get_array()
    lowest, highest = X.min(), X.max()
    scaled = (X - lowest) / (highest - lowest)
    rebuilt = np.clip((vmdls.reconstruct(X)[:, 0] - lowest) / (highest - lowest), 0, 1)
    for i in range(4):
        columns = slice(9 * i, 9 * i + 8)
        np.testing.assert_allclose(montage[:8, columns], scaled[i])
        np.testing.assert_allclose(montage[9:17, columns], rebuilt[i])
    ticks = [tick.get_text() for tick in display.ax_.get_xticklabels()]
    assert ticks == [f"{w:.2g}" for w in vmdls.reconstruction_weight(X)]


def test_reconstructions_of_colour_images_and_of_what_is_no_image():
    images = np.random.default_rng(0).random((2, 3, 10, 6))
    display = ReconstructionDisplay.from_predictions(images, images)
    assert display.ax_.images[0].get_array().shape[2] == 3
    for bad in (np.zeros((4, 20)), np.zeros((1, 2, 5, 5)), np.zeros((0, 5, 5))):
        with pytest.raises(ValueError, match="cannot be drawn"):
            ReconstructionDisplay.from_predictions(bad, bad)


def test_without_matplotlib_the_module_imports_and_drawing_says_what_to_install(
    monkeypatch,
):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.find_spec("skvmdls.plotting")
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    message = r"RocDisplay needs matplotlib: pip install skvmdls\[plot\]"
    with pytest.raises(ImportError, match=message):
        fresh.KnownUnknownRocDisplay.from_predictions([True, False], [1.0, 0.0])


def test_an_explanation_shows_parts_pictures_and_the_answer(vmdls, vmdls_b, some):
    X = some[0][:3]
    for detector in (vmdls, vmdls_b):
        display = ExplanationDisplay.from_estimator(detector, X)
        display.figure_.canvas.draw()
        axes = display.ax_.child_axes
        titles = [own.get_title() for own in axes[1:5]]
        assert titles == ["input", "mean of its class", "unlike its class", ""]
        assert [own.get_xlabel() for own in axes[4::5]] == ["standard deviations"] * 3
        bars = [bar.get_width() for bar in axes[0].patches if bar.get_height() < 1]
        np.testing.assert_allclose(
            bars[-len(detector.evidence_names_) :], detector.evidence(X)[0]
        )
        answer = detector.predict(X)[0]
        assert (
            axes[0].get_title().startswith("unknown" if answer == -1 else str(answer))
        )


def test_an_explanation_shows_the_class_image_that_the_map_uses(vmdls, digits):
    """The class is the nearest one, and the image is in the units of the input."""
    display = ExplanationDisplay.from_estimator(vmdls, digits.X_test[:3])
    nearest = vmdls.predict_known(digits.X_test[:3])
    for shown, label in zip(display.class_images, nearest, strict=True):
        mean = digits.X_train[digits.y_train == label].mean(axis=0)
        np.testing.assert_allclose(
            shown[0], mean, atol=0.5
        )  # held-out rows are not in it
    without = ExplanationDisplay(
        display.explanation, display.names, None, digits.X_test
    )
    titles = [axes.get_title() for axes in without.plot().ax_.child_axes[1:3]]
    assert titles == ["input", "unlike its class"]


def test_the_evidence_of_each_point_has_plain_numbers_and_a_label(vmdls, some):
    display = ExplanationDisplay.from_estimator(vmdls, some[0][:2])
    display.explanation.evidence[0, 0] = -300
    for axes in display.plot().ax_.child_axes[::5]:
        ticks = [tick.get_text() for tick in axes.get_xticklabels()]
        assert ticks == ["-10", "-100", "-1", "0", "1"]
        assert axes.get_xlabel() == "evidence (usual range shaded)"


def test_long_names_of_columns_are_written_in_full():
    explanation = Bunch(
        evidence=np.array([[-3.0]]),
        nearest=np.array([[0, 1, 2]]),
        contributions=np.array([[-2.0, 1.0]]),
        explained_part="shared",
    )
    names = ["od280/od315_of_diluted_wines", "a word " * 20]
    display = ExplanationDisplay(explanation, ("shared",), columns=names).plot()
    labels = [text.get_text() for text in display.ax_.child_axes[1].get_yticklabels()]
    assert labels[0].replace("\n", "") == names[0]
    assert labels[1].endswith("...")


def test_an_explanation_of_a_table_names_its_columns(table):
    pd = pytest.importorskip("pandas")
    X, y = table
    frame = pd.DataFrame(X, columns=list("abcdef"))
    detector = VMDLSbDetector(max_epochs=2, random_state=0).fit(frame, y)
    frame.loc[0, "d"] = 1e3
    display = ExplanationDisplay.from_estimator(detector, frame[:2])
    below = display.ax_.child_axes[1]
    part = "separate"  # the input itself, "x", is no part of this detector
    assert part == detector.explain(frame[:2]).explained_part
    assert below.get_xlabel() == f"contribution to the score of {part}"
    labels = [text.get_text() for text in below.get_yticklabels()]
    assert labels[0] == "d"
    assert sorted(labels) == list("abcdef")


@pytest.mark.parametrize("labels", [[0, 1], ["ham", "spam"]])
def test_the_title_of_an_explanation_names_known_classes_only(table, labels):
    X, y = table
    X, y = X[y < 2], np.array(labels)[y[y < 2]]
    detector = VMDLSbDetector(random_state=0).fit(X, y)
    X = np.concatenate([X[:1], np.full((1, 6), 1e3)])
    display = ExplanationDisplay.from_estimator(detector, X)
    titles = [axes.get_title() for axes in display.ax_.child_axes[::2]]
    one, other = detector.explain(X).nearest[1, :2]
    assert titles[1] == f"unknown; nearest {one}, {other}"
    assert not any("-1" in title for title in titles)


def test_the_course_of_a_stream_marks_the_alarm():
    monitor = ShiftMonitor(Calibrated(np.arange(50.0)), random_state=0)
    with pytest.raises(ValueError, match="no points to draw"):
        ShiftDisplay.from_monitor(monitor)
    monitor.update(np.full(40, -1.0))
    display = ShiftDisplay.from_monitor(monitor)
    assert f"raised at point {monitor.alarm_at_}" in words(display)
    assert "raised" not in str(
        words(ShiftDisplay.from_predictions([0.1], false_alarm=0.5))
    )


class Calibrated:
    def __init__(self, scores):
        self.calibration_scores_ = scores

    def score_samples(self, X):
        return X

"""The detector inside pipelines and searches."""

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skvmdls
from skvmdls import VMDLSbDetector, detector_and_inputs
from skvmdls._support.estimators import column_names, way_into

pd = pytest.importorskip("pandas")

COLUMNS = list("abcdef")


@pytest.fixture(scope="module")
def rows(table):
    X, y = table
    return pd.DataFrame(X, columns=COLUMNS), y


@pytest.fixture(scope="module")
def pipeline(rows):
    detector = VMDLSbDetector(max_epochs=1, contamination=0.2, random_state=0)
    return make_pipeline(StandardScaler(), detector).fit(*rows)


def test_what_a_detector_alone_has_is_reached_through_a_pipeline(pipeline, rows):
    X, _ = rows
    detector, Z = detector_and_inputs(pipeline, X)
    assert detector is pipeline[-1]
    np.testing.assert_array_equal(detector.predict(Z), pipeline.predict(X))
    assert detector.p_value(Z).shape == (len(X),)
    assert len(detector.explain(Z)["label"]) == len(X)
    assert detector_and_inputs(pipeline) == (detector, None)


def test_searches_and_pipelines_in_each_other_are_reached_through(pipeline, rows):
    search = GridSearchCV(pipeline, {}, cv=2)
    search.best_estimator_ = pipeline
    assert detector_and_inputs(search)[0] is pipeline[-1]
    nested = make_pipeline(FunctionTransformer(), pipeline)
    detector, Z = detector_and_inputs(nested, rows[0])
    assert detector is pipeline[-1]
    np.testing.assert_allclose(Z, pipeline[0].transform(rows[0]))


def test_columns_have_the_names_that_the_steps_give_them(pipeline, rows):
    assert column_names(pipeline) == COLUMNS
    assert column_names(pipeline[-1]) is None
    direct = VMDLSbDetector(max_epochs=1, contamination=0.2, random_state=0)
    assert column_names(direct.fit(*rows)) == COLUMNS
    nameless = make_pipeline(FunctionTransformer(), pipeline[-1])
    assert column_names(nameless) is None


def test_plots_of_a_pipeline_name_the_columns(pipeline, rows):
    pytest.importorskip("matplotlib").use("Agg")
    from skvmdls.plotting import ExplanationDisplay

    display = ExplanationDisplay.from_estimator(pipeline, rows[0].iloc[:2])
    assert display.columns == COLUMNS


def test_the_way_into_a_pipeline_is_named_and_works(pipeline, tmp_path):
    told = way_into(pipeline)
    assert "skvmdls.detector_and_inputs(estimator)[0]" in told
    assert way_into(GridSearchCV(pipeline, {}))
    assert way_into(pipeline[-1]) == ""
    skvmdls.save(detector_and_inputs(pipeline)[0], tmp_path / "d.safetensors")

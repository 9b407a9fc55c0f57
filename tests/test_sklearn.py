"""Private parts of scikit-learn: in one file, and still what they were."""

import ast
from numbers import Real
from pathlib import Path

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, StackingClassifier, VotingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.semi_supervised import SelfTrainingClassifier

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._sklearn import Interval, validate_parameter_constraints

PACKAGE = Path(skvmdls.__file__).parent


def private_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, *rest = name.split(".")
            if first == "sklearn" and any(part.startswith("_") for part in rest):
                yield name


def test_only_one_file_knows_of_the_private_parts():
    users = {path.name for path in PACKAGE.rglob("*.py") if list(private_imports(path))}
    assert users == {"_sklearn.py"}


def test_constraints_are_checked_by_name():
    constraints = {"share": [Interval(Real, 0, 1, closed="both")]}
    validate_parameter_constraints(constraints, {"share": 0.5}, "Thing")
    with pytest.raises(ValueError, match="The 'share' parameter of Thing must be"):
        validate_parameter_constraints(constraints, {"share": 2}, "Thing")


@pytest.mark.parametrize("cls", [VMDLSDetector, VMDLSbDetector])
def test_the_detectors_parameters_are_those_that_are_checked(cls):
    """What scikit-learn does not find among the constraints, it does not check."""
    detector = cls(latent_dim=0)
    assert set(detector.get_params()) == set(detector._parameter_constraints)
    with pytest.raises(ValueError, match="The 'latent_dim' parameter of"):
        detector._validate_params()


def test_what_would_take_the_decision_function_for_a_classs_is_refused(table):
    """Regression: calibrated to an accuracy of chance, and an AUROC of nonsense."""
    X, y = table
    detector = VMDLSbDetector(max_epochs=1, contamination=0.3, random_state=0)
    folds = StratifiedKFold(2)
    for refused in (
        lambda: CalibratedClassifierCV(detector, cv=folds).fit(X, y),
        lambda: VotingClassifier([("detector", detector)]).fit(X, y),
        lambda: StackingClassifier([("detector", detector)]).fit(X, y),
    ):
        with pytest.raises(ValueError, match="should .*be a classifier"):
            refused()
    with pytest.raises(ValueError, match="predict_proba"):
        SelfTrainingClassifier(detector).fit(X, y)
    with pytest.raises(ValueError, match="sample_weight"):
        AdaBoostClassifier(detector).fit(X, y)
    for scoring in ("roc_auc", "average_precision", "neg_log_loss"):
        with pytest.warns(UserWarning, match="Scoring failed"):
            scores = cross_val_score(detector, X, y > 0, cv=folds, scoring=scoring)
        assert np.isnan(scores).all()

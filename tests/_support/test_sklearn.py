"""Private parts of scikit-learn: in one file, and still what they were."""

import ast
from numbers import Real
from pathlib import Path

import pytest

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._support.sklearn import Interval, validate_parameter_constraints

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
    assert users == {"sklearn.py"}


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

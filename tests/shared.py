"""What several rooms of the tests ask for: methods, settings, tables, detectors."""

from copy import deepcopy

import numpy as np

SCORING_METHODS = (
    "predict",
    "predict_known",
    "score_samples",
    "decision_function",
    "class_log_likelihood",
    "evidence",
    "p_value",
    "transform",
)

# Without the trial that the default augmentation asks for.
SETTINGS = {
    "max_epochs": 4,
    "precision": "float32",
    "random_state": 0,
    "augmentation": None,
}
# Few rows: of each class a dozen are held out.
TABLE_SETTINGS = SETTINGS | {"contamination": 0.1, "calibration_fraction": 0.4}


def blobs(n_classes, n, seed=0, n_features=6):
    """Separated classes, as (X, y): the same ones whatever their number."""
    rng = np.random.default_rng(seed)
    centres = 5 * np.eye(n_features)[np.arange(n_classes) % n_features]
    y = np.repeat(np.arange(n_classes), n)
    return rng.normal(size=(len(y), n_features)) + centres[y], y


def changed(detector, **parameters):
    return deepcopy(detector).set_params(**parameters)

"""Detectors of each kind, and all that they compute, to compare devices by."""

from copy import deepcopy
from functools import partial

import numpy as np

from shared import SCORING_METHODS
from skvmdls import VMDLSbDetector, VMDLSDetector

N_CLASSES, N_EACH = 3, 40
SETTINGS = {
    "max_epochs": 2,
    "precision": "float32",
    "random_state": 0,
    "contamination": 0.2,
}


def drawn(*shape):
    """Separated classes of inputs of a shape: X, y, and rows of which half are new."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(N_CLASSES), N_EACH)
    X = rng.normal(size=(len(y), *shape))
    X = (X + 2 * rng.normal(size=(N_CLASSES, *shape))[y]).astype(np.float32)
    far = 2 * rng.normal(size=(10, *shape)).astype(np.float32)
    return X, y, np.concatenate([X[::12], far])


def kind(detector, backbone, shape, **settings):
    if detector is VMDLSDetector:
        settings["autoencoder_epochs"] = 1
    return partial(detector, backbone, **SETTINGS, **settings), *drawn(*shape)


# How to make the detector, and X, y and new rows for it.
KINDS = {
    "table": kind(VMDLSDetector, "mlp", (6,)),
    "table, by default": kind(VMDLSbDetector, "auto", (6,)),
    "table, the paper's": kind(
        VMDLSDetector, "mlp", (6,), fusion="early", weighting="paper"
    ),
    "images": kind(
        VMDLSDetector,
        "cnn",
        (3, 8, 8),
        augmentation="crop_flip",
        optimizer="muon",
        average_flips=True,
    ),
    "images, tied": kind(
        VMDLSbDetector,
        "cnn",
        (1, 8, 8),
        augmentation="affine",
        covariance_type="tied",
        freeze_epochs=1,
    ),
    "images, by default": kind(VMDLSbDetector, "auto", (3, 8, 8)),
}


def outcomes(detector, X, y, new):
    """Arrays of every public method that scores, explains or changes, by name."""
    found = {name: getattr(detector, name)(new) for name in SCORING_METHODS}
    found["predict_proba"] = detector.predict_proba(new)
    if isinstance(detector, VMDLSDetector):
        found["reconstruct"] = detector.reconstruct(new)
        found["reconstruction_weight"] = detector.reconstruction_weight(new)
    for name, value in detector.explain(new).items():
        if isinstance(value, np.ndarray):
            found[f"explained: {name}"] = value
    added = deepcopy(detector).add_classes(new[-10:], np.full(10, 7))
    found["after add_classes"] = added.score_samples(new)
    fewer = deepcopy(detector).drop_classes([1])
    found["after drop_classes"] = fewer.score_samples(new)
    moved = deepcopy(detector).recalibrate(X, y)
    found["after recalibrate"] = moved.score_samples(new)
    return found


def assert_close(found, expected, share=1e-3, quantile=1.0):
    """Differences stay below a share of the spread, and labels are the same.

    So it is for a share `quantile` of all values.
    """
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if values.dtype.kind == "f":
            differences = np.abs(found[name] - values)
            limit = share * np.std(values) + 1e-9
            assert np.quantile(differences, quantile) <= limit, name
        else:
            assert np.mean(found[name] == values) >= quantile, name

"""Small real data and detectors fitted on it once; what every test begins with."""

import os
import random
import sys

# On nets this small, a second thread costs more than it brings; and the processes that
# tests start would fight with the other workers for the cores.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import torch

from shared import TABLE_SETTINGS, blobs
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.datasets import load_digits
from skvmdls.direct.trees import TreeVotes
from skvmdls.training import mirroring

torch.set_num_threads(1)


class FreshState:
    """Nothing of a test reaches the next one, whatever their order."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self):
        """Seed what draws without a seed, also for fixtures that last."""
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)

    def pytest_runtest_teardown(self):
        """Close figures: matplotlib's warning of many open ones is an error here."""
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            pyplot.close("all")


def pytest_configure(config):
    # As a plugin, for doctests too, which are outside this folder.
    config.pluginmanager.register(FreshState())


@pytest.fixture(scope="session", autouse=True)
def short_trials():
    """Fewer trees, and a shorter trial of mirroring: most of the time of a small fit.

    A test of what they decide takes :func:`full_trials`.
    """
    with pytest.MonkeyPatch.context() as patch:
        fit = TreeVotes.fit

        def fit_fewer(*given, n_trees=10, **named):
            return fit(*given, n_trees=n_trees, **named)

        patch.setattr(TreeVotes, "fit", staticmethod(fit_fewer))
        patch.setattr(mirroring, "N_STEPS", 10)
        yield patch


@pytest.fixture
def full_trials(short_trials):
    """The sizes that users get, for one test."""
    given = [(TreeVotes, "fit"), (mirroring, "N_STEPS")]
    short = [(place, name, vars(place)[name]) for place, name in given]
    short_trials.undo()
    yield
    for place, name, value in short:
        short_trials.setattr(place, name, value)


@pytest.fixture(scope="session")
def digits():
    """8x8 digits: 0 to 5 are known, 6 to 9 appear in the test set only."""
    return load_digits(random_state=0)


@pytest.fixture(scope="session")
def is_known(digits):
    return np.isin(digits.y_test, digits.known)


@pytest.fixture(scope="session")
def vmdls(digits):
    """A fitted VMDLSDetector: read it, do not refit it."""
    # With "cross", the default for so few images, six trainings would be waited for.
    detector = VMDLSDetector(calibration="split", random_state=0)
    return detector.fit(digits.X_train, digits.y_train)


@pytest.fixture(scope="session")
def vmdls_b(digits):
    """A fitted VMDLSbDetector: read it, do not refit it."""
    detector = VMDLSbDetector(calibration="split", random_state=0)
    return detector.fit(digits.X_train, digits.y_train)


@pytest.fixture(scope="session")
def table():
    """Three separated blobs, as (X, y), for fits of a second."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    return rng.normal(size=(120, 6)) + 4 * np.eye(6)[y], y


@pytest.fixture(scope="session")
def of_table():
    """A fitted VMDLSDetector of three blobs: read it, do not change it."""
    return VMDLSDetector(**TABLE_SETTINGS, autoencoder_epochs=2).fit(*blobs(3, 80))

"""Declared parameters: what editors, documents, memory and checkpoints make of them."""

import inspect
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils import check_random_state

import skvmdls.detector.fitting
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.detector.parameters import Settings, changeable
from skvmdls.training.progress import Progress

ROOT = Path(__file__).resolve().parents[2]

SNIPPET = """
from skvmdls import VMDLSbDetector, VMDLSDetector

VMDLSDetector("cnn", latent_dim=8, features=["g", "mu"], autoencoder_epochs=2)
VMDLSDetector(contaminaton=0.1)
VMDLSDetector(latent_dim="many")
VMDLSDetector(fusion="never")
VMDLSbDetector(autoencoder="cnn")
"""


@pytest.mark.slow
def test_type_checkers_find_wrong_names_and_types(tmp_path):
    path = tmp_path / "snippet.py"
    path.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", path]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    errors = re.findall(r"^.*snippet\.py:(\d+): error: (.*?\".*?\")", found, re.M)
    assert errors == [
        ("5", 'Unexpected keyword argument "contaminaton"'),
        ("6", 'Argument "latent_dim"'),
        ("7", 'Argument "fusion"'),
        ("8", 'Unexpected keyword argument "autoencoder"'),
    ], found


# ------------------------------------------------------------------------ settings


def test_settings_are_the_parameters_with_plain_numbers():
    given = {"latent_dim": np.int64(3), "kl_weight": np.float32(0.5)}
    detector = VMDLSDetector(**given, normalize=np.True_, features=["mu"])
    settings = detector.resolved()
    assert {f.name for f in fields(settings)} == set(detector.get_params())
    for name, value in detector.get_params().items():
        assert getattr(settings, name) == value
    assert type(settings.latent_dim) is int
    assert type(settings.kl_weight) is float
    assert settings.normalize is True
    # The detector's own stay as they were given, as scikit-learn wants it.
    assert type(detector.latent_dim) is np.int64


def test_settings_of_a_detector_without_an_autoencoder_have_none():
    settings = VMDLSbDetector(max_epochs=3).resolved()
    assert isinstance(settings, Settings)
    assert (settings.autoencoder, settings.max_epochs) == (None, 3)


def test_settings_do_not_follow_the_detector_and_cannot_be_changed():
    detector = VMDLSbDetector(contamination=0.2)
    settings = detector.resolved()
    detector.set_params(contamination=0.1)
    assert settings.contamination == 0.2
    with pytest.raises(FrozenInstanceError, match="contamination"):
        settings.contamination = 0.1


# ----------------------------------------------------- what memory and checkpoint allow

# Other values of the parameters that leave the nets as they are.
OTHER = {
    "features": ("g", "mu"),
    "part_weights": {"t1": 0.7},
    "fusion": "early",
    "normalize": False,
    "average_flips": True,
    "covariance_type": "tied",
    "covariance_pooling": 0.5,
    "weighting": "paper",
    "contamination": 0.2,
    "confidence": 0.9,
    "unknown_prior": 0.1,
    "threshold": 1.0,
    "guarantee": "class",
    "batch_size": 7,
    "num_workers": 1,
    "memory": None,
    "checkpoint": None,
    "verbose": 1,
}
DECIDE_GAUSSIANS = list(OTHER)[:8]


@pytest.fixture(scope="module")
def images():
    rng = check_random_state(0)
    y = np.repeat([0, 1], 60)
    return rng.normal(size=(120, 1, 8, 8)) + 3 * y[:, None, None, None], y


@pytest.fixture(scope="module")
def first(images, tmp_path_factory):
    """Parameters of a fit that filled a memory and a checkpoint."""
    folder = tmp_path_factory.mktemp("first")
    parameters = {
        "max_epochs": 1,
        "autoencoder_epochs": 1,
        "contamination": 0.3,
        "random_state": 0,
        # One training: the default for few images takes six.
        "calibration": "split",
        "memory": str(folder / "memory"),
        "checkpoint": str(folder / "fit.checkpoint"),
    }
    VMDLSDetector(**parameters).fit(*images)
    return parameters


@pytest.fixture
def done(monkeypatch):
    """Epochs and Gaussians that were computed, not loaded."""
    names = []

    def count(owner, name):
        compute = getattr(owner, name)

        def counted(*arguments):
            names.append(name)
            return compute(*arguments)

        monkeypatch.setattr(owner, name, counted)

    count(Progress, "finish_epoch")
    count(skvmdls.detector.fitting, "fit_gaussians")
    return names


def test_every_parameter_that_leaves_the_nets_is_tried_here():
    assert set(OTHER) == set(changeable(VMDLSDetector, after="nets"))
    neither = set(OTHER) - set(DECIDE_GAUSSIANS)
    assert neither == set(changeable(VMDLSDetector, after="gaussians"))


@pytest.mark.parametrize("name", DECIDE_GAUSSIANS)
def test_a_memory_loads_the_nets_and_fits_other_gaussians(name, first, images, done):
    parameters = first | {"checkpoint": None, name: OTHER[name]}
    VMDLSDetector(**parameters).fit(*images)
    # Weights of parts change the evidence, and no Gaussians.
    assert done == ([] if name == "part_weights" else ["fit_gaussians"])


@pytest.mark.parametrize("name", DECIDE_GAUSSIANS)
def test_a_checkpoint_refuses_other_gaussians(name, first, images):
    parameters = first | {"memory": None, name: OTHER[name]}
    with pytest.raises(ValueError, match=f"which differs in {name}"):
        VMDLSDetector(**parameters).fit(*images)


@pytest.mark.filterwarnings("ignore:.*calibration")
@pytest.mark.parametrize("place", ["memory", "checkpoint"])
def test_what_decides_neither_may_change(place, first, images, done):
    neither = changeable(VMDLSDetector, after="gaussians")
    changed = {name: OTHER[name] for name in neither} | {place: first[place]}
    VMDLSDetector(**first | changed).fit(*images)
    assert done == []


# ------------------------------------------------------------------------ documents


def named(text):
    return re.findall(r"`(\w+)`", text)


def entry(detector, name):
    doc = inspect.getdoc(detector)
    return " ".join(re.search(rf"^{name} : .*\n((?: .*\n)+)", doc, re.M)[1].split())


@pytest.mark.parametrize("detector", [VMDLSDetector, VMDLSbDetector])
def test_docstrings_list_what_may_change(detector):
    listed = re.search(r"differ only in (.*) train the nets", entry(detector, "memory"))
    assert named(listed[1]) == changeable(detector, after="nets")
    listed = re.search(r"Only (.*) may differ", entry(detector, "checkpoint"))
    assert named(listed[1]) == changeable(detector, after="gaussians")


def page(name):
    return " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())


def test_pages_list_what_may_change():
    text = page("interrupted_trainings.md")
    listed = re.search(r"they do not change nets and Gaussians: (.*?)\.", text)
    assert set(named(listed[1])) == set(changeable(VMDLSDetector, after="gaussians"))
    text = page("tuning.md")
    listed = re.search(r"These parameters do not change the nets: (.*?)\.", text)
    assert set(named(listed[1])) == set(changeable(VMDLSDetector, after="nets"))

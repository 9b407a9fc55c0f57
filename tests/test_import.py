"""`import skvmdls`: what it loads and what it leaves alone."""

import os
import subprocess
import sys

import pytest

import skvmdls

# They would more than double the time of the import. Of most of them a user needs
# nothing, so that the functions that need them import them.
HEAVY = (
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pyarrow",
    "scipy.ndimage",
    "scipy.stats",
    "skvmdls.cli",
    "skvmdls.datasets",
    "skvmdls.model_selection",
    "skvmdls.plotting",
    "sklearn.cluster",
    "sklearn.covariance",
    "sklearn.datasets",
    "sklearn.decomposition",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.model_selection",
    "sklearn.neighbors",
    "sklearn.svm",
    "timm",
    "torch._dynamo",
    "torch.onnx._internal.exporter",
    "torchvision",
)
SCRIPT = """
import os, sys, warnings
import numpy as np, torch

def state():
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.initial_seed(),
        np.geterr(),
        list(warnings.filters),
        dict(os.environ),
    )

torch.set_num_threads(2)
import sklearn.base, joblib, safetensors, tqdm.auto
before, modules = state(), set(sys.modules)
import skvmdls
assert state() == before
child = os.fork()
if child == 0:
    os._exit(torch.get_num_threads())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
print(*(set(sys.modules) - modules))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_importing_the_package_loads_little_and_changes_nothing_of_the_process():
    """Regression: an import set torch's threads in every later fork."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "skvmdls.detector" in loaded
    # What torch and scikit-learn load themselves is not counted.
    assert not [name for name in loaded if name in HEAVY]


def test_folders_and_files_are_there_after_import_skvmdls():
    assert skvmdls.model_selection.LeaveClassesOut
    assert skvmdls.plotting.ScoreHistogramDisplay
    assert {*skvmdls.__all__, "__version__"} <= set(dir(skvmdls))
    for name in set(skvmdls.__all__) - {"__version__"}:
        assert getattr(skvmdls, name).__name__.rpartition(".")[2] == name


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'skvmdls' has no attribute 'metricks'"):
        skvmdls.metricks  # noqa: B018

"""A saved detector scores the same on Dask and on Ray."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import skvmdls

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def scored(of_table, tmp_path):
    """A detector and rows on disk, and what the rows score."""
    skvmdls.save(of_table, tmp_path / "detector")
    rows = np.random.default_rng(0).normal(0, 3, (110, of_table.n_features_in_))
    (tmp_path / "rows").mkdir()
    # Eleven files: "10" is the last, not the third.
    for i, part in enumerate(np.split(rows, 11)):
        np.save(tmp_path / "rows" / f"{i}.npy", part)
    return tmp_path, of_table.score_samples(rows)


@pytest.mark.parametrize(
    ("script", "packages"),
    [
        ("score_with_dask", ["dask.array", "distributed"]),
        ("score_with_ray", ["ray.data"]),
    ],
)
def test_two_workers_score_as_one_process(script, packages, scored):
    for package in packages:
        pytest.importorskip(package)
    folder, expected = scored
    paths = [folder / name for name in ("detector", "rows", "scores.npy")]
    # Ray's workers give way to whatever else runs, unless they are told not to.
    env = os.environ | {"RAY_worker_niceness": "0"}
    command = [sys.executable, EXAMPLES / f"{script}.py", *paths]
    subprocess.run(command, check=True, env=env, timeout=240)
    np.testing.assert_allclose(np.load(paths[-1]), expected, rtol=1e-11)

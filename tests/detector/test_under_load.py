"""Threads, processes and long inputs: the same answers as alone, in bounded memory."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import joblib
import numpy as np
import pytest
import torch

import skvmdls
from children import extra_memory
from skvmdls import VMDLSbDetector, VMDLSDetector

QUICK = {"max_epochs": 2, "contamination": 0.1, "random_state": 0, "augmentation": None}


def fit_and_score(X, y, seed=0):
    detector = VMDLSDetector(**QUICK | {"random_state": seed}, autoencoder_epochs=1)
    return detector.fit(X, y).score_samples(X)


def in_threads(function, arguments, n_threads=16):
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(function, arguments))


@pytest.mark.parametrize("method", ["score_samples", "predict", "p_value", "transform"])
def test_sixteen_threads_score_as_one(vmdls, digits, method):
    parts = np.array_split(digits.X_test[:800], 16)
    score = getattr(vmdls, method)
    alone = [score(part) for part in parts]
    for part, together in zip(alone, in_threads(score, parts), strict=True):
        np.testing.assert_array_equal(together, part)


def test_sixteen_threads_share_a_detector_that_was_just_loaded(table, tmp_path):
    """Regression: the first of them moved the nets to float64 under the others."""
    X, y = table
    detector = VMDLSDetector(**QUICK, autoencoder_epochs=1).fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    alone = detector.score_samples(X)
    for _ in range(5):
        loaded = skvmdls.load(tmp_path / "a")
        for scores in in_threads(loaded.score_samples, [X] * 16):
            np.testing.assert_array_equal(scores, alone)


@pytest.mark.slow
def test_fits_in_threads_are_those_of_their_seeds(table):
    """Regression: they drew from torch's one generator in turns."""
    seeds = [0, 1, 2, 0, 1, 2]
    alone = {seed: fit_and_score(*table, seed) for seed in set(seeds)}
    before = torch.get_rng_state()
    together = in_threads(partial(fit_and_score, *table), seeds, 6)
    assert torch.equal(torch.get_rng_state(), before)
    for seed, scores in zip(seeds, together, strict=True):
        np.testing.assert_array_equal(scores, alone[seed])


@pytest.mark.parametrize(
    "backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)]
)
def test_joblib_scores_and_fits_in_parallel(full_trials, table, backend):
    # Other processes fit at full size.
    X, y = table
    detector = VMDLSbDetector(**QUICK).fit(X, y)
    parallel = joblib.Parallel(n_jobs=2, backend=backend)
    parts = np.array_split(X, 4)
    scored = parallel(joblib.delayed(detector.score_samples)(part) for part in parts)
    for part, scores in zip(parts, scored, strict=True):
        np.testing.assert_allclose(scores, detector.score_samples(part), rtol=1e-11)
    fits = parallel(joblib.delayed(fit_and_score)(X, y) for _ in range(2))
    np.testing.assert_allclose(fits, [fit_and_score(X, y)] * 2, 1e-4, 0.1)


FIT_IN_A_CHILD = """
import multiprocessing, sys
import numpy as np, torch
from skvmdls import VMDLSDetector

y = np.repeat([0, 1, 2], 40)
X = np.random.default_rng(0).normal(size=(120, 12, 12)) + y[:, None, None]

def scores(queue=None):
    short = {"max_epochs": 2, "autoencoder_epochs": 1, "contamination": 0.1}
    found = VMDLSDetector(**short, random_state=0).fit(X, y).score_samples(X)
    return found if queue is None else queue.put((torch.get_num_threads(), found))

if __name__ == "__main__":
    torch.set_num_threads(2)
    # Starts OpenMP's threads. A fit by two of them would take long on busy cores.
    torch.ones(2**20).sum()
    context = multiprocessing.get_context(sys.argv[1])
    queue = context.Queue()
    child = context.Process(target=scores, args=(queue,), daemon=True)
    child.start()
    n_threads, there = queue.get(timeout=300)
    child.join()
    torch.set_num_threads(n_threads)
    np.testing.assert_allclose(there, scores(), rtol=1e-4, atol=0.1)
    print("the same")
"""


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name != "fork" else [])
        for name in multiprocessing.get_all_start_methods()
    ],
)
def test_a_child_process_fits_as_its_parent_did(method, tmp_path):
    """Regression: a forked one waited for ever for its parent's OpenMP threads."""
    script = tmp_path / "fit.py"
    script.write_text(FIT_IN_A_CHILD)
    command = [sys.executable, str(script), method]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.stdout == "the same\n", done.stderr


def score_memory_map(detector_path, rows_path, n):
    rows = np.load(rows_path, mmap_mode="r")[:n]
    assert np.isfinite(skvmdls.load(detector_path).score_samples(rows)).all()


@pytest.mark.slow
def test_a_hundred_thousand_rows_from_a_memory_map_take_bounded_memory(tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    X = rng.normal(size=(120, 64)) + 4 * np.eye(64)[y]
    detector = VMDLSDetector(**QUICK, features=("mu",)).fit(X, y)
    skvmdls.save(detector, tmp_path / "detector")
    n = 100_000
    rows = np.lib.format.open_memmap(
        tmp_path / "rows.npy", "w+", np.float32, (n, X.shape[1])
    )
    rows[:] = rng.normal(size=rows.shape)
    rows.flush()
    files = tmp_path / "detector", tmp_path / "rows.npy"
    few, many = (
        extra_memory(partial(score_memory_map, *files, size)) for size in (n // 10, n)
    )
    # The map's own pages count as memory. Beyond them, not even a copy has room.
    mebibytes = rows.nbytes / 2**20
    assert many - few < 1.7 * mebibytes

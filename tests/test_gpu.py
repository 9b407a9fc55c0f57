"""On CUDA: fits, scores, and the way back to the CPU. Skipped where there is none."""

import os
import pickle
import subprocess
import sys
from copy import deepcopy

import joblib
import numpy as np
import pytest
import torch

import skvmdls
from on_devices import KINDS, SETTINGS, assert_close, drawn, outcomes
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls._support.devices import resolve_precision
from skvmdls.training.progress import Progress

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]

CUDA = torch.device("cuda")
# Convolutions compute in TF32 there; rows that are near a threshold may cross it.
LOOSE = {"share": 0.05, "quantile": 0.9}


def close(found, expected):
    assert_close({"scores": found}, {"scores": expected}, **LOOSE)


def images_detector(**settings):
    return VMDLSDetector(
        "cnn", **SETTINGS | {"device": "cuda", "autoencoder_epochs": 1} | settings
    )


def elsewhere(code, *arguments):
    """Run Python in a process that has no GPU."""
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        check=True,
        timeout=120,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_computes_there_what_it_does_on_the_cpu(kind):
    make, X, y, new = KINDS[kind]
    detector = make(device="cuda").fit(X, y)
    on_cpu = deepcopy(detector).set_params(device="cpu")
    found = outcomes(detector, X, y, new)
    assert_close(found, outcomes(on_cpu, X, y, new), **LOOSE)


def test_tables_score_in_float64_there():
    make, X, y, new = KINDS["table"]
    detector = make(device="cuda").fit(X, y)
    scores = detector.score_samples(new)
    on_cpu = deepcopy(detector).set_params(device="cpu")
    np.testing.assert_allclose(on_cpu.score_samples(new), scores, rtol=1e-6)


@pytest.mark.parametrize("backbone", ["resnet18", "photo_cnn", "plain_cnn"])
def test_the_nets_for_images_learn_there(backbone):
    X, y, _ = drawn(3, 32, 32)
    detector = VMDLSbDetector(backbone, **SETTINGS | {"max_epochs": 5}, device="cuda")
    assert np.mean(detector.fit(X, y).predict_known(X) == y) > 0.9


def test_its_weights_lie_channels_last():
    X, y, _ = drawn(3, 8, 8)
    net = images_detector().fit(X, y).network_
    kernels = [p for p in net.parameters() if p.ndim == 4]
    assert {p.device.type for p in net.parameters()} == {"cuda"}
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


def test_it_learns_in_bfloat16_and_keeps_float32():
    X, y, _ = drawn(3, 8, 8)
    settings = {"precision": "bfloat16", "max_epochs": 8, "optimizer": "muon"}
    detector = images_detector(**settings).fit(X, y)
    assert np.mean(detector.predict_known(X) == y) > 0.9
    assert {p.dtype for p in detector.network_.parameters()} == {torch.float32}
    is_new = torch.cuda.get_device_capability() >= (8, 0)
    expected = torch.bfloat16 if is_new else torch.float32
    assert resolve_precision("auto", CUDA) == expected


@pytest.mark.parametrize("shape", [(6,), (3, 8, 8)])
def test_data_too_large_for_a_gpu_trains_from_pinned_batches(shape, monkeypatch):
    X, y, new = drawn(*shape)
    backbone = "mlp" if len(shape) == 1 else "cnn"
    detector = VMDLSbDetector(backbone, **SETTINGS, device="cuda")
    usual = detector.fit(X, y).score_samples(new)
    monkeypatch.setattr(
        "skvmdls.inputs.standardizer.fits_on", lambda n_bytes, device: False
    )
    close(detector.fit(X, y).score_samples(new), usual)


def test_tensors_on_the_gpu_are_taken():
    X, y, new = drawn(3, 8, 8)
    usual = images_detector().fit(X, y).score_samples(new)
    X, y, new = (torch.from_numpy(part).cuda() for part in (X, y, new))
    close(images_detector().fit(X, y).score_samples(new), usual)


def test_workers_read_rows_for_the_gpu():
    X, y, new = drawn(3, 8, 8)
    usual = images_detector().fit(X, y).score_samples(new)
    rows = torch.utils.data.TensorDataset(torch.from_numpy(X))
    detector = images_detector(num_workers=2).fit(rows, y)
    close(detector.score_samples(new), usual)


def test_files_and_pickles_score_where_there_is_no_gpu(tmp_path):
    X, y, new = drawn(3, 8, 8)
    detector = images_detector().fit(X, y)
    skvmdls.save(detector, tmp_path / "a")
    joblib.dump(detector, tmp_path / "b")
    np.save(tmp_path / "new.npy", new)
    elsewhere(
        "import joblib, numpy, skvmdls, sys\n"
        "new = numpy.load(sys.argv[3])\n"
        "loaded = skvmdls.load(sys.argv[1]), joblib.load(sys.argv[2])\n"
        "scores = [d.set_params(device='cpu').score_samples(new) for d in loaded]\n"
        "numpy.save(sys.argv[4], scores)\n",
        *(tmp_path / name for name in ("a", "b", "new.npy", "scores.npy")),
    )
    for scores in np.load(tmp_path / "scores.npy"):
        close(scores, detector.score_samples(new))


def test_what_was_trained_there_is_loaded_from_the_cache(tmp_path, monkeypatch):
    X, y, new = drawn(3, 8, 8)
    detector = images_detector(memory=str(tmp_path)).fit(X, y)
    monkeypatch.setattr(Progress, "finish_epoch", lambda *_: 1 / 0)
    again = images_detector(memory=str(tmp_path)).fit(X, y)
    np.testing.assert_allclose(
        again.score_samples(new), detector.score_samples(new), rtol=1e-5
    )
    elsewhere(
        "import joblib, pathlib, sys\n"
        "found = list(pathlib.Path(sys.argv[1]).rglob('output.pkl'))\n"
        "assert len([joblib.load(path) for path in found]) > 2\n",
        tmp_path,
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_fit_goes_on_there(optimizer, tmp_path, monkeypatch):
    X, y, new = drawn(3, 8, 8)
    settings = {"optimizer": optimizer, "max_epochs": 4, "metric_weight": 0}
    usual = images_detector(**settings).fit(X, y)
    finish = Progress.finish_epoch

    def finish_or_stop(run, *arguments):
        finish(run, *arguments)
        if run.epoch == 2:
            raise RuntimeError("power cut")

    detector = images_detector(**settings, checkpoint=tmp_path / "kept")
    monkeypatch.setattr(Progress, "finish_epoch", finish_or_stop)
    with pytest.raises(RuntimeError, match="power cut"):
        detector.fit(X, y)
    monkeypatch.setattr(Progress, "finish_epoch", finish)
    detector.fit(X, y)
    assert len(detector.history_["loss"]) == 4
    close(detector.score_samples(new), usual.score_samples(new))


def test_the_callers_random_numbers_stay_where_they_were():
    X, y, _ = drawn(3, 8, 8)
    before = torch.cuda.get_rng_state()
    images_detector(augmentation="crop_flip").fit(X, y)
    assert torch.equal(torch.cuda.get_rng_state(), before)


# ------------------------------------------------------------------ lack of memory


@pytest.fixture
def small_memory():
    """Lend a part of the GPU's memory: that in use, and 1.5 GiB."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(CUDA).total_memory
    share = (torch.cuda.memory_reserved() + 1.5 * 2**30) / total
    torch.cuda.set_per_process_memory_fraction(share)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_batches_that_do_not_fit_are_scored_in_halves(small_memory, monkeypatch):
    X, y, new = drawn(3, 32, 32)
    detector = VMDLSbDetector("plain_cnn", **SETTINGS, device="cuda").fit(X, y)
    usual = detector.score_samples(new)
    n_freed, free = [], torch.cuda.empty_cache
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: n_freed.append(free()))
    many = np.tile(new, (1000, 1, 1, 1))
    scores = detector.set_params(batch_size=len(many)).score_samples(many)
    assert n_freed
    close(scores, np.tile(usual, 1000))


def test_a_training_that_does_not_fit_names_the_batch(small_memory):
    X, y, _ = drawn(3, 32, 32)
    detector = VMDLSbDetector(
        "plain_cnn", **SETTINGS, device="cuda", samples_per_class=10_000
    )
    with pytest.raises(MemoryError, match="samples_per_class=10000"):
        detector.fit(X, y)


# --------------------------------------------------------------- several processes

SCRIPT = """
import pickle, sys
import torch
import torch.distributed as dist
from skvmdls import VMDLSDetector

folder, rank, backend = sys.argv[1], int(sys.argv[2]), sys.argv[3]
torch.cuda.set_device(rank if backend == "nccl" else 0)
store = f"file://{folder}/store"
dist.init_process_group(backend, init_method=store, rank=rank, world_size=2)
with open(f"{folder}/given", "rb") as file:
    settings, X, y, new = pickle.load(file)
detector = VMDLSDetector("cnn", **settings).fit(X, y)
with open(f"{folder}/{rank}", "wb") as file:
    pickle.dump(detector.score_samples(new), file)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_two_processes_fit_the_detector_of_one(backend, tmp_path):
    if backend == "nccl" and torch.cuda.device_count() < 2:
        pytest.skip("nccl needs a GPU for each process")
    X, y, new = drawn(3, 8, 8)
    # Without margins, which amplify rounding, and without augmentation, which each
    # process draws for its own share of a batch.
    settings = SETTINGS | {"metric_weight": 0, "augmentation": None, "device": "cuda"}
    settings["autoencoder_epochs"] = 1
    (tmp_path / "given").write_bytes(pickle.dumps((settings, X, y, new)))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    started = [subprocess.Popen([*command, rank, backend]) for rank in "01"]
    try:
        assert [process.wait(120) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
    one, two = (pickle.loads((tmp_path / rank).read_bytes()) for rank in "01")
    np.testing.assert_allclose(one, two, rtol=1e-4)
    close(one, VMDLSDetector("cnn", **settings).fit(X, y).score_samples(new))

"""Whatever the caller has set in torch: the same numbers, and the setting stays."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial

import joblib
import numpy as np
import pytest
import torch

import skvmdls
from skvmdls import VMDLSDetector
from skvmdls._support.torch_state import ordinary_torch

PRODUCTS = hasattr(torch.backends.mkldnn, "matmul")


@contextmanager
def setting(write, value, usual):
    write(value)
    try:
        yield
    finally:
        write(usual)


def products_in(precision):
    torch.backends.mkldnn.matmul.fp32_precision = precision
    torch.backends.mkldnn.conv.fp32_precision = precision


CALLERS = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "inference_mode": torch.inference_mode,
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "autocast of cuda": lambda: torch.autocast("cuda", torch.float16),
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "device meta": lambda: torch.device("meta"),
    "default device meta": lambda: setting(torch.set_default_device, "meta", None),
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "coarse products": lambda: setting(
        torch.set_float32_matmul_precision, "medium", "highest"
    ),
}
if PRODUCTS:
    CALLERS["bfloat16 products"] = lambda: setting(products_in, "bf16", "none")


def state():
    found = [
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_deterministic_debug_mode(),
    ]
    if PRODUCTS:
        found += [
            torch.backends.mkldnn.matmul.fp32_precision,
            torch.backends.mkldnn.conv.fp32_precision,
            torch.backends.cuda.matmul.fp32_precision,
        ]
    return found


def rotated(batch):
    """An augmentation that makes tensors of its own, of the default dtype."""
    return batch * (1 + 0.01 * torch.rand(len(batch), 1, 1, 1))


def make():
    return VMDLSDetector(
        max_epochs=2,
        autoencoder_epochs=1,
        contamination=0.3,
        augmentation=rotated,
        precision="float32",
        random_state=0,
    )


def everything(images, y, path):
    """Numbers of every public method, after a fit, a pickle and a file."""
    detector = make().fit(images, y)
    skvmdls.save(detector, path)
    joblib.dump(detector, f"{path}.joblib")
    answers = []
    for each in (detector, skvmdls.load(path), joblib.load(f"{path}.joblib")):
        answers += [
            getattr(each, method)(images)
            for method in (
                "predict",
                "predict_known",
                "score_samples",
                "evidence",
                "decision_function",
                "class_log_likelihood",
                "p_value",
                "transform",
                "reconstruct",
                "reconstruction_weight",
            )
        ]
        answers.append(each.score(images, y))
    return detector, answers


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    return rng.normal(size=(60, 8, 8)) + y[:, None, None], y


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    return everything(*images, tmp_path_factory.mktemp("usual") / "a")[1]


@pytest.mark.parametrize("caller", CALLERS)
def test_all_is_the_same_bit_for_bit_and_the_setting_stays(
    caller, images, expected, tmp_path
):
    """Regression: crashes, and scores that differed by nats."""
    with CALLERS[caller]():
        before = state()
        detector, answers = everything(*images, tmp_path / "a")
        assert state() == before
        with pytest.raises(ValueError, match="NaN"):
            detector.predict(np.full((1, 8, 8), np.nan))
        with pytest.raises(ValueError, match="1 class"):
            detector.fit(images[0], np.zeros(60, int))
        assert state() == before
    for found, usual in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(found, usual)
    for net in (detector.network_, detector.autoencoder_):
        for parameter in net.parameters():
            assert not parameter.is_inference()
            assert parameter.requires_grad
    # Outside, what was fitted there goes on.
    np.testing.assert_array_equal(detector.score_samples(images[0]), expected[2])


def test_a_pickle_that_was_read_in_inference_mode_scores_outside(images, tmp_path):
    detector = make().fit(*images)
    joblib.dump(detector, tmp_path / "a")
    with torch.inference_mode():
        loaded = joblib.load(tmp_path / "a")
    np.testing.assert_array_equal(
        loaded.score_samples(images[0]), detector.score_samples(images[0])
    )
    loaded.fit(*images)


def test_the_last_of_several_threads_puts_the_process_back():
    torch.set_default_dtype(torch.float64)
    try:
        with ordinary_torch():
            with ThreadPoolExecutor(4) as pool:
                inside = list(pool.map(lambda _: entered(), range(20)))
            assert torch.get_default_dtype() == torch.float32
        assert set(inside) == {torch.float32}
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def entered():
    with ordinary_torch():
        return torch.get_default_dtype()


def test_what_another_thread_sets_meanwhile_is_not_undone():
    torch.set_default_dtype(torch.float64)
    try:
        with ordinary_torch():
            torch.set_default_dtype(torch.bfloat16)
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("outer", [nullcontext, partial(torch.device, "meta")])
def test_it_may_be_nested(outer):
    with outer(), ordinary_torch(), torch.no_grad(), ordinary_torch():
        assert torch.is_grad_enabled()
        assert torch.zeros(1).device.type == "cpu"

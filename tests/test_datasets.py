"""The loaders, on archives and on torchvision's files made here."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets as torchvision_datasets

from skvmdls.datasets import (
    get_data_home,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_mnist,
    load_omniglot,
    mnist_noise,
    uniform_noise,
)


def test_digits_keep_unknown_classes_out_of_training():
    digits = load_digits(known=(1, 4, 7), test_size=0.5, random_state=0)
    assert set(digits.y_train) == {1, 4, 7}
    assert set(digits.y_test) == set(range(10))
    assert len(digits.X_train) + len(digits.X_test) == 1797
    assert digits.X_train.shape[1:] == (8, 8)
    n_known_test = np.isin(digits.y_test, digits.known).sum()
    assert abs(n_known_test - len(digits.y_train)) <= 1


def test_digits_follow_the_seed():
    one, same, other = (load_digits(random_state=seed).X_train for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("known", [(1,), (1, 1), (1, 12)])
def test_digits_need_two_known_digits(known):
    with pytest.raises(ValueError, match="at least two digits from 0 to 9"):
        load_digits(known=known)


def test_data_home_is_argument_then_environment_then_home(monkeypatch, tmp_path):
    monkeypatch.setenv("SKVMDLS_DATA_HOME", str(tmp_path))
    assert get_data_home() == tmp_path
    assert get_data_home(tmp_path / "a") == tmp_path / "a"
    monkeypatch.delenv("SKVMDLS_DATA_HOME")
    assert get_data_home().name == "skvmdls_data"


def test_local_archives_come_first(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    labels = np.arange(6, dtype=np.uint8)
    np.savez(
        tmp_path / "mnist.npz",
        X_train=images,
        y_train=labels,
        X_test=images[:2],
        y_test=labels[:2],
    )
    np.savez(tmp_path / "omniglot_small1.npz", X=images)
    monkeypatch.setenv("SKVMDLS_DATA_HOME", str(tmp_path))
    mnist = load_mnist(download=False)
    assert np.array_equal(mnist.X_train, images)
    assert mnist.y_test.dtype == np.int64
    assert np.array_equal(load_omniglot(download=False), images)


def write_idx(path, array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def test_mnist_in_torchvisions_files(tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", np.arange(5, dtype=np.uint8))
    mnist = load_mnist(tmp_path, download=False)
    assert np.array_equal(mnist.X_test, images)
    assert mnist.y_train.tolist() == list(range(5))


def test_omniglot_in_torchvisions_files_is_five_alphabets_in_mnists_form(
    monkeypatch, tmp_path
):
    for alphabet in ("Greek", "Korean", "Sanskrit"):
        folder = (
            tmp_path / "omniglot-py" / "images_background" / alphabet / "character01"
        )
        folder.mkdir(parents=True)
        drawing = np.full((105, 105), 255, dtype=np.uint8)
        drawing[40:60] = 0
        Image.fromarray(drawing).convert("1").save(folder / "0001_01.png")
    monkeypatch.setattr(
        torchvision_datasets.Omniglot, "_check_integrity", lambda self: True
    )
    images = load_omniglot(tmp_path, download=False)
    assert images.shape == (2, 28, 28)
    assert images.dtype == np.uint8
    assert images[0, 0].max() == 0
    assert images[0, 13].min() == 255


@pytest.mark.parametrize("load", [load_mnist, load_omniglot])
def test_missing_data_is_named_with_a_way_out(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not found in .*data_home="):
        load(tmp_path, download=False)


@pytest.mark.parametrize(
    ("load", "folder", "labels"),
    [
        (load_cifar10, "cifar-10-batches-py", "labels"),
        (load_cifar100, "cifar-100-python", "fine_labels"),
    ],
)
def test_cifar_in_torchvisions_files(load, folder, labels, tmp_path, monkeypatch):
    kind = getattr(torchvision_datasets, load.__name__.removeprefix("load_").upper())
    monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision_datasets.cifar, "check_integrity", lambda *_: True)
    place = tmp_path / folder
    place.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    batch = {"data": images.reshape(2, -1), labels: [1, 0]}
    for name, _ in kind.train_list + kind.test_list:
        (place / name).write_bytes(pickle.dumps(batch))
    (place / kind.meta["filename"]).write_bytes(
        pickle.dumps({kind.meta["key"]: ["ant", "cat"]})
    )
    cifar = load(tmp_path, download=False)
    assert np.array_equal(cifar.X_test, images)
    assert cifar.y_test.tolist() == ["cat", "ant"]
    assert len(cifar.X_train) == len(cifar.y_train) == 2 * len(kind.train_list)


def test_noise_sets():
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)
    noisy = mnist_noise(images, random_state=0)
    added = noisy - images / 255
    for noise in (added, uniform_noise((50, 28, 28), random_state=1)):
        assert noise.min() >= 0
        assert noise.max() <= 1
        np.testing.assert_allclose(
            np.quantile(noise, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.02
        )
    assert np.array_equal(mnist_noise(images, random_state=0), noisy)

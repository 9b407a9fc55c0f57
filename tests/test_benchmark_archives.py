"""The benchmarks' loaders, on archives made here."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from archives import load_cifar10, load_cifar100, load_imagenet_resize, load_tables


def write_archive(path, files):
    with tarfile.open(path, "w:xz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def jpeg(grey):
    stream = io.BytesIO()
    image = Image.fromarray(np.full((32, 32, 3), grey, dtype=np.uint8))
    image.save(stream, "JPEG", quality=75)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("load", "archive"),
    [
        (load_cifar10, "cifar10_jpeg.tar.xz"),
        (load_cifar100, "cifar100_jpeg.tar.xz"),
    ],
)
def test_cifar_in_a_local_archive(load, archive, tmp_path):
    """In whatever order the archive holds its files."""
    files = {
        "./train/cat/0001.jpg": jpeg(40),
        "./test/ant/0000.jpg": jpeg(200),
        "./train/ant/0000.jpg": jpeg(120),
        "./README": b"no picture",
    }
    write_archive(tmp_path / archive, files)
    cifar = load(tmp_path)
    assert cifar.y_train.tolist() == ["ant", "cat"]
    assert cifar.y_test.tolist() == ["ant"]
    assert cifar.X_train.shape == (2, 3, 32, 32)
    assert cifar.X_train.dtype == np.uint8
    np.testing.assert_allclose(cifar.X_train.mean(axis=(1, 2, 3)), [120, 40], atol=2)
    np.testing.assert_allclose(cifar.X_test.mean(), 200, atol=2)


ZOO = b"""animal,legs,weight,hair,food,empty,class
bear,4,1.5,true,none,,mammal
crow,2,,false,NA,,bird
carp,0,0.5,false,,,fish
"""


def test_tables_have_the_types_of_their_columns(tmp_path):
    files = {"zoo.csv": ZOO, "a.csv": b"x,class\n1,-1\n"}
    write_archive(tmp_path / "tables.tar.xz", files)
    assert list(load_tables(tmp_path)) == ["a", "zoo"]
    assert load_tables(tmp_path)["a"].y.tolist() == [-1]
    table = load_tables(tmp_path)["zoo"]
    assert table.name == "zoo"
    assert table.y.tolist() == ["mammal", "bird", "fish"]
    # The animal's name identifies the row, and one column is empty.
    assert {name: str(kind) for name, kind in table.X.dtypes.items()} == {
        "legs": "int64",
        "weight": "float64",
        "hair": "category",
        "food": "category",
    }
    # Words that pandas takes for missing values are values here.
    assert table.X["food"].cat.categories.tolist() == ["NA", "none"]
    assert table.X.isna().sum().tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("load", [load_imagenet_resize, load_tables])
def test_an_archive_that_nothing_fetches_is_asked_for(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot be fetched.*data_home="):
        load(tmp_path)

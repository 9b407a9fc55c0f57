"""Data of the benchmarks that nothing fetches: they are looked for as local archives.

The folder is the argument `data_home`, else the environment variable
``SKVMDLS_DATA_HOME``, else ``~/skvmdls_data``.
"""

import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.utils import Bunch
from torchvision.io import decode_jpeg

from skvmdls import datasets

__all__ = ["load_cifar10", "load_cifar100", "load_imagenet_resize", "load_tables"]

# Columns that name a row, or say where it was published, instead of describing it: a
# method that splits by them learns the list of rows by heart.
NO_MEASUREMENTS = {
    "splice": ["Instance_name"],
    "vowel": ["Train or Test"],
    "zoo": ["animal"],
}

DataHome = str | os.PathLike[str] | None


def load_cifar10(data_home: DataHome = None) -> Bunch:
    """Load CIFAR-10 from ``cifar10_jpeg.tar.xz``, a lossy copy, or from torchvision.

    Returns what :func:`skvmdls.datasets.load_cifar10` does.
    """
    archive = datasets.get_data_home(data_home) / "cifar10_jpeg.tar.xz"
    return _cifar(archive) if archive.exists() else datasets.load_cifar10(data_home)


def load_cifar100(data_home: DataHome = None) -> Bunch:
    """Load CIFAR-100 from ``cifar100_jpeg.tar.xz``, a lossy copy, or from torchvision.

    Returns what :func:`skvmdls.datasets.load_cifar100` does.
    """
    archive = datasets.get_data_home(data_home) / "cifar100_jpeg.tar.xz"
    return _cifar(archive) if archive.exists() else datasets.load_cifar100(data_home)


def load_imagenet_resize(data_home: DataHome = None) -> np.ndarray:
    """Load ImageNet-resize: 10,000 Tiny-ImageNet test images, (n, 3, 32, 32), uint8.

    The folder must have ``imagenet_resize_jpeg.tar.xz``.
    """
    return _images_in(_archive("imagenet_resize_jpeg.tar.xz", data_home))[1]


def load_tables(data_home: DataHome = None) -> dict[str, Bunch]:
    """Load 15 classification tables of the UCI repository, by name in their order.

    The folder must have ``tables.tar.xz``. A table has ``X``, a DataFrame: numbers are
    int64 or float64, everything else a category, and missing values are NaN. Columns
    that do not describe a row, and those without values, are left out. ``y``, an
    ndarray of shape (n,), is the column ``class``, as numbers or text. Autos has a
    class -1, which no detector takes.
    """
    with tarfile.open(_archive("tables.tar.xz", data_home)) as members:
        texts = {
            Path(member.name).stem: members.extractfile(member)
            for member in members
            if member.name.endswith(".csv")
        }
        return {name: _read_table(name, texts[name]) for name in sorted(texts)}


def _read_table(name: str, file: Any) -> Bunch:
    # Only an empty field is missing: "none" and "NA" are values.
    table = pd.read_csv(file, keep_default_na=False, na_values=[""])
    y = table.pop("class").to_numpy()
    X = table.drop(columns=NO_MEASUREMENTS.get(name, []))
    X = X.dropna(axis="columns", how="all")
    texts = X.columns.difference(X.select_dtypes("number").columns)
    return Bunch(X=X.astype(dict.fromkeys(texts, "category")), y=y, name=name)


def _archive(name: str, data_home: DataHome) -> Path:
    archive = datasets.get_data_home(data_home) / name
    if not archive.exists():
        raise FileNotFoundError(
            f"{archive} was not found, and cannot be fetched. Name a folder that has "
            "it with data_home=... or SKVMDLS_DATA_HOME."
        )
    return archive


def _cifar(archive: Path) -> Bunch:
    names, images = _images_in(archive)
    places = np.array([name.split("/")[:2] for name in names])
    is_train = places[:, 0] == "train"
    return Bunch(
        X_train=images[is_train],
        y_train=places[is_train, 1],
        X_test=images[~is_train],
        y_test=places[~is_train, 1],
    )


def _images_in(archive: Path) -> tuple[list[str], np.ndarray]:
    """Decode the images of an archive, in the order of their names."""
    images = {}
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and member.name.endswith(".jpg"):
                encoded = members.extractfile(member)
                assert encoded is not None
                pixels = np.frombuffer(encoded.read(), dtype=np.uint8)
                image = decode_jpeg(torch.from_numpy(pixels.copy()))
                images[member.name.removeprefix("./")] = image.numpy()
    names = sorted(images)
    return names, np.stack([images[name] for name in names])

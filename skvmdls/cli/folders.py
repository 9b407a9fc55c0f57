"""Folders of images: which files, which labels, and their pixels as bytes."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from skvmdls.datasets import image_folder

__all__ = [
    "Judged",
    "common_shape",
    "images_below",
    "judged",
    "labelled_images",
    "read_images",
]

# Modes whose pixels are one number; all others are read as red, green and blue.
GREY_MODES = frozenset({"1", "L", "LA", "I", "I;16", "F"})
MOST_KEPT = 96
USUAL_SIZE = (64, 64)

# Images that are held in memory at a time.
BATCH = 256


def labelled_images(folder: Path) -> tuple[list[Path], list[str]]:
    """List images and the names of the sub-folders of `folder` that they lie in.

    As torchvision's ImageFolder takes them: each sub-folder is a class, and whatever
    lies deeper belongs to it.
    """
    _check_folder(folder)
    try:
        X, labels = image_folder(folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} does not hold a sub-folder of images for each class: {error} "
            "Lay the images out as FOLDER/CLASS/IMAGE.png."
        ) from error
    return [Path(path) for path, _ in X.dataset.samples], labels.tolist()


def images_below(places: Iterable[Path]) -> list[Path]:
    """List images: files as they are named, and all that lie anywhere in folders."""
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = (p for p in place.rglob("*") if p.suffix.lower() in IMG_EXTENSIONS)
            found += sorted(inside)
        elif place.exists():
            found.append(place)
        else:
            raise ValueError(f"There is no file or folder {str(place)!r}.")
    if not found:
        names = ", ".join(str(place) for place in places)
        raise ValueError(
            f"No images in {names}: expected files that end in "
            f"{', '.join(IMG_EXTENSIONS)}."
        )
    return found


def common_shape(
    paths: Sequence[Path], size: tuple[int, int] | None = None
) -> tuple[int, int, int]:
    """Choose the (channels, height, width) that images are to be read in.

    One channel if all are grey. Their own size, if it is one and at most 96 pixels a
    side; else 64 x 64.
    """
    modes: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for path in paths:
        with _opened(path) as image:
            modes[image.mode] += 1
            sizes[image.size[::-1]] += 1
    if size is None:
        [(usual, n_usual)] = sizes.most_common(1)
        is_kept = n_usual == len(paths) and max(usual) <= MOST_KEPT
        size = usual if is_kept else USUAL_SIZE
    return (1 if GREY_MODES.issuperset(modes) else 3, *size)


def read_images(
    paths: Sequence[Path], shape: tuple[int, ...], *, progress: bool = False
) -> np.ndarray:
    """Read images into bytes (n, channels, height, width), each scaled to `shape`."""
    images = np.empty((len(paths), *shape), dtype=np.uint8)
    for i, path in enumerate(
        tqdm(paths, "reading", unit="image", disable=not progress)
    ):
        images[i] = _read(path, shape)
    return images


@dataclass(frozen=True)
class Judged:
    """What a detector says of n images; labels are strings, unknown is "-1"."""

    paths: Sequence[Path]
    answers: np.ndarray
    p_values: np.ndarray
    margins: np.ndarray
    nearest: np.ndarray
    evidence: np.ndarray
    names: Sequence[str]

    @property
    def is_rejected(self) -> np.ndarray:
        """Which images are unknown, shape (n,)."""
        return self.answers == "-1"

    def verdict(self, i: int) -> str:
        """Say in words what the answer to an image is."""
        return "rejected" if self.is_rejected[i] else f"accepted as {self.answers[i]}"

    def known_nearest(self, i: int) -> list[str]:
        """Name up to three known classes, the nearest first."""
        return [label for label in self.nearest[i] if label != "-1"]

    def parts(self, i: int) -> list[tuple[str, float]]:
        """Name the parts of the evidence, and what each says of an image."""
        return list(zip(self.names, self.evidence[i].tolist(), strict=True))


def judged(detector: Any, paths: Sequence[Path], *, progress: bool = False) -> Judged:
    """Read images batch by batch, and ask a fitted detector what it says of each."""
    found = []
    with tqdm(
        total=len(paths), desc="judging", unit="image", disable=not progress
    ) as bar:
        for start in range(0, len(paths), BATCH):
            X = read_images(paths[start : start + BATCH], detector.input_shape_)
            found.append(detector.explain(X))
            bar.update(len(X))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([explanation[name] for explanation in found])

    return Judged(
        paths,
        answers=joined("label").astype(str),
        p_values=joined("p_value"),
        margins=joined("margin"),
        nearest=joined("nearest").astype(str),
        evidence=joined("evidence"),
        names=detector.evidence_names_,
    )


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    channels, height, width = shape
    with _opened(path) as image:
        try:
            pixels = _as_bytes(image, "L" if channels == 1 else "RGB")
        except OSError as error:
            raise ValueError(f"{path} is a damaged image: {error}.") from error
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1)


def _as_bytes(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # PIL would cut off whatever is above 255. Scanners write 16 bits.
        pixels = np.asarray(image, dtype=np.float64)
        scale = 255 / 65535 if pixels.max() > 255 else 1
        image = Image.fromarray((pixels * scale).clip(0, 255).astype(np.uint8))
    return image.convert(mode)


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is no image that can be read.") from error
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read: {os.strerror(error.errno or 5)}."
        ) from error


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise ValueError(f"{str(folder)!r} is {what}; expected a folder of images.")

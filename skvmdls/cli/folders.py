"""Folders of images: which files, which labels, their pixels, and what is judged."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import UnidentifiedImageError
from tqdm.auto import tqdm

from skvmdls.cli.frozen import FrozenNet
from skvmdls.cli.trials import noise_and_plain
from skvmdls.detector.base import BaseDetector
from skvmdls.inputs.image_folders import (
    FoundImages,
    find_images,
    labelled_image_files,
)
from skvmdls.inputs.pictures import (
    BYTES,
    IMAGE_ENDINGS,
    PictureFormat,
    PictureHeader,
    UnfitPictureError,
    n_pages,
    opened_picture,
    picture_header,
    turned_size,
)

__all__ = [
    "ImageBatch",
    "ImageReader",
    "Judged",
    "Survey",
    "choose_format",
    "described_scaling",
    "images_below",
    "in_pixels",
    "joined",
    "judged_in_batches",
    "labelled_images",
    "read_all",
    "read_images",
    "shown_images",
    "surveyed",
]

MOST_KEPT = 96
USUAL_SIZE = (64, 64)
USUAL_SHAPE = (3, 64, 64)

# Images that are scored at a time, and threads that decode them meanwhile.
BATCH = 256
THREADS = min(4, os.cpu_count() or 1)

UNREADABLE = "unreadable"

Failures = list[tuple[Path, str]]


def labelled_images(folder: Path) -> tuple[FoundImages, list[str]]:
    """List images and the names of the sub-folders of `folder` that they lie in.

    As torchvision's ImageFolder takes them: each sub-folder is a class, and whatever
    lies deeper belongs to it.
    """
    _check_folder(folder)
    try:
        samples, classes, found = labelled_image_files(folder)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} does not hold a sub-folder of images for each class: {error} "
            "Lay the images out as FOLDER/CLASS/IMAGE.png."
        ) from error
    found.paths = [path for path, _ in samples]
    return found, [classes[target] for _, target in samples]


def images_below(places: Iterable[Path]) -> FoundImages:
    """List images: files as they are named, and all that lie anywhere in folders."""
    places = list(places)
    found = FoundImages()
    for place in places:
        if place.is_dir():
            inside = find_images(place)
            found.paths += inside.paths
            found.passed_over += inside.passed_over
        elif os.path.lexists(place):
            # A link that leads nowhere is named when it is read, as in a folder.
            found.paths.append(place)
        else:
            raise ValueError(f"There is no file or folder {str(place)!r}.")
    if not found.paths:
        names = ", ".join(str(place) for place in places)
        told = found.described()
        raise ValueError(
            f"No images in {names}: expected files that end in "
            f"{', '.join(IMAGE_ENDINGS)}.{f' Passed over: {told}.' if told else ''}"
        )
    return found


class Survey(NamedTuple):
    """Headers of the images that have one, by position, and why others have none."""

    headers: dict[int, PictureHeader]
    failures: Failures


def surveyed(paths: Sequence[Path]) -> Survey:
    """Read the headers of images, of which each may be damaged."""
    headers: dict[int, PictureHeader] = {}
    failures: Failures = []
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda path: _attempt(picture_header, path), paths)
        for i, (path, header) in enumerate(zip(paths, found, strict=True)):
            if isinstance(header, str):
                failures.append((path, header))
            else:
                headers[i] = header
    return Survey(headers, failures)


def choose_format(
    paths: Sequence[Path],
    headers: dict[int, PictureHeader],
    size: tuple[int, int] | None = None,
) -> PictureFormat:
    """Choose how the images of a training are read.

    In grey if all are grey. In the size of more than half of them, if it is at most 96
    pixels a side, else in 64 x 64: a few images of another size do not change how the
    others are read. Images of several depths have no common scale, and are refused.
    """
    depths: dict[str, list[int]] = {}
    for i, header in headers.items():
        depths.setdefault(header.depth, []).append(i)
    if len(depths) > 1:
        counts = ", ".join(
            f"{len(rows)} {depth} (such as {paths[rows[0]]})"
            for depth, rows in sorted(depths.items(), key=lambda item: -len(item[1]))
        )
        raise ValueError(
            f"The images have several depths: {counts}. Convert them to one depth, "
            "since there is no common scale for their values."
        )
    if size is None:
        usual = _size_of_most(headers)
        size = usual if usual and max(usual) <= MOST_KEPT else USUAL_SIZE
    is_grey = all(header.is_grey for header in headers.values())
    [depth] = depths
    return PictureFormat(1 if is_grey else 3, depth, size=size)


def described_scaling(
    paths: Sequence[Path], headers: dict[int, PictureHeader], size: tuple[int, int]
) -> str:
    """Describe which images are scaled to `size`; empty if none is."""
    sizes = {header.size for header in headers.values()}
    if sizes == {size}:
        return ""
    usual = _size_of_most(headers)
    if len(sizes) == 1:
        found = f"All {len(headers)} images are of {in_pixels(*sizes)}."
    elif usual is None:
        found = f"The {len(headers)} images have {len(sizes)} sizes."
    else:
        others = [i for i, header in headers.items() if header.size != usual]
        have = "has" if len(others) == 1 else "have"
        found = (
            f"{len(others)} of {len(headers)} images {have} another size than most "
            f"({in_pixels(usual)}), for example {paths[others[0]]} "
            f"({in_pixels(headers[others[0]].size)})."
        )
    return (
        f"{found} All images are scaled to {in_pixels(size)} (height x width). Give "
        "--size HEIGHT WIDTH for another size."
    )


def in_pixels(size: tuple[int, int]) -> str:
    """Write (height, width) for a message.

    Examples
    --------
    >>> in_pixels((32, 48))
    '32 x 48 pixels'
    """
    return f"{size[0]} x {size[1]} pixels"


def _size_of_most(headers: dict[int, PictureHeader]) -> tuple[int, int] | None:
    """Return the size of more than half of the images, or None."""
    sizes = Counter(header.size for header in headers.values())
    [(usual, n_usual)] = sizes.most_common(1)
    return usual if 2 * n_usual > len(headers) else None


@dataclass(frozen=True)
class ImageReader:
    """Reads images for a detector: into pixels, or into features of a frozen net."""

    pictures: PictureFormat
    net: FrozenNet | None = None

    def batches(
        self, paths: Sequence[Path], size: int | None = None
    ) -> Iterator["ImageBatch"]:
        """Read images, batch by batch, some batches ahead of what is asked for."""
        size = size or BATCH
        chunks = (
            range(i, min(i + size, len(paths))) for i in range(0, len(paths), size)
        )
        pool = ThreadPoolExecutor(THREADS)

        def started(chunk: range) -> list[Future[Any]]:
            return [pool.submit(_attempt, self._read, paths[i]) for i in chunk]

        ahead = deque((chunk, started(chunk)) for chunk in islice(chunks, 2))
        try:
            while ahead:
                chunk, futures = ahead.popleft()
                results = [future.result() for future in futures]
                ahead += [(chunk, started(chunk)) for chunk in islice(chunks, 1)]
                yield self._batch(paths, chunk, results)
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(
        self, paths: Sequence[Path], chunk: range, results: list[Any]
    ) -> "ImageBatch":
        rows, positions, failures, n_further, n_scaled = [], [], [], 0, 0
        for i, result in zip(chunk, results, strict=True):
            if isinstance(result, str):
                failures.append((paths[i], result))
                continue
            row, pages, is_scaled = result
            rows.append(row)
            positions.append(i)
            n_further += pages - 1
            n_scaled += is_scaled
        X = np.stack(rows) if rows else None
        if X is not None and self.net is not None:
            X = self.net.features(X)
        found = np.array(positions, int)
        return ImageBatch(chunk, X, found, failures, n_further, n_scaled)

    def _read(self, path: Path) -> tuple[np.ndarray, int, bool]:
        size = self.pictures.size
        with opened_picture(path) as picture:
            pages = n_pages(picture)
            row = self.pictures.as_array(picture)
            # After the pixels, since asking for the EXIF entry may load some files.
            is_scaled = size is not None and turned_size(picture) != size
        return row if self.net is None else self.net.prepared(row), pages, is_scaled

    def strange_images(self, X: np.ndarray) -> dict[str, np.ndarray]:
        """Make rows like X of noise and of plain images, by name."""
        is_bytes = self.pictures.depth == BYTES
        largest = 1.0 if self.net is not None else float(X.max())
        white = 255.0 if is_bytes else largest
        shape = USUAL_SHAPE if self.net is not None else X.shape[1:]
        images = noise_and_plain(shape, white)
        if is_bytes:
            images = {name: image.astype(np.uint8) for name, image in images.items()}
        else:
            images = {name: image.astype(X.dtype) for name, image in images.items()}
        net = self.net
        if net is None:
            return images
        return {
            name: net.features(np.stack([net.prepared(image) for image in of_kind]))
            for name, of_kind in images.items()
        }


class ImageBatch(NamedTuple):
    """Images of a chunk of paths: rows X of those at `positions`, or None of none."""

    chunk: range
    X: np.ndarray | None
    positions: np.ndarray
    failures: Failures
    n_further_pages: int
    n_scaled: int


def read_all(
    reader: ImageReader, paths: Sequence[Path], *, progress: bool = False
) -> ImageBatch:
    """Read all images into one array."""
    found = []
    with tqdm(
        total=len(paths), desc="reading", unit="image", disable=not progress
    ) as bar:
        for batch in reader.batches(paths):
            found.append(batch)
            bar.update(len(batch.chunk))
    parts = [batch.X for batch in found if batch.X is not None]
    return ImageBatch(
        range(len(paths)),
        np.concatenate(parts) if parts else None,
        np.concatenate([batch.positions for batch in found]),
        [failure for batch in found for failure in batch.failures],
        sum(batch.n_further_pages for batch in found),
        sum(batch.n_scaled for batch in found),
    )


def read_images(
    paths: Sequence[Path],
    shape: tuple[int, ...],
    pictures: PictureFormat | None = None,
) -> np.ndarray:
    """Read images into (n, channels, height, width), each scaled to `shape`.

    Without a format, one is chosen by the first image. Raises a ValueError that names
    the first image that cannot be read.
    """
    channels, height, width = shape
    if pictures is None:
        pictures = PictureFormat.of_file(paths[0])
    pictures = replace(pictures, channels=channels, size=(height, width))
    batch = read_all(ImageReader(pictures), paths)
    if batch.failures:
        path, reason = batch.failures[0]
        raise ValueError(f"{path} {reason}")
    assert batch.X is not None
    return batch.X


def shown_images(
    reader: ImageReader, paths: Sequence[Path]
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Read images twice: as bytes (channels, height, width) to look at, and as rows.

    Deep images are scaled to the brightest of them.
    """
    as_seen = replace(reader, net=None)
    seen = [x for batch in as_seen.batches(paths, 1) for x in _rows_of(batch)]
    if reader.pictures.depth != BYTES:
        white = max((float(x.max()) for x in seen), default=0) or 1
        seen = [(x * (255 / white)).clip(0, 255).astype(np.uint8) for x in seen]
    return seen, read_all(reader, paths).X if len(paths) else None


def _rows_of(batch: ImageBatch) -> list[np.ndarray]:
    return [] if batch.X is None else list(batch.X)


@dataclass(frozen=True)
class Judged:
    """The answers of a detector for n images; labels are strings, unknown is "-1"."""

    paths: Sequence[Path]
    answers: np.ndarray
    p_values: np.ndarray
    margins: np.ndarray
    nearest: np.ndarray
    evidence: np.ndarray
    names: Sequence[str]
    failures: Failures = field(default_factory=list)
    n_further_pages: int = 0
    n_scaled: int = 0

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
        """Name the parts of the evidence, and the score of an image in each."""
        return list(zip(self.names, self.evidence[i].tolist(), strict=True))


def judged_in_batches(
    detector: BaseDetector,
    reader: ImageReader,
    paths: Sequence[Path],
    *,
    progress: bool = False,
) -> Iterator[Judged]:
    """Read and judge images batch by batch; each holds those that could be read."""
    names = detector.evidence_names_
    with tqdm(
        total=len(paths), desc="judging", unit="image", disable=not progress
    ) as bar:
        for batch in reader.batches(paths):
            if batch.X is None:
                yield _none_judged(names, batch)
            else:
                explained = detector.explain(batch.X, places=False)
                yield Judged(
                    [paths[i] for i in batch.positions],
                    answers=explained["label"].astype(str),
                    p_values=explained["p_value"],
                    margins=explained["margin"],
                    nearest=explained["nearest"].astype(str),
                    evidence=explained["evidence"],
                    names=names,
                    failures=batch.failures,
                    n_further_pages=batch.n_further_pages,
                    n_scaled=batch.n_scaled,
                )
            bar.update(len(batch.chunk))


def joined(batches: Iterable[Judged]) -> Judged:
    """Put the answers of all batches behind one another."""
    found = list(batches)

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(batch, name) for batch in found])

    arrays = ("answers", "p_values", "margins", "nearest", "evidence")
    return Judged(
        [path for batch in found for path in batch.paths],
        **{name: whole(name) for name in arrays},
        names=found[0].names,
        failures=[failure for batch in found for failure in batch.failures],
        n_further_pages=sum(batch.n_further_pages for batch in found),
        n_scaled=sum(batch.n_scaled for batch in found),
    )


def _none_judged(names: Sequence[str], batch: ImageBatch) -> Judged:
    none = np.empty(0)
    return Judged(
        [],
        answers=none.astype(str),
        p_values=none,
        margins=none,
        nearest=np.empty((0, 3), dtype=str),
        evidence=np.empty((0, len(names))),
        names=names,
        failures=batch.failures,
    )


def _attempt(read: Callable[[Path], Any], path: Path) -> Any:
    """Read a file, or return in words why it cannot be read."""
    try:
        return read(path)
    except UnfitPictureError as error:
        return str(error)
    except UnidentifiedImageError:
        return "is no image that can be read."
    except OSError as error:
        if error.errno is not None:
            return f"cannot be read: {os.strerror(error.errno)}."
        return f"is a damaged image: {error}."
    except Exception as error:
        # Damaged files lead PIL's readers into errors of any kind.
        return f"is a damaged image: {type(error).__name__}: {error}."


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise ValueError(f"{str(folder)!r} is {what}; expected a folder of images.")

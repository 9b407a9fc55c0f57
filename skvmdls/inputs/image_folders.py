"""Find the image files of folders as they are, and count what is passed over."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from skvmdls.inputs.pictures import IMAGE_ENDINGS

__all__ = ["FoundImages", "find_images", "is_litter", "labelled_image_files"]

# Written by operating systems and file servers, like names that begin with a dot.
LITTER = frozenset(
    {
        "$recycle.bin",
        "__macosx",
        "@eadir",
        "desktop.ini",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
HIDDEN = "hidden or system"


@dataclass
class FoundImages:
    """Image files in the order of their names, and what else lies there, by kind."""

    paths: list[Path] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def described(self, *, with_hidden: bool = True) -> str:
        """List what was passed over, the most frequent first; empty if nothing was.

        Examples
        --------
        >>> FoundImages([], Counter({".txt": 2, "hidden or system": 1})).described()
        '2 .txt, 1 hidden or system'
        """
        counts = [
            f"{n} {kind}"
            for kind, n in sorted(self.passed_over.items(), key=_by_count)
            if with_hidden or kind != HIDDEN
        ]
        return ", ".join(counts)


def _by_count(kind: tuple[str, int]) -> tuple[int, str]:
    return -kind[1], kind[0]


def find_images(folder: Path) -> FoundImages:
    """Find the image files anywhere below a folder, along its links too.

    Hidden and system files and folders are left out. A link that leads back to a folder
    above it is not followed.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("b.PNG", "a.jpg", "notes.txt", ".DS_Store"):
    ...     (folder / name).touch()
    >>> found = find_images(folder)
    >>> [path.name for path in found.paths], found.described()
    (['a.jpg', 'b.PNG'], '1 .txt, 1 hidden or system')
    """
    found = FoundImages()
    _look_into(folder, frozenset(), found)
    found.paths.sort()
    return found


def labelled_image_files(
    folder: Path,
) -> tuple[list[tuple[Path, int]], list[str], FoundImages]:
    """Find the images of a folder that has one folder for each class.

    Returns
    -------
    samples : list of (path, int)
        Files, and the positions of their classes.
    classes : list of str
        Names of the classes' folders, sorted.
    beside : FoundImages
        What was passed over, of all folders together.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, no class in it, or a class without images.
    """
    beside, places = FoundImages(), []
    for entry in _entries(folder):
        if is_litter(entry.name):
            beside.passed_over[HIDDEN] += 1
        elif entry.is_dir():
            places.append(Path(entry.path))
        else:
            beside.passed_over["next to the class folders"] += 1
    if not places:
        raise FileNotFoundError(f"{os.fspath(folder)!r} holds no folder of a class.")
    samples, empty = [], []
    for target, place in enumerate(places):
        found = find_images(place)
        beside.passed_over += found.passed_over
        samples += [(path, target) for path in found.paths]
        if not found.paths:
            empty.append(place.name)
    if empty:
        told = beside.described()
        raise FileNotFoundError(
            f"{os.fspath(folder)!r} holds folders without images: {', '.join(empty)}. "
            f"Files are taken for images that end in {', '.join(IMAGE_ENDINGS)}."
            f"{f' Passed over were: {told}.' if told else ''}"
        )
    return samples, [place.name for place in places], beside


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or the system's own."""
    return name.startswith(".") or name.lower() in LITTER


def _look_into(folder: Path, above: frozenset[str], found: FoundImages) -> None:
    real = os.path.realpath(folder)
    if real in above:
        found.passed_over["links to a folder above"] += 1
        return
    try:
        entries = _entries(folder)
    except OSError:
        found.passed_over["folders that cannot be opened"] += 1
        return
    for entry in entries:
        path = Path(entry.path)
        if is_litter(entry.name):
            found.passed_over[HIDDEN] += 1
        elif entry.is_dir():
            _look_into(path, above | {real}, found)
        elif path.suffix.lower() not in IMAGE_ENDINGS:
            found.passed_over[path.suffix.lower() or "without an ending"] += 1
        elif entry.is_file() or entry.is_symlink():
            # A link that leads nowhere is named when it is read.
            found.paths.append(path)
        else:
            # To open a pipe would wait without an end.
            found.passed_over["pipes or devices"] += 1


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)

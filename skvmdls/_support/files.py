"""Files that are replaced as a whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["replacing", "write_atomically"]

Buffer = Any  # What can be written to a file: collections.abc.Buffer, from Python 3.12.


def write_atomically(path: Path, *parts: Buffer) -> None:
    """Write a file as a whole or not at all; see :func:`replacing`.

    The parts, bytes or contiguous arrays, are not copied.
    """
    with replacing(path) as draft, open(draft, "wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a draft next to a file, which replaces that file at the end.

    Killed at any moment, the machine included, it leaves the old file or the new one.
    The permissions are those of the old file, or of any new one. A link stays, and the
    file that it leads to is replaced. On an error the draft is removed.
    """
    place = Path(os.path.realpath(path))
    try:
        descriptor, name = tempfile.mkstemp(
            dir=place.parent, prefix=f"{place.name}.", suffix=".unfinished"
        )
        os.close(descriptor)
        draft = Path(name)
        try:
            yield draft
            with open(draft, "rb+") as file:
                os.fsync(file.fileno())
            draft.chmod(_mode(place))
            draft.replace(place)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None:
            raise
        # The name of the unfinished file would say nothing to the user.
        raise OSError(
            error.errno, f"{error.strerror}; not written", os.fspath(path)
        ) from error


def _mode(path: Path) -> int:
    """Permissions of the file that is there, or of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    # The process's mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

"""Files that are replaced as a whole or not at all."""

import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["write_atomically"]

Buffer = Any  # What can be written to a file: collections.abc.Buffer, from Python 3.12.


def write_atomically(path: Path, *parts: Buffer) -> None:
    """Write a file beside its place, then move it there: as a whole or not at all.

    Killed at any moment, the machine included, it leaves the old file or the new one.
    Who may read it is as it was, or as of any new file. A link stays, and the file that
    it leads to is replaced. The parts, bytes or contiguous arrays, are not copied.
    """
    place = Path(os.path.realpath(path))
    try:
        _write_beside(place, parts)
    except OSError as error:
        if error.errno is None:
            raise
        # The name of the unfinished file would say nothing to the user.
        raise OSError(
            error.errno, f"{error.strerror}; not written", os.fspath(path)
        ) from error


def _write_beside(path: Path, parts: tuple[Buffer, ...]) -> None:
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".unfinished", delete=False
    ) as file:
        try:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, _mode(path))
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _mode(path: Path) -> int:
    """Permissions of the file that is there, or of a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    # The process's mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

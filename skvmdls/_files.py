"""Files that are replaced as a whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there: as a whole or not at all.

    Killed at any moment, the machine included, it leaves the old file or the new one.
    Who may read it is as it was, or as of any new file.
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".unfinished", delete=False
    ) as file:
        try:
            file.write(content)
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

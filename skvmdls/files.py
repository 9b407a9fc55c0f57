"""Files that are replaced as a whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place, then move it there.

    Killed at any moment, the machine included, it leaves the old file or the new one.

    Parameters
    ----------
    path : Path
        An existing file is replaced.
    content : bytes

    Raises
    ------
    OSError
        If the folder cannot be written to; an existing file stays as it was.

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "notes"
    >>> write_whole(path, b"first")
    >>> write_whole(path, b"second")
    >>> path.read_bytes()
    b'second'
    """
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".unfinished", delete=False
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise

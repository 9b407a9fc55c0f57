"""Says what is missing from, or too much in, the archives that would be released.

    python .ci/check_release.py dist

The sources are all files that git tracks. The wheel is the package, without tests and
benchmarks.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

MADE = ("PKG-INFO", "skvmdls.egg-info/")


def wrong(dist: Path) -> list[str]:
    """Names of files that are missing, or should not be there."""
    [sources], [wheel] = dist.glob("*.tar.gz"), dist.glob("*.whl")
    with tarfile.open(sources) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    packed = {name for name in names if not name.startswith(MADE)}
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True
    )
    tracked = set(listed.stdout.splitlines())
    with zipfile.ZipFile(wheel) as archive:
        strangers = {
            name
            for name in archive.namelist()
            if not name.startswith("skvmdls/") and ".dist-info/" not in name
        }
    return [
        *(f"not in {sources.name}: {name}" for name in sorted(tracked - packed)),
        *(f"too much in {sources.name}: {name}" for name in sorted(packed - tracked)),
        *(f"too much in {wheel.name}: {name}" for name in sorted(strangers)),
    ]


if __name__ == "__main__":
    lines = wrong(Path(sys.argv[1]))
    print("\n".join(lines) or "The archives hold what they should.")
    sys.exit(bool(lines))

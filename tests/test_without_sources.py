"""Installed without its sources, as programs for others are: byte code, or a zip."""

import compileall
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import skvmdls

PROGRAM = textwrap.dedent(
    """
    import sys, tempfile, warnings
    from pathlib import Path
    import numpy as np, torch
    from PIL import Image
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    import skvmdls
    from skvmdls.cli.commands import main

    assert sys.argv[1] in skvmdls.__file__
    place = Path(tempfile.mkdtemp())
    y = np.arange(60) % 2
    X = (np.random.default_rng(0).normal(60 + 120 * y, 9, (8, 8, 60)).T).clip(0, 255)
    given = {"memory": str(place / "memory"), "checkpoint": str(place / "checkpoint")}
    for name, value in given.items():
        detector = skvmdls.VMDLSbDetector(
            max_epochs=1, contamination=0.3, random_state=0, **{name: value}
        )
        detector.fit(X, y)
    detector.set_params(checkpoint=None).fit(X.astype(np.uint8), y)
    skvmdls.save(detector, place / "detector")
    Image.fromarray(X[0].astype(np.uint8)).save(place / "picture.png")
    words = [place / "detector", place / "picture.png", "--out", place / "page.html"]
    assert main(["report", *map(str, words), "--quiet"]) == 0
    assert "<html" in (place / "page.html").read_text()
    print("done")
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte code", "a zip"])
def test_it_fits_with_memory_and_checkpoint_and_reports(kind, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(
        Path(skvmdls.__file__).parent,
        bare / "skvmdls",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    place = str(bare)
    if kind == "byte code":
        compileall.compile_dir(bare, legacy=True, quiet=2)
        for path in bare.rglob("*.py"):
            path.unlink()
    else:
        place = shutil.make_archive(str(tmp_path / "app"), "zip", bare)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, place],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": place},
        cwd=tmp_path,
        check=False,
    )
    assert ended.stdout.endswith("done\n"), ended.stderr

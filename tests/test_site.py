"""What looks after the site and the archives: links, and what is packed."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def site(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"")
    (tmp_path / "other.html").write_text('<h1 id="there">There</h1>')
    return tmp_path


def checked(site, body):
    (site / "index.html").write_text(body)
    script = ROOT / ".ci" / "check_links.py"
    done = subprocess.run(
        [sys.executable, script, site], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_links_that_lead_somewhere_pass(site):
    body = """
    <a href="other.html">a page</a> <a href="other.html#there">an anchor</a>
    <a href="#here">on this page</a> <p id="here">here</p> <a href="#">up</a>
    <a href="https://example.org/not/looked/at">elsewhere</a>
    <a href="mailto:a@example.org">mail</a>
    <img src="pictures/a.png"> <link href="other.html?v=1">
    """
    assert checked(site, body) == (0, ["No broken link."])


@pytest.mark.parametrize(
    "target", ["gone.html", "other.html#gone", "#gone", "pictures", "../other.html"]
)
def test_a_broken_link_is_found(site, target):
    code, lines = checked(site, f'<a href="{target}">broken</a>')
    assert code == 1
    assert lines == [f"index.html: {target}"]


def test_a_missing_picture_is_found(site):
    assert checked(site, '<img src="pictures/b.png">')[0] == 1


def test_a_site_that_was_not_built_is_no_site_without_broken_links(tmp_path):
    script = ROOT / ".ci" / "check_links.py"
    assert subprocess.run([sys.executable, script, tmp_path], check=False).returncode


@pytest.fixture
def release(tmp_path):
    """A folder that git tracks two files of, and the archives made of them."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    files = ("setup.cfg", "tests/shared.py")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / "dist").mkdir()
    return tmp_path


def released(folder, sources, wheel):
    with tarfile.open(folder / "dist" / "skvmdls-0.tar.gz", "w:gz") as archive:
        for name in sources:
            archive.addfile(tarfile.TarInfo(f"skvmdls-0/{name}"))
    with zipfile.ZipFile(folder / "dist" / "skvmdls-0.whl", "w") as archive:
        for name in wheel:
            archive.writestr(name, "")
    script = ROOT / ".ci" / "check_release.py"
    done = subprocess.run(
        [sys.executable, script, "dist"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip().splitlines()


def test_archives_hold_what_they_should(release):
    sources = ["setup.cfg", "tests/shared.py", "PKG-INFO"]
    wheel = ["skvmdls/__init__.py", "skvmdls-0.dist-info/METADATA"]
    assert released(release, sources, wheel) == (
        0,
        ["The archives hold what they should."],
    )


def test_what_archives_lack_or_have_too_much_is_named(release):
    sources, wheel = ["setup.cfg", "notes.txt"], ["benchmarks/speed.py"]
    assert released(release, sources, wheel) == (
        1,
        [
            "not in skvmdls-0.tar.gz: tests/shared.py",
            "too much in skvmdls-0.tar.gz: notes.txt",
            "too much in skvmdls-0.whl: benchmarks/speed.py",
        ],
    )

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


@pytest.fixture
def checkout(tmp_path):
    """What the check of the prose reads: pages, a script and a package."""
    for name, text in {
        "README.md": "# A package\n\nIt classifies rows.\n",
        "docs/page.md": "# A page\n\nYou can read it.\n",
        "docs/api/index.rst": "API\n===\n\nEach name has a page.\n",
        "examples/README.rst": "Gallery\n=======\n\nEach script runs.\n",
        "examples/script.py": '"""\nTitle\n=====\n\nIt runs.\n"""\n',
        "skvmdls/__init__.py": '"""A package."""\n\n'
        "from skvmdls.room.thing import Thing\n\n"
        '__all__ = ["Thing"]\n',
        "skvmdls/room/thing.py": '"""A module."""\n\n\n'
        'class Thing:\n    """Classify rows."""\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def read_prose(checkout, *options):
    script = ROOT / ".ci" / "check_prose.py"
    done = subprocess.run(
        [sys.executable, script, checkout, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.strip().splitlines()


def test_plain_prose_passes(checkout):
    assert read_prose(checkout) == (0, ["0 of 7 files are over a limit."])


# One such sentence may stand in a page of up to 300 words, except for the last.
@pytest.mark.parametrize(
    ("sentence", "rule"),
    [
        ("It is short; it has two halves.", "semicolon"),
        ("What it returns is a label.", "clause as subject"),
        ("Where it stops is the threshold.", "clause as subject"),
        (" ".join(["It", *["reads"] * 30]) + ".", "long sentence: 31 words"),
        ("It scored 1, 2, 3, 4 and 5.", "many numbers: 5"),
    ],
)
def test_a_page_with_too_many_hard_sentences_is_named(checkout, sentence, rule):
    page = checkout / "docs" / "page.md"
    page.write_text(f"# A page\n\nIt has lines.\n{sentence}\n")
    assert read_prose(checkout)[0] == 0
    page.write_text(f"# A page\n\nIt has lines.\n\n{sentence}\n\n- {sentence}\n")
    code, lines = read_prose(checkout)
    assert code == 1
    assert lines == [
        f"docs/page.md:5: {rule}",
        f"    {sentence}",
        f"docs/page.md:7: {rule}",
        f"    {sentence}",
        "1 of 7 files are over a limit.",
    ]


@pytest.mark.parametrize(
    ("sentence", "word"),
    [
        ("Its promise holds.", "promise"),
        ("It stands beside the net.", "beside"),
        ("`predict` answers with a label.", "CODE answers"),
        ("Here nothing is trained but the head.", "nothing is trained but"),
    ],
)
def test_a_private_word_is_named_with_what_to_write(checkout, sentence, word):
    page = checkout / "docs" / "page.md"
    for place in (sentence, f"| a row | {sentence} |"):
        page.write_text(f"# A page\n\n{place}\n")
        code, lines = read_prose(checkout)
        assert code == 1
        assert lines[0].startswith(f"docs/page.md:3: private word '{word}', write: ")


@pytest.mark.parametrize(
    "text",
    [
        "```python\nx = 1; y = 2; promise = 3\n```",
        "`promise; promise`",
        "[a link](promise.md)",
        "<!-- promise; promise -->",
        "$$ a; b; \\text{promise} $$",
        "| y of pictures | `ValueError`: one; two; promise |",
        "What does it return? Which label? Where?",
        "Where rows are few, nothing is held out. Where a net is given, it is used.",
        "A joint distribution has 2 significant figures.",
    ],
)
def test_code_questions_and_ordinary_words_pass(checkout, text):
    (checkout / "docs" / "page.md").write_text(f"# A page\n\n{text}\n")
    assert read_prose(checkout) == (0, ["0 of 7 files are over a limit."])


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("README.md", 2, "# A package\nIts promise.\n"),
        ("docs/api/index.rst", 4, "API\n===\n\nIts promise.\n"),
        ("examples/script.py", 5, '"""\nTitle\n=====\n\nIts promise.\n"""\n'),
        (
            "examples/script.py",
            4,
            '"""Title."""\nx = 1\n# %%\n# Its promise.\n\n# A promise in a comment.\n',
        ),
        (
            "skvmdls/room/thing.py",
            5,
            'class Thing:\n    """A thing."""\n\n'
            '    def read(self):\n        """Its promise."""\n',
        ),
        (
            "skvmdls/room/thing.py",
            9,
            'class Base:\n    """A base.\n\n    Parameters\n    ----------\n'
            "    promise : int\n        How many.\n    y : int\n        Its promise.\n"
            '    """\n\n\nclass Thing(Base):\n    """A thing."""\n',
        ),
        (
            "skvmdls/room/thing.py",
            4,
            'class Thing:\n    """A thing."""\n\n    x: int = parameter(text="""Its '
            'promise.""")\n',
        ),
    ],
)
def test_all_kinds_of_files_are_read(checkout, name, line, text):
    (checkout / name).write_text(text)
    code, lines = read_prose(checkout)
    assert code == 1
    assert [row.partition(" private")[0] for row in lines[:-1:2]] == [f"{name}:{line}:"]


@pytest.mark.parametrize(
    "code",
    [
        'def _helper():\n    """Its promise."""\n',
        'class Other:\n    """Its promise."""\n',
        'class Thing:\n    """A thing.\n\n'
        '    >>> print("promise")\n    promise\n    """\n',
        'class Thing:\n    """A thing."""\n\n'
        '    def _read(self):\n        """Its promise."""\n',
    ],
)
def test_code_that_is_not_public_is_not_read(checkout, code):
    (checkout / "skvmdls" / "room" / "thing.py").write_text(code)
    assert read_prose(checkout)[0] == 0


def test_single_files_can_be_checked(checkout):
    (checkout / "README.md").write_text("Its promise.\n")
    only = read_prose(checkout, "--files", "docs/page.md")
    assert only == (0, ["0 of 1 files are over a limit."])


def test_a_package_can_be_measured(checkout):
    (checkout / "skvmdls" / "room" / "thing.py").write_text(
        '"""One word; two words, and three words more than that."""\n'
    )
    code, lines = read_prose(checkout, "--measure", checkout / "skvmdls" / "room")
    assert code == 0
    assert lines[2] == (
        "| skvmdls/room | 10 | 10.0 | 100.00 | 0.00 | 0.00 | 0.00 | 0.00 |"
    )

"""The code in the README and in docs/ runs, page by page, from top to bottom."""

import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import bad_inputs
import skvmdls
from skvmdls.calibration.conformal import conformal_threshold
from skvmdls.calibration.hold_out import hold_out
from skvmdls.cli.parts import MEANINGS
from skvmdls.detector.fitting import EVIDENCE_SHARE
from skvmdls.direct.parts import DIRECT_PARTS
from skvmdls.nets.autoencoder import AUTOENCODERS
from skvmdls.nets.backbones import BACKBONES
from skvmdls.nets.network import ENSEMBLE_PARTS
from skvmdls.scoring.evidence import BOUNDARY, INPUT, LOGIT, RESIDUAL, TEXTURE

ROOT = Path(__file__).parents[1]
# Rooms with a plain name that users do not import from: one sentence will do.
MACHINERY = {"cli", "inputs"}
# Loaders of data that the tests do not have.
NEED_NO_EXAMPLE = {
    "load_cifar10",
    "load_cifar100",
    "load_mnist",
    "load_omniglot",
}
# Their rooms say once what they all take and return.
FACTORIES = {**BACKBONES, **AUTOENCODERS}
# Their code takes longest: it searches, writes ONNX files, or trains more than one net.
LONG = {
    "README.md",
    "bigger_than_memory.md",
    "choosing_the_threshold.md",
    "coming_from.md",
    "faq.md",
    "first_steps.md",
    "images.md",
    "in_scikit_learn.md",
    "index.md",
    "interrupted_trainings.md",
    "learning_new_classes.md",
    "outside_python.md",
    "reading_the_answers.md",
    "tuning.md",
    "watching_a_stream.md",
    "why_was_it_rejected.md",
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page.name in LONG else [])
        for page in PAGES
    ],
    ids=lambda page: page.name,
)
@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names, text = {}, page.read_text()
    for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        above = "\n" * text.count("\n", 0, block.start(1))  # tracebacks find the line
        exec(compile(above + block[1], str(page), "exec"), names)


def anchors(page):
    """Headings of a page as links name them: as GitHub and the site do."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" not in name:
            assert (page.parent / name).exists(), target
            is_markdown = not name or name.endswith(".md")
            if anchor and is_markdown:
                assert anchor in anchors(page.parent / name if name else page), target


@pytest.mark.slow
def test_the_readme_shows_the_result_of_its_code(capsys):
    """Of another processor, a percent more or less."""
    code, shown = re.search(
        r"```python\n(.*?)```\n\n```text\n(.*?)```",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    ).groups()
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    number = re.compile(r"\d+(?=%)")
    assert number.sub("", printed) == number.sub("", shown)
    for found, expected in zip(
        number.findall(printed), number.findall(shown), strict=True
    ):
        assert abs(int(found) - int(expected)) <= 2


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_page_of_bad_inputs_has_every_case_with_its_answer():
    page = bad_inputs.PAGE.read_text()
    rows = dict(re.findall(r"^\| (.*) \| `\w+`: (.*) \|$", page, re.MULTILINE))
    names = ("BAD_FITS", "BAD_ROWS", "BAD_IMAGES", "BAD_TRUTHS", "BAD_FILES")
    cases = [case for name in names for case in getattr(bad_inputs, name)]
    assert set(rows) == {bad_inputs.shown(case.given) for case in cases}
    for case in cases:
        assert re.search(case.message, rows[bad_inputs.shown(case.given)]), case.given


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_the_rows_that_a_guarantee_needs_are_those_of_the_page():
    page = (ROOT / "docs" / "which_settings.md").read_text()
    rows = re.findall(r"^\| (0\.\d+) \| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) == 6
    fractions = (0.1, 0.2, 0.5)

    def guaranteed(n, fraction, contamination):
        split = hold_out(
            np.zeros(n, int), fraction, EVIDENCE_SHARE, np.random.RandomState(0)
        )
        scores = np.arange(float(len(split.threshold)))
        return conformal_threshold(scores, contamination) > -np.inf

    for contamination, held_out, needed in rows:
        assert int(held_out) == round(1 / float(contamination)) - 1
        for n, fraction in zip(needed.split(" | "), fractions, strict=True):
            case = (fraction, float(contamination))
            assert guaranteed(int(n), *case), (n, case)
            assert not guaranteed(int(n) - 1, *case), (n, case)


def modules():
    for found in pkgutil.walk_packages(skvmdls.__path__, "skvmdls."):
        if not found.name.endswith("__main__"):
            name = found.name.removeprefix("skvmdls.")
            yield name, importlib.import_module(found.name)


def doors():
    """Where public names are imported from: the folders, and single files."""
    for name, module in modules():
        is_door = "." not in name or name == "nets.autoencoder"
        if is_door and not name.startswith("_") and name not in MACHINERY:
            yield name, module


def public_names():
    for room, module in doors():
        for name in getattr(module, "__all__", ()):
            if callable(getattr(module, name)) and name != "BackboneFactory":
                yield f"{room}.{name}"


@pytest.mark.parametrize("name", list(public_names()))
def test_everything_public_is_documented_with_an_example_that_runs(name):
    room, _, attribute = name.rpartition(".")
    doc = getattr(importlib.import_module(f"skvmdls.{room}"), attribute).__doc__
    if attribute not in FACTORIES:
        assert re.search("^ *(Parameters|Attributes|Returns)$", doc, re.MULTILINE)
    if attribute not in NEED_NO_EXAMPLE:
        assert "Examples\n" in doc
        assert ">>> " in doc
        assert "doctest: +SKIP" not in doc


def test_what_the_pages_import_is_public():
    """The other way round: what users are told to import is no machinery."""
    text = "".join(page.read_text() for page in PAGES if page.name != "CONTRIBUTING.md")
    for room, names in re.findall(r"from skvmdls\.(\w+) import (.*)", text):
        for name in names.split(", "):
            assert f"{room}.{name}" in set(public_names()), name


def test_machinery_has_a_sentence():
    for room, module in modules():
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            is_own = getattr(thing, "__module__", None) == module.__name__
            if is_own and (inspect.isclass(thing) or inspect.isfunction(thing)):
                summary, *_ = thing.__doc__.splitlines()
                assert summary.rstrip().endswith((".", "?")), f"{room}.{name}"


def test_every_part_of_the_score_is_explained_in_the_page_and_in_the_command_line():
    names = {
        *(INPUT, *ENSEMBLE_PARTS, LOGIT, BOUNDARY, TEXTURE, RESIDUAL),
        *DIRECT_PARTS,
    }
    assert set(MEANINGS) == names
    page = (ROOT / "docs" / "why_was_it_rejected.md").read_text()
    rows = page.split("| below -1 | meaning |")[1].split("\n\n")[0].splitlines()
    explained = re.findall(r"`(\w+)`", " ".join(row.split("|")[1] for row in rows[2:]))
    assert set(explained) == names
    assert len(explained) == len(names)

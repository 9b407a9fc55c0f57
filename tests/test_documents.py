"""The code in the README and in docs/ runs, page by page, from top to bottom."""

import importlib
import pkgutil
import re
from pathlib import Path

import bad_inputs
import matplotlib as mpl
import pytest

import skvmdls

ROOT = Path(__file__).parents[1]
# Loaders of data that the tests do not have, and types.
NEED_NO_EXAMPLE = {
    "BackboneFactory",
    "History",
    "State",
    "load_cifar10",
    "load_cifar100",
    "load_imagenet_resize",
    "load_mnist",
    "load_omniglot",
    "load_table",
    "load_tables",
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_page_of_bad_inputs_has_every_case_with_its_answer():
    page = bad_inputs.PAGE.read_text()
    rows = dict(re.findall(r"^\| (.*) \| `\w+`: (.*) \|$", page, re.MULTILINE))
    names = ("BAD_FITS", "BAD_ROWS", "BAD_IMAGES", "BAD_TRUTHS", "BAD_FILES")
    cases = [case for name in names for case in getattr(bad_inputs, name)]
    assert set(rows) == {bad_inputs.shown(case.given) for case in cases}
    for case in cases:
        assert re.search(case.message, rows[bad_inputs.shown(case.given)]), case.given


def public_names():
    for module_info in pkgutil.walk_packages(skvmdls.__path__, "skvmdls."):
        if any(room.startswith("_") for room in module_info.name.split(".")):
            continue
        module = importlib.import_module(module_info.name)
        for name in getattr(module, "__all__", ()):
            if callable(getattr(module, name)) and name not in NEED_NO_EXAMPLE:
                yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", list(public_names()))
def test_everything_public_is_documented_with_an_example_that_runs(name):
    module, _, attribute = name.rpartition(".")
    doc = getattr(importlib.import_module(module), attribute).__doc__
    assert re.search("^ *(Parameters|Attributes|Returns)$", doc, re.MULTILINE)
    assert "Examples\n" in doc
    assert ">>> " in doc
    assert "doctest: +SKIP" not in doc

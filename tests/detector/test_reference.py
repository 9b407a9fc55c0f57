"""The API reference: what it lists, and whether its pages say what the code does."""

import ast
import configparser
import importlib
import inspect
import re
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate
from sklearn.utils import estimator_html_repr

import skvmdls
from skvmdls import VMDLSbDetector, VMDLSDetector
from test_documents import FACTORIES, public_names

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Every check of numpydoc's, but for these.
NOT_ASKED = {
    "ES01": "an extended summary, where the first line says it all",
    "EX01": "an example for each method; test_documents asks for one of each name",
    "PR07": "a description of a parameter whose type and name say it",
    "RT02": "a Returns section without names",
    "RT03": "a description of what is returned, where its type says it",
    "SA01": "a See Also section",
}
# Their rooms say once what they all take and return.
FACTORIES_MAY = {"PR01", "RT01"}
BLOCK = re.compile(
    r"^\.\. autosummary::\n((?:   :.*\n)+)\n((?:   \w+\n)+)", re.MULTILINE
)


def reference():
    """Module, name and options of all that has a page."""
    text = "".join(page.read_text() for page in sorted((DOCS / "api").glob("*.rst")))
    for part in re.split(r"^\.\. currentmodule:: ", text, flags=re.MULTILINE)[1:]:
        module = part.splitlines()[0]
        for options, names in BLOCK.findall(part):
            for name in names.split():
                yield module, name, options


def documented():
    """Full names of all that a page of the reference shows."""
    for module, name, options in reference():
        yield f"{module}.{name}"
        thing = getattr(importlib.import_module(module), name)
        if inspect.isclass(thing) and "state.rst" not in options:
            for method, value in inspect.getmembers(thing):
                is_ours = getattr(value, "__module__", None) or ""
                if not method.startswith("_") and is_ours.startswith("skvmdls"):
                    yield f"{module}.{name}.{method}"


def found(name):
    module = name
    while True:
        module = module.rpartition(".")[0]
        try:
            thing = importlib.import_module(module)
        except ModuleNotFoundError:
            continue
        for part in name.removeprefix(f"{module}.").split("."):
            thing = getattr(thing, part)
        return thing


def test_the_reference_lists_what_is_public_once():
    listed = [f"{module}.{name}" for module, name, _ in reference()]
    assert len(set(listed)) == len(listed)
    public = {f"skvmdls.{name}" for name in public_names()}
    of_package = {
        f"skvmdls.{name}"
        for name in skvmdls.__all__
        if name != "__version__" and not inspect.ismodule(getattr(skvmdls, name))
    }
    shown = {found(name) for name in listed}
    assert {found(name) for name in public | of_package} == shown


def test_no_two_pages_of_the_reference_have_one_title():
    titles = [
        (module.rpartition(".")[2], name) if "in_module.rst" in options else name
        for module, name, options in reference()
    ]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    "name", [f"{module}.{name}" for module, name, _ in reference()]
)
def test_no_summary_cites_a_source(name):
    """In the tables of the reference a citation is shown as [R9f32596405e8-1]."""
    summary, *_ = inspect.cleandoc(found(name).__doc__).partition("\n\n")
    assert "]_" not in summary


@pytest.mark.parametrize("name", list(documented()))
def test_numpydoc_finds_no_error(name):
    allowed = set(NOT_ASKED)
    if name.rpartition(".")[2] in FACTORIES:
        allowed |= FACTORIES_MAY
    errors = validate(name)["errors"]
    assert [error for error in errors if error[0] not in allowed] == []


@pytest.mark.parametrize("name", list(documented()))
def test_documented_parameters_are_those_of_the_signature(name):
    """Names and order are numpydoc's to check; here are the defaults."""
    thing = found(name)
    if not callable(thing):  # a property
        return
    parameters = inspect.signature(thing).parameters
    for entry in NumpyDocString(inspect.cleandoc(thing.__doc__))["Parameters"]:
        for one in entry.name.split(", "):
            default = parameters[one.lstrip("*")].default
            told = re.search(r"default=(.*)$", entry.type)
            if told:
                assert eval(told[1]) == default, one
            elif re.search(r"\boptional\b", entry.type):
                assert default is None, one
            else:
                assert default is inspect.Parameter.empty, one


# ------------------------------------------------------------------------ the "?"


@pytest.mark.parametrize("detector", [VMDLSDetector, VMDLSbDetector])
def test_the_question_mark_leads_to_the_page_of_the_class(detector):
    name = detector.__name__
    assert ("skvmdls", name) in {(module, listed) for module, listed, _ in reference()}
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    urls = dict(re.findall(r"^(\w+) = (.*)$", config["metadata"]["project_urls"], re.M))
    page = f"{urls['Documentation']}api/generated/skvmdls.{name}.html"
    assert f'href="{page}"' in estimator_html_repr(detector())


def test_the_question_mark_of_a_subclass_elsewhere_leads_nowhere_of_ours():
    class OfAUser(VMDLSbDetector):
        pass

    assert "skvmdls.OfAUser.html" not in estimator_html_repr(OfAUser())


def test_the_box_says_whether_it_is_fitted(of_table):
    assert "<span>Not fitted</span>" in estimator_html_repr(VMDLSDetector())
    assert "<span>Fitted</span>" in estimator_html_repr(of_table)


def test_the_version_to_cite_is_this_one():
    citation = (DOCS / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == skvmdls.__version__


def test_groups_of_parameters_begin_with_parameters_in_their_order():
    conf = (DOCS / "conf.py").read_text()
    groups = ast.literal_eval(re.search(r"PARAMETER_GROUPS = (\{.*?\})", conf, re.S)[1])
    names = list(inspect.signature(VMDLSDetector).parameters)
    positions = [names.index(name) for name in groups]
    assert positions == sorted(positions)
    assert names.index("contamination") < 3

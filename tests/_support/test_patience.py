"""The line for somebody who waits."""

import time

import pytest

from skvmdls import VMDLSbDetector
from skvmdls._support import patience


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(patience, "SECONDS", 0.01)
    monkeypatch.setattr(patience, "_is_said", False)


def waited(is_quiet=True):
    with patience.line_after_a_while(is_quiet=is_quiet):
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("is_terminal", "is_quiet", "n_lines"),
    [(True, True, 1), (False, True, 0), (True, False, 0)],
)
def test_a_long_quiet_fit_says_once_that_it_runs(
    is_terminal, is_quiet, n_lines, monkeypatch, capsys
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    for _ in range(3):
        waited(is_quiet)
    told = capsys.readouterr().err
    assert told.count("verbose=1 shows its progress") == n_lines


def test_a_notebook_has_no_terminal_and_is_told(monkeypatch, capsys):
    monkeypatch.setitem(patience.sys.modules, "ipykernel", patience)
    waited()
    assert patience.LINE in capsys.readouterr().err


def test_a_short_fit_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(patience, "SECONDS", 5)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with patience.line_after_a_while(is_quiet=True):
        pass
    time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_where_something_else_shows_the_progress_nothing_is_said(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    patience.say_nothing()
    waited()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verbose", [0, 1])
def test_fit_says_so_unless_it_shows_its_progress(verbose, table, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(patience, "SECONDS", 0)
    VMDLSbDetector(contamination=0.1, random_state=0, verbose=verbose).fit(*table)
    assert (patience.LINE in capsys.readouterr().err) is (verbose == 0)

"""The tests themselves: what a new file of tests must keep to."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent


def test_files_of_tests_have_different_names():
    """Processes that tests start import them by these names alone."""
    names = Counter(path.name for path in TESTS.rglob("*.py"))
    assert not [name for name, n_files in names.items() if n_files > 1]

"""Files are replaced as a whole or not at all."""

import errno
import os

import numpy as np
import pytest

from skvmdls._support.files import write_atomically


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "a"
    for content in (b"first", b"second, and longer", b""):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(*arguments, **keywords):
        raise OSError("no space left on device")

    for step in ("fsync", "chmod", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            with pytest.raises(OSError, match="no space"):
                write_atomically(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    """Regression: the link was replaced by a file."""
    (tmp_path / "store").mkdir()
    target, link = tmp_path / "store" / "a", tmp_path / "link"
    link.symlink_to(target)
    for content in (b"made through the link", b"replaced"):
        write_atomically(link, content)
        assert link.is_symlink()
        assert target.read_bytes() == content
    assert list((tmp_path / "store").iterdir()) == [target]


def test_a_link_to_a_link_leads_to_the_file(tmp_path):
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "a").symlink_to("b")
    write_atomically(tmp_path / "a", b"content")
    assert (tmp_path / "c").read_bytes() == b"content"
    assert os.readlink(tmp_path / "a") == "b"


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, OSError), (errno.EACCES, PermissionError)]
)
def test_errors_name_the_path_that_was_given(tmp_path, monkeypatch, number, kind):
    """Regression: a full disk was told without a path, or with another."""
    path = tmp_path / "a"
    write_atomically(path, b"old")

    def fail(*arguments, **keywords):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=f"{os.strerror(number)}; not written: '.*/a'$"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError, match="not written: '.*/missing/a'$"):
        write_atomically(tmp_path / "missing" / "a", b"new")


def test_parts_are_written_one_behind_the_other(tmp_path):
    array = np.arange(3, dtype=np.int16)
    write_atomically(tmp_path / "a", b"head", array, b"")
    assert (tmp_path / "a").read_bytes() == b"head" + array.tobytes()

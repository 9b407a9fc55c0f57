"""Folders as they are found: which files are images, and what is passed over."""

import os

import numpy as np
import pytest
from PIL import Image

from skvmdls.datasets import image_folder
from skvmdls.inputs.image_folders import (
    find_images,
    is_litter,
    labelled_image_files,
)


def put(*paths, pixels=(8, 8)):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", pixels).save(path)


def classes_of(tmp_path, *names):
    for name in names:
        put(tmp_path / name / "1.png")
    return tmp_path


def names_of(found):
    return [path.name for path in found.paths]


def test_hidden_and_system_files_and_folders_are_left_out(tmp_path):
    put(tmp_path / "a.png", tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    put(tmp_path / "__MACOSX" / "a.png", tmp_path / "@eaDir" / "a.png")
    for name in ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0")
    found = find_images(tmp_path)
    assert names_of(found) == ["a.png"]
    assert found.described() == "7 hidden or system"
    assert found.described(with_hidden=False) == ""


def test_other_files_are_counted_by_their_endings(tmp_path):
    for name in ("a.png", "b.JPEG", "c.gif", "d.TIF", "notes.txt", "x.TXT", "README"):
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert names_of(found) == ["a.png", "b.JPEG", "c.gif", "d.TIF"]
    assert found.described() == "2 .txt, 1 without an ending"


def test_links_are_followed_but_not_in_circles(tmp_path):
    put(tmp_path / "real" / "1.png", tmp_path / "real" / "deep" / "2.png")
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "seen" / "again").symlink_to(tmp_path / "real")
    (tmp_path / "seen" / "one.png").symlink_to(tmp_path / "real" / "1.png")
    (tmp_path / "real" / "deep" / "back").symlink_to(tmp_path / "real")
    found = find_images(tmp_path / "seen")
    assert sorted(names_of(found)) == ["1.png", "1.png", "2.png", "2.png", "one.png"]
    assert found.described() == "2 links to a folder above"


def test_a_link_that_leads_nowhere_is_kept_to_be_named_when_it_is_read(tmp_path):
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    assert names_of(find_images(tmp_path)) == ["lost.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    found = find_images(tmp_path)
    assert found.paths == []
    assert found.described() == "1 pipes or devices"


def test_a_folder_that_cannot_be_opened_is_counted(tmp_path, monkeypatch):
    put(tmp_path / "a.png", tmp_path / "closed" / "b.png")
    scandir = os.scandir

    def guarded(folder):
        if os.path.basename(folder) == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    found = find_images(tmp_path)
    assert names_of(found) == ["a.png"]
    assert found.described() == "1 folders that cannot be opened"


def test_names_are_sorted_whatever_the_file_system_lists(tmp_path):
    names = ["z.png", "a.png", "B.png", "é.png", "10.png", "9.png"]
    put(*(tmp_path / name for name in names))
    assert names_of(find_images(tmp_path)) == sorted(names)


@pytest.mark.parametrize("name", [".git", "__MACOSX", "$RECYCLE.BIN", "lost+found"])
def test_litter_is_no_class(name, tmp_path):
    put(tmp_path / name / "1.png")
    classes_of(tmp_path, "cat", "dog")
    assert is_litter(name)
    _, y = image_folder(tmp_path)
    assert y.tolist() == ["cat", "dog"]


def test_an_image_folder_has_what_torchvisions_has(tmp_path):
    put(tmp_path / "cat" / "deep" / "1.png", tmp_path / "dog" / "2.png")
    X, y = image_folder(tmp_path)
    assert X.dataset.classes == ["cat", "dog"]
    assert X.dataset.class_to_idx == {"cat": 0, "dog": 1}
    assert X.dataset.targets == [0, 1]
    assert [os.path.basename(path) for path, _ in X.dataset.samples] == [
        "1.png",
        "2.png",
    ]
    picture, target = X.dataset[1]
    assert (picture.size, target) == ((8, 8), 1)
    np.testing.assert_array_equal(y, ["cat", "dog"])


def test_class_folders_may_be_links(tmp_path):
    classes_of(tmp_path / "real", "cat", "dog")
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "real" / name)
    assert image_folder(tmp_path / "linked")[1].tolist() == ["cat", "dog"]


def test_files_that_are_passed_over_are_warned_of_by_kind(tmp_path):
    classes_of(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / "labels.csv").touch()
    with pytest.warns(UserWarning, match=r"1 \.txt, 1 next to the class folders"):
        image_folder(tmp_path)


def test_a_class_without_images_is_named_with_what_lies_there(tmp_path):
    classes_of(tmp_path, "cat")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "1.heic").touch()
    with pytest.raises(FileNotFoundError, match=r"without images: dog.*1 \.heic"):
        image_folder(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path):
    put(tmp_path / "1.png")
    with pytest.raises(FileNotFoundError, match="holds no folder of a class"):
        labelled_image_files(tmp_path)
    with pytest.raises(FileNotFoundError):
        image_folder(tmp_path / "gone")

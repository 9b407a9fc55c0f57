"""The command line on folders as they are found."""

import csv
import io
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import skvmdls
from skvmdls.cli import commands
from skvmdls.cli.commands import main
from skvmdls.cli.folders import (
    ImageReader,
    choose_format,
    read_all,
    read_images,
    surveyed,
)
from skvmdls.inputs.pictures import PictureFormat

QUICK = (
    "--epochs",
    "1",
    "--without-autoencoder",
    "--without-trials",
    "--contamination",
    "0.25",
    "--quiet",
)
LEVELS = {"dark": 50, "light": 200}


def picture(level, seed=0):
    pixels = np.random.default_rng(seed).normal(level, 20, (16, 16))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def fill(folder, n=40):
    for label, level in LEVELS.items():
        (folder / label).mkdir(parents=True)
        for i in range(n):
            picture(level, i).save(folder / label / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("known") / "images")


@pytest.fixture(scope="module")
def detector(known):
    path = known.parent / "detector.safetensors"
    assert main(["fit", str(known), "--out", str(path), *QUICK]) == 0
    return path


@pytest.fixture
def run(capsys):
    """Run a command, and return its status, its table and what it told."""

    def run(*words):
        capsys.readouterr()
        status = main([*map(str, words), "--quiet"])
        told = capsys.readouterr()
        return status, list(csv.DictReader(io.StringIO(told.out))), told.err

    return run


def damage(path):
    path.write_bytes(path.read_bytes()[:60])


# ------------------------------------------------------------------- unreadable files


def test_one_damaged_file_costs_its_own_answer_only(detector, run, tmp_path):
    new = fill(tmp_path / "new", 5)
    damage(new / "light" / "003.png")
    (new / "dark" / "002.png").write_bytes(b"")
    (new / "dark" / "lost.png").symlink_to(new / "gone.png")
    status, rows, told = run("predict", detector, new)
    assert status == 1
    bad = {row["file"] for row in rows if row["answer"] == "unreadable"}
    named = ("light/003.png", "dark/002.png", "dark/lost.png")
    assert bad == {str(new / name) for name in named}
    assert len(rows) == 11
    assert all(row["p_value"] for row in rows if row["file"] not in bad)
    assert "3 of 11 images could not be read" in told
    for name in named:
        assert str(new / name) in told


def test_strict_stops_at_a_damaged_file(detector, known, run, tmp_path):
    new = fill(tmp_path / "new", 25)
    damage(new / "light" / "003.png")
    for words in (
        ("predict", detector, new),
        ("explain", detector, new),
        ("report", detector, new, "--out", tmp_path / "page.html"),
        ("fit", new, "--out", tmp_path / "x.safetensors", *QUICK),
    ):
        status, _, told = run(*words, "--strict")
        assert status == 2
        assert "003.png is a damaged image" in told
    assert not (tmp_path / "x.safetensors").exists()


def test_fit_lists_all_that_it_cannot_read_and_learns_from_the_rest(run, tmp_path):
    new = fill(tmp_path / "new", 25)
    damage(new / "light" / "003.png")
    (new / "dark" / "004.png").write_bytes(b"no image")
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", new, "--out", out, *QUICK)
    assert status == 1
    assert "003.png is a damaged image" in told
    assert "004.png is no image that can be read" in told
    assert "2 of 50 images could not be read" in told
    assert skvmdls.load(out).classes_.tolist() == ["dark", "light"]


def test_a_class_of_which_no_image_can_be_read_is_not_left_out_in_silence(
    run, tmp_path
):
    """That is told before the number of images, which is too small here, too."""
    new, out = fill(tmp_path / "new", 5), tmp_path / "x.safetensors"
    (new / "third").mkdir()
    for i in range(3):
        (new / "third" / f"{i}.png").write_bytes(b"no image")
    status, _, told = run("fit", new, "--out", out, *QUICK)
    assert status == 2
    assert "None of the images of third can be read" in told
    assert "2.png is no image that can be read" in told
    assert not out.exists()


def test_explain_names_two_classes_and_no_filler_for_a_third(
    detector, tmp_path, capsys
):
    picture(50).save(tmp_path / "1.png")
    assert main(["explain", str(detector), str(tmp_path / "1.png"), "--quiet"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"nearest dark, light$", told, re.MULTILINE)


def test_the_report_concludes_marks_bad_lines_and_explains_the_parts(
    detector, run, tmp_path, monkeypatch
):
    new, page = fill(tmp_path / "new", 15), tmp_path / "page.html"
    (new / "alike").mkdir()
    for i in range(15):
        picture(50, 100 + i).save(new / "alike" / f"{i}.png")
    damage(new / "dark" / "003.png")
    judged = commands._judged

    def all_light_ones_rejected(*arguments):
        found = judged(*arguments)
        names = [path.parent.name for path in found.paths]
        answers = ["-1" if name == "light" else "dark" for name in names]
        return replace(found, answers=np.array(answers))

    monkeypatch.setattr(commands, "_judged", all_light_ones_rejected)
    assert run("report", detector, new, "--out", page)[0] == 1
    text = page.read_text()
    assert "so these images do not come as the" in text
    assert "Do not rely on this detector to find them" in text
    bad = [row for row in text.split("<tr")[1:] if row.startswith(' class="bad"')]
    assert len(bad) == 2
    assert "Lines in orange are bad" in text
    assert "<td>light</td>" in bad[0]
    assert "<td>alike (not a known class)</td>" in bad[1]
    assert "1 images could not be read" in text
    assert "003.png" in text
    for part in skvmdls.load(detector).evidence_names_:
        assert f"<dt>{part}</dt>" in text
    assert "Images are read grey, 8-bit files." in text


def test_if_no_image_can_be_read_that_is_an_error(detector, run, tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"no image")
    for words in (
        ("predict", detector, tmp_path),
        ("explain", detector, tmp_path),
        ("report", detector, tmp_path, "--out", tmp_path / "page.html"),
    ):
        status, _, told = run(*words)
        assert status == 2
        assert "error: " in told


def test_a_giant_image_is_named(detector, run, tmp_path, monkeypatch):
    picture(50).save(tmp_path / "good.png")
    Image.new("1", (400, 400)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    status, rows, told = run("predict", detector, tmp_path)
    assert status == 1
    assert [row["answer"] == "unreadable" for row in rows] == [False, True]
    assert "huge.png is too large" in told


ENDINGS = ("png", "jpg", "tif", "webp", "gif")


@pytest.mark.parametrize("ending", ENDINGS)
def test_many_damaged_files_leave_the_good_ones_their_answers(
    ending, detector, run, tmp_path
):
    """One to ten bytes are changed in each."""
    rng = np.random.default_rng(0)
    for i in range(10):
        picture(50, i).save(tmp_path / f"good{i}.{ending}")
    whole = (tmp_path / f"good0.{ending}").read_bytes()
    for i in range(60):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 11)):
            content[place] = rng.integers(256)
        (tmp_path / f"bad{i}.{ending}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, rows, told = run("predict", detector, tmp_path)
    assert len(rows) == 70
    for row in rows:
        is_good = "good" in row["file"]
        assert row["answer"] in (*LEVELS, "-1") or not is_good
        assert row["answer"] != "unreadable" or row["file"] in told


# ------------------------------------------------------------------- what lies there


def test_links_are_followed_by_every_command(detector, known, run, tmp_path):
    for label in LEVELS:
        (tmp_path / label).symlink_to(known / label)
    status, rows, _ = run("predict", detector, tmp_path)
    assert (status, len(rows)) == (0, 80)
    out = tmp_path / "x.safetensors"
    assert run("fit", tmp_path, "--out", out, *QUICK)[0] == 0


def test_litter_is_neither_a_class_nor_an_image(detector, run, tmp_path):
    new = fill(tmp_path / "new", 25)
    for name in (".ipynb_checkpoints", "__MACOSX"):
        (new / name).mkdir()
        picture(50).save(new / name / "1.png")
    (new / "dark" / "._001.png").write_bytes(b"\0\5\26\7")
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", new, "--out", out, *QUICK)
    assert status == 0
    assert "passed over: 3 hidden or system" in told
    assert skvmdls.load(out).classes_.tolist() == ["dark", "light"]
    status, rows, told = run("predict", detector, new)
    assert (status, len(rows)) == (0, 50)
    page = tmp_path / "page.html"
    assert run("report", detector, new, "--out", page)[0] == 0


def test_what_is_passed_over_is_counted_by_kind(detector, run, tmp_path):
    picture(50).save(tmp_path / "a.gif")
    pages = [picture(50, i) for i in range(5)]
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=pages[1:])
    for name in ("a.txt", "b.txt", "c.pdf"):
        (tmp_path / name).touch()
    status, rows, told = run("predict", detector, tmp_path)
    assert (status, len(rows)) == (0, 2)
    assert (
        "passed over: 4 pages or frames behind the first of a file, 2 .txt, 1 .pdf"
        in told
    )


def test_a_folder_of_other_files_says_what_it_holds(detector, run, tmp_path):
    (tmp_path / "1.heic").touch()
    status, _, told = run("predict", detector, tmp_path)
    assert status == 2
    assert "No images in" in told
    assert "Passed over: 1 .heic" in told


# ------------------------------------------------------------------- sizes


@pytest.mark.usefixtures("no_training")
def test_fit_tells_which_images_have_another_size_than_most(run, tmp_path):
    new, out = fill(tmp_path / "new", 25), tmp_path / "x.safetensors"
    stray = new / "light" / "stray.png"
    picture(200).resize((24, 32)).save(stray)
    told = run("fit", new, "--out", out, *QUICK)[2]
    assert (
        "1 of 51 images has another size than most (16 x 16 pixels), for example "
        f"{stray} (32 x 24 pixels). All images are scaled to 16 x 16 pixels (height x "
        "width). Give --size HEIGHT WIDTH for another size." in told
    )
    told = run("fit", new, "--out", out, *QUICK, "--size", 8, 8)[2]
    assert "scaled" not in told


@pytest.mark.usefixtures("no_training")
def test_fit_tells_to_which_size_it_scales_where_none_is_kept(run, tmp_path):
    new, out = fill(tmp_path / "new", 25), tmp_path / "x.safetensors"
    for i, path in enumerate(sorted(new.rglob("*.png"))):
        picture(50).resize((100, 120 + i % 2)).save(path)
    told = run("fit", new, "--out", out, *QUICK)[2]
    assert "The 50 images have 2 sizes. All images are scaled to 64 x 64 pixels" in told
    for path in new.rglob("*.png"):
        picture(50).resize((100, 120)).save(path)
    told = run("fit", new, "--out", out, *QUICK)[2]
    assert "All 50 images are of 120 x 100 pixels. All images are scaled" in told


@pytest.fixture
def no_training(monkeypatch):
    def stop(*_):
        raise ValueError("It would train now.")

    monkeypatch.setattr(commands, "_fit_with_checkpoint", stop)


def test_turned_images_of_the_size_of_fit_are_not_scaled(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [tmp_path / f"turned.{ending}" for ending in ("jpg", "tif", "png")]
    for path in paths:
        # Pillow 13.0 turns a TIFF that is not compressed twice.
        compressed = {"compression": "tiff_lzw"} if path.suffix == ".tif" else {}
        Image.new("L", (20, 10), 90).save(path, exif=exif, **compressed)
    for size, n_scaled in (((20, 10), 0), ((10, 20), 3)):
        reader = ImageReader(PictureFormat(1, size=size))
        assert read_all(reader, paths).n_scaled == n_scaled


def test_images_of_other_sizes_are_counted(detector, run, tmp_path):
    new = fill(tmp_path / "new", 5)
    commands_of = (
        ("predict", detector, new),
        ("explain", detector, new),
        ("report", detector, new, "--out", tmp_path / "page.html"),
    )
    for words in commands_of:
        assert "scaled" not in run(*words)[2]
    picture(50).resize((30, 20)).save(new / "dark" / "001.png")
    picture(50).resize((30, 20)).save(new / "dark" / "002.png")
    damage(new / "dark" / "003.png")
    for words in commands_of:
        assert "2 of 9 images were scaled to 16 x 16 pixels" in run(*words)[2]


# ------------------------------------------------------------------- names


NAMES = {"Latin-1 bytes": os.fsdecode("St\xfcck".encode("latin-1")), "Japanese": "部品"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_table_is_utf8_and_holds_every_name(name, detector, run, tmp_path):
    new, out = tmp_path / "new", tmp_path / "answers.csv"
    new.mkdir()
    for stem in ("a", name, "z", "line\nbreak", 'comma, "quote"'):
        picture(50).save(new / f"{stem}.png")
    assert run("predict", detector, new, "--out", out)[0] == 0
    with out.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        files = [row["file"] for row in csv.DictReader(file)]
    assert files == [os.fspath(path) for path in sorted(new.iterdir())]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_names_that_the_terminal_lacks_are_escaped(
    encoding, detector, tmp_path, monkeypatch
):
    for name in ("a", *NAMES.values()):
        picture(50).save(tmp_path / f"{name}.png")
    page = tmp_path / "page.html"
    for words in (
        ("predict", detector, tmp_path),
        ("explain", detector, tmp_path),
        ("report", detector, tmp_path, "--out", page),
    ):
        terminal = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding))
        assert main([*map(str, words), "--quiet"]) == 0
        sys.stdout.flush()
        told = terminal.getvalue()
        assert (rb"\u90e8\u54c1.png" in told) is (words[0] != "report")
    page.read_text(encoding="utf-8")


def test_rows_are_written_as_they_are_judged(detector, run, tmp_path, monkeypatch):
    new, out = fill(tmp_path / "new", 6), tmp_path / "answers.csv"
    monkeypatch.setattr("skvmdls.cli.folders.BATCH", 4)
    batches = commands.judged_in_batches

    def interrupted(*arguments, **options):
        for n, batch in enumerate(batches(*arguments, **options)):
            if n == 2:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(commands, "judged_in_batches", interrupted)
    assert run("predict", detector, new, "--out", out)[0] == 130
    assert len(out.read_text().splitlines()) == 9


@pytest.mark.slow
def test_whoever_reads_the_output_may_stop(detector, known):
    command = f"{sys.executable} -m skvmdls predict {detector} {known} --quiet"
    ended = subprocess.run(
        ["sh", "-c", f"{command} | head -n 1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "file,answer,p_value,nearest\n"
    assert ended.stderr == ""


# ------------------------------------------------------------------- depths


def ramp(largest, dtype=np.uint16):
    return Image.fromarray(np.linspace(0, largest, 256).reshape(16, 16).astype(dtype))


def test_one_scale_holds_for_all_pictures_of_a_set(tmp_path):
    for largest in (255, 256, 4095):
        ramp(largest).save(tmp_path / f"{largest}.png")
    paths = [tmp_path / f"{largest}.png" for largest in (255, 256, 4095)]
    found = read_images(paths, (1, 16, 16))
    np.testing.assert_allclose(found.max((1, 2, 3)) * 65535, [255, 256, 4095])
    assert len(np.unique(found[2])) == 256


def test_a_set_of_several_depths_is_refused_with_their_counts(run, tmp_path):
    new = fill(tmp_path / "new", 25)
    ramp(4095).save(new / "dark" / "deep.png")
    status, _, told = run("fit", new, "--out", tmp_path / "x.safetensors", *QUICK)
    assert status == 2
    assert "50 8-bit (such as" in told
    assert f"1 16-bit (such as {new / 'dark' / 'deep.png'})" in told


@pytest.mark.parametrize("kind", ["16-bit", "float"])
def test_deep_files_are_learned_and_told_apart(kind, run, tmp_path, capsys):
    """Grey levels that differ by less than one of 256."""
    rng = np.random.default_rng(0)
    largest, dtype = {"16-bit": (4095, np.uint16), "float": (1, np.float32)}[kind]
    for label, level in (("a", 0.500), ("b", 0.505)):
        (tmp_path / "known" / label).mkdir(parents=True)
        (tmp_path / "new" / label).mkdir(parents=True)
        for i in range(60):
            pixels = largest * rng.normal(level, 0.0005, (16, 16))
            part = "known" if i < 40 else "new"
            path = tmp_path / part / label / f"{i}.tif"
            Image.fromarray(pixels.astype(dtype)).save(path)
    out = tmp_path / "x.safetensors"
    words = ["fit", tmp_path / "known", "--out", out, *QUICK, "--epochs", "10"]
    assert main(list(map(str, words))) == 0
    assert kind in capsys.readouterr().out
    status, rows, _ = run("predict", out, tmp_path / "new")
    assert status == 0
    right = [row["nearest"] == os.path.dirname(row["file"])[-1] for row in rows]
    assert np.mean(right) > 0.9


def test_a_depth_other_than_that_of_fit_is_unreadable(detector, run, tmp_path):
    picture(50).save(tmp_path / "a.png")
    ramp(4095).save(tmp_path / "b.png")
    status, rows, told = run("predict", detector, tmp_path)
    assert status == 1
    assert [row["answer"] == "unreadable" for row in rows] == [False, True]
    assert "b.png holds 16-bit pixels, but 8-bit ones are expected" in told


def test_the_format_is_stored_with_the_detector(detector):
    assert skvmdls.load(detector).picture_format_ == PictureFormat(1, size=(16, 16))


# ------------------------------------------------------------------- reading


def test_images_are_turned_and_laid_over_white(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (20, 10), 90).save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.new("LA", (10, 20), (7, 0))
    clear.save(tmp_path / "clear.png")
    paths = sorted(tmp_path.iterdir())
    headers, failures = surveyed(paths)
    assert not failures
    rule = choose_format(paths, headers)
    assert rule == PictureFormat(1, size=(20, 10))
    X = read_all(ImageReader(rule), paths).X
    assert X.shape == (2, 1, 20, 10)
    assert (X[0] == 255).all()
    assert (abs(X[1].astype(int) - 90) < 3).all()


@pytest.mark.parametrize("n", [0, 1, 5, 8])
def test_batches_come_in_order_whatever_their_number(n, tmp_path):
    for i in range(n):
        Image.new("L", (4, 4), 10 * i).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(n)]
    batches = list(ImageReader(PictureFormat(1)).batches(paths, size=2))
    assert [len(batch.chunk) for batch in batches] == [2] * (n // 2) + [1] * (n % 2)
    values = [x[0, 0, 0] for batch in batches for x in batch.X]
    assert values == [10 * i for i in range(n)]


# ------------------------------------------------------------------- what is counted


def test_a_link_that_leads_nowhere_is_unreadable_by_its_name_too(
    detector, run, tmp_path
):
    picture(50).save(tmp_path / "a.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "gone.png")
    status, rows, told = run("predict", detector, *sorted(tmp_path.iterdir()))
    assert status == 1
    assert [row["answer"] == "unreadable" for row in rows] == [False, True]
    assert "lost.png cannot be read: No such file" in told


def test_unreadable_images_do_not_count_as_judged(detector, tmp_path, capsys):
    picture(50).save(tmp_path / "a.png")
    for i in range(3):
        (tmp_path / f"bad{i}.png").write_bytes(b"no image")
    out = tmp_path / "answers.csv"
    words = ["predict", detector, tmp_path, "--out", out, "--quiet"]
    assert main(list(map(str, words))) == 1
    assert re.match(r"[01] of 1 images rejected", capsys.readouterr().out)


def test_a_class_of_the_name_for_unreadable_images_is_refused(run, tmp_path):
    new = fill(tmp_path / "new", 25)
    (new / "light").rename(new / "unreadable")
    status, _, told = run("fit", new, "--out", tmp_path / "x.safetensors", *QUICK)
    assert status == 2
    assert "A class is named 'unreadable'" in told
    assert "Rename its folder" in told


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_class_of_any_name_is_learned_stored_and_answered(name, run, tmp_path):
    new, out = fill(tmp_path / "new"), tmp_path / f"{name}.safetensors"
    (new / "light").rename(new / name)
    assert run("fit", new, "--out", out, *QUICK)[0] == 0
    table, page = tmp_path / "answers.csv", tmp_path / "page.html"
    assert run("predict", out, new, "--out", table)[0] == 0
    with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        nearest = {row["nearest"] for row in csv.DictReader(file)}
    assert nearest == {"dark", name}
    assert run("report", out, new, "--out", page)[0] == 0

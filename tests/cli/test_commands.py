"""The command line, on folders of digits."""

import csv
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import skvmdls
from skvmdls.cli.commands import main
from skvmdls.cli.parts import MEANINGS

KNOWN = ("four", "one", "zero")
DIGITS = {"zero": 0, "one": 1, "four": 4, "seven": 7}


def written(folder, images, label):
    (folder / label).mkdir(parents=True)
    for i, image in enumerate(images):
        pixels = Image.fromarray((image * 255 / 16).astype(np.uint8))
        pixels.save(folder / label / f"{i}.png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three known digits to train on; these and a fourth that is unknown, new."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    root = tmp_path_factory.mktemp("digits")
    for label, digit in DIGITS.items():
        images = digits.images[digits.target == digit]
        if label in KNOWN:
            written(root / "known", images[:140], label)
        written(root / "new", images[140:], label)
    return root


@pytest.fixture(scope="module")
def detector(folders):
    path = folders / "digits.safetensors"
    command = ["fit", str(folders / "known"), "--out", str(path), "--quiet"]
    # By 31 held-out images, a share of 0.05 is a lottery: the lowest score alone.
    assert main([*command, "--contamination", "0.1"]) == 0
    return path


def answers(text):
    return list(csv.DictReader(text.splitlines()))


def test_fit_writes_a_detector_that_loads(detector):
    loaded = skvmdls.load(detector)
    assert loaded.classes_.tolist() == list(KNOWN)
    assert loaded.input_shape_ == (1, 8, 8)


def test_predict_answers_as_the_detector_does(folders, detector, capsys):
    assert main(["predict", str(detector), str(folders / "new"), "--quiet"]) == 0
    rows = answers(capsys.readouterr().out)
    paths = sorted((folders / "new").rglob("*.png"))
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    X = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = skvmdls.load(detector).predict(X)
    assert [row["answer"] for row in rows] == expected.tolist()
    truth = np.array([path.parent.name for path in paths])
    assert np.mean(expected[truth == "seven"] == "-1") > 0.7
    assert np.mean(expected[truth != "seven"] == truth[truth != "seven"]) > 0.7


def test_predict_writes_a_table(folders, detector, tmp_path):
    out = tmp_path / "answers.csv"
    main(["predict", str(detector), str(folders / "new"), "--quiet", "--out", str(out)])
    rows = answers(out.read_text())
    assert set(rows[0]) == {"file", "answer", "p_value", "nearest"}
    assert {row["nearest"] for row in rows} <= set(KNOWN)


def test_explain_names_every_part(folders, detector, capsys, tmp_path):
    image = sorted((folders / "new" / "seven").iterdir())[0]
    picture = tmp_path / "why.png"
    command = ["explain", str(detector), str(image), "--plot", str(picture)]
    assert main([*command, "--quiet"]) == 0
    told = capsys.readouterr().out
    values, meanings = told.split("The parts look at:\n")
    for name in skvmdls.load(detector).evidence_names_:
        assert re.search(rf"^  {name} +-?\d", values, re.MULTILINE)
        assert re.search(rf"^  {name} +{MEANINGS[name]}$", meanings, re.MULTILINE)
    assert picture.stat().st_size > 5000


def test_the_report_shows_each_rejected_image_and_acceptance_by_class(
    folders, detector, tmp_path, capsys
):
    out = tmp_path / "report.html"
    command = ["report", str(detector), str(folders / "new"), "--out", str(out)]
    assert main([*command, "--quiet"]) == 0
    page = out.read_text()
    n_rejected = int(re.match(r"(\d+) of", capsys.readouterr().out)[1])
    assert page.count('<figure class="card">') == n_rejected > 20
    for label in KNOWN:
        assert f"<td>{label}</td>" in page
    assert "<td>seven (not a known class)</td>" in page
    assert "are false alarms, between" in page
    numbers = re.findall(r'<text [^>]*"middle">([-.\d]+)</text>', page)
    assert "0" in numbers
    assert numbers == sorted(numbers, key=float)
    assert 4 <= len(numbers) <= 11
    assert "Accepted by class (in brackets the range" in page
    assert "<th>range, 19 times in 20</th>" in page
    # Nothing is fetched when it is opened.
    assert not re.search(r"(?:https?:)?//\w", re.sub(r"base64,[\w+/=]*", "", page))


def test_the_report_of_a_flat_folder_counts_answers(folders, detector, tmp_path):
    out = tmp_path / "report.html"
    flat = folders / "new" / "seven"
    command = ["report", str(detector), str(flat), "--out", str(out), "--most", "2"]
    assert main([*command, "--quiet"]) == 0
    page = out.read_text()
    assert "came without labels" in page
    assert "Lines in orange" not in page
    assert re.search(r"rejected at least \d+ are unknown, or do not come", page)
    assert page.count('<figure class="card">') == 2
    assert "Shown are 2 of" in page


@pytest.mark.parametrize("has_maps", [True, False])
@pytest.mark.parametrize("has_autoencoder", [True, False])
def test_a_report_shows_maps_where_there_are_any(
    has_maps, has_autoencoder, folders, tmp_path
):
    """Files that were written before there were maps have an autoencoder and none."""
    path, out = tmp_path / "detector.safetensors", tmp_path / "report.html"
    command = ["fit", str(folders / "known"), "--out", str(path), "--epochs", "2"]
    command += [] if has_autoencoder else ["--without-autoencoder"]
    main([*command, "--quiet"])
    if not has_maps:
        older = skvmdls.load(path)
        older.model_ = replace(older.model_, expected_images=None)
        skvmdls.save(older, path)
    new = str(folders / "new" / "seven")
    assert main(["report", str(path), new, "--out", str(out), "--quiet"]) == 0
    page = out.read_text()
    n_cards = page.count('<figure class="card">')
    assert n_cards > 0
    assert page.count("<img") == (1 + has_maps) * n_cards
    assert ("The second image" in page) is has_maps
    assert "autoencoder" not in page


def test_a_report_of_a_detector_without_a_threshold_says_so(
    folders, detector, tmp_path
):
    """Regression: it ended with a traceback."""
    path, out = tmp_path / "detector.safetensors", tmp_path / "report.html"
    skvmdls.save(skvmdls.load(detector).set_params(contamination=0), path)
    command = ["report", str(path), str(folders / "new" / "seven"), "--out", str(out)]
    assert main([*command, "--quiet"]) == 0
    assert "There is no threshold: every image is accepted." in out.read_text()


def test_a_report_on_a_thousand_images_stays_below_five_megabytes(detector, tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "noise"
    written(folder, rng.uniform(0, 16, (1000, 96, 96)), "noise")
    out = tmp_path / "report.html"
    main(["report", str(detector), str(folder), "--out", str(out), "--quiet"])
    assert out.stat().st_size < 5e6


def test_names_in_a_report_are_no_html(folders, detector, tmp_path):
    digit = next((folders / "new" / "seven").iterdir())
    odd = tmp_path / "new" / "<script>alert(1)<"
    odd.mkdir(parents=True)
    (odd / '"><b>.png').write_bytes(digit.read_bytes())
    out = tmp_path / "report.html"
    command = ["report", str(detector), str(tmp_path / "new"), "--out", str(out)]
    assert main([*command, "--quiet"]) == 0
    assert "<script>" not in out.read_text()
    assert '"><b>.png' not in out.read_text()


def test_images_of_other_sizes_and_colours_are_brought_to_one(tmp_path):
    rng = np.random.default_rng(0)
    for label, shade in (("dark", 40), ("light", 200)):
        (tmp_path / "known" / label).mkdir(parents=True)
        for i in range(12):
            pixels = np.full((20 + i, 30, 3), shade) + rng.integers(
                0, 40, (20 + i, 30, 3)
            )
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / "known" / label / f"{i}.jpg")
    for mode in ("L", "P", "RGBA", "CMYK"):
        ending = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (16, 16)).save(
            tmp_path / "known" / "light" / f"{mode}.{ending}"
        )
    out = tmp_path / "det.safetensors"
    command = ["fit", str(tmp_path / "known"), "--out", str(out), "--epochs", "1"]
    command += ["--size", "12", "10", "--without-autoencoder", "--quiet"]
    command += ["--contamination", "0.4", "--without-trials"]
    assert main(command) == 0
    assert skvmdls.load(out).input_shape_ == (3, 12, 10)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "fit nowhere --out x.safetensors",
            "'nowhere' is not there; expected a folder",
        ),
        ("fit {flat} --out x.safetensors", "does not hold a sub-folder of images for"),
        (
            "fit {new} --out no/such/x.safetensors",
            "there is no such folder to write to",
        ),
        (
            "fit {new} --out x.safetensors --contamination 2",
            "--contamination 2: expected a share of the known images",
        ),
        ("fit {new} --out x.safetensors --epochs 0", "--epochs 0: expected 1 or more"),
        ("fit {new} --out x.safetensors --size 0 8", "--size 0 8: expected a height"),
        ("fit {new} --out x.safetensors --seed -1", "--seed -1: expected a number"),
        ("fit {new} --out x.safetensors --checkpoint .", "--checkpoint .: it is a fol"),
        (
            "fit {new} --out x.safetensors --backbone resnet18 --augmentation affine",
            "--augmentation varies images, but with --backbone",
        ),
        (
            "explain {detector} {new} --plot x.doc",
            "--plot x.doc: expected a name that ends in .png",
        ),
        ("predict nothing.safetensors {new}", "expected one that 'fit --out' wrote"),
        (
            "predict {new} {detector}",
            "new' is a folder; expected the file of a detector, which 'fit --out' ",
        ),
        (
            "fit {new} --out x.safetensors --contaminaton 0.1",
            "--contaminaton: 'skvmdls fit' has no such option. Did you mean "
            "--contamination? 'skvmdls fit --help' lists all.",
        ),
        ("fit {new} --otu=x.safetensors", "--otu: 'skvmdls fit' has no such option."),
        ("report {detector} {new} -out x.html", "Did you mean --out?"),
        (
            "predict {detector} {new} --frobnicate",
            "'skvmdls predict' has no such option. 'skvmdls predict --help' lists all",
        ),
        (
            "--strict fit {new} --out x.safetensors",
            "--strict: it stands before the command; expected behind it, as in "
            "'skvmdls fit --strict'.",
        ),
        ("predict {broken} {new}", "is damaged, or was not written by skvmdls.save"),
        ("predict {table} {new}", "is a detector for tables, of 6 columns"),
        ("predict {detector} nowhere", "There is no file or folder 'nowhere'"),
        ("predict {detector} {empty}", "No images in"),
        ("explain {detector} {broken}", "is no image that can be read"),
        ("explain {detector} {half}", "is a damaged image"),
        ("report {detector} {new} --out x.html --most -1", "expected 0 or more"),
        (
            "report {detector} {new} --out x.pdf",
            "--out x.pdf: the report is an HTML page; expected a name that ends in "
            ".html, such as x.html.",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    command, message, folders, detector, table, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").write_bytes(b"no image")
    digit = next((folders / "new" / "seven").iterdir()).read_bytes()
    (tmp_path / "half.png").write_bytes(digit[: len(digit) // 2])
    of_table = tmp_path / "table"
    if "{table}" in command:
        fitted = skvmdls.VMDLSbDetector(max_epochs=1, random_state=0).fit(*table)
        skvmdls.save(fitted, of_table)
    given = command.format(
        new=folders / "new",
        flat=folders / "new" / "seven",
        detector=detector,
        table=of_table,
        empty=tmp_path / "empty",
        broken=tmp_path / "broken",
        half=tmp_path / "half.png",
    )
    assert main([*given.split(), "--quiet"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("skvmdls: error: ")
    assert message in told
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict {detector} {new} --qui --strict", ""),
        ("predict {detector} -- -odd.png", ""),
        ("fit {new} --out x --seed -1", "--seed -1: expected a number"),
    ],
)
def test_words_that_argparse_takes_are_no_misspelt_options(
    command, message, folders, detector, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    digit = next((folders / "new" / "seven").iterdir())
    (tmp_path / "-odd.png").write_bytes(digit.read_bytes())
    given = command.format(new=digit.parent, detector=detector)
    assert main(given.split()) == (2 if message else 0)
    told = capsys.readouterr().err
    assert message in told
    assert "no such option" not in told


def test_an_interruption_has_a_status_of_its_own(monkeypatch, detector, capsys):
    monkeypatch.setattr(
        "skvmdls.cli.commands.load", lambda _: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    assert main(["predict", str(detector), "."]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["", "fit", "predict", "explain", "report"])
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    told = capsys.readouterr().out
    assert stop.value.code == 0
    assert "Exits with 0" in told
    assert len(told.splitlines()) > 15


def test_the_package_is_a_command():
    words = [sys.executable, "-m", "skvmdls", "predict", "nothing", "nowhere"]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 2
    assert "There is no file 'nothing'" in ended.stderr

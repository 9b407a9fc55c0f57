"""What `fit` checks first, keeps, tries and tells."""

import configparser
import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, Resize, ToTensor

import skvmdls
from skvmdls.cli import commands, trials
from skvmdls.cli.commands import main
from skvmdls.cli.conclusion import conclusion
from skvmdls.cli.folders import Judged
from skvmdls.cli.frozen import FrozenNet, beside
from skvmdls.inputs.pictures import PictureFormat
from skvmdls.nets import from_module

QUICK = ("--epochs", "1", "--without-autoencoder", "--contamination", "0.25", "--quiet")
LEVELS = {"dark": 30, "grey": 120, "light": 210}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """Three classes of 30 images of 16 x 16 pixels, which differ in brightness."""
    folder = tmp_path_factory.mktemp("known")
    rng = np.random.default_rng(0)
    for label, level in LEVELS.items():
        (folder / label).mkdir()
        for i in range(30):
            pixels = rng.normal(level, 15, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture
def run(capsys):
    def run(*words):
        capsys.readouterr()
        status = main(list(map(str, words)))
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


@pytest.fixture
def no_training(monkeypatch):
    def fail(*_):
        raise AssertionError("It began to train.")

    monkeypatch.setattr(commands, "_fit_with_checkpoint", fail)


# ------------------------------------------------------------------- checked first


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (".", r"--out .*: it is a folder; expected the name of a file"),
        ("no/such/x", "there is no such folder to write to"),
    ],
)
@pytest.mark.usefixtures("no_training")
def test_the_output_is_checked_before_the_training(out, message, known, run, tmp_path):
    status, _, told = run("fit", known, "--out", tmp_path / out, *QUICK)
    assert status == 2
    assert re.search(message, told)


@pytest.mark.parametrize("command", ["predict", "report"])
def test_other_commands_check_their_output_before_they_load(command, run, tmp_path):
    status, _, told = run(command, "no-detector", tmp_path, "--out", tmp_path)
    assert status == 2
    assert "it is a folder" in told


@pytest.mark.usefixtures("no_training")
def test_a_contamination_that_rejects_nothing_is_refused(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", known, "--out", out, *QUICK, "--contamination", 0.001)
    assert status == 2
    assert "--contamination 0.001 needs 999 held-out images" in told
    assert "of these 90 images 6 are held out" in told
    lowest = float(re.search(r"Give --contamination ([\d.]+) or more", told)[1])
    n_images = int(re.search(r"or about (\d+) images", told)[1])
    # What it asks for suffices, and a little less does not.
    labels = np.repeat(np.arange(3), 30)
    detector = skvmdls.VMDLSbDetector()
    trials.check_enough_held_out(labels, detector, lowest)
    with pytest.raises(ValueError, match="held-out images"):
        trials.check_enough_held_out(labels, detector, 0.9 * lowest)
    trials.check_enough_held_out(np.arange(n_images) % 3, detector, 0.001)
    with pytest.raises(ValueError, match="held-out images"):
        trials.check_enough_held_out(np.arange(n_images - 20) % 3, detector, 0.001)


@pytest.mark.usefixtures("no_training")
def test_a_single_class_is_refused_before_the_number_of_images(known, run, tmp_path):
    shutil.copytree(known / "dark", tmp_path / "known" / "dark")
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", tmp_path / "known", "--out", out)
    assert status == 2
    assert f"{tmp_path / 'known'} holds one class, 'dark'; expected two or more" in told
    assert "contamination" not in told


@pytest.mark.parametrize("n_images", [4, 20, 40, 54])
def test_no_large_contamination_is_advised(n_images):
    with pytest.raises(ValueError, match=r"Give about 255 images in all\.$"):
        trials.check_enough_held_out(
            np.arange(n_images) % 2, skvmdls.VMDLSbDetector(), 0.05
        )


def test_the_least_number_of_images_is_that_of_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    least = int(re.search(r"they are 19, so (\d+) images in all", text)[1])
    assert f"{least} images in all" in " ".join(PAGE.split())
    default, labels = skvmdls.VMDLSDetector(), np.arange(least) % 2
    trials.check_enough_held_out(labels, default, 0.05)
    with pytest.raises(ValueError, match="needs 19 held-out images"):
        trials.check_enough_held_out(labels[1:], default, 0.05)


def test_copies_of_a_few_images_are_warned_of_in_words_of_the_options(
    known, run, tmp_path
):
    for label in LEVELS:
        folder = tmp_path / "known" / label
        folder.mkdir(parents=True)
        for i in range(30):
            shutil.copy(known / label / f"{i % 3}.png", folder / f"{i}.png")
    words = ("--out", tmp_path / "x.safetensors", *QUICK, "--without-trials")
    status, _, warned = run("fit", tmp_path / "known", *words)
    assert status == 0
    assert re.search(
        r"no image will ever be rejected, since \d held-out images? (is|are) too few "
        r"for --contamination 0.25. Equal images count once",
        warned,
    )
    assert "calibration" not in warned


def test_a_threshold_of_few_images_is_warned_of(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    words = ("fit", known, "--out", out, *QUICK, "--without-trials")
    for contamination, is_wide in ((0.15, False), (0.5, True)):
        status, _, warned = run(*words, "--contamination", contamination)
        assert status == 0
        assert ("of new images of these classes may be rejected" in warned) is is_wide


def test_accepting_everything_may_be_asked_for():
    trials.check_enough_held_out(np.arange(9) % 3, skvmdls.VMDLSbDetector(), 0)


def test_weights_without_a_backbone_are_refused(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", known, "--out", out, "--weights", "w.pt")
    assert status == 2
    assert "--weights FILE goes with --backbone NAME" in told


# ------------------------------------------------------------------- interruptions


@pytest.mark.slow
def test_an_interrupted_training_goes_on_where_it_was(
    known, run, tmp_path, monkeypatch
):
    out = tmp_path / "x.safetensors"
    checkpoint = tmp_path / "x.safetensors.checkpoint"
    words = ("fit", known, "--out", out, *QUICK, "--without-trials", "--epochs", 3)
    assert run(*words)[0] == 0
    whole = skvmdls.load(out).history_
    assert not checkpoint.exists()
    interrupt_once(monkeypatch, after=2)
    status, _, told = run(*words)
    assert status == 130
    assert checkpoint.exists()
    assert str(checkpoint) in told
    assert run(*words)[0] == 0
    assert skvmdls.load(out).history_ == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.safetensors"]


def interrupt_once(monkeypatch, after):
    """Press Ctrl-C when the checkpoint has been written a few times."""
    from skvmdls.training import checkpoints

    keep, written = checkpoints.Checkpoint._keep, []

    def kept(self, *arguments):
        keep(self, *arguments)
        written.append(1)
        if len(written) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "_keep", kept)


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_does_not_stop_the_default(
    known, run, tmp_path, monkeypatch
):
    out = tmp_path / "x.safetensors"
    words = ("fit", known, "--out", out, *QUICK, "--without-trials")
    interrupt_once(monkeypatch, after=1)
    assert run(*words)[0] == 130
    assert run(*words, "--epochs", 2)[0] == 0
    assert len(skvmdls.load(out).history_["loss"]) == 2
    assert not (tmp_path / "x.safetensors.checkpoint").exists()


def test_a_checkpoint_that_was_named_is_not_thrown_away(
    known, run, tmp_path, monkeypatch
):
    words = ("fit", known, "--out", tmp_path / "x.safetensors", *QUICK)
    words += ("--checkpoint", tmp_path / "mine", "--without-trials")
    interrupt_once(monkeypatch, after=1)
    assert run(*words)[0] == 130
    status, _, told = run(*words, "--epochs", 2)
    assert status == 2
    assert "is of another fit" in told
    assert (tmp_path / "mine").exists()


# ------------------------------------------------------------------- what it tells


def test_fit_tells_how_good_it_is(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    status, told, _ = run("fit", known, "--out", out, *QUICK, "--epochs", 8)
    assert status == 0
    detector = skvmdls.load(out)
    n_threshold = len(detector.calibration_scores_)
    assert f"{n_threshold} held-out images set the threshold" in told
    right, n = map(
        int, re.search(r"Of (\d+) held-out images, (\d+) got", told).groups()
    )
    assert right >= n > 0
    assert re.search(
        r"A trial that had not seen (dark|grey|light) rejected \d+ of", told
    )
    assert re.search(r"It rejects \d+% of 60 images of noise and \d+% of 60", told)


def test_a_poor_detector_is_warned_of(run, tmp_path):
    """Classes of noise, which no detector can tell apart."""
    rng = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "known" / label).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "known" / label / f"{i}.png")
    out = tmp_path / "x.safetensors"
    status, _, warned = run("fit", tmp_path / "known", "--out", out, *QUICK)
    assert status == 0
    assert "of the held-out images got the right label, so the classes are" in warned
    assert "will mostly be accepted" in warned
    assert "images of noise" in warned
    assert warned.count("more images of each class") == 1
    assert warned.count("--backbone NAME") == 1


def test_an_interruption_of_the_trials_loses_nothing(known, run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "try_left_out_classes", interrupted)
    out = tmp_path / "x.safetensors"
    status, told, _ = run("fit", known, "--out", out, *QUICK)
    assert status == 130
    assert f"Written: {out}" in told
    assert skvmdls.load(out).classes_.tolist() == list(LEVELS)


def test_too_few_classes_for_a_trial_are_no_trial(known):
    X = np.zeros((20, 1, 8, 8), np.uint8)
    labels = np.repeat(["a", "b"], 10)
    assert trials.try_left_out_classes(skvmdls.VMDLSbDetector(), X, labels) is None


@pytest.mark.parametrize("contamination", [0.1, 0])
def test_a_trial_without_a_threshold_tells_why_and_compares_scores(
    contamination, known, run, tmp_path
):
    """Of 120 images 9 set the threshold, but 6 of the 80 that the trial trains on."""
    folder = tmp_path / "known"
    shutil.copytree(known, folder)
    rng = np.random.default_rng(1)
    for label, level in LEVELS.items():
        for i in range(30, 40):
            pixels = rng.normal(level, 15, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    out = tmp_path / "x.safetensors"
    words = ("fit", folder, "--out", out, *QUICK, "--contamination", contamination)
    status, told, warned = run(*words)
    assert status == 0
    [line] = [line for line in told.splitlines() if line.startswith("A trial")]
    assert re.search(r"with an AUROC of [01]\.\d\d \(1 is perfect", line)
    if contamination:
        assert "it held out 6 images for it, too few for --contamination 0.1" in line
        assert "About 173 images in all would be enough, not 120" in line
    else:
        assert "had no threshold, since --contamination is 0." in line
    assert "calibration" not in warned


def test_scores_that_do_not_tell_unknown_images_are_warned_of():
    class Trial:
        calibration_scores_ = np.linspace(0, 1, 9)

        def score_samples(self, X):
            return X

    def compared(scores):
        return trials._compared_scores(Trial(), np.asarray(scores), "c", "is small.")

    good, poor = compared([-1, -2, -3]), compared([0.2, 0.5, 0.8])
    assert "AUROC of 1.00" in good.told
    assert not good.warning
    assert "will mostly be accepted" in poor.warning


def test_a_threshold_that_needs_more_images_than_a_trial_trains_on_is_told():
    class Trial(skvmdls.VMDLSbDetector):
        classes_ = np.array(["a", "b"])
        calibration_scores_ = np.zeros(99)

    trial = Trial(contamination=0.001)
    labels = np.repeat(["a", "b", "c"], 10)
    told = trials._why_no_threshold(trial, labels, 20, is_table=False)
    assert told.endswith("A trial trains on at most 1500 images.")


def test_noise_and_plain_images_span_the_values():
    images = trials.noise_and_plain((3, 8, 8), 255)
    assert images["noise"].shape == images["one colour"].shape == (60, 3, 8, 8)
    plain = images["one colour"]
    assert (plain == plain[:, :, :1, :1]).all()
    assert (plain.min(), plain.max()) == (0, 255)
    assert images["noise"].std() > 60


# ------------------------------------------------------------------- conclusions


class OfTwo:
    classes_ = np.array(["cat", "dog"])
    contamination = 0.05
    threshold = None
    calibration_scores_ = np.arange(199.0)


def judged(n_rejected, n):
    answers = np.array(["-1"] * n_rejected + ["cat"] * (n - n_rejected))
    none = np.zeros(n)
    p_values = np.where(answers == "-1", 0.005, np.linspace(0.005, 1, n))
    return Judged([], answers, p_values, none, np.empty((n, 3)), np.empty((n, 0)), ())


@pytest.mark.parametrize(
    ("n_rejected", "n", "is_too_many"),
    [(43, 201, True), (10, 201, False), (16, 201, False), (0, 5, False), (3, 3, True)],
)
def test_known_folders_are_concluded_on(n_rejected, n, is_too_many):
    [told] = conclusion(OfTwo, judged(n_rejected, n), ["dog"] * n)
    assert f"Known folders: {n_rejected} of {n} images were rejected" in told
    assert "at most 5% was guaranteed" in told
    assert ("do not come as the training images came" in told) is is_too_many


def test_unknown_folders_are_concluded_on():
    labels = ["cat"] * 10 + ["bird"] * 180
    known, unknown = conclusion(OfTwo, judged(0, 190), labels)
    assert known.startswith("Known folders: 0 of 10")
    assert unknown.startswith("Unknown folders: 0 of 180 images were rejected")
    assert "Do not rely on" in unknown
    [unknown] = conclusion(OfTwo, judged(170, 180), ["bird"] * 180)
    assert unknown == "Unknown folders: 170 of 180 images were rejected."


def test_without_folders_all_images_are_concluded_on_together():
    [told] = conclusion(OfTwo, judged(1, 100), None)
    assert "may all be known" in told
    told, of_rejected = conclusion(OfTwo, judged(50, 100), None)
    assert "there are unknown images among these" in told
    n_unknown = int(re.search(r"Of the 50 rejected at least (\d+) are", of_rejected)[1])
    assert 40 < n_unknown <= 50
    assert "(90% sure)" in of_rejected

    class ByHand(OfTwo):
        threshold = 1.0

    told, _ = conclusion(ByHand, judged(50, 100), None)
    assert "set by hand" in told


# ------------------------------------------------------------------- pretrained nets


def tiny_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, 2), nn.LeakyReLU(0.5), nn.Conv2d(4, 8, 3, 2), nn.Flatten()
    )


@pytest.fixture
def tiny(monkeypatch):
    """A net that stands for a pretrained one."""

    def pretrained(name, weights="DEFAULT"):
        assert name == "tiny"
        net = tiny_net()
        if weights is not None and weights != "DEFAULT":
            net.load_state_dict(torch.load(weights))
        if weights is None:
            nn.init.zeros_(net[0].weight)
        factory = from_module(net, ("0", "1", "2"))
        factory.transform = Compose([Resize((20, 20)), _as_tensor])
        return factory

    monkeypatch.setattr("skvmdls.cli.frozen.pretrained", pretrained)


def _as_tensor(picture):
    return picture if isinstance(picture, torch.Tensor) else ToTensor()(picture)


@pytest.mark.usefixtures("tiny")
def test_a_detector_on_a_frozen_net_learns_predicts_explains_and_reports(
    known, run, tmp_path
):
    out, weights = tmp_path / "x.safetensors", tmp_path / "w.pt"
    torch.save(tiny_net().state_dict(), weights)
    words = ("fit", known, "--out", out, *QUICK, "--epochs", 40, "--without-trials")
    status, told, _ = run(*words, "--backbone", "tiny", "--weights", weights)
    assert status == 0
    assert beside(out).exists()
    assert str(beside(out)) in told
    assert "features of tiny" in told
    status, told, _ = run("predict", out, known, "--quiet")
    assert status == 0
    rows = [line.split(",") for line in told.splitlines()[1:]]
    assert np.mean([Path(row[0]).parent.name == row[3] for row in rows]) > 0.9
    page = tmp_path / "page.html"
    status, told, _ = run("explain", out, known / "dark" / "1.png", "--quiet")
    assert status == 0
    assert re.search(r"^  relative   how far", told, re.MULTILINE)
    assert run("report", out, known, "--out", page, "--quiet")[0] == 0
    beside(out).unlink()
    status, _, told = run("predict", out, known, "--quiet")
    assert status == 2
    assert "its net" in told


@pytest.mark.usefixtures("tiny")
def test_a_frozen_net_is_stored_with_its_weights(tmp_path):
    net = FrozenNet.named("tiny", None)
    path = tmp_path / "net"
    rule = PictureFormat(3, "16-bit")
    net.save(path, rule)
    found, again = FrozenNet.load(path)
    assert found == rule
    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 9), dtype=np.uint8)
    batch = net.prepared(pixels)[None]
    np.testing.assert_array_equal(again.features(batch), net.features(batch))
    deep = net.prepared((pixels / np.float32(255)).astype(np.float32))
    np.testing.assert_allclose(deep, batch[0], atol=0.05)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="is damaged"):
        FrozenNet.load(path)


def test_a_backbone_that_is_not_known_is_named(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    status, _, told = run("fit", known, "--out", out, *QUICK, "--backbone", "resnet19")
    assert status == 2
    assert "torchvision has no model named 'resnet19'" in told
    words = ("--backbone", "resnet18", "--weights", tmp_path / "gone.pt")
    status, _, told = run("fit", known, "--out", out, *QUICK, *words)
    assert status == 2
    assert "there is no such file" in told


# ------------------------------------------------------------------- the program


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"{skvmdls.__version__}\n"


def test_the_script_of_an_installation_is_the_command_line():
    settings = configparser.ConfigParser()
    settings.read(Path(__file__).parents[2] / "setup.cfg")
    listed = settings["options.entry_points"]["console_scripts"]
    name, target = listed.strip().split(" = ")
    module, function = target.split(":")
    assert name == "skvmdls"
    assert getattr(importlib.import_module(module), function) is commands.entry


# ------------------------------------------------------------------- the page

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def first_cells(text):
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


def test_the_page_has_the_columns_of_the_table():
    columns = first_cells(section("predict"))
    assert columns == ["file", "answer", "p_value", "nearest"]


def test_the_page_names_options_that_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    told = capsys.readouterr().out
    for option in first_cells(section("fit")):
        assert option.split()[0] in told
    for option in re.findall(r"`(--[\w-]+)", PAGE):
        assert option in (*told.split(), "--help", "--version", "--out") or (
            f"{option} " in told
        )


@pytest.mark.slow
def test_the_page_shows_what_fit_prints(known, run, tmp_path):
    out = tmp_path / "x.safetensors"
    told = run("fit", known, "--out", out, *QUICK, "--epochs", 4)[1]
    shown = re.search(r"```text\n(.*?)```", section("fit"), re.DOTALL)[1]
    assert shapes(told) == shapes(shown)


def shapes(text):
    """Lines without what differs from run to run."""
    text = re.sub(r"\(.*?\)|\d[\d.]*%?|not seen \w+|Written: .*", "_", text)
    return text.splitlines()

"""The benchmarks: honest comparison, records that last, pages made from them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from command_line import main
from experiments import LOSSES, PUBLIC_SPLITS, TUNING_SPLITS
from figures import draw_points
from peers import PEERS, SoftmaxNet, train_softmax
from protocol import Task, run
from records import Record
from report import PAGES
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.backbones import mlp
from skvmdls.calibration import conformal_threshold, hold_out
from skvmdls.metrics import open_set_f1

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SETTINGS = {"max_epochs": 4, "autoencoder_epochs": 2}


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return rng.normal(size=(n, 6)) + 4 * np.eye(6)[y], y


@pytest.fixture(scope="module")
def task():
    X, y = blobs(600, 0)
    X_known, y_known = blobs(150, 1)
    far = np.random.default_rng(2).normal(size=(100, 6)) + 4 * np.eye(6)[5]
    return Task(X, y, X_known, y_known, {"far": far}, SETTINGS, seed=3)


@pytest.fixture(scope="module")
def figures(task):
    return run(task)


def test_every_peer_runs_and_says_how_good_it_is(figures):
    assert set(figures) == {"VMDLS", "VMDLS_b", *PEERS}
    assert not [name for name in figures if "error" in figures[name]]
    for name, method in figures.items():
        assert method["closed-set accuracy"] > 0.9, name
        assert all(0 <= value <= 1 for value in method["sets"]["far"].values()), name


def test_peers_score_known_points_above_unknown_ones(figures):
    """Their library's scores fall where ours rise."""
    good = {"KNN", "Mahalanobis", "ViM", "VMDLS", "VMDLS_b"}
    assert min(figures[name]["sets"]["far"]["AUROC"] for name in good) > 0.8


def test_our_two_methods_are_those_of_the_two_detectors(task, figures):
    weighted = VMDLSDetector(**SETTINGS, random_state=3)
    weighted.fit(task.X_train, task.y_train)
    plain = VMDLSbDetector(
        **{n: SETTINGS[n] for n in SETTINGS if hasattr(VMDLSbDetector(), n)},
        random_state=3,
    ).fit(task.X_train, task.y_train)
    # All methods set their thresholds by the same points.
    rows = hold_out(task.y_train, 0.1, 0.25, np.random.RandomState(3)).threshold
    np.testing.assert_array_equal(
        weighted.score_samples(task.X_train[rows]), weighted.calibration_scores_
    )
    held_out = plain.score_samples(task.X_train[rows])
    plain.set_params(threshold=conformal_threshold(held_out, 0.05))
    X = np.concatenate([task.X_known, task.unknown["far"]])
    truth = np.concatenate([task.y_known, np.full(100, -1)])
    for name, fitted in (("VMDLS", weighted), ("VMDLS_b", plain)):
        f1 = open_set_f1(truth, fitted.predict(X), fitted.classes_)
        assert figures[name]["sets"]["far"]["F1"] == pytest.approx(f1)
        accepted = fitted.predict(task.X_known) != -1
        assert figures[name]["acceptance"] == pytest.approx(accepted.mean())


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_labels_may_be_names(task, figures):
    """Regression: the unknown points' -1 did not join CIFAR-10's names."""
    names = np.array(["ant", "bee", "cow"])
    named = replace(task, y_train=names[task.y_train], y_known=names[task.y_known])
    found = run(named, ("Energy",))
    assert found["VMDLS"]["sets"] == figures["VMDLS"]["sets"]


def test_a_peer_that_fails_is_recorded_with_its_error(task, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("protocol.fit_peer", broken)
    small = Task(
        *[getattr(task, name) for name in ("X_train", "y_train")],
        task.X_known,
        task.y_known,
        task.unknown,
        {"max_epochs": 1},
    )
    assert run(small, ("MSP",))["MSP"] == {
        "error": "ZeroDivisionError: nothing to divide by"
    }


def test_the_softmax_net_learns():
    X, y = blobs(300, 0)
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    torch.manual_seed(0)
    net = SoftmaxNet(mlp, (6,), 3)
    train_softmax(
        net,
        X,
        y,
        epochs=10,
        batch_size=50,
        learning_rate=1e-3,
        weight_decay=0.0,
        augmentation=None,
        dtype=torch.float32,
    )
    assert (net(X).argmax(dim=1) == y).float().mean() > 0.95


def test_tuning_never_uses_a_public_split():
    assert not {frozenset(s) for s in PUBLIC_SPLITS} & {
        frozenset(s) for s in TUNING_SPLITS
    }


def test_a_record_is_whole_after_every_part(tmp_path):
    path = tmp_path / "folder" / "run.json"
    record = Record(path, {"epochs": (1, 2)})
    record.add("seed 0", {"value": 1})
    record.add("seed 1", {"value": 2})
    assert list(path.parent.iterdir()) == [path]
    again = Record(path, {"epochs": (1, 2)})
    assert {name: part["value"] for name, part in again.parts.items()} == {
        "seed 0": 1,
        "seed 1": 2,
    }
    assert again.parts["seed 0"]["surroundings"]["versions"]["torch"]


@pytest.fixture
def data_home(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 80)
    images = rng.integers(0, 60, (240, 28, 28), dtype=np.uint8)
    images[np.arange(240), :, 5 + 5 * labels] = 255
    np.savez(
        tmp_path / "mnist.npz",
        X_train=images,
        y_train=labels,
        X_test=images[::2],
        y_test=labels[::2],
    )
    np.savez(tmp_path / "omniglot_small1.npz", X=images[::4])
    return tmp_path


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_a_command_stores_its_parts_and_does_not_repeat_them(data_home, capsys):
    output = data_home / "results"
    command = ["osr-mnist", "--data-home", str(data_home), "--output", str(output)]
    command += ["--n-test", "40", "--set", "max_epochs=1", "--set", "kl_weight=0.5"]
    command += ["--set", "autoencoder_epochs=1"]
    main([*command, "--seeds", "1"])
    assert "### Omniglot" in capsys.readouterr().out
    [path] = output.glob("*.json")
    stored = json.loads(path.read_text())
    assert stored["settings"]["settings"]["kl_weight"] == 0.5
    assert set(stored["parts"]["seed 0"]["methods"]) == {"VMDLS", "VMDLS_b", *PEERS}
    main([*command, "--seeds", "1"])
    assert "seed 0: stored" in capsys.readouterr().out


def test_settings_without_a_value_are_explained():
    with pytest.raises(SystemExit, match="PARAMETER=VALUE"):
        main(["osr-mnist", "--set", "kl_weight"])


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
@pytest.mark.parametrize(
    ("name", "n_parts"), [("ablation-losses", 6), ("figure-1", 1), ("figure-3", 1)]
)
def test_figures_are_stored_as_numbers_and_drawn_again(data_home, name, n_parts):
    output = data_home / "docs" / "results"
    short = ["--set", "max_epochs=1", "--set", "autoencoder_epochs=1"]
    main([name, "--data-home", str(data_home), "--output", str(output), *short])
    [path] = output.glob("*.json")
    drawn = path.with_suffix(".png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(json.loads(path.read_text())["parts"]) == n_parts
    path.with_suffix(".png").unlink()
    main(["report", "--output", str(output)])
    assert path.with_suffix(".png").exists()
    assert f"(results/{path.stem}.png)" in (data_home / "docs/results.md").read_text()


def test_every_panel_of_every_part_is_drawn_under_its_name(tmp_path, monkeypatch):
    """Regression: with several seeds, only the last panel of each was drawn."""
    panel = {"points": [[0.0, 1.0], [2.0, 3.0]], "labels": ["4", None]}
    drawn = []
    monkeypatch.setattr(
        "figures._write",
        lambda figure, path: drawn.extend(ax.get_title() for ax in figure.axes),
    )
    two = {"panels": {"theirs": panel, "ours": panel}}
    draw_points({"seed 0": two, "seed 1": two}, tmp_path / "a.png")
    assert {"seed 0: theirs", "seed 0: ours", "seed 1: theirs"} < set(drawn)


def test_a_recipe_is_compared_split_by_split_and_only_once_it_is_finished(tmp_path):
    """Regression: runs were compared by position, and one split with the mean."""

    def part(auroc):
        figures = {"AUROC": auroc, "OSCR": auroc, "F1": auroc}
        method = {
            "sets": {"other digits": figures},
            "closed-set accuracy": 0.9,
            "fit seconds": 1.0,
        }
        return {"methods": {"VMDLS": method, "VMDLS_b": method}}

    for label, parts in (
        ("defaults", {"a": part(0.9), "b": part(0.8)}),
        ("better", {"b": part(0.9), "a": part(1.0)}),
        ("begun", {"a": part(0.9)}),
    ):
        content = {"settings": {"settings": {"x": label}}, "parts": parts}
        path = tmp_path / f"leave-classes-out-quick-{label}.json"
        path.write_text(json.dumps(content))
    page = PAGES["recipe_runs.md"](tmp_path)
    assert "| +0.1000 ± 0.0000 |" in page
    assert "begun" not in page


def test_a_run_of_other_settings_or_other_code_is_not_continued(tmp_path, monkeypatch):
    """Regression: runs were continued after the detectors' defaults had changed."""
    path = tmp_path / "a.json"
    Record(path, {"epochs": 1}).add("seed 0", {"auroc": 0.5})
    assert Record(path, {"epochs": 1}).parts
    assert not Record(path, {"epochs": 2}).parts
    monkeypatch.setattr("records._code", lambda: "other")
    assert not Record(path, {"epochs": 1}).parts


@pytest.mark.parametrize("name", LOSSES)
def test_a_row_of_the_ablation_trains_by_its_losses_alone(task, name):
    detector, margins = LOSSES[name]
    settings = SETTINGS | {"kl_warmup": 0.0, "margin_warmup": 0.0} | margins
    history = detector(**settings).fit(task.X_train, task.y_train).history_
    for loss in ("triplet", "distancing", "kl"):
        is_in_use = loss in name.lower()
        assert (max(history[loss]) > 0) == is_in_use, loss


def test_data_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    def nothing(*arguments):
        raise FileNotFoundError("no CIFAR-100 here")

    monkeypatch.setattr("skvmdls.datasets._fetched_cifar", nothing)
    with pytest.raises(SystemExit, match="data cannot be had.*no CIFAR-100 here"):
        main(["ood-cifar100", "--data-home", str(tmp_path), "--output", str(tmp_path)])


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_those_of_the_stored_runs(name):
    assert (RESULTS.parent / name).read_text() == PAGES[name](RESULTS)

"""The benchmarks: honest comparison, records that last, pages made from them."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_wine
from sklearn.utils import Bunch

from command_line import main
from experiments import (
    CIFAR10_SPLITS,
    DATA,
    EVIDENCE,
    EXPERIMENTS,
    FOR_ANY_MARGIN,
    LOSSES,
    PUBLIC_SPLITS,
    TUNING_SPLITS,
    UNKNOWN,
    Options,
    _in_colour,
)
from figures import draw_points
from overview import details_table, gains_table, summary_table
from peers import PEERS, SoftmaxNet, plan_of, softmax_net, softmax_peers, train_softmax
from protocol import HELD_OUT, Task, fit, points_to_score, run, split
from records import Record
from report import PAGES, WITH_TABLES, with_tables
from skvmdls import VMDLSbDetector, VMDLSDetector
from skvmdls.metrics import open_set_f1
from skvmdls.nets.backbones import mlp
from tables import (
    TABLE_PEERS,
    TABLES,
    TEST_TABLES,
    TUNING_TABLES,
    GaussianPerClass,
    column_transformer,
    known_classes,
    table_peers,
    table_task,
)
from vectors import compared

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
    return run(task, softmax_peers)


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


def test_our_two_methods_are_the_two_detectors(task, figures):
    """Each as if it were fitted on its own, although they share the net."""
    X = np.concatenate([task.X_known, task.unknown["far"]])
    truth = np.concatenate([task.y_known, np.full(100, -1)])
    own = SETTINGS.keys() & VMDLSbDetector().get_params().keys()
    for name, detector in (
        ("VMDLS", VMDLSDetector(**SETTINGS)),
        ("VMDLS_b", VMDLSbDetector(**{key: SETTINGS[key] for key in own})),
    ):
        fitted = detector.set_params(random_state=3).fit(task.X_train, task.y_train)
        f1 = open_set_f1(truth, fitted.predict(X), fitted.classes_)
        assert figures[name]["sets"]["far"]["F1"] == pytest.approx(f1)
        accepted = fitted.predict(task.X_known) != -1
        assert figures[name]["acceptance"] == pytest.approx(accepted.mean())


def test_peers_set_their_thresholds_by_the_points_that_vmdls_does(task):
    detector = fit(task)["VMDLS"].detector
    held_out = points_to_score(task, detector)[HELD_OUT]
    np.testing.assert_array_equal(
        detector.score_samples(held_out), detector.calibration_scores_
    )
    training, threshold = split(task, detector)
    assert not np.intersect1d(training, threshold).size


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
def test_labels_may_be_names(task, figures):
    """Regression: the unknown points' -1 did not join CIFAR-10's names."""
    names = np.array(["ant", "bee", "cow"])
    named = replace(task, y_train=names[task.y_train], y_known=names[task.y_known])
    found = run(named)
    assert found["VMDLS"]["sets"] == figures["VMDLS"]["sets"]


def test_a_peer_that_fails_is_recorded_with_its_error(task, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("peers.fit_peer", broken)
    small = replace(task, settings={"max_epochs": 1, "autoencoder_epochs": 1})
    assert run(small, partial(softmax_peers, names=["MSP"]))["MSP"] == {
        "error": "ZeroDivisionError: nothing to divide by"
    }


def test_the_softmax_net_is_trained_on_the_rows_and_by_the_plan_of_the_detectors(
    task, monkeypatch
):
    seen = []
    monkeypatch.setattr("peers.train_softmax", lambda *given: seen.append(given))
    detector = fit(task)["VMDLS"].detector
    net, *_ = softmax_net(task, detector)
    [(trained, *data, plan)] = seen
    assert trained is net
    assert plan == plan_of(detector, torch.device("cpu"))
    rows, _ = split(task, detector)
    expected = detector.standardizer_.transform(task.X_train[rows])
    torch.testing.assert_close(data, [expected, torch.from_numpy(task.y_train[rows])])
    assert type(net.backbone) is type(detector.network_.backbone)


def test_the_softmax_net_learns():
    X, y = blobs(300, 0)
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    detector = VMDLSbDetector(max_epochs=10).fit(X, y)
    plan = plan_of(detector, torch.device("cpu"))
    torch.manual_seed(0)
    net = SoftmaxNet(mlp, (6,), 3)
    train_softmax(net, X, y, plan)
    assert (net(X).argmax(dim=1) == y).float().mean() > 0.95


@pytest.mark.parametrize("public", [PUBLIC_SPLITS, CIFAR10_SPLITS])
def test_tuning_never_uses_a_public_split(public):
    assert all(len(set(known)) == 6 for known in (*public, *TUNING_SPLITS))
    assert not {frozenset(s) for s in public} & {frozenset(s) for s in TUNING_SPLITS}


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


@pytest.mark.slow
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


def test_a_part_that_an_experiment_lacks_is_named(small_data, tmp_path):
    command = ["osr-splits-cifar10", "--output", str(tmp_path), "--parts", "seed 7"]
    with pytest.raises(SystemExit, match="osr-splits-cifar10 has no seed 7"):
        main(command)
    assert not list(tmp_path.iterdir())


def small_images(data_home):
    """Ten classes of coloured squares, in noise."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 10
    X = rng.integers(0, 60, (240, 3, 16, 16), dtype=np.uint8)
    X[np.arange(240), y % 3, :, y] = 255
    return Bunch(X_train=X, y_train=y, X_test=X[::2], y_test=y[::2])


@pytest.fixture
def small_data(monkeypatch):
    """As if there were archives of photographs and tables."""
    for name in DATA:
        monkeypatch.setitem(DATA, name, small_images)
    images = small_images(None).X_test
    for name in UNKNOWN:
        monkeypatch.setitem(UNKNOWN, name, lambda data_home: images)
    wine = load_wine(as_frame=True)
    small = {name: (wine.data, wine.target.to_numpy()) for name in TABLES}
    monkeypatch.setattr("tables._tables", lambda data_home: small)


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
@pytest.mark.parametrize(
    ("name", "n_parts", "sets"),
    [
        ("ood-cifar10", 1, ["ImageNet-resize", "CIFAR-100", "MNIST", "NOISE"]),
        ("ood-cifar100", 1, ["ImageNet-resize", "CIFAR-10", "NOISE"]),
        pytest.param(
            "ablation-evidence-cifar10",
            len(EVIDENCE),
            ["ImageNet-resize", "CIFAR-100", "MNIST", "NOISE"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "osr-splits-cifar10", 5, ["other classes"], marks=pytest.mark.slow
        ),
        pytest.param(
            *("leave-classes-out-cifar10", 4, ["other classes"]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "leave-classes-out-tables", 9, ["classes left out"], marks=pytest.mark.slow
        ),
        pytest.param("osr-tables", 18, ["classes left out"], marks=pytest.mark.slow),
    ],
)
def test_an_experiment_runs_from_data_to_page(
    small_data, tmp_path, monkeypatch, name, n_parts, sets
):
    # The peers on a softmax net have tests of their own, and take their time.
    monkeypatch.setattr("experiments.softmax_peers", lambda task, detector: {})
    assert set(EXPERIMENTS[name].presets) == {"quick", "cpu", "paper"}
    output = tmp_path / "docs" / "results"
    short = ["--n-train", "120", "--n-test", "30", "--set", "max_epochs=1"]
    short += ["--set", "autoencoder_epochs=1", "--seeds", "1"]
    if "cifar" in name:
        short += ["--set", "backbone=cnn", "--set", "samples_per_class=4"]
    main([name, "--output", str(output), "--label", "defaults", *short])
    [path] = output.glob("*.json")
    parts = json.loads(path.read_text())["parts"]
    assert len(parts) == n_parts
    for part in parts.values():
        for method in part["methods"].values():
            assert "error" not in method
            assert list(method["sets"]) == sets
    main(["report", "--output", str(output)])
    pages = [tmp_path / "docs" / page for page in PAGES]
    text = "".join(page.read_text() for page in pages)
    assert "-defaults" in text or "| defaults |" in text


def test_the_halves_of_the_tables_are_those_of_the_rule():
    assert list(TABLES) == sorted(TABLES)
    assert len(TABLES) == 18
    assert TUNING_TABLES[:2] == ("anneal", "balance_scale")
    assert set(TUNING_TABLES).isdisjoint(TEST_TABLES)
    # What recipes are chosen by never sees the other half.
    assert EXPERIMENTS["leave-classes-out-tables"].tasks.args == (TUNING_TABLES,)


def test_a_third_of_the_classes_is_left_out_and_small_ones_always_are():
    y = np.repeat(np.arange(7), [9, 9, 9, 9, 9, 9, 4])
    for seed in range(20):
        known = known_classes(y, seed)
        assert len(known) == 4
        assert 6 not in known
    assert len({tuple(known_classes(y, seed)) for seed in range(20)}) > 5


def test_a_table_is_prepared_by_what_its_training_rows_show():
    """Gaps become the median and a flag, a missing category is one of its own."""
    X = pd.DataFrame(
        {
            "number": [1.0, 3.0, None, 5.0, None],
            "word": pd.Categorical(["a", "b", None, "a", "new"]),
        }
    )
    prepared = column_transformer().fit(X.iloc[:4])
    values = prepared.transform(X)
    assert values.shape == (5, 5)
    assert values[2, 0] == pytest.approx(0)  # The median, 3, is the mean as well.
    np.testing.assert_array_equal(values[:, 1] > 0, [False, False, True, False, True])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(values[:, 2:], expected)


def test_tables_keep_to_their_sizes_and_their_classes():
    wine = load_wine(as_frame=True)
    options = Options(None, n_train=60, n_test=20, seeds=1)
    task = table_task(wine.data, np.array(["x", "-1", "y"])[wine.target], 0, options)
    assert len(task.X_train) == 60
    assert len(task.X_known) == len(task.unknown["classes left out"]) == 20
    assert set(task.y_known) <= set(task.y_train)
    assert min(task.y_train) >= 0  # A table's own label -1 is an ordinary class.
    np.testing.assert_allclose(task.X_train.mean(axis=0), 0, atol=1e-9)


def test_tables_peers_do_without_the_rows_that_set_the_threshold(task, monkeypatch):
    seen = []

    def fitted(name, X, y, seed):
        seen.append(X)
        return lambda rows: rows[:, 0], lambda rows: np.zeros(len(rows), int)

    monkeypatch.setattr("tables._fit_peer", fitted)
    detector = fit(replace(task, settings={"max_epochs": 1}))["VMDLS"].detector
    for peer in table_peers(task, detector).values():
        peer()
    held_out = points_to_score(task, detector)[HELD_OUT]
    for X in seen:
        assert len(X) == len(task.X_train) - len(held_out)
        assert not (X[:, None] == held_out).all(axis=2).any()


def test_tables_peers_are_cross_fitted_where_the_detector_is(task, monkeypatch):
    fits = []

    def fitted(name, X, y, seed):
        fits.append((name, X, scored := []))
        return lambda rows: scored.append(rows) or rows[:, 0], lambda rows: rows[:, 0]

    monkeypatch.setattr("tables._fit_peer", fitted)
    detector = VMDLSbDetector(random_state=0).fit(task.X_train, task.y_train)
    held_out = table_peers(task, detector)["KNN"]().scores[HELD_OUT]
    of_peer = [(X, scored) for name, X, scored in fits if name == "KNN"]
    assert [len(X) for X, _ in of_peer[:1]] == [len(task.X_train)]
    folds = of_peer[1:]
    assert len(folds) == 5
    for X, (scored,) in folds:
        assert len(X) + len(scored) == len(task.X_train)
        assert not (X[:, None] == scored).all(axis=2).any()
    np.testing.assert_array_equal(np.sort(held_out), np.sort(task.X_train[:, 0]))


def test_every_peer_of_tables_tells_far_points_apart(task):
    figures = run(task, table_peers)
    assert set(figures) == {"VMDLS", "VMDLS_b", *TABLE_PEERS}
    for name in ("Gaussian per class", "KNN", "LocalOutlierFactor", "IsolationForest"):
        assert figures[name]["sets"]["far"]["AUROC"] > 0.8, name
    classifiers = {"RandomForest", "ExtraTrees", "MLP"}
    classifiers |= {"Gaussian per class", "QuadraticDiscriminant"}
    for name in TABLE_PEERS:
        accuracy = figures[name]["closed-set accuracy"]
        assert accuracy > 0.9 if name in classifiers else accuracy is None


def test_the_gaussian_of_each_class_is_that_of_scipy():
    X, y = blobs(90, 0)
    gaussians = GaussianPerClass().fit(X, y)
    expected = []
    for label in range(3):
        fitted = LedoitWolf().fit(X[y == label])
        normal = multivariate_normal(fitted.location_, fitted.covariance_)
        expected.append(normal.logpdf(X))
    found = gaussians.log_likelihood(X)
    constant = found - np.stack(expected, axis=1)
    np.testing.assert_allclose(constant, constant[0, 0])


def test_variants_differ_in_their_settings_and_share_a_memory(small_data):
    options = Options(None, n_train=50, n_test=20, seeds=2, settings={"max_epochs": 1})
    tasks = dict(EXPERIMENTS["ablation-evidence-cifar10"].tasks(options))
    assert list(tasks) == [f"{kind}; seed {s}" for kind in EVIDENCE for s in (0, 1)]
    found = {name: task().settings for name, task in tasks.items()}
    assert len({settings["memory"] for settings in found.values()}) == 1
    for kind, changed in EVIDENCE.items():
        settings = found[f"{kind}; seed 1"]
        assert settings | changed == settings
        assert settings["max_epochs"] == 1


def test_digits_in_colour_are_of_the_size_of_photographs():
    images = np.random.default_rng(0).integers(1, 256, (5, 28, 28), dtype=np.uint8)
    coloured = _in_colour(images)
    assert coloured.shape == (5, 3, 32, 32)
    assert coloured.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(coloured[:, channel, 2:30, 2:30], images)
    assert coloured.sum() == 3 * images.sum()


def test_a_preset_that_an_experiment_lacks_is_named_with_those_it_has(tmp_path):
    with pytest.raises(SystemExit, match="no preset 'cpu'; it has quick, paper"):
        main(["osr-splits", "--preset", "cpu", "--output", str(tmp_path)])


def test_settings_without_a_value_are_explained():
    with pytest.raises(SystemExit, match="PARAMETER=VALUE"):
        main(["osr-mnist", "--set", "kl_weight"])


@pytest.mark.filterwarnings("ignore:.* calibration points are too few")
@pytest.mark.parametrize(
    ("name", "n_parts"),
    [
        pytest.param("ablation-losses", len(LOSSES), marks=pytest.mark.slow),
        ("figure-1", 1),
        ("figure-3", 1),
    ],
)
def test_figures_are_stored_as_numbers_and_drawn_again(data_home, name, n_parts):
    output = data_home / "docs" / "results"
    short = ["--set", "max_epochs=1", "--set", "autoencoder_epochs=1"]
    short += ["--n-train", "90", "--n-test", "40", "--seeds", "1"]
    main([name, "--data-home", str(data_home), "--output", str(output), *short])
    [path] = output.glob("*.json")
    drawn = path.with_suffix(".png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert len(json.loads(path.read_text())["parts"]) == n_parts
    path.with_suffix(".png").unlink()
    main(["report", "--output", str(output)])
    assert path.with_suffix(".png").exists()
    page = (data_home / "docs" / "results_ablations.md").read_text()
    assert f"(results/{path.stem}.png)" in page


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

    for run_of, parts in (
        ("quick-defaults", {"a": part(0.9), "b": part(0.8)}),
        ("quick-better", {"b": part(0.9), "a": part(1.0)}),
        ("quick-begun", {"a": part(0.9)}),
        # Where none is of the defaults, the first stands for them.
        ("paper-alone", {"a": part(0.7)}),
        ("paper-beside", {"a": part(0.5)}),
    ):
        settings = {"settings": {"x": run_of, "memory": "/my/folder"}}
        path = tmp_path / f"leave-classes-out-{run_of}.json"
        path.write_text(json.dumps({"settings": settings, "parts": parts}))
    page = PAGES["recipe_runs.md"](tmp_path)
    assert "| +0.1000 ± 0.0000 |" in page
    assert "begun" not in page
    assert "/my/folder" not in page
    rows = [line for line in page.splitlines() if "paper-" in line and "|" in line]
    assert [row.split("|")[5].strip() for row in rows] == [
        "+0.0000 ± 0.0000",
        "-0.2000 ± 0.0000",
    ]


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
    settings = SETTINGS | {"kl_warmup": 0.0, "margin_warmup": 0.0} | LOSSES[name]
    detector = FOR_ANY_MARGIN["VMDLS"](**settings)
    history = detector.fit(task.X_train, task.y_train).history_
    for loss in ("triplet", "distancing", "kl"):
        is_in_use = loss in name.lower()
        assert (max(history[loss]) > 0) == is_in_use, loss


def test_data_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    def nothing(*arguments):
        raise FileNotFoundError("no CIFAR-100 here")

    monkeypatch.setattr("skvmdls.datasets._load_cifar", nothing)
    with pytest.raises(SystemExit, match="data cannot be had.*no CIFAR-100 here"):
        main(["ood-cifar100", "--data-home", str(tmp_path), "--output", str(tmp_path)])


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_those_of_the_stored_runs(name):
    assert (RESULTS.parent / name).read_text() == PAGES[name](RESULTS)


@pytest.mark.parametrize("name", WITH_TABLES)
def test_tables_in_pages_written_by_hand_are_those_of_the_stored_runs(name):
    text = (RESULTS.parents[1] / name).read_text()
    assert with_tables(text, RESULTS) == text
    emptied = re.sub(r"(?s)(<!-- [\w ]+ -->\n)\|.*?(<!-- end -->)", r"\1\2", text)
    assert emptied != text
    assert with_tables(emptied, RESULTS) == text


def test_the_summary_is_of_the_stored_means():
    """A slow reference: one row of images, one of tables, one of embeddings."""

    def mean(run_of, method, sets=None):
        parts = json.loads((RESULTS / f"{run_of}.json").read_text())["parts"]
        return np.mean(
            [
                figures["AUROC"]
                for part in parts.values()
                for name, figures in part["methods"][method]["sets"].items()
                if sets is None or name in sets
            ]
        )

    far = {"MNIST", "NOISE"}
    tasks = json.loads((RESULTS / "ood-vectors.json").read_text())["tasks"]
    lines = summary_table(RESULTS)
    rows = "\n".join(lines)
    [of_far] = re.findall(r".* MNIST, uniform noise .*", rows)
    [of_tables] = re.findall(r"\| \[tables.*", rows)
    [of_images] = re.findall(r"\| \[image embeddings: CIFAR-100\].*", rows)
    assert f"| **{mean('ood-cifar10-cpu', 'VMDLS', far):.3f}** /" in of_far
    assert f"| {mean('ood-cifar10-cpu', 'MSP', far):.3f} /" in of_far
    parts = json.loads((RESULTS / "osr-tables-cpu.json").read_text())["parts"]
    aurocs = [
        part["methods"]["VMDLS"]["sets"]["classes left out"]["AUROC"]
        for name, part in parts.items()
        if name.partition(";")[0] in TEST_TABLES
    ]
    assert f"| **{np.mean(aurocs):.3f}** /" in of_tables
    ours = tasks["CIFAR-100 features, unknown CIFAR-10"]["ours"]["auroc"]
    assert f"| {ours:.3f} /" in of_images
    # The best of a row and measure are in bold, ours or not.
    for line in lines[2:]:
        for column in (0, 1):
            cells = [cell.split(" / ")[column] for cell in line.split(" | ")[2:]]
            values = [float(re.search(r"\d\.\d{3}", cell)[0]) for cell in cells]
            for cell, value in zip(cells, values, strict=True):
                assert ("**" in cell) == (value == max(values)), line


def test_the_page_of_results_begins_with_what_the_stored_runs_show():
    behind = {
        (cells[1].partition("]")[0].strip("[ "), cells[2].strip())
        for cells in (line.split("|") for line in summary_table(RESULTS)[2:])
        if float(re.search(r"[01]\.\d{3}", cells[3])[0])
        <= float(re.search(r"[01]\.\d{3}", cells[6])[0])
    }
    assert behind == {
        ("text embeddings: intents of CLINC150", "its other intents"),
        ("image embeddings: CIFAR-100", "CIFAR-10"),
        ("photographs: CIFAR-10", "ImageNet, CIFAR-100"),
        ("photographs: six classes of CIFAR-10", "its four others"),
    }


def test_the_details_are_those_of_the_stored_runs():
    of_tables = next(line for line in details_table(RESULTS) if "tables:" in line)
    parts = json.loads((RESULTS / "osr-tables-cpu.json").read_text())["parts"]
    aurocs = {
        (method, *name.split("; seed ")): entry["sets"]["classes left out"]["AUROC"]
        for name, part in parts.items()
        for method, entry in part["methods"].items()
        if method != "VMDLS_b" and "error" not in entry
    }
    by_seed = [
        np.mean([aurocs["VMDLS", table, seed] for table in TEST_TABLES])
        for seed in "01234"
    ]
    assert f"| 5 | {np.std(by_seed, ddof=1) / 5**0.5:.4f} |" in of_tables
    methods = {method for method, _, _ in aurocs}
    n_best = 0
    for table in TEST_TABLES:
        means = {
            method: np.mean([aurocs[method, table, seed] for seed in "01234"])
            for method in methods
        }
        n_best += max(means, key=means.get) == "VMDLS"
    assert f"| {n_best} of {len(TEST_TABLES)} |" in of_tables


def test_the_gains_are_those_of_the_stored_runs():
    parts = json.loads((RESULTS / "ablation-evidence-cifar10-cpu.json").read_text())
    methods = parts["parts"]["logit alone; seed 0"]["methods"]
    logit = methods["VMDLS_b"]["sets"]["ImageNet-resize"]["AUROC"]
    [row] = [line for line in gains_table(RESULTS) if "ImageNet-resize" in line]
    assert f"{logit:.3f}" in row.split("|")[5]


@pytest.mark.parametrize("name", ["osr-vectors", "ood-vectors"])
def test_the_page_on_embeddings_shows_the_stored_runs(name):
    stored = json.loads((RESULTS / f"{name}.json").read_text())
    page = (RESULTS.parent / "embeddings.md").read_text()
    assert compared(stored["tasks"]) in page

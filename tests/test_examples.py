"""The examples run, on the least that they can run on."""

import json
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BENCHMARKS = EXAMPLES / "benchmarks"


def run(*command):
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    ).stdout


def run_here(script, *options):
    """Run in this process: another one would import torch first, for seconds."""
    n_threads, printed = torch.get_num_threads(), StringIO()
    words = [str(script), *map(str, options)]
    try:
        with mock.patch.object(sys, "argv", words), redirect_stdout(printed):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        # With --show a script ends there.
        assert not end.code
    finally:
        torch.set_num_threads(n_threads)
    return printed.getvalue()


def run_on_copy(script, folder, monkeypatch):
    """Run a copy, so that its plot is written elsewhere; its names come back."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    copy = folder / script.name
    copy.write_text(script.read_text())
    return SimpleNamespace(**runpy.run_path(str(copy)))


@pytest.mark.slow
def test_mnist_open_set_prints_a_row_for_every_figure(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    images = rng.integers(0, 60, (120, 28, 28), dtype=np.uint8)
    images[np.arange(120), :, 5 + 5 * labels] = 255
    np.savez(
        tmp_path / "mnist.npz",
        X_train=images,
        y_train=labels,
        X_test=images[::2],
        y_test=labels[::2],
    )
    np.savez(tmp_path / "omniglot_small1.npz", X=images[::4])
    output = tmp_path / "results.json"
    table = run_here(
        EXAMPLES / "mnist_open_set.py",
        *("--n-train", 120, "--epochs", 2, "--data-home", tmp_path),
        *("--output", output),
    )
    runs = json.loads(output.read_text())
    assert [r["detector"] for r in runs] == ["VMDLS", "VMDLS_b"]
    for name in ("Omniglot AUROC", "MNIST-noise macro F1", "NOISE TNR@TPR95"):
        assert name in table
        assert all(0 <= r[name] <= 1 for r in runs)


@pytest.mark.slow
def test_what_the_gallery_asks_about_was_rejected():
    printed = run_here(EXAMPLES / "why_rejected.py")
    labels = [line for line in printed.splitlines() if line.startswith("predicted:")]
    assert labels[0] == "predicted: [ 0 -1]"
    # Whichever digit is the most usual one.
    assert re.fullmatch(r"predicted: \[ [0-5] -1\]", labels[1])
    assert printed.splitlines()[1].startswith("magnesium")


def test_the_sum_of_the_embeddings_parts_is_ahead_of_each(tmp_path, monkeypatch):
    ran = run_on_copy(EXAMPLES / "embeddings.py", tmp_path, monkeypatch)
    found = ran.against_unknown
    assert found[-1] > found[:-1].max()
    assert np.mean(ran.is_rejected[ran.is_known]) < 0.1
    assert np.mean(ran.is_rejected[~ran.is_known]) > 0.6
    assert np.mean(ran.found == 6) > 0.5
    assert (tmp_path / "embeddings.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("page", "script"),
    [
        ("docs/SECURITY.md", BENCHMARKS / "fuzz_load.py"),
        ("docs/robustness.md", BENCHMARKS / "peak_memory.py"),
        ("docs/robustness.md", BENCHMARKS / "file_memory.py"),
        ("docs/outside_python.md", BENCHMARKS / "onnx_answers.py"),
        ("docs/outside_python.md", BENCHMARKS / "onnx_speed.py"),
        ("docs/bigger_than_memory.md", BENCHMARKS / "fit_memory.py"),
        ("docs/several_processes.md", BENCHMARKS / "processes.py"),
        ("docs/scoring_on_engines.md", BENCHMARKS / "engines.py"),
        ("docs/scale.md", BENCHMARKS / "scale.py"),
    ],
)
def test_the_table_of_a_page_is_the_stored_run(page, script):
    stored = ROOT / "docs" / "results" / f"{script.stem}.json"
    table = run_here(script, "--show", stored)
    assert table.strip() in (ROOT / page).read_text()


@pytest.mark.parametrize(
    ("page", "groups"),
    [
        ("results_guarantees", ["guarantee"]),
        ("learning_new_classes", ["classes"]),
        ("watching_a_stream", ["stream", "alarm", "selection"]),
        ("why_was_it_rejected", ["columns", "map"]),
    ],
)
def test_the_open_worlds_figures_are_those_of_the_stored_run(page, groups):
    stored = ROOT / "docs" / "results" / "open_world_figures.json"
    script = BENCHMARKS / "open_world_figures.py"
    found = run_here(script, "--show", stored, "--only", *groups)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert found.count("\n\n") == len(groups) - 1
    assert all(table.strip() in text for table in found.split("\n\n"))


def test_the_rules_of_the_evidence_are_those_of_the_stored_trials():
    stored = (ROOT / "docs" / "results" / "evidence_trials.json").read_text()
    page = (ROOT / "docs" / "recipe.md").read_text()
    for trial in json.loads(stored)["trials"]:
        pairs = {
            data: f"{auroc:.4f} / {trial['mean TNR at TPR 95'][data]:.3f}"
            for data, auroc in trial["mean AUROC"].items()
        }
        changed = f"{trial['changed pictures, mean AUROC']['CIFAR-10']:.3f}"
        cells = (pairs["CIFAR-10"], changed, pairs["MNIST"], pairs["tables"])
        assert f"| {trial['rule']} | {' | '.join(cells)} |" in page


def stored_parts(run_of):
    return json.loads((ROOT / f"docs/results/{run_of}.json").read_text())["parts"]


def of_each_part(run_of, method):
    return [part["methods"][method] for part in stored_parts(run_of).values()]


def test_the_choices_for_photographs_are_those_of_the_stored_runs():
    page = (ROOT / "docs" / "recipe.md").read_text()
    of_choices = {}
    for part, content in stored_parts("choices-cifar10-cpu").items():
        choice = part.partition("; ")[0]
        title = "the same, flips averaged" if "flips" in choice else choice
        of_choices.setdefault((choice, title), []).append(content["methods"]["VMDLS"])
    by_muon = "leave-classes-out-cifar10-cpu-muon"
    for name, title in (
        (by_muon, "the same by Muon"),
        (f"{by_muon}-flips", "by Muon, flips averaged"),
    ):
        of_choices[name, title] = of_each_part(name, "VMDLS")
    assert [len(runs) for runs in of_choices.values()] == [4] * 6
    for (_, title), entries in of_choices.items():
        figures = [entry | entry["sets"]["other classes"] for entry in entries]
        cells = " | ".join(
            f"{fmean(run[name] for run in figures):.{digits}f}"
            for name, digits in (
                *(("closed-set accuracy", 4), ("AUROC", 4)),
                *(("TNR@TPR95", 3), ("F1", 3)),
            )
        )
        assert f"| {title} | {cells} |" in page


def test_near_photographs_are_the_case_that_the_readme_concedes():
    ours, odin, fdbd = (
        fmean(
            entry["sets"]["other classes"]["AUROC"]
            for entry in of_each_part("osr-splits-cifar10-cpu", method)
        )
        for method in ("VMDLS", "ODIN", "fDBD")
    )
    readme = " ".join((ROOT / "README.md").read_text().split())
    images = " ".join((ROOT / "docs" / "images.md").read_text().split())
    is_behind = "a softmax net with the right score is ahead" in readme
    assert is_behind == (max(odin, fdbd) > ours)
    assert f"better by up to {odin - ours:.3f} AUROC" in images


def test_what_is_said_of_adamw_and_muon_is_what_the_stored_runs_say():
    def accuracy(entry):
        return entry["closed-set accuracy"]

    def against_imagenet(entry):
        return entry["sets"]["ImageNet-resize"]["AUROC"]

    def over_all_sets(entry):
        return fmean(found["AUROC"] for found in entry["sets"].values())

    page = (ROOT / "docs" / "recipe.md").read_text()
    for of_entry, peer, digits in (
        (accuracy, "MSP", 4),
        (against_imagenet, "GEN", 3),
        (over_all_sets, "OpenMax", 3),
    ):
        cells = " | ".join(
            f"{fmean(map(of_entry, of_each_part(run_of, method))):.{digits}f}"
            for run_of in ("ood-cifar10-cpu-adamw", "ood-cifar10-cpu")
            for method in ("VMDLS", peer)
        )
        assert f" | {cells} |" in page


def test_the_page_on_images_shows_the_stored_run_of_all_of_cifar10():
    stored = json.loads((ROOT / "docs/results/all-cifar10-cpu.json").read_text())
    [part] = stored["parts"].values()
    figures = part["methods"]["VMDLS"]
    said = (
        f"{figures['closed-set accuracy']:.4f}",
        f"{figures['fit seconds'] / 60:.0f} minutes on two cores",
        *(
            f"{figures['sets'][name]['AUROC']:.3f} against {name}"
            for name in ("ImageNet-resize", "CIFAR-100")
        ),
        f"{stored['settings']['settings']['max_epochs']} epochs",
    )
    page = " ".join((ROOT / "docs" / "images.md").read_text().split())
    assert all(figure in page for figure in said)


@pytest.mark.slow
def test_mutated_files_are_counted_and_none_gets_through(tmp_path):
    output = tmp_path / "found.json"
    run(BENCHMARKS / "fuzz_load.py", "--mutations", 200, "--output", output)
    found = json.loads(output.read_text())
    assert sum(sum(kind.values()) for kind in found["outcomes"].values()) == 200
    assert found["outcomes"]["damaged"]["refused"] > 90
    assert found["outcomes"]["forged"]["refused"] > 50
    assert found["crashes"] == []
    assert found["code run"] == 0


@pytest.mark.slow
def test_peak_memory_is_measured(tmp_path):
    output = tmp_path / "found.json"
    run(BENCHMARKS / "peak_memory.py", "--rows", 300, "--output", output)
    [row] = json.loads(output.read_text())["rows"]
    assert row["input, MiB"] == pytest.approx(300 * 28 * 28 * 4 / 2**20)


@pytest.mark.slow
def test_fits_from_files_are_measured(tmp_path):
    output, script = tmp_path / "found.json", BENCHMARKS / "fit_memory.py"
    run(script, "--memory", "tiny:300", "--folder", "tiny:200", "--output", output)
    found = json.loads(output.read_text())
    assert found["memory"][0]["X, MiB"] == pytest.approx(300 * 3 * 64 * 64 / 2**20)
    assert [row["difference"] for row in found["folder"]] == [0, 0, 0]


def test_the_folder_of_the_benchmarks_is_a_command():
    assert "osr-mnist" in run_here(BENCHMARKS, "--help")


@pytest.mark.slow
def test_what_is_measured_on_a_gpu_runs_without_one_and_goes_on(tmp_path):
    script, size = BENCHMARKS / "on_a_gpu.py", ("--size", "tiny", "--output", tmp_path)
    printed = run(script, *size)
    assert torch.cuda.is_available() or "since there is no GPU" in printed
    stored = {f.stem: json.loads(f.read_text())["parts"] for f in tmp_path.iterdir()}
    assert list(stored["scores"]) == ["images, cnn", "table, mlp"]
    assert stored["scores"]["table, mlp"]["largest difference"] < 1e-6
    assert list(stored["speed"]) == ["fit, cnn", "busy, cnn", "scores, cnn"]
    assert list(stored["photographs"]) == ["epochs", "ours", "softmax net"]
    assert {"MSP", "GEN"} < set(stored["photographs"]["softmax net"]["methods"])
    assert all(test["outcome"] != "failed" for test in stored["tests"].values())
    again = run(script, *size, "--only", "scores")
    assert again.count("stored already") == 2


@pytest.mark.slow
def test_a_killed_fit_ends_where_another_does(tmp_path):
    output = tmp_path / "trials.json"
    script = BENCHMARKS / "kill_and_resume.py"
    run(script, "--trials", 1, "--epochs", 3, "--output", output)
    assert [t["identical"] for t in json.loads(output.read_text())["trials"]] == [True]


@pytest.mark.slow
def test_the_memory_of_saving_and_loading_is_measured(tmp_path):
    output = tmp_path / "found.json"
    run(BENCHMARKS / "file_memory.py", "--classes", 20, "--output", output)
    rows = json.loads(output.read_text())["rows"]
    assert [row["covariances"] for row in rows] == ["full", "tied"]
    assert rows[0]["file, MiB"] > 10 * rows[1]["file, MiB"]


@pytest.mark.slow
def test_a_process_without_torch_answers(tmp_path):
    path = tmp_path / "digits.onnx"
    told = run_here(EXAMPLES / "onnx_without_torch.py", "--epochs", 3, "--out", path)
    assert "0 with another label" in told
    assert told.count("p-value 0.") + told.count("p-value 1.") >= 6
    assert path.stat().st_size > 10_000


@pytest.mark.slow
def test_onnx_files_are_compared_with_their_detectors(tmp_path):
    output, script = tmp_path / "found.json", BENCHMARKS / "onnx_answers.py"
    options = ("--nets", "mlp", "--only", "VMDLSbDetector", "--points", 100)
    run_here(script, *options, "--threads", 1, "--output", output)
    [row] = json.loads(output.read_text())["rows"]
    assert row["other labels"] == row["p-value"] == 0
    assert row["score"] < 1e-4
    assert row["own rounding"] < 1e-9
    assert "| mlp | VMDLSbDetector | 100 | 0 |" in run_here(script, "--show", output)


@pytest.mark.slow
def test_onnx_files_are_timed(tmp_path):
    output, script = tmp_path / "found.json", BENCHMARKS / "onnx_speed.py"
    run_here(script, "--nets", "mlp", "--threads", 1, "--output", output)
    rows = json.loads(output.read_text())["rows"]
    assert [row["detector"] for row in rows] == ["VMDLSDetector", "VMDLSbDetector"]
    assert all(
        row["other labels"] == 0 and row["score, spreads"] < 1e-4 for row in rows
    )
    assert f"| {rows[1]['file, MiB']:.3g} |" in run_here(script, "--show", output)


def test_figures_of_the_open_world_are_measured_group_by_group(tmp_path):
    output, script = tmp_path / "found.json", BENCHMARKS / "open_world_figures.py"
    run_here(script, "--only", "guarantee", "--repeats", 5, "--output", output)
    run_here(
        script, "--only", "selection", "stream", "--repeats", 5, "--output", output
    )
    found = json.loads(output.read_text())
    assert set(found) == {"guarantee", "selection", "stream"}
    assert [row["held out"] for row in found["guarantee"]["rows"][:3]] == [3, 30, 300]
    for row in found["guarantee"]["rows"]:
        assert row["rejected, by class"] < row["bound"] + 0.1
    assert all(row["unknown selected"] > 0.3 for row in found["selection"]["rows"][1:])
    assert "| stated |" in run_here(script, "--show", output)


@pytest.mark.slow
def test_the_inspection_line_notices_both_changes(tmp_path, monkeypatch):
    ran = run_on_copy(EXAMPLES / "inspection_line.py", tmp_path, monkeypatch)
    assert ran.monitor.alarm_at_ > len(ran.morning)
    assert np.mean(ran.is_rejected[ran.is_spring]) > 0.9
    assert np.mean(ran.labels[ran.kinds == "spring"] == "spring") > 0.8
    report = ran.detector.recalibration_report_
    assert report.n_rejected > 2 * report.n_points * 0.05
    assert np.mean(ran.detector.is_unknown(ran.evening)) < 0.12


@pytest.mark.slow
def test_the_table_rejects_the_third_wine_and_names_the_broken_column(
    tmp_path, monkeypatch, capsys
):
    ran = run_on_copy(EXAMPLES / "table.py", tmp_path, monkeypatch)
    is_unknown = ran.labels == "-1"
    assert np.mean(is_unknown[ran.y_test == "class_2"]) > 0.7
    assert np.mean(is_unknown[ran.y_test != "class_2"]) < 0.2
    printed = capsys.readouterr().out
    assert "broken: ['-1']" in printed
    assert printed.splitlines()[-3].startswith("simpleimputer__magnesium")


@pytest.mark.slow
def test_photographs_of_a_fifth_thing_score_lower(tmp_path, monkeypatch):
    ran = run_on_copy(EXAMPLES / "photographs.py", tmp_path, monkeypatch)
    assert ran.accuracy > 0.85
    rejected = {
        name: np.mean(ran.labels[ran.y_test == name] == "-1") for name in ran.REGIONS
    }
    assert rejected[ran.UNKNOWN] > np.mean(
        [rejected[name] for name in set(ran.y_train)]
    )


def test_the_gallery_lists_every_example():
    conf = (ROOT / "docs" / "conf.py").read_text()
    listed = conf[conf.index("RUN = (") : conf.index("def place_in_gallery")]
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert set(re.findall(r'^    "(\w+)",$', listed, re.MULTILINE)) == names

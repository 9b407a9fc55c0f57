"""The simulated guarantees: the script runs, and the pages show its stored run."""

import json

import pytest

from test_examples import BENCHMARKS, EXAMPLES, ROOT, run_here, run_on_copy

SCRIPT = BENCHMARKS / "guarantees.py"
CROSS = BENCHMARKS / "cross_calibration.py"


@pytest.mark.parametrize(
    ("page", "groups"),
    [
        ("results_guarantees", ["confidence", "order"]),
        ("watching_a_stream", ["camera", "false discoveries"]),
        ("in_scikit_learn", ["probabilities"]),
    ],
)
def test_the_tables_of_the_guarantees_are_those_of_the_stored_run(page, groups):
    stored = ROOT / "docs" / "results" / "guarantees.json"
    found = run_here(SCRIPT, "--show", stored, "--only", *groups)
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert found.count("\n\n") == len(groups) - 1
    assert all(table.strip() in text for table in found.split("\n\n"))


def test_the_stored_run_keeps_what_is_guaranteed():
    stored = json.loads((ROOT / "docs" / "results" / "guarantees.json").read_text())
    for row in stored["confidence"]["rows"]:
        error = 2 * row["standard error"]
        assert row["too much, confidence=0.9"] <= 0.1 + error
    for row in stored["false discoveries"]["rows"]:
        assert row["bound fails"] <= 0.1 + 2 * row["standard error"]
    shuffled = stored["order"]["rows"][0]
    assert all(v <= 0.01 for name, v in shuffled.items() if name.startswith("warned"))


def test_simulations_run_group_by_group(tmp_path):
    output = tmp_path / "found.json"
    run_here(SCRIPT, "--only", "confidence", "--repeats", 3, "--output", output)
    run_here(SCRIPT, "--only", "false discoveries", "--repeats", 1, "--output", output)
    found = json.loads(output.read_text())
    assert set(found) == {"confidence", "false discoveries"}
    assert [row["held out"] for row in found["confidence"]["rows"][:3]] == [
        100,
        500,
        2000,
    ]
    for row in found["false discoveries"]["rows"]:
        assert row["known among them"] <= row["marked, p <= 0.05"]
    assert "| contamination |" in run_here(SCRIPT, "--show", output)


def test_after_a_new_camera_the_threshold_holds_again(tmp_path, monkeypatch):
    ran = run_on_copy(EXAMPLES / "new_camera.py", tmp_path, monkeypatch)
    assert ran.detector.recalibration_report_.rejected_share > 0.1
    assert ran.known_rejected < 0.12
    assert ran.unknown_rejected > 0.5
    assert not ran.monitor.alarm_


def test_the_tables_of_few_rows_are_those_of_the_stored_run():
    stored = ROOT / "docs" / "results" / "cross_calibration.json"
    found = run_here(CROSS, "--show", stored)
    text = (ROOT / "docs" / "results_guarantees.md").read_text()
    assert all(table.strip() in text for table in found.split("\n\n"))
    for group in json.loads(stored.read_text()).values():
        for row in group["rows"]:
            assert row["known rejected"] <= 0.05 + 2 * row["standard error"]


@pytest.mark.slow
def test_few_rows_are_calibrated_in_both_ways(tmp_path):
    output, runs = tmp_path / "found.json", tmp_path / "runs.jsonl"
    options = ("--only", "digits", "--seeds", 1, "--output", output, "--runs", runs)
    printed = run_here(CROSS, *options)
    rows = json.loads(output.read_text())["digits"]["rows"]
    assert {row["scores"] for row in rows if row["calibration"] == "cross"} == {758}
    # Nothing is run again.
    before = runs.read_text()
    assert run_here(CROSS, *options) == printed
    assert runs.read_text() == before

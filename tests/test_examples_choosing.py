"""The examples on choosing run, and the pages show their stored runs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def example(request):
    path = ROOT / "examples" / f"{request.param}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(example, monkeypatch, tmp_path, *options):
    output = tmp_path / "results.json"
    arguments = [example.__name__, *map(str, options), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    example.main()
    return json.loads(output.read_text())


@pytest.mark.parametrize("example", ["tune_without_ood"], indirect=True)
def test_tuning_reports_the_baseline_beside_the_best_of_the_search(
    example, monkeypatch, tmp_path, capsys
):
    results = run(example, monkeypatch, tmp_path, "--epochs", 1, "--splits", 2)
    assert example.table(results) in capsys.readouterr().out
    best = max(results["search"], key=lambda r: sum(r["AUROC, left-out classes"]))
    assert results["chosen"] == best["setting"]
    baseline, chosen = results["truly unknown"]
    assert baseline["setting"] == "baseline"
    assert baseline["parameters"] == example.BASELINE
    assert chosen["parameters"] == results["chosen"]
    assert all(0 <= r["AUROC"][0] <= 1 for r in (baseline, chosen))


@pytest.mark.parametrize("example", ["benchmarks/threshold_coverage"], indirect=True)
def test_coverage_keeps_to_the_bound(example, monkeypatch, tmp_path, capsys):
    results = run(example, monkeypatch, tmp_path, "--epochs", 2, "--splits", 200)
    rows = results["coverage"]
    assert example.table(rows) in capsys.readouterr().out
    assert [row["contamination"] for row in rows] == [0.01, 0.05, 0.1, 0.2]
    for row in rows:
        assert row["splits"] == 200
        assert row["bound"] <= row["contamination"]
        assert row["mean rejection"] <= row["bound"] + 4 * row["standard error"]


@pytest.mark.parametrize(
    ("example", "part", "page"),
    [
        ("tune_without_ood", None, "tuning"),
        ("benchmarks/threshold_coverage", "coverage", "results_guarantees"),
    ],
    indirect=["example"],
)
def test_the_tables_of_the_pages_are_the_stored_runs(example, part, page):
    stored = ROOT / "docs" / "results" / f"{example.__name__}.json"
    results = json.loads(stored.read_text())
    text = (ROOT / "docs" / f"{page}.md").read_text()
    assert example.table(results[part] if part else results) in text

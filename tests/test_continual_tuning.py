"""The continual-tuning example, reduced: its commands from beginning to end, and the one fact that is robust."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "continual_tuning"
BASES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft")
    made = tmp_path_factory.mktemp("continual_tuning")
    run(made)
    return made


def run(folder: Path) -> str:
    options = ["--regime", "reduced", "--injected", "0", "--only", "sequential", "--only", "hpa", "--jobs", "2"]
    command = [sys.executable, EXAMPLE, "--bases", str(BASES), *options, "--out", folder]
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.gate
def test_hpa_lets_fewer_attacks_through_than_sequential_tuning(folder: Path) -> None:
    rates = defaultdict(dict)
    for row in results(folder):
        rates[row["method"], row["step"]][row["base"]] = fmean(row["attacks"].values())
    assert set(rates) == {(method, step) for method in ("sequential", "hpa") for step in (0, 1, 2)}
    assert rates["sequential", 0] == rates["hpa", 0]  # the same bases, on the same held-out samples
    assert fmean(rates["sequential", 0].values()) < 25
    assert all(len(bases) == BASES for bases in rates.values())
    assert fmean(rates["hpa", 2].values()) < fmean(rates["sequential", 2].values()) - 10


@pytest.mark.gate
def test_a_second_run_has_nothing_to_do_and_a_chain_that_is_missing_comes_out_as_before(folder: Path) -> None:
    before = results(folder)
    assert run(folder).startswith("0 chains to run")
    assert results(folder) == before
    kept = [row for row in before if (row["method"], row["base"]) != ("hpa", 1)]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    assert run(folder).startswith("1 chains to run")
    seconds = ("tune_seconds", "merge_seconds")
    order = sorted(before, key=lambda row: (row["method"], row["base"], row["step"]))
    again = sorted(results(folder), key=lambda row: (row["method"], row["base"], row["step"]))
    assert [{k: v for k, v in row.items() if k not in seconds} for row in again] == [
        {k: v for k, v in row.items() if k not in seconds} for row in order
    ]


@pytest.mark.gate
def test_tables_and_plots_are_made_of_the_results(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, EXAMPLE / "report.py", folder, "--to", tmp_path]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    tables = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert "| sequential | 3 |" in tables
    assert f" of {BASES} |" in tables
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "reduced-injected0-steps.png",
        "reduced-injected0-trade-off.png",
        "results.jsonl",
        "tables.md",
    ]


def test_the_tables_that_are_shown_are_those_of_the_results_that_are_kept(tmp_path: Path) -> None:
    kept = EXAMPLE / "results"
    command = [sys.executable, EXAMPLE / "report.py", kept, "--to", tmp_path]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert (tmp_path / "tables.md").read_bytes() == (kept / "tables.md").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in kept.iterdir()}

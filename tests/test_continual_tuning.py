"""The continual-tuning example, reduced: its commands from beginning to end, and the one fact that is robust."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from statistics import fmean
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

EXAMPLE = Path(__file__).parent.parent / "examples" / "continual_tuning"
BASES = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("peft")
    made = tmp_path_factory.mktemp("continual_tuning")
    run(made)
    return made


def run(folder: Path) -> str:
    options = ["--part", "reduced", "--only", "hpa 15", "--jobs", "2"]
    command = [sys.executable, EXAMPLE, "--bases", str(BASES), *options, "--out", folder]
    return subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.gate
def test_hpa_lets_fewer_attacks_through_than_sequential_tuning(folder: Path) -> None:
    rates = defaultdict(dict)
    for row in results(folder):
        rates[row["method"], row["step"]][row["base"]] = fmean(row["attacks"].values())
    methods = ("sequential", "hpa 15", "frozen")
    assert set(rates) == {(method, step) for method in methods for step in (0, 1, 2)}
    assert rates["sequential", 0] == rates["hpa 15", 0]  # the same bases, on the same held-out samples
    assert fmean(rates["sequential", 0].values()) < 25
    assert all(len(bases) == BASES for bases in rates.values())
    assert fmean(rates["hpa 15", 2].values()) < fmean(rates["sequential", 2].values()) - 10
    assert rates["frozen", 2] == rates["frozen", 0]


@pytest.mark.gate
def test_a_second_run_has_nothing_to_do_and_a_chain_that_is_missing_comes_out_as_before(folder: Path) -> None:
    before = results(folder)
    assert run(folder).startswith("0 chains to run")
    assert results(folder) == before
    kept = [row for row in before if (row["method"], row["base"]) != ("hpa 15", 1)]
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
    assert f"| sequential | {BASES} |" in tables
    assert f" of {BASES} |" in tables
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.jsonl",
        "tables.md",
    ]  # one rule is no comparison


def test_the_tables_that_are_shown_are_those_of_the_results_that_are_kept(tmp_path: Path) -> None:
    kept = EXAMPLE / "results"
    command = [sys.executable, EXAMPLE / "report.py", kept, "--to", tmp_path]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert (tmp_path / "tables.md").read_bytes() == (kept / "tables.md").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} <= {path.name for path in kept.iterdir()}


@pytest.fixture(scope="module")
def fronts() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        import fronts

        yield fronts
        del sys.modules["fronts"]


def test_the_front_of_a_curve(fronts: ModuleType) -> None:
    curve = [(80.0, 60.0), (40.0, 60.0), (20.0, 20.0), (0.0, 0.0)]
    assert fronts.best_within(curve, 100) == fronts.best_within(curve, 40) == 60
    assert fronts.best_within(curve, 30) == pytest.approx(40)
    assert fronts.best_within([(80.0, 60.0), (10.0, 0.0)], 5) is None
    assert fronts.safest_from(curve, 40) == pytest.approx(30)
    assert fronts.safest_from(curve, 70) is None
    # Over the limits: triangle to (20, 20), trapezium to (40, 60), and 60 from there on.
    assert fronts.area(curve) == pytest.approx((20 * 20 / 2 + 20 * 40 + 60 * 60) / 100, abs=0.5)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=6))
def test_another_strength_at_an_end_never_makes_a_front_worse(
    fronts: ModuleType, curve: list[tuple[float, float]]
) -> None:
    longer = [*curve, (0.0, 0.0)]
    assert fronts.area(longer) >= fronts.area(curve) - 1e-9
    assert fronts.area(curve) <= max(a for _, a in curve) + 1e-9
    limit = fmean(m for m, _ in curve)
    best = fronts.best_within(longer, limit)
    assert best >= (fronts.best_within(curve, limit) or 0)
    assert fronts.safest_from(longer, best) <= limit + 1e-9


def test_intervals_are_those_of_students_t(fronts: ModuleType) -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    mean, half = fronts.interval(values)
    assert mean == 3
    assert half == pytest.approx(2.776 * sqrt(2.5) / sqrt(5))
    assert fronts.less({0: 5.0, 1: None, 2: 1.0}, {0: 3.0, 1: 2.0}) == [2.0]

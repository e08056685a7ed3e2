"""Reports of schema version 1: every command that reads a report reads them, whatever their fields are called now.

``version_1`` holds two that the last version with that schema wrote: of the toy pair of
examples/ci_regression with the defaults, and of a second round with Safe Delta.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import REPORT, TinyCase
from chains import run, tuned
from pages import ROOT
from published import Published

from hpa_merge import inspect, verify, write_report
from hpa_merge.errors import CheckpointError
from hpa_merge.report.rounds import round_of
from hpa_merge.report.rows import ranges
from hpa_merge.report.schema import read_report

STORED = ROOT / "tests" / "report" / "version_1"

LINEAR = {
    "kept": "restored",
    "n_keep": "n_restored",
    "kept_share": "restored_share",
    "energy_put_back": "energy_restored",
}
UNCOUNTED: dict[str, Any] = {"videos": 0, "audios": 0, "frames": 0, "seconds": 0.0}
UNCOUNTED |= {"dropped": {}, "passed_over": [], "template": "", "parts": []}
UNCOUNTED |= dict.fromkeys(("turns", "answers", "truncated", "available"))
"""What reports of calibration sets did not count then."""

ROUND = {"put_back": "restored_share", "energy_put_back": "energy_restored"}


def renamed(entries: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    return [{names.get(name, name): value for name, value in entry.items()} for entry in entries]


def as_version_2(content: dict[str, Any]) -> dict[str, Any]:
    linears, history = renamed(content["linears"], LINEAR), renamed(content["history"], ROUND)
    changed = content | {"schema_version": 2, "linears": linears, "history": history}
    changed["run"] = {
        "dequantised": {},
        "dtype": "",
        "code": [],
        "out": "",
        "compute_dtype": {},
        "given": {},
    } | changed["run"]
    for each in history:
        each["benchmarks"] = {}
    for each in (changed, *history):
        each |= {purpose: each[purpose] | UNCOUNTED for purpose in ("safety", "task") if each[purpose] is not None}
    return changed


def as_version_1(folder: Path) -> None:
    """Let the report of a folder be as the earlier version wrote it."""
    content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    linears, history = (
        renamed(content[place], {now: was for was, now in names.items()})
        for place, names in (("linears", LINEAR), ("history", ROUND))
    )
    earlier = content | {"schema_version": 1, "linears": linears, "history": history}
    (folder / REPORT).write_text(json.dumps(earlier, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(params=["january", "february"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with one of the stored reports, and nothing else."""
    folder = tmp_path / str(request.param)
    folder.mkdir()
    shutil.copy(STORED / f"{request.param}.json", folder / REPORT)
    return folder


def test_nothing_of_it_is_lost(stored: Path) -> None:
    content = json.loads((stored / REPORT).read_text(encoding="utf-8"))
    assert content["schema_version"] == 1
    written = json.loads(read_report(stored).to_json())
    assert written.pop("verdict")["gate"] == "NOT MEASURED"
    assert written == as_version_2(content)


def test_the_stored_reports_have_every_field_that_was_renamed() -> None:
    january, february = (json.loads((STORED / f"{name}.json").read_text()) for name in ("january", "february"))
    there = {name for report in (january, february) for linear in report["linears"] for name in linear}
    assert LINEAR.keys() <= there
    assert ROUND.keys() <= {name for past in february["history"] for name in past}


def test_inspect_shows_its_figures(stored: Path) -> None:
    content = json.loads((stored / REPORT).read_text(encoding="utf-8"))
    (shown,) = json.loads(inspect(stored).to_json())["reports"]
    assert [past["restored_share"] for past in shown["history"]] == [past["put_back"] for past in content["history"]]
    for row, linear, record in zip(shown["rows"], content["linears"], read_report(stored).linears, strict=True):
        assert row["energy_restored"] == linear["energy_put_back"]
        if "kept" in linear:
            assert row["restored_columns"] == ranges(record.restored_columns)
            assert row["restored_share"] == len(record.restored_columns) / linear["columns"]
        else:
            assert row["restored_share"] == linear["kept_share"]


@pytest.mark.gate
@pytest.mark.usefixtures("drawing")
def test_drawn_again_it_is_of_this_version(stored: Path) -> None:
    before = read_report(stored)
    write_report(stored)
    assert json.loads((stored / REPORT).read_text(encoding="utf-8"))["schema_version"] == 2
    after = read_report(stored)
    assert (after.linears, after.history) == (before.linears, before.history)
    assert "energy_put_back" not in (stored / REPORT).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"linears": 3}, "linears cannot be 3"),
        ({"linears": [3]}, "an entry of linears cannot be 3"),
        ({"history": ["a"]}, 'an entry of history cannot be "a"'),
        ({"schema_version": 0}, "has schema_version 0 and this version reads 1 and 2"),
        ({"schema_version": "1"}, "has schema_version '1' and this version reads 1 and 2"),
        ({"schema_version": [1]}, r"has schema_version \[1\] and this version reads 1 and 2"),
    ],
)
def test_a_broken_one_is_refused_in_a_sentence(change: dict[str, Any], reason: str, stored: Path) -> None:
    content = json.loads((stored / REPORT).read_text(encoding="utf-8"))
    (stored / REPORT).write_text(json.dumps(content | change), encoding="utf-8")
    with pytest.raises(CheckpointError, match=reason):
        read_report(stored)


def test_a_mask_that_cannot_be_is_found(stored: Path) -> None:
    content = json.loads((stored / REPORT).read_text(encoding="utf-8"))
    content["linears"][0]["kept"] = "AA=="
    (stored / REPORT).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="restored of 'model"):
        read_report(stored)


@pytest.mark.parametrize("method", ["hpa", "safe-delta"])
def test_verify_accepts_it(method: str, published: Callable[..., Published]) -> None:
    made = published(method=method)
    as_version_1(made.out)
    assert made.alone() == made.with_inputs() == []
    options = {"safety_calib": made.case.safety} | ({"task_calib": made.case.task} if method == "hpa" else {})
    assert verify(made.out, made.case.old, made.case.new, **options).problems == ()


def test_verify_finds_another_choice_in_it(published: Callable[..., Published]) -> None:
    made = published()
    as_version_1(made.out)
    content = json.loads((made.out / REPORT).read_text(encoding="utf-8"))
    linear = next(linear for linear in content["linears"] if "kept" in linear)
    linear["n_keep"] -= 1
    (made.out / REPORT).write_text(json.dumps(content), encoding="utf-8")
    wanted = f"{linear['name']}: n_restored is {linear['n_keep']} in the report, and has to be {linear['n_keep'] + 1}."
    assert wanted in made.with_inputs()


def test_it_is_carried_on_as_history(tiny: Callable[..., TinyCase], tmp_path: Path) -> None:
    case, folders = tiny("llama"), [tmp_path / f"out{number}" for number in (1, 2, 3)]
    rounds, new = [], case.new
    for number, out in enumerate(folders):
        if number:
            new = tuned(folders[number - 1], tmp_path / f"new{number}", seed=number)
            as_version_1(folders[number - 1])
        report = run(case, folders[number - 1] if number else case.old, new, out)
        assert report.warnings == []
        assert report.history == tuple(rounds)
        rounds.append(round_of(read_report(out)))
    assert all(past.restored_share and past.energy_restored for past in rounds)

"""A forged report: whatever a field of it says that cannot be is one sentence, for every command that reads it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import REPORT
from measured import measured
from published import Published

from hpa_merge.cli import main
from hpa_merge.errors import CheckpointError
from hpa_merge.report.schema import read_report

Make = Callable[..., Published]

LINEAR: dict[str, list[Any]] = {
    "rows": [-1, 2**40, 10**30],
    "columns": [-1, 10**12, 63],
    "block": [-1, 9, 10**30],
    "blocks": [-4],
    "share": [-1.0, 101.0, 1e300],
    "n_restored": [-1, 65],
    "n_focus": [-1, 10**9],
    "n_shared": [-3, 65],
    "restored": [
        "",
        "AA==",
        "////////",
        "//////////8",
        "//////////8=\n",
        "ключ",
        base64.b64encode(bytes(2**24)).decode(),
    ],
    "alpha": [-0.1, 1e200],
    "kappa": [1e200, -1e200],
    "relative_update": [-1.0, 1e300],
    "energy_restored": [-0.5, 1.5],
    "safety_tokens": [-1, 10**30],
    "task_tokens": [-1],
    "shared_rows": [-1, 10**6],
    "restored_share": [-0.1, 1.1],
    "new_columns": ["AA==", "A" * 2**20],
    "split_column": [-1, 64, 10**18],
    "split_rows": [-1, 10**6],
    "safety_cost": [-1.0],
    "safety_budget": [-1.0, 1e200],
    "saliency": ["1", "a,b,c,d", "1,2,3", "0,0,-1,0", "0,0,1,2", "0,0,9999999,0", "0,0,1,0 " * 10**5],
    "what_if": ["A", "A ", "é=", "AA" * 2000],
    "distance": [-1.0, 1e200],
    "old_norm": [-1.0, 1e308],
}
CASES = [(name, value) for name, values in LINEAR.items() for value in values]


@pytest.fixture(scope="module")
def content(sound: Make) -> dict[str, Any]:
    return dict(json.loads((sound().out / REPORT).read_text()))


def refused(folder: Path, content: dict[str, Any]) -> str:
    (folder / REPORT).write_text(json.dumps(content))
    with pytest.raises(CheckpointError) as raised:
        read_report(folder)
    sentence = str(raised.value)
    assert "\n" not in sentence
    assert len(sentence) < 2000
    return sentence


@pytest.mark.parametrize(("field", "value"), CASES, ids=[f"{f}={str(v)[:12]!a}" for f, v in CASES])
def test_a_linear_that_cannot_be(field: str, value: Any, content: dict[str, Any], tmp_path: Path) -> None:
    linears = [dict(record) for record in content["linears"]]
    linear = next(record for record in linears if record["outcome"] == "adapted" and record["columns"] == 64)
    linear[field] = value
    assert " cannot be" in refused(tmp_path, content | {"linears": linears})


def test_every_number_of_a_linear_has_a_case(content: dict[str, Any]) -> None:
    numbers = {name for record in content["linears"] for name, value in record.items() if not isinstance(value, str)}
    assert numbers <= LINEAR.keys()


WHOLE: list[dict[str, Any]] = [
    {"passed_through": {"embedding": -1}},
    {"passed_through": {"embedding": 10**30}},
    {"components": [{"name": "a", "policy": "merge", "tensors": -1, "linears": {}}]},
    {"components": [{"name": "a", "policy": "merge", "tensors": 1, "linears": {"adapted": -1}}]},
    {"safety": {"file": "a", "samples": -1, "tokens": 1, "images": 0}},
    {"task": {"file": "a", "samples": 1, "tokens": 10**30, "images": 0}},
    {"drift": {"distance": -1.0, "norm": 1.0, "linears": 1}},
    {"drift": {"distance": 1.0, "norm": 1e-320, "linears": 1}},
    {"drift": {"distance": 1e308, "norm": 1.0, "linears": 1}},
    {"history": [{"old": "", "new": "", "finished": "", "config": {}, "safety": None, "task": None, "adapted": -1}]},
    {"manifest": {"config.json": "0"}},
    {"manifest": {"config.json": "G" * 64}},
    {"manifest": {"../config.json": "0" * 64}},
    {"manifest": {"/proc/self/environ": "0" * 64}},
    {"manifest": {"a\u001b[2J": "0" * 64}},
]


@pytest.mark.parametrize("change", WHOLE)
def test_a_report_that_cannot_be(change: dict[str, Any], content: dict[str, Any], tmp_path: Path) -> None:
    assert " cannot " in refused(tmp_path, content | change)


@pytest.mark.parametrize("part", ["run", "history"])
def test_a_run_that_cannot_be(part: str, content: dict[str, Any], tmp_path: Path) -> None:
    run = content["run"] | {"seconds": -1.0}
    past = {"old": "", "new": "", "finished": "", "config": {}, "task": None, "adapted": 1}
    past["safety"] = {"file": "a", "samples": 1, "tokens": -1, "images": 0}
    refused(tmp_path, content | {"run": run} if part == "run" else content | {"history": [past]})


@pytest.mark.parametrize("command", ["verify", "report", "inspect"])
@pytest.mark.parametrize("change", [{"restored": "AA=="}, {"columns": 10**12}])
def test_every_command_says_it(
    command: str, change: dict[str, Any], published: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = published()
    content = json.loads((forged.out / REPORT).read_text())
    next(record for record in content["linears"] if "restored" in record).update(change)
    (forged.out / REPORT).write_text(json.dumps(content))
    words = [command, forged.out]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("Error: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(("name", "most"), [("linears", 300_000), ("history", 1000)])
def test_more_entries_than_any_merge_has(name: str, most: int, content: dict[str, Any], tmp_path: Path) -> None:
    """Refused before a record is made of each."""
    forged = content | {name: [{}] * (most + 1)}
    assert f"it has {most + 1} entries of {name}, and at most {most} are possible" in refused(tmp_path, forged)


def test_many_linears_are_read_in_little_time(content: dict[str, Any], tmp_path: Path) -> None:
    """20,000 records: two seconds where the types of the fields are looked up for each."""
    short = {"name": "w", "outcome": "unchanged", "rows": 1, "columns": 1}
    linear = next(dict(record) for record in content["linears"] if record["outcome"] == "unchanged")
    (tmp_path / REPORT).write_text(json.dumps(content | {"linears": [linear | short] * 20_000}))
    done = measured(read_report, tmp_path)
    assert done.status == 0, done
    assert done.cpu_seconds < 1.5


@pytest.mark.parametrize(
    ("file", "kind"), [("adapter_config.json", "an adapter"), ("config.json", "a checkpoint"), ("notes.txt", "")]
)
def test_a_folder_without_a_report_says_what_it_is(file: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError) as raised:
        read_report(tmp_path)
    said = f": it is {kind} that no merge has made, or that lost its report" if kind else ""
    assert str(raised.value) == f"OUT {tmp_path} has no hpa_report.json{said}: give a folder that hpa-merge has made."

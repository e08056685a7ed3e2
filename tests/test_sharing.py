"""What goes to the Hub of a report: no path of the machine that it was made on."""

import dataclasses
import json
from typing import Any

import pytest
from test_card import COMMITS, NEW, OLD, evaluated, report_of

from hpa_merge.config import HPAConfig
from hpa_merge.report.card import make
from hpa_merge.report.records import CalibrationRecord, RoundRecord
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.sharing import for_others

SECRET = "somebody"


def with_run(report: MergeReport, **changes: Any) -> MergeReport:
    return dataclasses.replace(report, run=dataclasses.replace(report.run, **changes))


def test_names_alone() -> None:
    report = with_run(report_of(), statistics={"safety": "read", "file": "runs/x/stats.safetensors"})
    shared = for_others(report)
    assert (shared.run.old, shared.run.new) == ("aligned", "tuned")
    assert (shared.safety.file, shared.task.file) == ("safety.jsonl", "task.jsonl")
    assert shared.run.statistics == {"safety": "read", "file": "stats.safetensors"}
    assert shared.linears == report.linears  # whose bit masks have slashes
    assert shared.config == report.config
    assert for_others(shared) == shared


def test_nothing_to_hide() -> None:
    """The very same, so that its file goes up as it is."""
    report = report_of(
        old=OLD,
        new=f"{NEW}@v1",
        commits={OLD: "a" * 40, f"{NEW}@v1": "b" * 40},
        safety=CalibrationRecord("safety.jsonl", 8, 100, 0),
        task=None,
    )
    assert for_others(report) == report


def test_a_folder_that_is_named_as_on_the_hub() -> None:
    """No commit was noted of it."""
    assert for_others(report_of(old="lab/aligned", new="../tuned/")).run.old == "aligned"
    assert for_others(report_of(old="lab/aligned", new="../tuned/")).run.new == "tuned"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (
            f"hpa-merge /home/{SECRET}/old {OLD} --safety-calib=../{SECRET}/s.jsonl -o ~/{SECRET}/out --p-max 20",
            f"hpa-merge old {OLD} --safety-calib=s.jsonl -o out --p-max 20",
        ),
        (f"hpa-merge '/home/{SECRET}/my old' x/{SECRET}/new -q", "hpa-merge 'my old' new -q"),
        (f"hpa-merge /home/{SECRET}/old 'broken", "hpa-merge old 'broken"),
        ("hpa-merge old new", "hpa-merge old new"),
        ("", ""),
    ],
)
def test_the_command(command: str, shown: str) -> None:
    assert for_others(with_run(report_of(commits=COMMITS), command=command)).run.command == shown


@pytest.mark.parametrize(
    ("note", "shown"),
    [
        (
            f"The file /home/{SECRET}/stats.safetensors was computed anew.",
            "The file stats.safetensors was computed anew.",
        ),
        (f"See ~{SECRET}/x, ../{SECRET}/y and './z/{SECRET}/w'.", "See x, y and 'w'."),
        ("It took 3/4 of it, and/or https://arxiv.org/abs/2511.20158.", None),
        (f"NEW {NEW} came from the cache.", None),
    ],
)
def test_notes(note: str, shown: str | None) -> None:
    shared = for_others(with_run(report_of(), notes=(note,)))
    assert shared.run.notes == (note if shown is None else shown,)
    assert SECRET not in "".join(shared.warnings)


def test_evaluation_and_history() -> None:
    options = {"endpoint": f"http://{SECRET}:8000/v1", "seed": 0}
    evaluation = evaluated(options=options)
    safety = CalibrationRecord(f"/home/{SECRET}/first.jsonl", 8, 100, 0)
    past = RoundRecord(OLD, f"/home/{SECRET}/new", "", dataclasses.asdict(HPAConfig()), safety, None, 3)
    report = report_of(evaluation=evaluation, history=(dataclasses.replace(past, evaluation=evaluation),))
    shared = for_others(report)
    assert SECRET not in shared.to_json()
    assert [model["model"] for model in shared.evaluation["models"]] == ["aligned", "tuned", "repaired"]
    assert shared.evaluation["run"]["options"] == {"endpoint": "not shown", "seed": 0}
    assert shared.evaluation["judge"] == "guard"
    assert shared.evaluation["models"][2]["safety"] == evaluation["models"][2]["safety"]
    assert (shared.history[0].old, shared.history[0].new) == (OLD, "new")
    assert shared.history[0].safety.file == "first.jsonl"
    assert json.loads(report.to_json())["evaluation"] == evaluation  # what was given stays as it was


@pytest.mark.parametrize("evaluation", [{}, {"models": 3, "files": [], "run": 1}, {"models": [{}], "files": {"x": 1}}])
def test_an_evaluation_of_another_form(evaluation: dict[str, Any]) -> None:
    assert for_others(report_of(evaluation=evaluation)).evaluation == evaluation


def test_the_card_has_none_from_the_start() -> None:
    models = [{**model, "name": f"/home/{SECRET}/aligned"} for model in evaluated()["models"]]
    report = report_of(evaluation={**evaluated(), "models": models})
    assert SECRET not in make(with_run(report, command=f"hpa-merge /home/{SECRET}/x", notes=(f"/home/{SECRET}",)))

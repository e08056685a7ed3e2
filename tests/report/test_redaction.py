"""What goes to the Hub of a report: no path of the machine that it was made on."""

import dataclasses
import json
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import measured
from report_samples import COMMITS, NEW, OLD, evaluated, report_of

from hpa_merge.config import HPAConfig
from hpa_merge.render.card import for_the_hub, make, remake
from hpa_merge.render.page import page_of
from hpa_merge.report.records import CalibrationRecord, RoundRecord
from hpa_merge.report.redaction import for_others, is_local_in, places_in
from hpa_merge.report.rounds import round_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.validity import ROUNDS

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


def test_a_chat_template_has_its_name_alone() -> None:
    """In this round and in those before; a template's name stays."""
    report = report_of()
    place = f"/home/{SECRET}/templates/chat.jinja"
    past = dataclasses.replace(round_of(report), config=report.config | {"chat_template": place})
    here = dataclasses.replace(report, config=report.config | {"chat_template": place}, history=(past,))
    shared = for_others(here)
    assert shared.config["chat_template"] == shared.history[0].config["chat_template"] == "chat.jinja"
    assert SECRET not in shared.to_json()
    named = dataclasses.replace(report, config=report.config | {"chat_template": "tool_use"})
    assert for_others(named).config["chat_template"] == "tool_use"


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
    config = dataclasses.asdict(HPAConfig(include=("^a/b/c/d$",)))
    past = RoundRecord(OLD, f"/home/{SECRET}/new", "", config, safety, None, 3, commits={OLD: "a" * 40})
    report = report_of(evaluation=evaluation, history=(dataclasses.replace(past, evaluation=evaluation),))
    shared = for_others(report)
    assert SECRET not in shared.to_json()
    assert [model["model"] for model in shared.evaluation["models"]] == ["aligned", "tuned", "repaired"]
    assert shared.evaluation["run"]["options"] == {"endpoint": "not shown", "seed": 0}
    assert shared.evaluation["judge"] == "guard"
    assert shared.evaluation["models"][2]["safety"] == evaluation["models"][2]["safety"]
    assert (shared.history[0].old, shared.history[0].new) == (OLD, "new")
    assert shared.history[0].safety.file == "first.jsonl"
    assert shared.history[0].config == config
    assert json.loads(report.to_json())["evaluation"] == evaluation  # what was given stays as it was


@pytest.mark.parametrize("evaluation", [{}, {"models": 3, "files": [], "run": 1}, {"models": [{}], "files": {"x": 1}}])
def test_an_evaluation_of_another_form(evaluation: dict[str, Any]) -> None:
    assert for_others(report_of(evaluation=evaluation)).evaluation == evaluation


def test_the_card_has_none_from_the_start() -> None:
    models = [{**model, "name": f"/home/{SECRET}/aligned"} for model in evaluated()["models"]]
    report = report_of(evaluation={**evaluated(), "models": models})
    assert SECRET not in make(with_run(report, command=f"hpa-merge /home/{SECRET}/x", notes=(f"/home/{SECRET}",)))


# --- no place, wherever it stands -----------------------------------------------------------------------------------

FOLDERS = (
    f"/home/{SECRET}/{SECRET} files/old",
    f"{SECRET}/old",
    f"runs/{SECRET}/old",
    f"./{SECRET}/old/",
    f"../{SECRET}/old",
    f"~/{SECRET}/old",
    f"~{SECRET}/x/old",
    f"file:///data/{SECRET}/old",
    f"/{SECRET}/it's (an) [old] one/old",
    f"/data/{SECRET}_(v1.0)+$x/old",
)
"""Folders as people write them."""


def full_of(place: str, *, adapter: str = "") -> MergeReport:
    """A report with a place in every field that may hold one, and in sentences as a merge and an evaluation say."""
    notes = (
        f"OLD {place} has a report that cannot be used (hpa_report.json has no schema_version): it begins anew.",
        f"The safety half of {place} was not read: it is of other samples.",
        f"it was not drawn (OSError: [Errno 13] Permission denied: '{place}/x y/z'): fix that.",
        f"{place}, {place}.",
    )
    evaluation = evaluated(options={"endpoint": None})
    for model in evaluation["models"]:
        model["model"] = f"{place.rstrip('/')}/{model['name']}"
        model["name"] = model["model"]  # two folders of one name are called as they were given
    evaluation |= {"files": {"safety": {"s": place}}, "judge": place, "out": evaluation["models"][-1]["name"]}
    evaluation["failures"] = [f"{evaluation['out']} falls by 4 points on {place}."]
    record = CalibrationRecord(place, 8, 100, 0)
    kind = f"LoRA of rank 8, trained on {adapter or place}"
    past = RoundRecord(place, place, "", {}, record, record, 3, evaluation=evaluation, adapter=kind)
    words = ["hpa-merge", place, place, f"--safety-calib={place}", "--task-calib", place, "--safety-test", f"a={place}"]
    run = {
        "out": f"{place}/out",
        "notes": notes,
        "statistics": {"file": place},
        "command": shlex.join(words),
        "adapter": kind,
    }
    report = with_run(report_of(old=place, new=place), **run)
    return dataclasses.replace(report, safety=record, task=record, evaluation=evaluation, history=(past, past))


@pytest.mark.parametrize("place", FOLDERS)
def test_no_text_that_we_publish_names_a_place(place: str) -> None:
    report = full_of(place)
    shared = for_others(report)
    card = make(report, figures={"hpa_columns.png": "columns"})
    texts = [shared.to_json(), card, remake(report, card), page_of(shared, {})]
    assert SECRET in report.to_json()
    assert not [text for text in texts if SECRET in text]
    assert for_others(shared) == shared
    assert (shared.run.old, shared.history[1].new, shared.safety.file) == ("old", "old", "old")
    assert not is_local_in(report, card)


@settings(max_examples=200, deadline=None)
@given(
    root=st.sampled_from(["/", "/home/", "~/", "../", "./", "", "C:\\Users\\"]),
    above=st.lists(st.text("abc _.-+()[]&$'#é", max_size=4), max_size=3),
)
def test_nor_any_other(root: str, above: list[str]) -> None:
    sign = "\\" if "\\" in root else "/"
    place = root + sign.join([f"{part}{SECRET}{part}" for part in above] + [SECRET, "old"])
    report = full_of(place)
    assert SECRET not in for_others(report).to_json()
    assert SECRET not in make(report)


@pytest.mark.parametrize(
    ("base", "old", "commits", "shown"),
    [
        ("meta/llama-8b", "/home/x/base", {}, "meta/llama-8b"),
        ("meta/llama-8b", "meta/llama-8b", {"meta/llama-8b": "a" * 40}, "meta/llama-8b"),
        (f"{SECRET}/base", f"/home/{SECRET}/base", {}, "base"),
        (f"{SECRET}/old adapter", "x", {}, "old adapter"),
        (f"D:\\{SECRET}\\base", "x", {}, "base"),
        ("gpt2", "x", {}, "gpt2"),
    ],
)
def test_what_an_adapter_was_trained_on(base: str, old: str, commits: dict[str, str], shown: str) -> None:
    report = report_of(old=old, commits=commits, adapter=f"LoRA (DoRA) of rank 4, trained on {base}")
    assert for_others(report).run.adapter == f"LoRA (DoRA) of rank 4, trained on {shown}"
    assert f"an adapter on it (LoRA (DoRA) of rank 4, trained on {shown})" in make(report).replace("\\", "")


def test_a_card_of_an_earlier_version_is_told_anew() -> None:
    """Whose section of ours names a place; what people wrote around it stays, and a section that names none."""
    report = report_of(adapter=f"LoRA, trained on runs/{SECRET}/base")
    card = make(report, "---\ntags: [x]\n---\nTheirs\n")
    edited = card.replace("## Limitations", "## Limitations, and mine")
    assert for_the_hub(report, edited, {}) == edited
    leaking = edited.replace("trained on base", f"trained on runs/{SECRET}/base")
    assert SECRET in leaking
    told = for_the_hub(report, leaking, {})
    assert SECRET not in told
    assert told == card
    assert for_the_hub(report, f"My own card of /home/{SECRET}", {}) == f"My own card of /home/{SECRET}"  # is not ours


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"_name_or_path": f"/home/{SECRET}/base"}, (f"/home/{SECRET}/base",)),
        ({"a": [{"b": "~/x/y"}, {"c": "file:///srv/x"}]}, ("~/x/y", "file:///srv/x")),
        ({"base_model_name_or_path": "C:\\Users\\x\\base"}, ("C:\\Users\\x\\base",)),
        ({"a": "lab/model", "b": "</s>", "c": "/", "d": "https://a/b/c", "e": "a /b/c", "f": "/think"}, ()),
        (
            f"See /home/{SECRET}/x.md, or https://host/home/page, and/or `~/notes/x`.",
            (f"/home/{SECRET}/x.md", "~/notes/x"),
        ),
        ("a/mnt/b", ()),
    ],
)
def test_places_in_files_that_are_news(content: Any, found: tuple[str, ...]) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    assert sorted(places_in(text.encode())) == sorted(found)


def many_rounds(count: int) -> MergeReport:
    """A report of so many rounds, each with folders of its own."""
    one = round_of(report_of())
    rounds = (
        dataclasses.replace(one, old=f"/home/{SECRET}/runs/{i}/old", new=f"../{SECRET}/{i}/new") for i in range(count)
    )
    return dataclasses.replace(report_of(), history=tuple(rounds))


def test_many_rounds_take_little() -> None:
    done = measured(for_others, many_rounds(ROUNDS))
    assert done.status == 0, done
    assert done.cpu_seconds < 20
    shared = for_others(many_rounds(3))
    assert {past.old for past in shared.history} == {"old"}

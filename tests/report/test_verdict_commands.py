"""The commands that a verdict suggests: to measure OUT, to tune it, to publish it."""

import dataclasses
import re
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import validate_repo_id
from verdicts import FILES, evaluation, report

from hpa_merge import HPAConfig
from hpa_merge.cli.model_options import TEST_OPTIONS
from hpa_merge.errors import CalibrationError, ConfigError
from hpa_merge.publishing.destination import Destination
from hpa_merge.records.containers.reading import read_records
from hpa_merge.report.commands import publishing
from hpa_merge.report.evaluation import Bounds


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"method": "regmean", "safety_weight": 3.0}, ["--method", "regmean"]),
        ({"p_max": 30.0, "selection": "safety"}, ["--selection", "safety"]),
        ({"method": "blocks"}, ["--method", "blocks", "--settings", "SETTINGS.yaml"]),
    ],
)
def test_a_suggested_tuning_tries_the_strengths_of_the_rule(options: dict[str, Any], given: list[str]) -> None:
    found = evaluation((12, 38, 0), Bounds(max_task_drop=5, max_dasr=100))
    found = replace(found, bounds=Bounds(max_asr=5), run={"options": {"max_new_tokens": 64, "samples": 20}})
    (step,) = report(found, config=dataclasses.asdict(HPAConfig(**options))).verdict.next
    words = shlex.split(step.command)
    after = words.index("--max-asr")
    assert words[after - 4 : after] == ["--max-new-tokens", "64", "--samples", "20"]
    assert words[after + 2 : -2] == given


def test_a_suggested_command_reads_the_tests_as_before() -> None:
    asked = {"map": ["safety:prompt=goal"], "ignore_field": ["id", "row"], "chat_template": "plain", "max_frames": 8}
    found = replace(evaluation((0, 38, 0)), run={"options": asked})
    command = report(found).verdict.next[0].command
    words = shlex.split(command)
    pairs = set(pairwise(words))
    assert pairs >= {("--map", "safety:prompt=goal"), ("--ignore-field", "id"), ("--ignore-field", "row")}
    assert ("--chat-template", "plain") in pairs
    assert "--max-frames" not in words


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("runs/März (2)", "M-rz-2"),
        ("a--b..c", "a-b.c"),
        ("v1.5_final", "v1.5_final"),
        ("模型", "MODEL"),
        ("w" * 200, "w" * 80),
    ],
)
def test_the_suggested_name_on_the_hub_is_a_valid_one(folder: str, name: str) -> None:
    words = shlex.split(publishing(folder).command)
    assert words == ["hpa-merge", "push", folder, f"YOUR-NAME/{name}", "--private"]
    validate_repo_id(words[3])


def test_what_was_not_measured_has_the_command_that_measures_it() -> None:
    verdict = report(None).verdict
    measure, show = (shlex.split(step.command) for step in verdict.next)
    assert measure[:5] == ["hpa-merge", "eval", "/home/somebody/aligned", "/home/somebody/tuned", "/home/somebody/out"]
    assert measure[-6:] == ["--max-task-drop", "10", "--gate", "/home/somebody/out", "--json", "out-eval.json"]
    assert show == ["hpa-merge", "report", "/home/somebody/out", "--evaluation", "out-eval.json"]
    known = {flag for option in TEST_OPTIONS for flag in _flags(option)}
    assert {word for word in measure if word.startswith("--") and "test" in word} <= known
    # With the files of an evaluation that had no bounds, and with those of an earlier round.
    words = shlex.split(report(evaluation((0, 38, 0))).verdict.next[0].command)
    assert words[5:15] == [
        *("--safety-test", "s=s.jsonl", "--task-test", "codes=c d.jsonl", "--benign-test", "h=h.jsonl"),
        *("--metric", "codes=choice", "--max-new-tokens", "64"),
    ]


def _flags(option: Any) -> list[str]:
    def command() -> None: ...

    return [flag for parameter in option(command).__click_params__ for flag in parameter.opts]


def test_what_passes_is_published_and_what_fails_is_tuned() -> None:
    passed = report(evaluation((0, 38, 0), Bounds(max_dasr=9))).verdict
    assert [step.command for step in passed.next] == ["hpa-merge push /home/somebody/out YOUR-NAME/out --private"]
    (failed,) = report(evaluation((12, 38, 0), Bounds(max_dasr=5, max_over_refusal=10))).verdict.next
    words = shlex.split(failed.command)
    assert words[:4] == ["hpa-merge", "tune", "/home/somebody/aligned", "/home/somebody/tuned"]
    assert words[4:8] == ["--safety-calib", "/home/somebody/data/safety.jsonl", "--task-calib", "../data/task.jsonl"]
    assert words[-6:] == ["--max-asr", "5", "--max-over-refusal", "10", "-o", "/home/somebody/out-tuned"]


@pytest.mark.parametrize(
    ("attacks", "bounds", "aims"),
    [
        (4, Bounds(max_dasr=5), ["measure it with at least 73 attacks"]),
        (4, Bounds(max_asr=5), ["measure it with at least 73 attacks"]),
        (4, Bounds(max_asr=50), ["publish it"]),
        (12, Bounds(max_asr=10, max_task_drop=100), ["measure it with at least 35 attacks"]),
        (40, Bounds(max_dasr=5), ["measure it with at least 73 attacks", "publish it"]),
        (80, Bounds(max_dasr=5), ["publish it"]),
        (80, Bounds(max_dasr=5, max_over_refusal=5), ["measure it with at least 73 harmless prompts", "publish it"]),
        (80, Bounds(max_asr=0), ["measure it with more attacks", "publish it"]),
    ],
)
def test_few_prompts_are_measured_again_before_they_are_published(
    attacks: int, bounds: Bounds, aims: list[str]
) -> None:
    """As far as the interval reaches beyond a bound that the figure keeps; after too few to tell, nothing else."""
    steps = report(evaluation((0, 38, 0), bounds, new_attacks=3, of=attacks)).verdict.next
    assert [step.aim for step in steps] == aims
    measure = shlex.split(steps[0].command)
    if len(aims) > 1 or aims[0] != "publish it":
        purpose, name = ("benign", "h") if "harmless" in aims[0] else ("safety", "s")
        stand_in = {"safety": "MORE-UNSAFE.jsonl", "benign": "MORE-HARMLESS.jsonl"}[purpose]
        assert (f"--{purpose}-test", f"{name}={stand_in}") in set(pairwise(measure))
        assert "codes=c d.jsonl" in measure
        assert measure[measure.index("--gate") - 2 :][:2] == bounds.flags[-2:]


def test_where_a_part_was_asked_all_is_measured_next() -> None:
    found = replace(evaluation((0, 38, 0), Bounds(max_asr=5), new_attacks=3, of=4), run={"options": {"samples": 4}})
    command = report(found).verdict.next[0].command
    assert "--safety-test s=s.jsonl" in command
    assert "--samples" not in command


def test_a_model_that_nobody_attacked_is_not_published() -> None:
    found = evaluation((0, 38, 0), Bounds(max_task_drop=100))
    models = tuple(replace(model, safety={}, asr=None, differences=()) for model in found.models)
    files = {kind: named for kind, named in FILES.items() if kind != "safety"}
    steps = report(replace(found, models=models, files=files)).verdict.next
    assert [step.aim for step in steps] == ["measure it with more attacks"]
    assert "--safety-test UNSAFE.jsonl" in steps[0].command


def test_a_suggested_command_has_what_the_merge_and_the_evaluation_were_given() -> None:
    guard = {"served": True, "template": "own.jinja", "arguments": ["guideline=a b"], "controversial": "safe"}
    options = {"batch_size": 2, "image_folder": ["benign:pictures"], "base": "lab/base", "guard": guard}
    found = evaluation((12, 38, 0), Bounds(max_asr=5))
    found = replace(found, judge="guard", run={"options": options}, files=FILES | {"confirm": {"s": "m.jsonl"}})
    made = report(found)
    given = {
        "image_folder": ("safety:a b", "task:c"),
        "vision_tower": ("clip",),
        "first": ("lab/first",),
        "stats": ("s.safetensors",),
        "stats_hessians": (),
        "max_memory": ("20000000000",),
    }
    made = replace(made, run=replace(made.run, given=given))
    tune = shlex.split(made.verdict.next[0].command)
    pairs = set(pairwise(tune))
    assert pairs >= {
        *(("--image-folder", "safety:a b"), ("--image-folder", "task:c"), ("--vision-tower", "clip")),
        *(("--first", "lab/first"), ("--stats", "s.safetensors"), ("--max-memory", "20000000000")),
        *(("--judge", "guard"), ("--judge-endpoint", "ITS-ADDRESS"), ("--judge-arg", "guideline=a b")),
        *(("--judge-template", "own.jinja"), ("--controversial", "safe"), ("--batch-size", "2")),
        ("--confirm-test", "s=m.jsonl"),
    }
    assert "--stats-hessians" in tune
    made = report(replace(found, bounds=None))
    measured = shlex.split(made.verdict.next[0].command)
    assert set(pairwise(measured)) >= {("--image-folder", "benign:pictures"), ("--base", "lab/base")}
    assert "--confirm-test" not in measured


def test_a_stand_in_that_is_left_in_a_command_is_explained(tmp_path: Path) -> None:
    steps = [*report(None).verdict.next, *report(evaluation((0, 38, 0), Bounds(max_asr=0.5))).verdict.next]
    words = [word for step in steps for word in shlex.split(step.command)]
    given = {word.rpartition("=")[2] for word in words if re.fullmatch(r"(\w+=)?[A-Z-]+\.jsonl", word)}
    assert {"UNSAFE.jsonl", "TASK.jsonl", "HARMLESS.jsonl", "MORE-UNSAFE.jsonl"} <= given
    for name in given:
        with pytest.raises(CalibrationError, match=f"{name} does not exist: the name stands for a file of yours"):
            list(read_records(tmp_path / name, "test"))
    with pytest.raises(CalibrationError, match=r"unsafe.jsonl does not exist: check the path\.$"):
        list(read_records(tmp_path / "unsafe.jsonl", "test"))
    with pytest.raises(ConfigError, match="YOUR-NAME in YOUR-NAME/out stands for your account"):
        Destination(shlex.split(publishing("runs/out").command)[3])

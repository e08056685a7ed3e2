"""Calibration sets of a run: several task sets with shares, in every container, and how their fields are named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import TinyCase, content
from data_files import as_lines, save_to_disk

from hpa_merge import HPAConfig, merge
from hpa_merge.cli import main
from hpa_merge.engine.preview import preview
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import draw
from hpa_merge.errors import CalibrationError, ConfigError, OutputError
from hpa_merge.report.redaction import for_others
from hpa_merge.report.schema import read_report
from hpa_merge.verification import verify

Tiny = Callable[..., TinyCase]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("samples", "shares", "counts"),
    [
        (128, (), [64, 64]),
        (128, (0.75, 0.25), [96, 32]),
        (128, (3, 1), [96, 32]),
        (5, (), [3, 2]),
        (10, (1, 1, 1), [4, 3, 3]),
        (7, (0.5, 0.3, 0.2), [4, 2, 1]),
        (10, (0.55, 0.45), [6, 4]),
        (2, (0.999, 0.5), [1, 1]),
        (6, (1,), [6]),
    ],
)
def test_shares_are_rounded_so_that_they_make_up_the_whole(
    samples: int, shares: tuple[float, ...], counts: list[int]
) -> None:
    found = draw(samples, shares, ["a", "b", "c"][: len(counts)])
    assert found == counts
    assert sum(found) == samples


@pytest.mark.parametrize(("samples", "shares"), [(1, ()), (128, (300, 1)), (2, (1, 1, 1))])
def test_a_set_that_would_give_nothing_is_refused(samples: int, shares: tuple[float, ...]) -> None:
    names = ["a", "b", "c"][: len(shares) or 2]
    with pytest.raises(ConfigError) as raised:
        draw(samples, shares, names)
    assert str(raised.value) == (
        f"task_samples is {samples}, and {names[-1]} would give none of them: raise task_samples, or its share."
    )


def two_sets(case: TinyCase, folder: Path) -> tuple[Path, Path]:
    """The task's samples, the first in a file and the others as a table of a folder."""
    every = [{"text": json.dumps(record)[:60]} for record in records(case.task)]
    (folder / "new.jsonl").write_bytes(as_lines(every[:4]))
    save_to_disk(folder / "old", every[4:6])
    return folder / "new.jsonl", folder / "old"


@pytest.mark.gate
def test_the_report_says_what_each_set_gave(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    sets = two_sets(case, tmp_path)
    config = HPAConfig(task_samples=8, task_share=(0.5, 0.5))
    options: dict[str, Any] = {"safety_calib": case.safety, "task_calib": sets}
    report = merge(case.old, case.new, tmp_path / "out", config=config, page=False, **options)
    assert report.task is not None
    assert (report.task.file, report.task.samples) == (f"{sets[0]} + {sets[1]}", 6)
    assert [(part.file, part.samples) for part in report.task.parts] == [(str(sets[0]), 4), (str(sets[1]), 2)]
    assert sum(part.tokens for part in report.task.parts) == report.task.tokens
    assert all(part.tokens for part in report.task.parts)
    short = (
        f"{sets[1]} holds 2 samples, 4 would be its share of the task samples, and the other sets do not fill that up."
    )
    assert short in report.run.notes
    assert report.task == read_report(tmp_path / "out").task

    joined = tmp_path / "joined.jsonl"
    joined.write_bytes(sets[0].read_bytes() + as_lines([{"text": json.dumps(r)[:60]} for r in records(case.task)[4:6]]))
    one = replace(config, task_share=())
    merge(case.old, case.new, tmp_path / "one", config=one, page=False, safety_calib=case.safety, task_calib=joined)
    weights = [
        {name: value for name, value in content(tmp_path / out).items() if name.endswith("safetensors")}
        for out in ("out", "one")
    ]
    assert weights[0] == weights[1]

    again = verify(tmp_path / "out", case.old, case.new, **options)
    assert again.problems == ()
    assert [line for line in again.unchecked if line.startswith("The task samples are")][1].startswith(
        f"The task samples are 2 of {sets[1]}, SHA-256 "
    )
    shared = for_others(report).task
    assert shared is not None
    assert (shared.file, [part.file for part in shared.parts]) == ("new.jsonl + old", ["new.jsonl", "old"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--task-calib new.jsonl --task-calib old" in card
    assert "--task-share 0.5 --task-share 0.5" in card
    assert str(tmp_path) not in card


def test_no_set_is_written_into_or_replaced(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llama")
    sets = two_sets(case, tmp_path)
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    for out in (sets[1] / "out", sets[1], sets[0], tmp_path):
        with pytest.raises(OutputError):
            merge(case.old, case.new, out, safety_calib=case.safety, task_calib=sets, overwrite=True)
    assert before == {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}


def plan(case: TinyCase, out: Path, *, image_folder: tuple[str, ...] = (), **options: Any) -> Any:
    sets = {name: options.pop(name, getattr(case, name)) for name in ("safety", "task")}
    task = sets["task"] if isinstance(sets["task"], tuple) else (sets["task"],)
    request = MergeRequest(
        case.old, case.new, {out: HPAConfig(**options)}, sets["safety"], task, image_folder=image_folder
    )
    return preview(request)[out]


def test_shares_that_do_not_fit_the_sets(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(tiny("llama"), tmp_path / "out", task_share=(1.0, 2.0))
    assert str(raised.value) == (
        "task_share has 2 numbers, and the task sets number 1: give one for each task_calib, in their order."
    )


@pytest.mark.gate
def test_images_start_in_the_folder_of_their_set(tiny: Tiny, tmp_path: Path) -> None:
    case = tiny("llava")
    moved = tmp_path / "elsewhere.jsonl"
    moved.write_bytes(case.task.read_bytes())
    with pytest.raises(CalibrationError, match=r"elsewhere\.jsonl:\d+.* is not a file in "):
        plan(case, tmp_path / "out", task=moved)
    folder = str(case.task.parent)
    for given in (f"task:{folder}",), (folder,):
        assert plan(case, tmp_path / "out", task=moved, image_folder=given).task.images > 0
    with pytest.raises(CalibrationError):
        plan(case, tmp_path / "out", task=moved, image_folder=(f"safety:{folder}",))


# --- from the command line and from YAML ---


def asked(monkeypatch: pytest.MonkeyPatch, *words: object) -> MergeRequest:
    """What the command asks for."""
    requests: list[MergeRequest] = []
    monkeypatch.setattr("hpa_merge.engine.run.merge_all", lambda request, *_: requests.append(request) or {}[0])
    monkeypatch.setattr("hpa_merge.cli.merging.refuse_early", lambda *_, **__: None)  # the folders are not there
    with pytest.raises((KeyError, SystemExit)):
        main([str(word) for word in ("old", "new", "--safety-calib", "s.jsonl", "-o", "out", *words)])
    (request,) = requests
    return request


def test_the_words_of_the_command_and_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "task-calib: [new.jsonl, 'lab/old:train@v1']\ntask-share: [3, 1]\nmap: {answer: output_text}\n"
        f"ignore-field: note\nimage-folder: 'task:{tmp_path}'\n"
    )
    typed = ["--task-calib", "new.jsonl", "--task-calib", "lab/old:train@v1", "--task-share", 3, "--task-share", 1]
    typed += ["--map", "answer=output_text", "--ignore-field", "note", "--image-folder", f"task:{tmp_path}"]
    by_file, by_words = asked(monkeypatch, "--config", config), asked(monkeypatch, *typed)
    for request in (by_file, by_words):
        assert request.task_calib == (Path("new.jsonl"), Path("lab/old:train@v1"))
        assert request.calibration.task_share == (3.0, 1.0)
        options = request.reading("task")
        assert (dict(options.names), options.ignored) == ({"answer": "output_text"}, {"note"})
        assert (options.media_folder, request.reading("safety").media_folder) == (tmp_path, None)
    assert by_file.outs == by_words.outs
    (wins,) = asked(monkeypatch, "--config", config, "--task-calib", "x.jsonl", "--task-share", 1).task_calib
    assert wins == Path("x.jsonl")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--map", "answer"], "map is ('answer',): it has to be WANTED=GIVEN."),
        (["--map", "=x"], "map is ('=x',): it has to be WANTED=GIVEN."),
        (["--map", "a=x", "--map", "a=y"], "map gives a as x and as y: give it once."),
        (["--image-folder", "none"], "image_folder is none, which is no folder: check the path."),
        (
            ["--image-folder", ".", "--image-folder", ".."],
            "image_folder is . and ..: give one, or one for each set, as in safety:...",
        ),
        (["--task-share", "0"], "task_share is (0.0,): it has to be numbers greater than 0."),
    ],
)
def test_words_that_cannot_be(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["old", "new", "--safety-calib", "s.jsonl", "--task-calib", "t.jsonl", "-o", "out", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err == f"Error: {sentence}\n"

"""The verdict as ``eval`` and a merge print it."""

import io
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import report_of
from rich.console import Console

from hpa_merge.cli.closing import tell
from hpa_merge.cli.tables.verdict import verdict_of_models, verdict_text
from hpa_merge.evaluation.intervals import mean_of_sets
from hpa_merge.report.commands import Step
from hpa_merge.report.evaluation import Bounds, Evaluation, ModelResult
from hpa_merge.report.paths import paths_note
from hpa_merge.report.records import CalibrationRecord


def test_an_evaluation_in_a_file_is_put_on_the_page_first(tmp_path: Path) -> None:
    made, scores = report_of(), mean_of_sets([[0.0] * 40])
    (tmp_path / "hpa_report.json").write_text(made.to_json(), encoding="utf-8")
    out = ModelResult("out", str(tmp_path), {"s": scores}, {}, {}, {}, asr=scores)
    bounded = Evaluation((out,), "phrases", {"safety": {"s": "s.jsonl"}}, bounds=Bounds(max_asr=5))
    steps = verdict_of_models(bounded, results=Path("a b.json")).next
    more = "measure it with at least 73 attacks"
    assert [step.aim for step in steps] == ["put the result on the page", more]
    assert steps[0].command == f"hpa-merge report {shlex.quote(str(tmp_path))} --evaluation 'a b.json'"
    assert [step.aim for step in verdict_of_models(bounded).next] == [more]


def test_paths_are_those_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OUT lies as its merge named it; of an OUT that was moved, the command says where its paths start."""
    scores = mean_of_sets([[1.0] * 40])
    made = report_of(old="demo/old", new="lab/new", commits={"lab/new": "a" * 40})
    made = replace(made, run=replace(made.run, out="runs/out", given={"image_folder": ("task:demo/images",)}))
    made = replace(made, safety=CalibrationRecord("demo/s.jsonl", 8, 100, 0), task=None)
    (tmp_path / "demo" / "old").mkdir(parents=True)
    (tmp_path / "demo" / "images").mkdir()
    (tmp_path / "demo" / "s.jsonl").touch()
    for folder in ("runs/out", "moved"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "hpa_report.json").write_text(made.to_json(), encoding="utf-8")

    def next_of(out: str) -> Step:
        found = ModelResult("out", out, {"s": scores}, {}, {}, {}, asr=scores)
        return verdict_of_models(Evaluation((found,), "phrases", {}, bounds=Bounds(max_asr=5))).next[0]

    for here, out, start in ((".", "runs/out", "demo"), ("demo", "../runs/out", "."), ("runs", "out", "../demo")):
        monkeypatch.chdir(tmp_path / here)
        step = next_of(out)
        assert step.aim == "find a setting that passes"
        words = shlex.split(step.command)
        assert words[:6] == [
            *("hpa-merge", "tune", Path(start, "old").as_posix(), "lab/new"),
            *("--safety-calib", Path(start, "s.jsonl").as_posix()),
        ]
        assert words[words.index("--image-folder") + 1] == f"task:{Path(start, 'images').as_posix()}"
    monkeypatch.chdir(tmp_path / "moved")
    step = next_of(".")
    assert step.aim == "find a setting that passes, in the folder where the merge ran"
    assert "tune demo/old lab/new --safety-calib demo/s.jsonl" in step.command
    assert paths_note(made, [step]).startswith("The paths are those that the merge was given: run")
    assert paths_note(report_of(), made.verdict.next) == ""


def test_the_verdict_of_a_report_from_anywhere_is_printable() -> None:
    made = report_of()
    evil = replace(made, run=replace(made.run, old="\x1b]0;title\x07", out="out\x1b[2J\nGate: PASS."))
    lines = verdict_text(evil.verdict)
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("Gate") for line in lines)


@pytest.mark.parametrize(("columns", "terminal"), [(40, True), (80, True), (40, False)])
def test_a_terminal_gets_whole_words_and_whole_commands(columns: int, terminal: bool) -> None:
    sentence = "Gate: PASS. Attacks succeed at most 5 points more often than with old (--max-dasr) [bold]."
    command = "  hpa-merge eval demo/old demo/new demo/out --safety-test s=MORE-UNSAFE.jsonl --json out.json"
    file = io.StringIO()
    tell(Console(file=file, width=columns, force_terminal=terminal, color_system=None), [sentence, command])
    lines = file.getvalue().splitlines()
    assert lines[-1] == command
    assert " ".join(line.strip() for line in lines[:-1]) == sentence
    assert max(map(len, lines[:-1])) <= (columns if terminal else len(sentence))
    assert len(lines) == 2 if not terminal else len(lines) > 2

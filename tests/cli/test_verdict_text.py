"""The verdict as ``eval`` and a merge print it."""

import shlex
from dataclasses import replace
from pathlib import Path

from report_samples import report_of

from hpa_merge.cli.tables.verdict import verdict_of_models, verdict_text
from hpa_merge.evaluation.intervals import mean_of_sets
from hpa_merge.report.evaluation import Bounds, Evaluation, ModelResult


def test_an_evaluation_in_a_file_is_put_on_the_page_first(tmp_path: Path) -> None:
    made, scores = report_of(), mean_of_sets([[0.0] * 40])
    (tmp_path / "hpa_report.json").write_text(made.to_json(), encoding="utf-8")
    out = ModelResult("out", str(tmp_path), {"s": scores}, {}, {}, {}, asr=scores)
    bounded = Evaluation((out,), "phrases", {"safety": {"s": "s.jsonl"}}, bounds=Bounds(max_asr=5))
    steps = verdict_of_models(bounded, results=Path("a b.json")).next
    assert [step.aim for step in steps] == ["put the result on the page", "publish it"]
    assert steps[0].command == f"hpa-merge report {shlex.quote(str(tmp_path))} --evaluation 'a b.json'"
    assert [step.aim for step in verdict_of_models(bounded).next] == ["publish it"]


def test_the_verdict_of_a_report_from_anywhere_is_printable() -> None:
    made = report_of()
    evil = replace(made, run=replace(made.run, old="\x1b]0;title\x07", out="out\x1b[2J\nGate: PASS."))
    lines = verdict_text(evil.verdict).plain.split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("Gate") for line in lines)

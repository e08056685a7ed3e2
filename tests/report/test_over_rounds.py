"""What was measured over the rounds of a model: the table, on the page and on the card."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness_files import lm_eval, write
from harness_reading import read
from report_samples import HOSTILE, report_of
from verdicts import evaluation

from hpa_merge.render.card import make
from hpa_merge.render.figures import figures_of
from hpa_merge.render.page import page_of
from hpa_merge.report.evaluation import Evaluation
from hpa_merge.report.over_rounds import over_rounds
from hpa_merge.report.rounds import round_of
from hpa_merge.report.schema import MergeReport, read_report_file


def content(of: Evaluation) -> dict[str, Any]:
    return json.loads(of.to_json()) | {"out": "out"}


def with_task(of: Evaluation, name: str) -> Evaluation:
    """The same models, of which OUT did one task more."""
    *others, out = of.models
    return replace(of, models=(*others, replace(out, tasks={**out.tasks, name: out.tasks["codes"]})))


def second(tmp_path: Path, task: str = "shapes") -> MergeReport:
    """A report of the second round, both rounds measured, the first also by another harness."""
    tasks = {"gsm8k": {"acc,none": 0.5, "acc_stderr,none": 0.02}}
    benchmarks = read(write(tmp_path / "r.json", lm_eval("pretrained=repaired", tasks)))
    first = replace(report_of(), evaluation=content(evaluation((2, 38, 1))), benchmarks=benchmarks)
    return replace(report_of(), evaluation=content(with_task(evaluation((1, 20, 0)), task)), history=(round_of(first),))


def test_each_task_has_a_row_and_each_round_a_column(tmp_path: Path) -> None:
    found = over_rounds(second(tmp_path))
    assert found is not None
    heads, rows = found
    assert heads == ("figure", "first model", "round 1", "round 2")
    assert rows == [
        ("attacks that succeed ↓", "0.0", "5.0", "2.5"),
        ("task codes ↑", "12.5", "95.0", "50.0"),
        ("harmless prompts refused ↓", "0.0", "2.5", "0.0"),
        ("gsm8k/acc", "", "0.5", ""),
        ("task shapes ↑", "", "", "50.0"),
    ]


def test_a_report_keeps_the_scores_of_its_rounds(tmp_path: Path) -> None:
    report = second(tmp_path)
    (tmp_path / "hpa_report.json").write_text(report.to_json(), encoding="utf-8")
    (kept,) = read_report_file(tmp_path / "hpa_report.json", "OUT").history
    assert kept.benchmarks == {"gsm8k/acc": 0.5}


def test_the_page_and_the_card_show_them(tmp_path: Path) -> None:
    report = second(tmp_path, HOSTILE)
    page = page_of(report, figures_of(report))
    assert "What was measured over the rounds, each with its own prompts" in page
    assert '<th scope="row">task codes ↑</th><td>12.5</td><td>95.0</td><td>50.0</td>' in page
    section = make(report).partition("## What was measured over the rounds\n")[2].partition("\n## ")[0]
    assert "| task codes ↑ | 12.5 | 95.0 | 50.0 |" in section
    for text in (page, section):
        assert "img src=x" in text
        assert not re.search(r"(?<!\\)<img src=x", text)


def test_without_two_measured_models_there_is_no_table() -> None:
    plain = report_of()
    assert over_rounds(plain) is None
    assert over_rounds(replace(plain, evaluation=content(evaluation((0, 38, 0))))) is None
    assert over_rounds(replace(plain, history=(round_of(plain),))) is None


def test_a_round_may_be_measured_by_the_next_one() -> None:
    first = report_of()
    report = replace(first, evaluation=content(evaluation((1, 20, 0))), history=(round_of(first),))
    found = over_rounds(report)
    assert found is not None
    assert found[0] == ("figure", "round 1", "round 2")
    assert found[1][1] == ("task codes ↑", "12.5", "50.0")

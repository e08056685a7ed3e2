"""What a report says of other harnesses' results: safety, differences, the page and the card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from harness_reading import REPORT, of_three
from report_samples import HOSTILE

from hpa_merge.errors import EvaluationError
from hpa_merge.render.card import make, remake
from hpa_merge.render.figures import figures_of
from hpa_merge.render.page import page_of
from hpa_merge.report.benchmark_words import apart_text, benchmark_rows, score_text
from hpa_merge.report.benchmarks import BENCHMARKS, Benchmark, Benchmarks, Score, apart
from hpa_merge.report.harness import with_safety
from hpa_merge.report.redaction import for_others
from hpa_merge.report.schema import read_report_file
from hpa_merge.report.score_interval import wilson
from hpa_merge.report.verdict import verdict_lines


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        (
            (2, 90, 4),
            "Yes, by attacks/asr of lm-evaluation-harness, 200 samples, less is better: 0.020 (0.450 with NEW, ",
        ),
        ((2, 90, 60), "Partly, by attacks/asr"),
        ((2, 90, 85), "No, by attacks/asr"),
        ((2, 4, 3), "As safe as OLD, by attacks/asr"),
        ((0, 5, 2, 10), "Not known: too few samples, by attacks/asr"),
    ],
)
def test_what_they_say_about_safety(counts: tuple[int, ...], start: str, tmp_path: Path) -> None:
    """Nothing, unless the user says which metric is about safety."""
    found = of_three(tmp_path, *counts)
    plain = replace(REPORT, benchmarks=found)
    assert plain.verdict.answer == REPORT.verdict.answer
    assert plain.verdict.gate == "NOT MEASURED"
    verdict = replace(REPORT, benchmarks=with_safety(found, ["attacks/asr=less"])).verdict
    assert verdict.answer.startswith(start)
    assert verdict.gate == "NOT MEASURED"
    assert verdict.cost in ("Against NEW, no measurable change on task/acc.",)
    assert [line for line in verdict_lines(verdict) if line.startswith("Cost: Against NEW")]


def test_the_worst_answer_comes_first(tmp_path: Path) -> None:
    found = of_three(tmp_path, 2, 90, 4)
    rows = [replace(found.rows[0], task=task, safety=True, better="less") for task in ("yes", "unknown", "no")]
    rows[1] = replace(rows[1], old=None)
    rows[2] = replace(rows[2], out=rows[2].new)
    answer = replace(REPORT, benchmarks=replace(found, rows=tuple(rows))).verdict.answer
    assert [word for word in answer.split() if word in ("No,", "Not", "Yes,")] == ["No,", "Not", "Yes,"]


def test_which_metrics_say_something_about_safety(tmp_path: Path) -> None:
    found = of_three(tmp_path, 2, 90, 4)
    for words, complaint in {
        "attacks/asr": "no file says whether less or more of it is better: write attacks/asr=less or attacks/asr=more.",
        "attacks/acc": "is not among the metrics of the files: attacks/asr, task/acc.",
    }.items():
        with pytest.raises(EvaluationError) as caught:
            with_safety(found, [words])
        assert complaint in str(caught.value)
    with pytest.raises(EvaluationError, match="is for results of other harnesses, and the report has none"):
        with_safety(None, ["x/y"])
    assert [row.safety for row in with_safety(found, ["task/acc"]).rows] == [False, True]
    two = replace(found, rows=tuple(replace(row, metric=f"m,{i}", task="t") for i, row in enumerate(found.rows)))
    with pytest.raises(EvaluationError, match=r"--safety-metric t/m may be t/m,0, t/m,1: give one of these\."):
        with_safety(two, ["t/m=less"])
    assert [row.safety for row in with_safety(two, ["t/m,1=less"]).rows] == [False, True]


def test_more_may_be_safer(tmp_path: Path) -> None:
    found = of_three(tmp_path, 198, 110, 196)
    answer = replace(REPORT, benchmarks=with_safety(found, ["attacks/asr=more"])).verdict.answer
    assert answer.startswith("Yes, by attacks/asr of lm-evaluation-harness, 200 samples, more is better: 0.980")


def test_a_difference_is_that_of_independent_scores() -> None:
    """That of two shares is Newcombe's tenth, with his example (Stat. Med. 17 (1998) 873–890, table II)."""
    one, other = (Score(k / 10, 10, *wilson(k, 10), "Wilson") for k in (9, 3))
    forth, back = apart(one, other), apart(other, one)
    assert forth == pytest.approx((0.6, 0.1705, 0.8090), abs=5e-5)
    assert back == pytest.approx((-0.6, -0.8090, -0.1705), abs=5e-5)
    assert apart_text(back) == "−0.600 [−0.809, −0.171]"
    assert apart(one, replace(other, samples=20)) is None
    assert apart(one, Score(0.5, 10)) is None
    assert apart(None, one) is None
    assert score_text(Score(1234.5)) == "1.23e+03"


def test_the_report_keeps_them(tmp_path: Path) -> None:
    found = with_safety(of_three(tmp_path, 2, 90, 4), ["attacks/asr=less"])
    report = replace(REPORT, benchmarks=found)
    (tmp_path / "hpa_report.json").write_text(report.to_json())
    assert read_report_file(tmp_path / "hpa_report.json", "OUT").benchmarks == found
    assert "benchmarks" not in json.loads(REPORT.to_json())
    shared = for_others(report)
    assert shared.benchmarks is not None
    assert [source.file for source in shared.benchmarks.sources] == ["aligned.json", "repaired.json", "tuned.json"]
    assert str(tmp_path) not in shared.to_json()


def test_the_page_and_the_card(tmp_path: Path) -> None:
    """Other people's strings are escaped, and our results of a card that is made again are replaced."""
    found = of_three(tmp_path, 2, 90, 4)
    hostile = replace(found.rows[0], task=HOSTILE, metric=f"{HOSTILE}|x", setup=HOSTILE, group="")
    part = replace(found.rows[1], task="part", group="task")
    sources = tuple(replace(source, model=HOSTILE, file=HOSTILE, version=HOSTILE) for source in found.sources)
    changed = Benchmarks((*found.rows, hostile, part), sources, (HOSTILE,))
    report = replace(REPORT, benchmarks=changed)
    page = page_of(report, figures_of(report))
    assert "<img" not in page
    assert "attacks/asr" in page
    assert "0.020 (0.008–0.050)" in page
    assert "The parts of groups" in page
    card = make(report)
    assert "<img" not in card.partition("\n---\n")[2].replace("\\<", "")
    assert "| task/acc ↑ | 0.300 (0.241–0.367) |" in card.replace("\\", "")
    assert "part/acc" not in card
    index = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"]
    asr = next(result for result in index if result["dataset"]["name"] == "attacks")
    assert asr["metrics"][0] | {"args": None} == {"type": "asr", "name": "asr", "value": 0.02, "args": None}
    assert asr["source"]["name"] == "lm-evaluation-harness"
    again = remake(replace(report, benchmarks=None), card)
    assert "model-index" not in again


def test_many_rows_stay_readable() -> None:
    row = Benchmark("inspect-ai", "t", "m", out=Score(0.5))
    many = Benchmarks(tuple(replace(row, task=f"t{i}") for i in range(2000)), ())
    page = page_of(report := replace(REPORT, benchmarks=many), figures_of(report))
    assert "the first 300 of 2000" in page
    assert "t299/m" in page
    assert "t300/m" not in page
    assert len(benchmark_rows(many, many.rows)) == 2000 < BENCHMARKS

"""Results of other harnesses: each shape, whose they are, what is refused, and what the report says of them."""

import json
import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness_files import inspect_ai, inspect_score, lm_eval, lmms_eval, share, write, write_archive
from report_samples import HOSTILE, OLD, report_of

from hpa_merge.errors import EvaluationError
from hpa_merge.render.card import make, remake
from hpa_merge.render.figures import figures_of
from hpa_merge.render.page import page_of
from hpa_merge.report.benchmark_words import apart_text, benchmark_rows, score_text
from hpa_merge.report.benchmarks import BENCHMARKS, Benchmark, Benchmarks, Score, apart
from hpa_merge.report.harness import given_of, read_results, with_safety
from hpa_merge.report.redaction import for_others
from hpa_merge.report.schema import MergeReport, read_report_file
from hpa_merge.report.score_interval import wilson
from hpa_merge.report.validity import check_meaning
from hpa_merge.report.verdict import verdict_lines

REPORT = report_of()
"""Of /home/somebody/aligned and /home/somebody/tuned."""

OUT = Path("/home/somebody/repaired")


def read(*words: object, report: MergeReport = REPORT) -> Benchmarks:
    found = read_results([given_of(str(word)) for word in words], report, OUT).benchmarks
    assert found is not None
    return found


def rows(benchmarks: Benchmarks) -> dict[str, Benchmark]:
    return {row.name: row for row in benchmarks.rows}


def is_normal(score: Score | None, value: float, samples: int, error: float) -> bool:
    """Whether a score has the normal interval of a standard error."""
    assert score is not None
    assert (score.value, score.samples, score.interval) == (value, samples, "standard error")
    return (score.low, score.high) == pytest.approx((value - 1.959964 * error, value + 1.959964 * error))


def test_lm_evaluation_harness(tmp_path: Path) -> None:
    """Filters, groups and their parts, what is better, missing errors, shares and other means."""
    group = {"acc,none": 0.45, "acc_stderr,none": 0.056, "sample_len": 400, "sample_count": {"acc,none": 380}}
    content = lm_eval(
        {"pretrained": "/home/somebody/aligned", "peft": str(OUT)},
        {
            "part_a": share(100, 200),
            "part_b": share(80, 200),
            "mean_of": group,
            "gsm8k": share(0, 200, "exact_match", "strict-match") | share(31, 200, "exact_match", "flexible-extract"),
            "wikitext": {"word_perplexity,none": 12.5, "word_perplexity_stderr,none": "N/A"},
            "graded": {"f1,none": 0.25, "f1_stderr,none": 0.02, "rouge,none": math.nan, "bleu,none": 1.5},
            "tag": {" ": " ", "alias": "tag"},
        },
        group_subtasks={"mean_of": ["part_a", "part_b"], "tag": ["gsm8k"], "gsm8k": []},
    )
    found = read(write(tmp_path / "MODEL__NAME" / "results_2026.json", content))
    assert [(source.role, source.harness, source.version) for source in found.sources] == [
        ("out", "lm-evaluation-harness", "0.4.13")
    ]
    there = rows(found)
    assert list(there) == [
        *("part_a/acc", "part_b/acc", "mean_of/acc", "gsm8k/exact_match,strict-match"),
        *("gsm8k/exact_match,flexible-extract", "wikitext/word_perplexity", "graded/f1", "graded/bleu"),
    ]
    assert [row.group for row in found.rows[:4]] == ["mean_of", "mean_of", "", ""]  # of a group without mean, too
    assert [there[name].better for name in ("part_a/acc", "wikitext/word_perplexity", "graded/f1")] == [
        *("more", "less", "")
    ]
    assert there["part_a/acc"].out == Score(0.5, 200, *wilson(100, 200), "Wilson")
    none = there["gsm8k/exact_match,strict-match"].out
    assert none is not None
    assert (none.low, none.high, none.interval) == (*wilson(0, 200), "Wilson")  # the file's error is 0
    assert is_normal(there["mean_of/acc"].out, 0.45, 380, 0.056)
    assert is_normal(there["graded/f1"].out, 0.25, 200, 0.02)
    assert there["wikitext/word_perplexity"].out == Score(12.5, 200)
    assert there["graded/bleu"].out == Score(1.5, 200)
    assert [row.setup for row in found.rows][:1] == ["0-shot, version 1"]
    assert found.notes == (f"{tmp_path / 'MODEL__NAME' / 'results_2026.json'}: graded has no number for rouge,none.",)


def test_lmms_eval(tmp_path: Path) -> None:
    """Its values may be percentages or sums; its further errors have another unit; a submission has no score."""
    tasks = {
        "mme": {"mme_perception_score,none": 1500.25, "mme_perception_score_stderr,none": "N/A"},
        "mmmu_val": {"mmmu_acc,none": 61.25, "mmmu_acc_stderr,none": 2.5, "mmmu_acc_stderr_clt,none": 0.03},
        "zero": {"score,none": 0.0, "score_stderr,none": 0.0},
        "mmmu_test": {"submission,none": None, "paired_ci_lower": 3.0, "paired_baseline": "x"},
    }
    content = lmms_eval("../runs/repaired", tasks)
    content["n-samples"]["mme"] = {"original": 500, "effective": -1}  # --limit -1
    content["results"]["mme"]["sample_len"] = None
    found = read(write(tmp_path / "20260101_000000_results.json", content))
    there = rows(found)
    assert list(there) == ["mme/mme_perception_score", "mmmu_val/mmmu_acc", "zero/score"]
    assert there["mme/mme_perception_score"].out == Score(1500.25)
    assert is_normal(there["mmmu_val/mmmu_acc"].out, 61.25, 200, 2.5)
    assert there["zero/score"].out == Score(0.0, 200)  # nobody says that it is a share: an interval would be made up
    assert "mmmu_test has no number for submission,none" in found.notes[0]
    assert found.sources[0].harness == "lmms-eval"


def test_before_version_0_4(tmp_path: Path) -> None:
    content = {
        "results": {"arc_easy": {"acc": 0.5, "acc_stderr": 0.0354441, "acc_norm": 0.25}},
        "versions": {"arc_easy": 0},
        "config": {"model": "hf-causal", "model_args": "pretrained=/elsewhere/repaired,dtype=float16"},
    }
    found = read(write(tmp_path / "r.json", content))
    assert [(row.name, row.better, row.out and row.out.samples) for row in found.rows] == [
        *(("arc_easy/acc", "", None), ("arc_easy/acc_norm", "", None))
    ]
    assert found.rows[0].setup == "version 0"


@pytest.mark.parametrize("form", ["json", "zstd", "deflate"])
def test_inspect_ai(form: str, tmp_path: Path) -> None:
    """Scorers, values of one scorer, reducers of epochs; as JSON and as an archive."""
    scores = [
        inspect_score("includes", "includes", accuracy=0.0, stderr=0.0),
        inspect_score("refused", mean=0.175, stderr=(0.175 * 0.825 / 39) ** 0.5, std=0.3847),
        inspect_score("harm", mean=0.25, stderr=0.0),
        inspect_score("cost", mean=0.4, bootstrap_stderr=0.1),
        inspect_score("includes", "includes", accuracy=1.0, stderr=0.0) | {"reducer": "at_least_2"},
        inspect_score("broken", mean=math.nan, stderr=math.nan) | {"unscored_samples": 3},
    ]
    spec = {"config": {"epochs": 3, "limit": 40}, "task_args": {"split": "test", "n": 2, "long": "x" * 90}}
    content = inspect_ai(str(OUT), scores, eval=spec)
    path = tmp_path / f"log.{'json' if form == 'json' else 'eval'}"
    found = read(write(path, content) if form == "json" else write_archive(path, content, form))
    start = "inspect_evals/refusals/"
    there = {row.name.removeprefix(start): row.out for row in found.rows}
    assert there == {
        "includes/accuracy": Score(0.0, 40, *wilson(0, 40), "Wilson"),
        "refused/mean": Score(0.175, 40, *wilson(7, 40), "Wilson"),
        "harm/mean": Score(0.25, 40),
        "cost/mean": Score(0.4, 40),
        "includes/accuracy,at_least_2": Score(1.0, 40, *wilson(40, 40), "Wilson"),
    }
    assert {row.setup.partition("long=")[0] for row in found.rows} == {
        "version 2, 3 epochs, limit 40, split=test, n=2, "
    }
    assert len(found.rows[0].setup) < 120
    assert [note.rpartition(": ")[2] for note in found.notes] == [
        "inspect_evals/refusals/broken has no score of 3 samples.",
        "inspect_evals/refusals has no number for broken/mean.",
    ]


@pytest.mark.parametrize(
    ("model", "role"),
    [
        ("pretrained=/home/somebody/aligned,dtype=bfloat16", "old"),
        ("pretrained=/home/somebody/./tuned/,parallelize=True", "new"),
        ("dtype=auto,pretrained=/home/somebody/repaired", "out"),
        ({"pretrained": "/scratch/copy/tuned", "dtype": "auto"}, "new"),
        ("pretrained=/home/somebody/aligned,peft=/home/somebody/repaired", "out"),
        ("model=repaired,base_url=http://localhost:8000/v1/completions", "out"),
    ],
)
def test_the_model_says_whose_results_these_are(model: Any, role: str, tmp_path: Path) -> None:
    assert read(write(tmp_path / "r.json", lm_eval(model, {"t": share(1, 9)}))).sources[0].role == role


def test_names_on_the_hub(tmp_path: Path) -> None:
    hub = report_of(old=f"{OLD}@main", commits={f"{OLD}@main": "a" * 40})
    content = lm_eval(f"pretrained={OLD}", {"t": share(1, 9)})
    assert read(write(tmp_path / "r.json", content), report=hub).sources[0].role == "old"
    content["config"]["model_sha"] = "c" * 40
    with pytest.raises(
        EvaluationError, match=r"is about 'lab/aligned' at cccccccccccc, and OLD was merged at aaaaaaaa"
    ):
        read(write(tmp_path / "r.json", content), report=hub)
    assert read(f"OLD={tmp_path / 'r.json'}", report=hub).sources[0].role == "old"


def test_one_name_for_two_models(tmp_path: Path) -> None:
    twins = report_of(old="first/model", new="second/model")
    path = write(tmp_path / "r.json", lm_eval("pretrained=elsewhere/model", {"t": share(1, 9)}))
    with pytest.raises(
        EvaluationError, match="is about 'elsewhere/model', which may be OLD or NEW: say which, as new="
    ):
        read(path, report=twins)
    path = write(tmp_path / "r.json", lm_eval("pretrained=second/model", {"t": share(1, 9)}))
    assert read(path, report=twins).sources[0].role == "new"


def test_a_folder_has_all_models_and_other_files(tmp_path: Path) -> None:
    """Each file says whose results it has; what is no result, of another model or broken is left out."""
    for name, successes in (("aligned", 2), ("tuned", 90), ("repaired", 4), ("another", 50)):
        content = lm_eval(f"pretrained=/x/{name}", {"attacks": share(successes, 200)})
        write(tmp_path / f"x__{name}" / "results_1.json", content)
    write(tmp_path / "config.json", {"model_type": "llama"})
    write(tmp_path / "x__tuned" / "samples_t.jsonl", "{}\n")
    write(tmp_path / "x__tuned" / "results_2.json", "{")
    write(tmp_path / ".cache" / "results_3.json", lm_eval("pretrained=/x/aligned", {"attacks": share(9, 200)}))
    write(tmp_path / "logs" / "failed.json", inspect_ai("/x/tuned", [], status="error"))
    found = read(tmp_path)
    (row,) = found.rows
    assert [score and score.value for score in (row.old, row.new, row.out)] == [0.01, 0.45, 0.02]
    assert len(found.sources) == 3
    notes = "\n".join(found.notes)
    assert len(found.notes) == 3
    assert "failed.json was left out: its status is 'error': complete it with inspect eval-retry." in notes
    assert "x__another/results_1.json was left out: it is about '/x/another', which is not OLD, NEW or OUT." in notes
    assert "results_2.json was left out: " in notes
    with pytest.raises(EvaluationError, match="has results of '/x/aligned' and of '/x/another', which cannot both be"):
        read(f"out={tmp_path}")
    with pytest.raises(EvaluationError, match=r"another has no results of OLD, NEW or OUT \(.*is about '/x/another'"):
        read(tmp_path / "x__another")
    assert read(f"out={tmp_path / 'x__another'}").rows[0].out == Score(0.25, 200, *wilson(50, 200), "Wilson")


def test_many_notes_and_odd_names(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"r\xff.json")
    tasks = {f"t{number}": {"acc,none": "N/A"} for number in range(60)} | {"u": share(1, 9)}
    found = read(write(odd, lm_eval("pretrained=repaired", tasks)))
    assert len(found.notes) == 51
    assert found.notes[-1] == "There are 10 more notes of this kind."
    assert replace(REPORT, benchmarks=found).to_json().encode("utf-8")


def test_one_score_twice(tmp_path: Path) -> None:
    one = write(tmp_path / "1.json", lm_eval("pretrained=repaired", {"t": share(90, 200), "u": share(1, 200)}))
    same = write(tmp_path / "2.json", lm_eval("pretrained=repaired", {"t": share(90, 200)}))
    assert len(read(one, same).rows) == 2
    other = write(tmp_path / "3.json", lm_eval("pretrained=repaired", {"t": share(91, 200)}))
    with pytest.raises(EvaluationError, match=r"1\.json and .*3\.json have 0\.45 of 200 samples and 0\.455 of 200"):
        read(one, other)


def test_what_was_asked_otherwise_is_not_compared(tmp_path: Path) -> None:
    """Few-shot examples, versions, templates and limits make other rows; other numbers of samples no difference."""
    base = lm_eval("pretrained=aligned", {"t": share(100, 200), "u": share(100, 200)})
    for name, changes in {
        "shots": {"n-shot": {"t": 5, "u": 0}},
        "version": {"versions": {"t": 2.0, "u": 1.0}},
        "template": {"chat_template": "{{ x }}"},
        "prompt": {"system_instruction": "Be kind."},
    }.items():
        content = base | changes
        content["config"] = base["config"] | {"model_args": "pretrained=repaired"}
        found = read(write(tmp_path / "old.json", base), write(tmp_path / f"{name}.json", content))
        assert [row.task for row in found.rows if row.old and row.out] == (
            ["u"] if name in ("shots", "version") else []
        )
        assert any("t was not asked in one way (OLD with 0-shot, version 1; OUT with " in note for note in found.notes)
    fewer = lm_eval("pretrained=repaired", {"t": share(50, 100)})
    fewer["n-samples"]["t"]["effective"] = 100
    found = read(tmp_path / "old.json", write(tmp_path / "fewer.json", fewer))
    assert apart(found.rows[0].out, found.rows[0].old) is None
    assert (
        "t/acc has 200 samples with OLD and 100 samples with OUT: the scores are shown, and not compared."
        in found.notes
    )


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("gone.json", None, "gone.json cannot be read (No such file or directory): check the path."),
        ("gone.eval", None, "gone.eval cannot be read (No such file or directory): check the path."),
        ("r.json", "{", "r.json cannot be used (Expecting property name"),
        ("r.json", "[1]", "r.json holds no results of an evaluation: give a file of hpa-merge eval, lm-evaluation-"),
        ("r.json", {"results": {}}, "r.json holds no results of an evaluation"),
        ("r.json", {"results": {"all": 1.0}, "config": {}}, "r.json holds no results of an evaluation"),
        ("r.json", "[" * 200 + "]" * 200, "r.json cannot be used (it is nested more than 100 deep)."),
        ("r.json", lm_eval("pretrained=other/model", {"t": {}}), "r.json is about 'other/model', which is not OLD ("),
        ("r.json", inspect_ai("x", [], status="started"), "cannot be used (its status is 'started': complete it"),
        ("r.json", inspect_ai("x", [], invalidated=True), "cannot be used (it was marked as invalid)."),
        (
            "r.json",
            lm_eval("pretrained=repaired", {"t" * 501: share(1, 2)}),
            "a name in it is longer than 500 characters",
        ),
        ("r.json", inspect_ai("repaired", []), "r.json has no score: r.json: inspect_evals/refusals has no score."),
        ("r.json", {"results": {"all": {"acc": 1.0}}, "versions": {}, "config_general": {}}, "holds no results of an"),
        ("r.eval", "no archive", "r.eval cannot be used (it is not a log of inspect-ai: File is not a zip file)."),
    ],
)
def test_refusals(name: str, content: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        write(Path(name), content)
    with pytest.raises(EvaluationError) as caught:
        read(name)
    assert complaint in str(caught.value)


def test_archives_that_are_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = inspect_ai(str(OUT), [inspect_score("x", mean=0.5, stderr=0.1)])
    unfinished = write_archive(tmp_path / "a.eval", good, "deflate", member="_journal/start.json")
    with pytest.raises(EvaluationError, match=r"it has no header\.json: the run was not complete"):
        read(unfinished)
    packed = write_archive(tmp_path / "b.eval", good)
    place = packed.read_bytes().index(b"\x28\xb5\x2f\xfd")
    packed.write_bytes(packed.read_bytes()[: place + 12] + b"\xff" * 20 + packed.read_bytes()[place + 32 :])
    with pytest.raises(EvaluationError, match=r"its header\.json is broken"):
        read(packed)
    large = write_archive(tmp_path / "c.eval", "x" * 10**6, "deflate")
    monkeypatch.setattr("hpa_merge.report.harness.files.RESULTS", type(limits())(1000, 10**6))
    with pytest.raises(EvaluationError, match=r"its header\.json is longer than 1000 bytes"):
        read(large)
    lying = write_archive(tmp_path / "d.eval", "x" * 10**6)  # it says that there is less than there is
    lying.write_bytes(lying.read_bytes().replace(struct.pack("<I", 10**6 + 2), struct.pack("<I", 10)))
    with pytest.raises(EvaluationError, match="it is longer than 1000 bytes"):
        read(lying)


def limits() -> Any:
    from hpa_merge.report.harness.files import RESULTS

    return RESULTS


ANYTHING: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**70, 1e308, -0.5, math.nan, math.inf, "", "x", "\x1b[31m", "N/A", [], {}, [1], [[]], ["t"]),
    *({"": 1}, {"acc,none": {}}, {"t": "t"}, {"t": ["t", "u"]}, {"effective": 1.5}, [{"metrics": 3}], [{"name": 3}]),
)
"""Values that a file may have anywhere."""


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside another."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places_in(item, (*path, key))


@pytest.mark.parametrize("kind", ["lm_eval", "inspect_ai"])
def test_whatever_stands_in_a_file(kind: str, tmp_path: Path) -> None:
    """Each value of a file is replaced by some of :data:`ANYTHING`: it is read or refused, and the report holds."""
    group = share(3, 9) | {"sample_count": {"acc,none": 9}}
    good = (
        lm_eval("pretrained=repaired", {"t": share(3, 9), "g": group}, group_subtasks={"g": ["t"]})
        if kind == "lm_eval"
        else inspect_ai(str(OUT), [inspect_score("x", mean=0.5, stderr=0.1)], eval={"task_args": {"n": 1}})
    )
    read_ones = 0
    for number, path in enumerate(places_in(good)):
        for value in ANYTHING[number % 4 :: 4]:
            content = json.loads(json.dumps(good))
            *outer, last = path
            place = content
            for key in outer:
                place = place[key]
            place[last] = value
            try:
                found = read(f"out={write(tmp_path / 'r.json', content)}")
            except EvaluationError:
                continue
            read_ones += 1
            report = replace(REPORT, benchmarks=found)
            json.loads(report.to_json())
            check_meaning(report)
            assert len(benchmark_rows(found, found.rows)) == len(found.rows)
    assert read_ones > 100


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    path = write_archive(tmp_path / "a.eval", inspect_ai(str(OUT), []))
    with pytest.raises(
        EvaluationError, match=r"pip install '\.\[data\]' in .*, or write it as JSON with inspect log conv"
    ):
        read(path)


def of_three(tmp_path: Path, old: int, new: int, out: int, samples: int = 200) -> Benchmarks:
    """Attacks that succeed, and a task that NEW does better, of all three models."""
    for name, attacks, task in (("aligned", old, 0.3), ("tuned", new, 0.8), ("repaired", out, 0.75)):
        tasks = {"attacks": share(attacks, samples, "asr"), "task": share(round(task * samples), samples)}
        content = lm_eval(f"pretrained={name}", tasks)
        for each in content["n-samples"].values():
            each["effective"] = samples
        write(tmp_path / f"{name}.json", content)
    return read(tmp_path)


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


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row["out"].update(samples=0),
        lambda row: row["out"].update(value=1e300),
        lambda row: row["out"].update(low=0.9, high=0.95),
        lambda row: row["out"].update(interval="guess"),
        lambda row: row.update(better="most"),
        lambda row: row.update(task=3),
        lambda row: row.update(old=[]),
    ],
)
def test_a_forged_report_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    content = json.loads(replace(REPORT, benchmarks=of_three(tmp_path, 2, 90, 4)).to_json())
    change(content["benchmarks"]["rows"][0])
    (tmp_path / "hpa_report.json").write_text(json.dumps(content))
    with pytest.raises(Exception, match="is not a report of hpa-merge"):
        read_report_file(tmp_path / "hpa_report.json", "OUT")


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

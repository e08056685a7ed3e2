"""Results of other harnesses: each shape, whose they are, and which scores are compared."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_files import inspect_ai, inspect_score, lm_eval, lmms_eval, share, write, write_archive
from harness_reading import OUT, REPORT, read, rows
from report_samples import OLD, report_of

from hpa_merge.errors import EvaluationError
from hpa_merge.report.benchmarks import Score, apart
from hpa_merge.report.score_interval import wilson


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

"""docs/harnesses.md: its commands take the files that the harnesses' commands before them write."""

from dataclasses import replace
from pathlib import Path

import pytest
from harness_files import inspect_ai, inspect_score, lm_eval, lmms_eval, share, write, write_archive
from pages import ROOT, blocks
from report_samples import report_of

from hpa_merge.cli.report import report_command
from hpa_merge.report.harness import given_of, read_results, with_safety

PAGE = ROOT / "docs" / "harnesses.md"

MODELS = ("old", "new", "out")


@pytest.fixture
def _results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page's loops leave, and some of it under other names."""
    monkeypatch.chdir(tmp_path)
    for number, model in enumerate(MODELS):
        group = share(30 + number, 90) | {"sample_len": 90}
        tasks = {"gsm8k": share(100 - number, 200, "exact_match", "strict-match"), "wmdp": group, "wmdp_bio": group}
        text = lm_eval(f"pretrained={model},dtype=bfloat16", tasks, group_subtasks={"wmdp": ["wmdp_bio"]})
        write(Path("results", model, "results_2026-11-28T19-46-58.872819.json"), text)
        write(Path("results", f"{ {'old': 'aligned', 'new': 'tuned', 'out': 'served'}[model] }.json"), text)
        vision = lmms_eval(
            model, {"mme": {"mme_perception_score,none": 1500.0, "mme_perception_score_stderr,none": "N/A"}}
        )
        write(Path("results-vision", model, "20261128_194658_results.json"), vision)
        scores = [inspect_score("refused", "refused", mean=0.5, stderr=0.08 + number / 100)]
        Path("logs").mkdir(exist_ok=True)
        write_archive(Path("logs", f"{model}.eval"), inspect_ai(model, scores, eval={"task": "refusals"}))


def reports() -> list[list[str]]:
    """The words of each ``hpa-merge report`` of the page."""
    lines = (line for block in blocks(PAGE) for line in block.commands)
    return [line.replace("\\\n", " ").split()[2:] for line in lines if line.startswith("hpa-merge report ")]


@pytest.mark.usefixtures("_results")
def test_the_commands_of_the_page() -> None:
    report = report_of(old="old", new="new")
    assert len(reports()) >= 6
    for words in reports():
        given = report_command.make_context("report", list(words)).params
        found = read_results([given_of(word) for word in (*given["evaluation"], *given["more"])], report, Path("out"))
        assert found.benchmarks is not None, words
        assert {source.role for source in found.benchmarks.sources} == set(MODELS), words
        assert all(row.old and row.new and row.out for row in found.benchmarks.rows), words
        if given["safety_metrics"]:
            marked = with_safety(found.benchmarks, given["safety_metrics"])
            assert sum(row.safety for row in marked.rows) == len(given["safety_metrics"])
            assert "refusals" in replace(report, benchmarks=marked).verdict.answer

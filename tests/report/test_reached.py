"""Which calibration set lacks samples, where some did not reach a changed weight: the note, the advice, the table."""

from dataclasses import replace
from typing import Any

import pytest
from report_samples import report_of

from hpa_merge.report.facts import report_facts
from hpa_merge.report.reached import missing_sets
from hpa_merge.report.records import CalibrationRecord, LinearRecord
from hpa_merge.report.schema import MergeReport


def made(*tokens: tuple[int, int], safety: dict[str, Any], task: dict[str, Any], method: str = "hpa") -> MergeReport:
    """A report of weights that so many tokens of the safety set and of the task set reached."""
    lost = tuple(
        LinearRecord(f"v{n}.weight", "uncalibrated", "v", "v", 4, 8, safety_tokens=of_safety, task_tokens=of_task)
        for n, (of_safety, of_task) in enumerate(tokens)
    )
    report = report_of(
        safety=CalibrationRecord("s.jsonl", 8, 100, **{"images": 0, **safety}),
        task=CalibrationRecord("t.jsonl", 8, 100, **{"images": 0, **task}),
    )
    return replace(report, linears=(*report.linears, *lost), config={**report.config, "method": method})


@pytest.mark.parametrize(
    ("report", "missing", "advice"),
    [
        (made((0, 40), (0, 9), safety={}, task={"images": 9}), ("safety",), "safety samples with images."),
        (made((7, 0), safety={"audios": 3, "images": 1}, task={"images": 2}), ("task",), "task samples with sounds."),
        (made((0, 40), safety={"images": 4}, task={"images": 9}), ("safety",), "safety samples that do."),
        (made((0, 40), (3, 0), safety={}, task={}), ("safety", "task"), "safety and task samples that do."),
        (made((0, 0), safety={}, task={}), ("safety", "task"), "safety and task samples that do."),
        (made((0, 40), safety={}, task={"images": 9}, method="safe-delta"), ("safety",), "samples with images."),
    ],
)
def test_the_set_that_lacks_samples_is_named(report: MergeReport, missing: tuple[str, ...], advice: str) -> None:
    assert missing_sets(report) == missing
    (said,) = (sentence for sentence in report.verdict.advice if "which came from NEW" in sentence)
    assert said.startswith(f"No {' or no '.join(missing)} sample reached ")
    assert said.endswith(advice)
    assert f"because no token of the {' set or of the '.join(missing)} set reached them: v0" in report.warnings[0]
    assert f"uncalibrated (no {' or no '.join(missing)} sample reached them)" in dict(report_facts(report))["linears"]

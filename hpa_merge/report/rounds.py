"""A report as the history of the next round keeps it."""

from collections.abc import Iterator
from itertools import islice

from hpa_merge.report.records import RoundRecord
from hpa_merge.report.rows import mean, restored_share
from hpa_merge.report.schema import MergeReport

MOST = 100
"""The most scores of other harnesses that a round keeps."""


def round_of(report: MergeReport) -> RoundRecord:
    """The record of a round for the reports after it."""
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    run = report.run
    return RoundRecord(
        old=run.old,
        new=run.new,
        finished=run.finished,
        config=report.config,
        safety=report.safety,
        task=report.task,
        adapted=len(adapted),
        restored_share=restored_share(adapted),
        energy_restored=mean(record.energy_restored for record in adapted),
        evaluation=report.evaluation,
        architecture=report.architecture,
        adapter=run.adapter,
        commits=run.commits,
        contents=run.contents,
        versions=run.versions,
        drift=report.drift,
        benchmarks=dict(islice(_benchmarks(report), MOST)),
    )


def _benchmarks(report: MergeReport) -> Iterator[tuple[str, float]]:
    """The scores of OUT; a task that was asked in several ways has the first."""
    rows = {row.name: row.out for row in reversed(report.benchmarks.rows if report.benchmarks else ()) if not row.group}
    yield from ((name, score.value) for name, score in reversed(rows.items()) if score is not None)

"""A round as the reports of the rounds after it remember it."""

from hpa_merge.report.records import RoundRecord
from hpa_merge.report.rows import mean, restored_share
from hpa_merge.report.schema import MergeReport

__all__ = ["round_of"]


def round_of(report: MergeReport) -> RoundRecord:
    """What the rounds after it remember of a round."""
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
    )

"""The calibration sets that have no sample which reaches a changed weight: what is missing, in words."""

from typing import TYPE_CHECKING

from hpa_merge.counting import counted
from hpa_merge.methods import find_rule

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport

__all__ = ["missing_sets", "more_samples"]

SETS = ("safety", "task")

MEDIA = ("images", "videos", "audios")
"""Counts of a calibration record."""


def missing_sets(report: "MergeReport") -> tuple[str, ...]:
    """The sets, ``safety`` or ``task``, that the rule uses and of which no token reached some uncalibrated weight."""
    rule = find_rule(report.method)
    used = rule.sets if rule is not None and rule.sets else SETS
    lost = [record for record in report.linears if record.outcome == "uncalibrated"]
    tokens = {"safety": [record.safety_tokens for record in lost], "task": [record.task_tokens for record in lost]}
    return tuple(name for name in SETS if name in used and not all(tokens[name])) or used


def more_samples(report: "MergeReport", lost: int) -> str:
    """A sentence that says which samples to add, with the media that only the other set has."""
    missing = missing_sets(report)
    records = {"safety": report.safety, "task": report.task}
    media: list[str] = []
    if len(missing) == 1:
        (own,) = (records[name] for name in missing)
        (other,) = (record for name, record in records.items() if name not in missing)
        if own is not None and other is not None:
            media = [kind for kind in MEDIA if getattr(other, kind) and not getattr(own, kind)]
    which = f"with {' or '.join(media).replace('audios', 'sounds')}" if media else "that do"
    source = str(report.config.get("uncalibrated", "")).upper()
    return (
        f"No {' or no '.join(missing)} sample reached {counted(lost, 'changed weight')}, which came from {source}: add "
        f"{' and '.join(missing)} samples {which}."
    )

"""Checks the derived values in the report's file."""

import dataclasses
import json
from pathlib import Path

from hpa_merge.files import parsing
from hpa_merge.files.names import REPORT
from hpa_merge.report.schema import SCHEMA_VERSION, MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.findings import Findings

__all__ = ["check_stored"]


def check_stored(folder: Path, report: MergeReport, findings: Findings) -> None:
    """Check the derived values in the report's file, and name fields that this version does not know."""
    try:
        content = parsing.read_json(folder / REPORT, parsing.REPORT)
    except (OSError, ValueError) as error:
        findings.problems.append(f"{REPORT} cannot be read again ({error}).")
        return
    earlier = content["schema_version"] != SCHEMA_VERSION  # with other wording
    if not earlier and content.get("warnings", report.warnings) != report.warnings:
        findings.problems.append("warnings in the report do not follow from its fields.")
    verdict = json.loads(json.dumps(dataclasses.asdict(report.verdict)))
    if not earlier and content.get("verdict", verdict) != verdict:
        findings.problems.append("the verdict in the report does not follow from its fields.")
    known = {"schema_version", "warnings", "verdict", *(field.name for field in dataclasses.fields(report))}
    if unknown := sorted(content.keys() - known):
        findings.unchecked.append(f"Fields of the report that this version does not know: {shortened(unknown)}.")

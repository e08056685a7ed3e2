"""The files that a merge writes beside the weights, for people and for programs."""

from hpa_merge.names import REPORT
from hpa_merge.report.schema import MergeReport


def files_of(report: MergeReport) -> dict[str, bytes]:
    """The report in each of its forms, by file name."""
    return {REPORT: report.to_json().encode()}

"""What a merge did, as data: the report that is written next to the weights, and the words for its facts."""

from hpa_merge.report.records import CalibrationRecord, DriftRecord, LinearRecord, RoundRecord, RunRecord
from hpa_merge.report.schema import MergeReport

__all__ = ["CalibrationRecord", "DriftRecord", "LinearRecord", "MergeReport", "RoundRecord", "RunRecord"]

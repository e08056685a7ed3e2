"""What a merge did: the record that is written beside the weights, its page, and the summary that is shown."""

from hpa_merge.report.records import CalibrationRecord, DriftRecord, LinearRecord, RoundRecord, RunRecord
from hpa_merge.report.schema import MergeReport

__all__ = ["CalibrationRecord", "DriftRecord", "LinearRecord", "MergeReport", "RoundRecord", "RunRecord"]

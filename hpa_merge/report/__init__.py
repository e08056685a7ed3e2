"""What a merge did: the record that is written beside the weights, and the summary that is shown."""

from hpa_merge.report.schema import CalibrationRecord, LinearRecord, MergeReport, RunRecord

__all__ = ["CalibrationRecord", "LinearRecord", "MergeReport", "RunRecord"]

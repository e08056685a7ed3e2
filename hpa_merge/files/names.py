"""Names of files, and marks in them, that more than one part of the package knows; nothing is imported for them."""

__all__ = ["CARD", "REPORT", "STATISTICS", "STATISTICS_FORMAT"]

CARD = "README.md"
"""The model card of an OUT, which people may edit."""

REPORT = "hpa_report.json"
"""The report beside the weights of an OUT."""

STATISTICS = "hpa-merge statistics"
"""The one key of a statistics file's metadata: safetensors writes several in no fixed order."""

STATISTICS_FORMAT = 1

"""Names of files that more than one part of the package knows; nothing is imported for them."""

__all__ = ["REPORT"]

REPORT = "hpa_report.json"
"""The report beside the weights of an OUT."""

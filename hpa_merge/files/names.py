"""Names of files that more than one part of the package knows. Imports nothing."""

__all__ = ["CARD", "CARD_BYTES", "REPORT"]

CARD = "README.md"
"""The model card of an OUT, which people may edit."""

CARD_BYTES = 2**23
"""The longest card of an OUT: 8 MiB. NEW's card has at most half of that, and our section is added."""

REPORT = "hpa_report.json"
"""The report next to the weights of an OUT."""

"""Names of files, and marks in them, that more than one part of the package knows; nothing is imported for them."""

__all__ = ["CARD", "CARD_BYTES", "REPORT", "STATISTICS", "STATISTICS_FORMAT", "is_plain_name"]

CARD = "README.md"
"""The model card of an OUT, which people may edit."""

CARD_BYTES = 2**23
"""The longest card of an OUT: 8 MiB. NEW's card has half of them at most, and our section comes on top."""

REPORT = "hpa_report.json"
"""The report beside the weights of an OUT."""

STATISTICS = "hpa-merge statistics"
"""The one key of a statistics file's metadata: safetensors writes several in no fixed order."""

STATISTICS_FORMAT = 1

NAME_BYTES = 200
"""The longest name of an OUT, so that what stands beside it while it is made can be named too."""


def is_plain_name(name: object) -> bool:
    """Whether an OUT can have that name in a folder of several: it names a folder in it, and no hidden one."""
    if not isinstance(name, str) or not name or name.startswith("."):
        return False
    plain = name.isprintable() and name.strip() == name and not {*name} & {"/", "\\", "\0"}
    return plain and len(name.encode()) <= NAME_BYTES

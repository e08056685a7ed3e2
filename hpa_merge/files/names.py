"""Names of files that more than one part of the package knows. Imports nothing."""

__all__ = ["CARD", "CARD_BYTES", "REPORT", "is_plain_name"]

CARD = "README.md"
"""The model card of an OUT, which people may edit."""

CARD_BYTES = 2**23
"""The longest card of an OUT: 8 MiB. NEW's card has at most half of that, and our section is added."""

REPORT = "hpa_report.json"
"""The report next to the weights of an OUT."""

NAME_BYTES = 200
"""The longest name of an OUT, so that the names of its working files next to it are possible too."""


def is_plain_name(name: object) -> bool:
    """Whether an OUT can have that name in a folder of several: a plain folder name, and not a hidden one."""
    if not isinstance(name, str) or not name or name.startswith("."):
        return False
    plain = name.isprintable() and name.strip() == name and not {*name} & {"/", "\\", "\0"}
    return plain and len(name.encode()) <= NAME_BYTES

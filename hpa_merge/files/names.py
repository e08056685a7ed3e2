"""Names of files that more than one part of the package knows. Imports nothing."""

__all__ = ["ACCOUNT", "CARD", "CARD_BYTES", "REPORT", "STAND_INS", "advice_on", "is_plain_name"]

CARD = "README.md"
"""The model card of an OUT, which people may edit."""

CARD_BYTES = 2**23
"""The longest card of an OUT: 8 MiB. NEW's card has at most half of that, and our section is added."""

REPORT = "hpa_report.json"
"""The report next to the weights of an OUT."""

NAME_BYTES = 200
"""The longest name of an OUT, so that the names of its working files next to it are possible too."""


STAND_INS = {"safety": "UNSAFE.jsonl", "task": "TASK.jsonl", "benign": "HARMLESS.jsonl", "settings": "SETTINGS.yaml"}
"""In a suggested command, the names of files that the user has to give."""

ACCOUNT = "YOUR-NAME"
"""In a suggested command, the user's account on the Hub."""


def advice_on(name: str) -> str:
    """What to do about a file of this name that does not exist."""
    if name in STAND_INS.values() or name.startswith("MORE-"):
        return "the name stands for a file of yours, so give the path of that"
    return "check the path"


def is_plain_name(name: object) -> bool:
    """Whether an OUT can have that name in a folder of several: a plain folder name, and not a hidden one."""
    if not isinstance(name, str) or not name or name.startswith("."):
        return False
    plain = name.isprintable() and name.strip() == name and not {*name} & {"/", "\\", "\0"}
    return plain and len(name.encode()) <= NAME_BYTES

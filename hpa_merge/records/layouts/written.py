"""Messages and lists that were written into a string: a table, or a script that printed them, has them so."""

import re
from collections.abc import Mapping
from typing import Any

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, RepeatedKeyError, parse_data
from hpa_merge.files.printed import parse_printed
from hpa_merge.records.layouts.answers import ANSWERS
from hpa_merge.records.layouts.messages import CONTENT_NAMES, ROLE_NAMES, ROLES
from hpa_merge.records.layouts.questions import PROMPTS
from hpa_merge.records.names import fold
from hpa_merge.records.options import ReadingOptions

__all__ = ["unwritten"]

SAID = frozenset((*PROMPTS, *ANSWERS, "input", "rejected", "rejected_response"))
"""Fields that hold a text, or messages."""

LISTED = ("answer", "label")
"""Fields that hold a text, or several."""

_BEGIN = r"[\[{]\s*(?:\{\s*)?"
_ROLE = rf"""["'](?:{"|".join(ROLE_NAMES)})["']\s*:"""
_TURNS = re.compile(
    rf"""{_BEGIN}["'](?:{"|".join(CONTENT_NAMES)})["']\s*:.*{_ROLE}|{_BEGIN}{_ROLE}\s*["'](?:{"|".join(ROLES)})["']""",
    re.DOTALL,
)
"""How messages begin, and a message whose role comes last."""

_PRINTED = re.compile(r"\[\s*'.*'\s*\]", re.DOTALL)
"""A list of texts as Python prints it, or as numpy does."""


def unwritten(record: Mapping[str, Any], source: str, options: ReadingOptions) -> Mapping[str, Any]:
    """The record, with the messages in the place of a string that holds them, and the texts of a printed list.

    Args:
        source: ``file:line``, for messages.

    Raises:
        CalibrationError: a string begins like messages or like a printed list, and cannot be read.
    """
    wanted = {given: name for name, given in options.names.items()}
    found: dict[str, Any] = {}
    for name, value in record.items():
        if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{") or str(name) in options.ignored:
            continue
        kind, text = fold(wanted.get(name, str(name))), value.strip()
        if kind in SAID and _TURNS.match(text):
            read = _read(text, f'{source}: "{name}"')
            if read is None:
                raise _unreadable(f'{source}: "{name}"', "messages")
            if _are_turns(read):
                found[name] = read
        elif kind in LISTED and _PRINTED.fullmatch(text):
            read = parse_printed(text)
            if read is None:
                raise _unreadable(f'{source}: "{name}"', "a printed list")
            if all(isinstance(each, str) for each in read):
                found[name] = read
    return {**record, **found} if found else record


def _read(text: str, what: str) -> Any:
    try:
        return parse_data(text, LINE)
    except RepeatedKeyError as error:
        raise CalibrationError(f"{what}: {error}, and which value counts is not known: keep one of them.") from None
    except ValueError:
        return parse_printed(text)


def _are_turns(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(isinstance(item, Mapping) and _speaker(item) in ROLES for item in items)


def _speaker(item: Mapping[str, Any]) -> str:
    return fold(str(next((item[name] for name in ROLE_NAMES if item.get(name)), "")))


def _unreadable(what: str, kind: str) -> CalibrationError:
    return CalibrationError(
        f"{what} is a string that begins like {kind} and cannot be read in JSON nor in Python, which numpy's arrays "
        "are not: write an array, or its text with json.dumps."
    )

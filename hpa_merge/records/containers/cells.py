"""Cells of a table that hold an array or an object as text: in fields that are such, and in no others."""

from collections.abc import Collection
from json import JSONDecodeError
from typing import Any

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, RepeatedKeyError, parse_data
from hpa_merge.files.printed import parse_printed
from hpa_merge.records.layouts.answers import SEVERAL
from hpa_merge.records.layouts.building import HISTORY
from hpa_merge.records.layouts.choices import LISTS
from hpa_merge.records.layouts.conversations import CHATS
from hpa_merge.records.layouts.tools import TOOLS
from hpa_merge.records.names import MEDIA_NAMES, fold

__all__ = ["MAYBE", "STRUCTURED", "parse_cells"]

STRUCTURED = frozenset((*CHATS, *HISTORY, *LISTS, *SEVERAL, *TOOLS, "input_ids", "instr_resp"))
"""Fields that are arrays or objects in every layout, as :func:`~hpa_merge.records.names.fold` has their names."""

MAYBE = frozenset(name for names in MEDIA_NAMES.values() for name in names)
"""Fields of media: the path of a file, or an array or an object."""

TURNS = frozenset(("chosen", "completion", "prompt", "rejected"))
"""Fields that are text, or an array of messages, each with its role."""


def parse_cells(record: dict[str, object], where: str, mapped: Collection[str] = ()) -> dict[str, object]:
    """The record of a row, with arrays and objects in the place of their text.

    A text is taken for one where it begins with ``[`` or ``{`` and its field is in ``STRUCTURED`` or ``mapped``; where
    it can be one and its field is in ``MAYBE``; and where it is an array of objects with a ``role`` and its field is in
    ``TURNS``. It is JSON, or as Python prints lists and dictionaries. Other text stays text.

    Args:
        where: the row, for messages.
        mapped: fields that the user has given the names of structured ones.

    Raises:
        CalibrationError: a text that has to be an array or an object is none.
    """
    for name, value in record.items():
        if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
            continue
        kind = fold(name)
        if kind in STRUCTURED or name in mapped:
            record[name] = _parsed(value, f'{where}: the cell of "{name}"')
        elif kind in MAYBE or kind in TURNS:
            found = _tried(value)
            record[name] = found if kind in MAYBE or _are_turns(found) else value
    return record


def _parsed(text: str, what: str) -> object:
    try:
        return parse_data(text, LINE)
    except JSONDecodeError as error:
        if (value := parse_printed(text)) is not None:
            return value
        raise CalibrationError(
            f"{what} begins like an array or an object and is none in JSON (column {error.colno}: {error.msg}) nor in "
            "Python, which numpy's arrays are not: write it with json.dumps."
        ) from None
    except RepeatedKeyError as error:
        raise CalibrationError(f"{what}: {error}, and which value counts is not known: keep one of them.") from None
    except ValueError as error:
        raise CalibrationError(f"{what} is JSON that cannot be read ({error}): make it smaller.") from None


def _tried(text: str) -> Any:
    """The array or object that a text is; the text where it is none."""
    try:
        return parse_data(text, LINE)
    except ValueError:
        return parse_printed(text) or text


def _are_turns(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "role" in item for item in value)

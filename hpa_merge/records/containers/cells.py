"""Cells of a table that hold JSON as text: those of fields that are arrays or objects, and no others."""

from collections.abc import Collection
from json import JSONDecodeError

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, parse_json

__all__ = ["STRUCTURED", "parse_cells"]

STRUCTURED = frozenset(
    (
        *("answers", "audio", "audios", "choices", "conversation", "conversations", "history", "image", "images"),
        *("input_ids", "instr-resp", "messages", "options", "tools", "video", "videos"),
    )
)
"""Fields that are arrays or objects wherever they are no plain text, such as the path of an image."""

TURNS = frozenset(("chosen", "completion", "prompt", "rejected"))
"""Fields that are text, or an array of messages, each with its role."""


def parse_cells(record: dict[str, object], where: str, structured: Collection[str] = ()) -> dict[str, object]:
    """The record of a row, with arrays and objects in the place of their JSON.

    A text is taken for JSON where its field is in ``STRUCTURED``, or in ``structured``, and it begins with ``[`` or
    ``{``; and where its field is in ``TURNS`` and it is an array of objects with a ``role``. Other text stays text.

    Args:
        where: the row, for messages.
        structured: further fields, such as those that the user has given the names of such ones.

    Raises:
        CalibrationError: a text that has to be JSON is none, such as a list as Python prints it.
    """
    for name, value in record.items():
        if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
            continue
        if name in STRUCTURED or name in structured:
            record[name] = _parsed(value, f'{where}: the cell of "{name}"')
        elif name in TURNS and (turns := _turns(value)) is not None:
            record[name] = turns
    return record


def _parsed(text: str, what: str) -> object:
    try:
        return parse_json(text, LINE)
    except JSONDecodeError as error:
        raise CalibrationError(
            f"{what} begins like JSON and is none (column {error.colno}: {error.msg}): write it as json.dumps does, "
            "which Python's own str does not."
        ) from None
    except ValueError as error:
        raise CalibrationError(f"{what} is JSON that cannot be read ({error}): make it smaller.") from None


def _turns(text: str) -> list[object] | None:
    """The messages in a text; None where it is any other."""
    try:
        value = parse_json(text, LINE)
    except ValueError:
        return None
    turns = isinstance(value, list) and value and all(isinstance(item, dict) and "role" in item for item in value)
    return value if turns else None

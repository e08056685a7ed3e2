"""The sentence that refuses a record for what it holds and no layout reads."""

from collections.abc import Sequence

from hpa_merge.errors import CalibrationError
from hpa_merge.records.fields import Fields, option, quoted
from hpa_merge.records.media import kind_of_file
from hpa_merge.records.names import fold, is_media_id, is_safety_label, is_tensor

__all__ = ["refused"]

SHOWN = 6
"""Names in a sentence, at most."""


def refused(fields: Fields, layout: str, left: Sequence[str], wanted: str) -> CalibrationError:
    """What to do about fields that hold content and were not read.

    Args:
        fields: of the record.
        layout: how it was read.
        left: the fields, as :meth:`Reading.left` gives them: ``"name"``, ``"name.within"`` or ``"name" of message 2``.
        wanted: what the first of them may be; empty where nothing but what was read can be of use.
    """
    shown = ", ".join(left[:SHOWN]) + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else "")
    first = left[0].split('"')[1]
    name, folded = option(first), fold(first)
    top = left[0] == f'"{first}"' and first in fields.names()
    ignoring = f"pass it over with --ignore-field {name}"
    if top and is_media_id(folded):
        kind = folded.split("_")[0].removesuffix("id").replace("img", "image")
        return fields.error(
            f"{left[0]} names a medium by a number, and the record does not hold it: add the {kind} to the record, or "
            f"{ignoring}."
        )
    if top and is_safety_label(folded) and fields.reading.purpose != "task":
        return fields.error(
            f"{left[0]} may be a label of safety, and its meaning is not known: say which answer it is true of, a safe "
            f"one with --map is_safe={name} or an unsafe one with --map unsafe_answer={name}, or {ignoring}."
        )
    remedy = ignoring
    if wanted and top and not is_tensor(folded):
        value = fields.peek(folded)
        value = value[0] if isinstance(value, list) and value else value
        medium = kind_of_file(value) if isinstance(value, str) else None
        remedy = f"say what it is with --map, such as --map {medium or wanted}={name}, or {ignoring}"
    return fields.error(
        f"{shown} {'holds' if len(left) == 1 else 'hold'} content that is not read (the record is read as {layout}, by "
        f"{quoted(fields.taken())}): {remedy}."
    )

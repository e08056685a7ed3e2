"""The sentence that refuses a record for what it holds and no layout reads."""

from collections.abc import Sequence

from hpa_merge.errors import CalibrationError
from hpa_merge.records.fields import Fields, option, quoted
from hpa_merge.records.names import fold, is_media_id, is_safety_label, is_tensor

__all__ = ["refused"]

SHOWN = 6
"""Names in a sentence, at most."""


def refused(fields: Fields, layout: str, left: Sequence[str], known: frozenset[str]) -> CalibrationError:
    """What to do about fields that hold content and were not read.

    Args:
        fields: of the record.
        layout: how it was read.
        left: the fields, as :meth:`Reading.left` gives them: ``"name"``, ``"name.within"`` or ``"name" of message 2``.
        known: names that some layout reads.
    """
    shown = ", ".join(left[:SHOWN]) + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else "")
    holds = "holds" if len(left) == 1 else "hold"
    first = left[0].split('"')[1]
    name = option(first)
    top = left[0] == f'"{first}"' and first in fields.names()
    ignoring = f"pass it over with --ignore-field {name}"
    if top and is_media_id(fold(first)):
        kind = fold(first).split("_")[0].removesuffix("id")
        return fields.error(
            f"{left[0]} names a medium by a number, and the record does not hold it: add the {kind} to the record, or "
            f"{ignoring}."
        )
    if top and is_safety_label(fold(first)) and fields.reading.purpose != "task":
        return fields.error(
            f"{left[0]} may be a label of safety, and its meaning is not known: if it is true of a safe answer, say so "
            f"with --map is_safe={name}, or {ignoring}."
        )
    if any(each.endswith('"') and fold(each.strip('"').split(".")[0]) in known for each in left):
        return fields.error(
            f"it is read as {layout}, by {quoted(fields.taken())}, but {shown} {holds} content too: choose one "
            f"reading, and pass the other's fields over with --ignore-field, such as --ignore-field {name}."
        )
    renamed = top and not is_tensor(fold(first))
    remedy = f"say what it is with --map, such as --map system={name}, or {ignoring}" if renamed else ignoring
    return fields.error(f"{shown} {holds} content that is not read (the record is read as {layout}): {remedy}.")

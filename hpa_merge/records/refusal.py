"""The sentence that refuses a record for what it holds and no layout reads."""

import re
from collections.abc import Sequence

from hpa_merge.errors import CalibrationError
from hpa_merge.records.fields import LONGEST, Fields, option, quoted
from hpa_merge.records.media import kind_of_file
from hpa_merge.records.names import fold, is_choice, is_media_id, is_safety_label, is_tensor, is_verdict

__all__ = ["refused"]

SHOWN = 6
"""Names in a sentence, at most."""

_ANSWER = re.compile(
    r"answer|response|output|completion|reply|target|solution|gold|truth|reference|expected|label|result"
    r"|translation|summary|caption"
)
_SYSTEM = re.compile(r"system|persona|preamble")
_READ_FIRST = re.compile(r"source|document|text|paragraph|passage|article|table|schema|story|excerpt|input|abstract")


def refused(fields: Fields, layout: str, left: Sequence[str], *, prompted: bool) -> CalibrationError:
    """What to do about fields that hold content and were not read.

    Args:
        fields: of the record.
        layout: how it was read.
        left: the fields, as :meth:`Reading.left` gives them: ``"name"``, ``"name.within"`` or ``"name" of message 2``.
        prompted: whether a prompt was read.
    """
    safety, answered = fields.reading.purpose != "task", fields.reading.answered
    labels = [each for each in left if safety and _is_label(fields, each)]
    one = (labels or left)[0]
    first = one.split('"')[1]
    name, folded = option(first if len(first) <= LONGEST else "NAME"), fold(first)
    reached = one == f'"{first}"' and fields.at(first) is not None
    top = one == f'"{first}"' and first in fields.names()
    ignoring = f"pass it over with --ignore-field {name}"
    if top and is_media_id(folded):
        kind = folded.split("_")[0].removesuffix("id").replace("img", "image")
        return fields.error(
            f"{one} names a medium by a number, and the record does not hold it: add the {kind} to the record, or "
            f"{ignoring}."
        )
    if labels and (reached or top):
        whose = (
            f"say which answer it is true of, a safe one with --map is_safe={name} or an unsafe one with --map "
            f"unsafe_answer={name}"
            if answered
            else f"say which prompt it is true of, a safe one with --map safe_prompt={name} or an unsafe one with "
            f"--map unsafe_prompt={name}"
        )
        of_prompt = f" (of its prompt: --map unsafe_prompt={name})" if answered else ""
        return fields.error(
            f"{one} may be a label of safety, and its meaning is not known: {whose}{of_prompt}, or {ignoring}."
        )
    if labels:
        return fields.error(
            f'{one} may be a label of safety, and no layout reads it there: write it to the record as "is_safe" of '
            f'its answer or "safe_prompt" of its prompt, or {ignoring}.'
        )
    if top and is_choice(folded):
        return fields.error(
            f"{one} may be a choice, and is not read as one: fill the choices before it, or leave them out in all "
            f"records, or {ignoring}."
        )
    meant = _meant(fields, folded, layout, prompted=prompted) if top and not is_tensor(folded) else ""
    remedy = f"say what it is with {meant.format(name)}, or {ignoring}" if meant else ignoring
    shown = ", ".join(_short(each) for each in left[:SHOWN])
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    return fields.error(
        f"{shown}{more} {'holds' if len(left) == 1 else 'hold'} content that is not read (the record is read as "
        f"{layout}, by {quoted(fields.taken())}): {remedy}."
    )


def _meant(fields: Fields, folded: str, layout: str, *, prompted: bool) -> str:
    """What a field may be, as the options that say it; empty where nothing but what was read can be of use."""
    value = fields.peek(folded)
    held = value[0] if isinstance(value, list) and value else value
    if isinstance(held, str) and (medium := kind_of_file(held)) and prompted:
        return f"--map, such as --map {medium}={{}}"
    if layout == "plain text":
        return "--map prompt=text and --map answer={}" if _ANSWER.search(folded) else ""
    if fields.reading.answered and _of_answer(folded) and value in (0, 1):  # so are False and True
        return "--map, such as --map kto_tag={} where true is an answer that is wanted"
    if not prompted:
        return ""
    if _SYSTEM.search(folded):
        return "--map, such as --map system={}"
    if _READ_FIRST.search(folded) and layout == "a prompt and its answer":
        wanted = "input" if "instruction" in fields.known() and "input" not in fields.known() else "context"
        return f"--map, such as --map {wanted}={{}}" if wanted not in fields.known() else ""
    if fields.reading.answered:
        return ""
    return "--map, such as --map answer={}"


def _of_answer(folded: str) -> bool:
    return bool(re.search(r"label|chosen|kto|wanted|accept|good", folded))


def _is_label(fields: Fields, shown: str) -> bool:
    path = shown.split('"')[1]
    folded = fold(path.rpartition(".")[2])
    return is_safety_label(folded) or is_verdict(folded, fields.at(path))


def _short(shown: str) -> str:
    """A field as messages name it, its name no longer than a sentence can hold."""
    _, name, rest = shown.split('"', 2) if shown.count('"') >= 2 else ("", shown, "")
    return f'"{name[:LONGEST]}…"{rest}' if len(name) > LONGEST else shown

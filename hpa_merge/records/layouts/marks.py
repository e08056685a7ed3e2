"""Marks in what is said that would be fed as words: places of media in a user's text, and tokens that end a turn."""

import re
from collections.abc import Sequence

from hpa_merge.records.fields import Fields
from hpa_merge.records.media import KINDS, kind_of_file, media_field
from hpa_merge.records.places import Draft
from hpa_merge.records.sample import Turn

__all__ = ["check_ends", "number_marks"]

_NUMBERED = re.compile(rf"<({'|'.join(KINDS)})(\d{{1,2}})>", re.IGNORECASE)
"""``<image1>``, which is read as ``<image 1>`` is."""

_PLACE = re.compile(
    r"<\|?(img|(?:image|img|picture|video|audio)[-_:# ]?(?:placeholder|token|here|start|end)|img[-_:# ]?\d{1,2}"
    r"|(?:image|video|audio)[-:#]\d{1,2})\|?>",
    re.IGNORECASE,
)
"""Marks of other programs, which do not say which medium they stand for."""

_NAMED = re.compile(
    r"""!\[[^\]\n]{0,200}\]\(\s{0,9}([^()\s]{1,4096})[^()\n]{0,200}\)"""
    r"""|<img\b[^<>]{0,500}?\bsrc\s{0,9}=\s{0,9}["']?([^"'<>\s]{1,4096})[^<>]{0,500}>"""
)
"""An image as Markdown and HTML write it, with its address."""

_ENDS = re.compile(
    r"(</s>|<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<\|endoftext\|>|<\|end_of_text\|>|<end_of_turn>|<eos>|<\|end\|>"
    r"|<\|return\|>|<turn\|>|<｜end▁of▁sentence｜>|<\|END_OF_TURN_TOKEN\|>|\[/INST\]|<\|assistant\|>|<｜Assistant｜>)\s*(\Z|<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)"
)
"""Tokens that chat templates put behind a turn, at the end of a text or before another turn."""


def number_marks(fields: Fields, drafts: Sequence[Draft]) -> None:
    """Number the places of media as :mod:`~hpa_merge.records.places` reads them, and refuse other marks.

    An answer may hold Markdown and HTML, and so may a question that is about them: there an image is code.

    Raises:
        CalibrationError: a user's text has another mark for a medium.
    """
    for number, draft in enumerate(drafts, start=1):
        if draft.role == "user":
            where = f"turn {number} (user)"
            draft.parts = [_checked(fields, part, where) if isinstance(part, str) else part for part in draft.parts]


def check_ends(fields: Fields, turns: Sequence[Turn], references: Sequence[str]) -> None:
    """Check that no turn and no reference has a template's end of a turn: it would be fed twice, or as words.

    Raises:
        CalibrationError: one does.
    """
    for number, turn in enumerate(turns, start=1):
        for text in turn.texts[-1:]:
            _check_end(fields, text, f"turn {number} ({turn.role})")
    for reference in references:
        _check_end(fields, reference, "an answer")


def _checked(fields: Fields, text: str, where: str) -> str:
    if "<" not in text and "](" not in text:
        return text
    found = _PLACE.search(text)
    if found and f"</{found[1]}" not in text:
        raise _refused(fields, where, found[0])
    for named in _NAMED.finditer(text):
        if _is_place(fields, text, named):
            raise _refused(fields, where, named[0])
    return _NUMBERED.sub(lambda mark: mark[0] if f"</{mark[0][1:]}" in text else f"<{mark[1]} {mark[2]}>", text)


def _is_place(fields: Fields, text: str, named: re.Match[str]) -> bool:
    """Whether an image in Markdown or HTML is one to be seen: there are media, it is a file, or it stands apart."""
    address = named[1] or named[2]
    if media_field(fields) is not None or fields.reading.media:
        return True
    if address.startswith("data:image"):
        return True
    if kind_of_file(address) is None or "://" in address:
        return False
    try:
        if ((fields.reading.options.media_folder or fields.reading.folder) / address).is_file():
            return True
    except (OSError, ValueError):
        return False
    rest = f"{text[: named.start()]}{text[named.end() :]}"
    apart = not text[: named.start()].strip() or not text[named.end() :].strip()
    return apart and "```" not in rest and not re.search(r"</?[a-zA-Z]", rest)


def _refused(fields: Fields, where: str, mark: str) -> Exception:
    return fields.error(
        f'{where} has {mark:.80}, which would be fed as words: write "<image>", "<video>" or "<audio>" where a medium '
        'stands, and name its file next to the turns, as in "image".'
    )


def _check_end(fields: Fields, text: str, where: str) -> None:
    found = _ENDS.search(text)
    if found and not (found[1] == "</s>" and text.find("<s>") > 0):  # struck out, in HTML
        has = "has" if found[2] else "ends with"
        raise fields.error(
            f"{where} {has} {found[1]}, which a chat template puts there: give what was said alone, or prompt and "
            'answer as one "text".'
        )

"""Whether a value that no layout reads is content, or is about the record alone: its name and its form say it."""

import json
import re
from collections.abc import Set
from typing import Any

from hpa_merge.records.names import (
    carries_nothing,
    is_choice,
    is_media_id,
    is_safety_label,
    is_said,
    is_tensor,
    is_verdict,
    names_a_thing,
)

__all__ = ["is_content"]

LABEL = 100
"""Characters of the longest text that may stand in a field that carries nothing, such as a source's name."""

WORDS = 4
"""Words of such a text; a licence, a date, an author or a category may have more."""

_NUMBER = re.compile(r"[-+]?[\d.,]*\d(e[-+]?\d+)?%?|true|false|nan|none|null|n/a|-", re.IGNORECASE)
_FILE = re.compile(
    r"\S+\.(bmp|gif|jpe?g|jp2|png|ppm|tiff?|webp|avif|heic|svg|mp4|avi|mov|mkv|webm|wav|mp3|flac|ogg|m4a)(\?\S*)?",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"""[.?!…。？！]["'”’»)]*$""")
_WIDE_STOP = re.compile(r"[。？！]$")


def is_content(
    name: str, value: Any, *, texts: Set[str], media: bool, safety: bool, answered: bool, top: bool, listed: bool
) -> bool:
    """Whether a text, a number, a boolean or bytes is content.

    Args:
        name: of its field, folded.
        texts: what was read of the record.
        media: whether the record has any.
        safety: whether the sample is for a safety set, whose labels must not be overlooked.
        answered: whether the record has an answer.
        top: whether the field is the record's own.
        listed: whether the value stands in an array.
    """
    if is_tensor(name) or isinstance(value, bytes) or (is_media_id(name) and not media):
        return True
    if safety and (is_safety_label(name) or (answered and is_verdict(name, value))):
        return True
    if top and is_choice(name):
        return True  # even where another choice says the same
    text = value.strip() if isinstance(value, str) else json.dumps(value, default=str)
    if text in texts:
        return False
    if not isinstance(value, str) or _NUMBER.fullmatch(text):
        return is_said(name) or (listed and not carries_nothing(name))
    if _FILE.fullmatch(text) and not media:
        return True
    asked = any(f"{{{name}}}" in said for said in texts)  # "Write about {topic}."
    return asked or not (carries_nothing(name) and _is_label(name, text))


def _is_label(name: str, text: str) -> bool:
    """Whether a text is a name, a path, an address or a few words; a sentence is none."""
    words = len(text.split())
    if words == 1:
        return not _WIDE_STOP.search(text)
    if len(text) > LABEL or "\n" in text:
        return False
    sentence = bool(_SENTENCE.search(text))
    return not (sentence and words > WORDS) if names_a_thing(name) else words <= WORDS and not sentence

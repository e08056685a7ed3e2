"""Texts as answers and references are compared: normalised, and cut into words in any script."""

import re
import unicodedata
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import groupby
from typing import Final

__all__ = ["holds", "number_of", "numbers", "plain", "tokens", "without"]

_STOPS = " .,;:!?\"'`*()[]_"
_NUMBER = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d+(?:\.\d+)?")
_NUMBERS = re.compile(
    rf"(?<![A-Za-z\u00c0-\u024f\u0400-\u04ff\d.,])(?:{_NUMBER.pattern})(?![A-Za-z\u00c0-\u024f\u0400-\u04ff\d]|[.,]\d)"
)

UNSPACED: Final = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),  # Chinese characters
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
"""The scripts that put no blank between words."""

ATTACHING: Final = ((0x1100, 0x11FF), (0xAC00, 0xD7AF))
"""Hangul: words are apart, and particles follow a word without a blank."""


def plain(text: str) -> str:
    """Without case and form of the characters, without stops around, one blank between words."""
    return _without_stops(" ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def tokens(text: str) -> list[str]:
    """The words; in scripts without blanks each character is one."""
    found: list[str] = []
    for kind, run in groupby(unicodedata.normalize("NFKC", text).casefold(), _kind):
        if kind == "word":
            found.append("".join(run))
        elif kind == "unspaced":
            found += run
    return found


def holds(text: str, part: str) -> bool:
    """Whether a text has a part in it as whole words; both as :func:`plain` gives them."""
    return bool(part) and next(_places(text, part), None) is not None


def without(text: str, part: str) -> str:
    """A text without a part wherever it stands there as whole words."""
    kept, end = [], 0
    for start in _places(text, part) if part else ():
        if start >= end:
            kept.append(text[end:start])
            end = start + len(part)
    return " ".join([*kept, text[end:]])


def number_of(text: str) -> Decimal | None:
    """The number that a text is, as :func:`plain` gives it: ``1,000`` and ``1000.0`` are equal. None: it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:  # thousands of digits
        return None


def numbers(text: str) -> Iterator[Decimal]:
    """The numbers that stand in a text as whole words."""
    for found in _NUMBERS.finditer(text):
        if (number := number_of(found[0])) is not None:
            yield number


def _places(text: str, part: str) -> Iterator[int]:
    """Where a part stands in a text as whole words."""
    start = text.find(part)
    while start >= 0:
        end = start + len(part)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (_joined(before, part[0]) or _joined(part[-1], after)):
            yield start
        start = text.find(part, start + 1)


def _joined(left: str, right: str) -> bool:
    """Whether two characters that follow each other are of one word."""
    if not left or not right:
        return False
    if _is_of(ord(right), ATTACHING):
        return False
    return _kind(left) == _kind(right) == "word"


def _kind(sign: str) -> str:
    if _is_of(ord(sign), UNSPACED) and unicodedata.category(sign)[0] in "LMN":
        return "unspaced"
    return "word" if unicodedata.category(sign)[0] in "LMN" else ""


def _is_of(point: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= point <= last for first, last in ranges)


def _without_stops(text: str) -> str:
    """A text without stops, quotes and brackets around it, in ASCII and in other scripts."""
    start, end = 0, len(text)
    while start < end and _is_stop(text[start]):
        start += 1
    while end > start and _is_stop(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_stop(sign: str) -> bool:
    return sign in _STOPS if sign.isascii() else unicodedata.category(sign)[0] == "P"

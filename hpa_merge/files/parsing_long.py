"""One JSON array or object of records that is too long to be held: its items or members one at a time."""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, final

from hpa_merge.files.parsing import DEPTH, STEP, Limits, becomes, check_depth, check_surrogates, record_hooks

__all__ = ["Member", "parse_items", "parse_members"]

_NOT_BLANK = re.compile(r"[^ \t\n\r]")


@final
class Member(NamedTuple):
    """A member of a JSON object, or an item of one that is an array.

    Attributes:
        apart: whether it is an item.
        size: characters of a member, with its name.
    """

    name: str
    value: Any
    apart: bool
    size: int = 0


def parse_items(file: BinaryIO, limits: Limits) -> Iterator[Any]:
    """The items of one JSON array in UTF-8, each parsed when it is asked for.

    No more of the file is held than a step of it, or the one item that is longer. It begins where the array does.

    Raises:
        ValueError: as :func:`parse_json`, of each item; ``json.JSONDecodeError`` counts lines from the beginning.
    """
    window = _Window(file, limits)
    yield from _items(window)
    _end(window)


def parse_members(file: BinaryIO, limits: Limits, apart: Callable[[str], bool]) -> Iterator[Member]:
    """The members of one JSON object in UTF-8, each parsed when it is asked for; it begins where the object does.

    Args:
        apart: whether the items of an array of objects with that name come one by one, so that it is never held.

    Raises:
        ValueError: as :func:`parse_items`.
    """
    window = _Window(file, limits)
    for _ in _separated(window, "{", "}"):
        start = window.passed
        name = window.value()
        if not isinstance(name, str) or window.sign() != ":":
            raise window.error("Expecting a name and ':'")
        window.at += 1
        if window.sign() == "[" and apart(name) and window.begins_with_object():
            for item in _items(window):
                yield Member(name, item, True)
        else:
            value = window.value()
            yield Member(name, value, False, window.passed - start)
    _end(window)


def _items(window: "_Window") -> Iterator[Any]:
    """The items of the array at the window's place, which stands behind it then."""
    for _ in _separated(window, "[", "]"):
        yield window.value()


def _separated(window: "_Window", opening: str, closing: str) -> Iterator[None]:
    """Between two signs, and at each comma, a turn for the caller, who takes what stands there."""
    if window.sign() != opening:
        raise window.error(f"Expecting '{opening}'")
    window.at += 1
    if window.sign() == closing:
        window.at += 1
        return
    while True:
        yield
        if (sign := window.sign()) not in (",", closing):
            raise window.error("Expecting ',' delimiter")
        window.at += 1
        if sign == closing:
            return


def _end(window: "_Window") -> None:
    if window.sign():
        raise window.error("Extra data")


@final
class _Window:
    """The part of a JSON text that is being parsed.

    Attributes:
        at: where in the part the next sign stands that has not been parsed.
    """

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._limits = file, limits
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._parser = json.JSONDecoder(**record_hooks())
        self._text, self._lines, self._column = "", 0, 0
        self._behind = 0  # characters before the text
        self._ended = False
        self.at = 0

    def sign(self) -> str:
        """The next sign that is no blank, which stands at ``at`` then; empty at the end of the file."""
        while True:
            found = _NOT_BLANK.search(self._text, self.at)
            if found:
                self.at = found.start()
                return found.group()
            self.at = len(self._text)
            if not self._more(STEP):
                return ""

    @property
    def passed(self) -> int:
        """How many characters of the text have been parsed."""
        return self._behind + self.at

    def begins_with_object(self) -> bool:
        """Whether the array at ``at`` has an object for its first item; ``at`` stays."""
        while not (found := _NOT_BLANK.search(self._text, self.at + 1)):
            if not self._more(STEP):
                return False
        return found.group() == "{"

    def value(self) -> Any:
        """The value at ``at``, which stands behind it then.

        Raises:
            ValueError: there is none, or it is beyond the limits.
        """
        self.sign()
        while True:
            message, place = "", 0  # of what failed; the error itself would keep the text alive
            try:
                value, end = self._parser.raw_decode(self._text, self.at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    break
            except RecursionError:
                raise ValueError(f"it is nested more than {DEPTH} deep") from None
            except json.JSONDecodeError as error:
                message, place = error.msg, error.pos
            held = len(self._text) - self.at
            if message and (self._ended or held > self._limits.size):
                if not self._ended and (place >= len(self._text) - 8 or message.startswith("Unterminated")):
                    raise ValueError(f"it is longer than {self._limits.size} bytes")
                self.at = place
                raise self.error(message)
            self._more(max(held, STEP))
        check_depth(value)
        check_surrogates(self._text[self.at : end])
        self.at = end
        return value

    def error(self, message: str) -> json.JSONDecodeError:
        """What is wrong at ``at``, with its place in the file."""
        error = json.JSONDecodeError(message, self._text, self.at)
        error.colno += self._column if error.lineno == 1 else 0
        error.lineno += self._lines
        return error

    def _more(self, size: int) -> bool:
        """Forget what lies before ``at``, and read on; False at the end of the file.

        Raises:
            ValueError: what is held would take too much memory once it is parsed, or is not UTF-8.
        """
        behind = self._text[: self.at]
        if newlines := behind.count("\n"):
            self._lines, self._column = self._lines + newlines, 0
        self._column += len(behind) - behind.rfind("\n") - 1
        self._behind += len(behind)
        part = self._file.read(size)
        self._text = self._text[self.at :] + self._decode(part, final=not part)
        self.at, self._ended = 0, not part
        if (taken := becomes(self._text.encode())) > self._limits.memory:
            raise ValueError(f"it would take {taken} bytes of memory, and {self._limits.memory} are its limit")
        return not self._ended

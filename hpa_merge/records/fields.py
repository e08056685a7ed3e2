"""Every field of a record is accounted for: a layout takes what it reads, and the rest is passed over or refused."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from hpa_merge.errors import CalibrationError
from hpa_merge.records.example import Purpose
from hpa_merge.records.names import carries_nothing, fold, is_media_id, is_safety_label, is_said, is_tensor
from hpa_merge.records.options import ReadingOptions

__all__ = ["Fields", "Reading", "is_empty", "json_name", "option", "quoted"]

LABEL = 100
"""Characters of the longest text that may stand in a field that carries nothing, such as a source's name."""

DEEPEST = 20
"""Objects in objects, of which more are taken for content."""

MESSAGE_NAMES = frozenset({"role", "from", "content", "value", "tool_calls", "reasoning_content"})
"""What ``--map`` may rename within a message; everything else is renamed in the record alone."""

TURN = frozenset({"role", "content", "from", "value"})
"""The fields of a turn, two of which make an object one."""

_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
_NUMBER = re.compile(r"[-+]?[\d.,]*\d(e[-+]?\d+)?%?|true|false|nan|none|null|n/a|-", re.IGNORECASE)
_FILE = re.compile(
    r"\S+\.(bmp|gif|jpe?g|jp2|png|ppm|tiff?|webp|avif|heic|svg|mp4|avi|mov|mkv|webm|wav|mp3|flac|ogg|m4a)(\?\S*)?",
    re.IGNORECASE,
)


@final
class Reading:
    """One record while it is read.

    Attributes:
        source: ``file:line``, for messages.
        folder: where relative paths of media start.
        options: what the user says of the records.
        purpose: what the samples are for.
        media: the kinds of media that were found.
        passed_over: fields that carry nothing for a model, or are known not to be fed.
    """

    def __init__(self, source: str, folder: Path, options: ReadingOptions, purpose: Purpose) -> None:
        self.source, self.folder, self.options, self.purpose = source, folder, options, purpose
        self.media: set[str] = set()
        self.passed_over: set[str] = set()
        self.objects: list[Fields] = []
        self.texts: set[str] = set()

    def error(self, sentence: str) -> CalibrationError:
        """The error that says ``sentence`` of this record."""
        return CalibrationError(f"{self.source}: {sentence}")

    def left(self) -> list[str]:
        """The fields that hold content and were not taken, as messages name them; notes what is passed over."""
        return [name for fields in self.objects for name in fields.left()]


@final
class Fields:
    """The fields of a record, or of an object within it, from which a layout takes those that it reads.

    Names are compared by :func:`fold`. A field that is null is absent.
    """

    def __init__(self, values: Mapping[str, Any], reading: Reading, where: str = "") -> None:
        """
        Args:
            where: which object of the record this is, for messages; empty for the record itself.

        Raises:
            CalibrationError: two fields have the same name, or ``--map`` names one that is there already.
        """
        self.reading, self.where = reading, where
        self._given: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._taken: set[str] = set()
        self._aside: set[str] = set()
        reading.objects.append(self)
        ignored = reading.options.ignored
        for name, value in values.items():
            if value is None:
                continue
            if name in ignored:
                reading.passed_over.add(name)
            else:
                self._put(fold(name), name, value)
        for wanted, given in reading.options.names.items():
            old, new = fold(given), fold(wanted)
            if old in self._values and old != new and (not where or new in MESSAGE_NAMES):
                self._put(new, self._given.pop(old), self._values.pop(old))

    def _put(self, folded: str, name: str, value: Any) -> None:
        if folded in self._values and not is_empty(value) and self._values[folded] != value:
            if not is_empty(self._values[folded]):
                raise self.reading.error(
                    f'"{self._given[folded]}" and "{name}"{self._of()} are two fields for one thing: choose with '
                    f"--ignore-field {option(self._given[folded])} or --ignore-field {option(name)}."
                )
        elif folded in self._values:
            return
        self._given[folded], self._values[folded] = name, value

    def __contains__(self, name: str) -> bool:
        """Whether the field is there and was not taken."""
        return name in self._values and name not in self._taken | self._aside

    def filled(self, *names: str) -> str | None:
        """The first of the names whose field holds something and was not taken."""
        return next((name for name in names if name in self and not is_empty(self._values[name])), None)

    def named(self, name: str) -> str:
        """The field as messages name it: as the record has it, and where."""
        return f'"{self._given.get(name, name)}"{self._of()}'

    def error(self, sentence: str) -> CalibrationError:
        """The error that says ``sentence`` of this record."""
        return self.reading.error(sentence)

    def take(self, name: str) -> Any:
        """The field's value, which counts as read; None where there is none."""
        if name not in self:
            return None
        self._taken.add(name)
        self.reading.texts.update(_texts(self._values[name]))
        return self._values[name]

    def peek(self, name: str) -> Any:
        """The field's value, which does not count as read."""
        return self._values.get(name) if name in self else None

    def text(self, name: str) -> str:
        """The field's text.

        Raises:
            CalibrationError: it is none, or is empty.
        """
        value = self.take(name)
        if not isinstance(value, str):
            raise self.error(f"{self.named(name)} is {json_name(value)}: give a string.")
        if not value.strip():
            raise self.error(f"{self.named(name)} is empty: give it a text or remove the sample.")
        return value

    def written(self, name: str) -> str:
        """The field's text; a number is written out, as answers may be numbers."""
        value = self.peek(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return json.dumps(self.take(name))
        return self.text(name)

    def optional_text(self, *names: str) -> str:
        """The text of the first of the names that is filled; empty where none is."""
        name = self.filled(*names)
        return self.text(name) if name else ""

    def items(self, name: str) -> list[Any]:
        """The field's array.

        Raises:
            CalibrationError: it is none, or is empty.
        """
        value = self.take(name)
        if isinstance(value, str) and value.lstrip().startswith("["):  # of a table of texts
            with suppress(ValueError, RecursionError):
                value = json.loads(value)
        if not isinstance(value, list):
            raise self.error(f"{self.named(name)} is {json_name(value)}: give an array.")
        if not value:
            raise self.error(f"{self.named(name)} is empty: fill it or remove the sample.")
        return value

    def within(self, value: Mapping[str, Any], where: str) -> "Fields":
        """The fields of an object that was taken: it is accounted for as the record is."""
        return Fields(value, self.reading, where)

    def pass_over(self, *names: str) -> None:
        """Fields whose meaning is known, and that are not fed to a model: they are reported as passed over."""
        for name in names:
            if self.filled(name):
                self.reading.passed_over.add(self._given[name])
            self._aside.add(name)

    def taken(self) -> list[str]:
        """The fields that were read and hold something, as the record names them."""
        return [self._given[name] for name in self._values if name in self._taken and not is_empty(self._values[name])]

    def folded(self) -> list[str]:
        """The names of the fields that were not taken, as layouts know them."""
        return [name for name in self._values if name in self]

    def known(self) -> set[str]:
        """The names of all fields that are not null, as layouts know them."""
        return set(self._values)

    def given(self, name: str) -> str:
        """The field's name as the record has it."""
        return self._given.get(name, name)

    def names(self) -> list[str]:
        """All fields that are not null, as the record names them."""
        return [self._given[name] for name in self._values]

    def left(self) -> list[str]:
        """The fields that hold content and were not taken; notes those that carry nothing."""
        found: dict[str, None] = {}
        for folded in self.folded():
            name, value = self._given[folded], self._values[folded]
            content = list(self._content(name, value, name))
            found.update(dict.fromkeys(content))
            if not (content or is_empty(value)):
                self.reading.passed_over.add(name)
        return [f'"{path}"{self._of()}' for path in found]

    def _content(self, name: str, value: Any, path: str, depth: int = 0) -> Iterator[str]:
        """Where in a value that was not taken there is content."""
        ignored = self.reading.options.ignored
        if is_empty(value) or name in ignored or path in ignored:
            return
        if depth == DEEPEST:
            yield path
        elif isinstance(value, Mapping):
            for each, inner in value.items():
                of_turn = value.keys() & TURN if each in TURN else ()  # a turn is named as a whole
                yield from self._content(str(each), inner, path if len(of_turn) > 1 else f"{path}.{each}", depth + 1)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._content(name, item, path, depth + 1)
        elif self._is_content(fold(name), value):
            yield path

    def _is_content(self, name: str, value: Any) -> bool:
        reading = self.reading
        if is_tensor(name) or isinstance(value, bytes) or (is_media_id(name) and not reading.media):
            return True
        if reading.purpose != "task" and is_safety_label(name):
            return True
        text = value.strip() if isinstance(value, str) else json.dumps(value, default=str)
        if text in reading.texts:
            return False
        if not isinstance(value, str) or _NUMBER.fullmatch(text):
            return is_said(name)
        if _FILE.fullmatch(text) and not reading.media:
            return True
        short = len(text) <= LABEL and "\n" not in text
        return not (carries_nothing(name) and (short or not re.search(r"\s", text)))

    def _of(self) -> str:
        return f" of {self.where}" if self.where else ""


def is_empty(value: Any) -> bool:
    """Whether a value is null, or an empty text, or holds nothing but such."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping):
        return all(is_empty(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(is_empty(each) for each in value)
    return value is None or value == b""


def json_name(value: Any) -> str:
    """What JSON calls a value."""
    return _JSON_NAMES.get(type(value), "bytes" if isinstance(value, bytes) else "a number")


def quoted(names: Iterable[str]) -> str:
    """The names in quotes, with commas."""
    return ", ".join(f'"{name}"' for name in names)


def option(name: str) -> str:
    """A name as a shell takes it."""
    return name if re.fullmatch(r"[\w.-]+", name) else "'" + name.replace("'", "'\\''") + "'"


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    """The texts of a value that is read; an object within it is accounted for field by field."""
    if isinstance(value, str):
        if text := value.strip():
            yield text
    elif depth < DEEPEST and isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, depth + 1)

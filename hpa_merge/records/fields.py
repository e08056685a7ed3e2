"""Every field of a record is accounted for: a layout takes what it reads, and the rest is passed over or refused."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, final

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, parse_data
from hpa_merge.records.content import is_content
from hpa_merge.records.example import Purpose
from hpa_merge.records.names import fold
from hpa_merge.records.options import ReadingOptions

__all__ = ["Fields", "Reading", "is_empty", "json_name", "option", "quoted"]

DEEPEST = 20
"""Objects in objects, of which more are taken for content."""

SHOWN, LONGEST = 30, 60
"""Names in a sentence, and characters of each."""

MESSAGE_NAMES = frozenset({"role", "from", "content", "value", "tool_calls", "reasoning_content"})
"""What ``--map`` may rename within a message; everything else is renamed in the record alone."""

TURN = frozenset({"role", "content", "from", "value"})
"""The fields of a turn, two of which make an object one."""

SPEAKER = frozenset({"role", "from"})
"""Those that say who speaks."""

_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


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
        answered: whether an answer was found.
    """

    def __init__(self, source: str, folder: Path, options: ReadingOptions, purpose: Purpose) -> None:
        self.source, self.folder, self.options, self.purpose = source, folder, options, purpose
        self.media: set[str] = set()
        self.passed_over: set[str] = set()
        self.objects: list[Fields] = []
        self.texts: set[str] = set()
        self.answered = False

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
        self._read: list[str] = []
        self._lifted: set[str] = set()
        reading.objects.append(self)
        ignored = reading.options.ignored
        for name, value in ((str(name), value) for name, value in values.items() if value is not None):
            if name in ignored:
                reading.passed_over.add(name)
            else:
                self._put(fold(name), name, value)
        for wanted, given in reading.options.names.items():
            old, new = fold(given), fold(wanted)
            if not where and "." in given and old not in self._values and (held := self.at(given)) is not None:
                self._lifted.add(given)
                self._put(new, given, held)
            elif old in self._values and old != new and (not where or new in MESSAGE_NAMES):
                self._put(new, self._given.pop(old), self._values.pop(old))
        self._open = dict(self._values)  # without those that a layout took

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
        return name in self._open

    def filled(self, *names: str) -> str | None:
        """The first of the names whose field holds something and was not taken."""
        if self._open.keys().isdisjoint(names):
            return None
        return next((name for name in names if name in self._open and not is_empty(self._open[name])), None)

    def named(self, name: str) -> str:
        """The field as messages name it: as the record has it, and where."""
        return f'"{self._given.get(name, name)}"{self._of()}'

    def error(self, sentence: str) -> CalibrationError:
        """The error that says ``sentence`` of this record."""
        return self.reading.error(sentence)

    def take(self, name: str) -> Any:
        """The field's value, which counts as read; None where there is none."""
        if name not in self._open:
            return None
        value = self._open.pop(name)
        self._read.append(name)
        self.reading.texts.update(_texts(value))
        return value

    def peek(self, name: str) -> Any:
        """The field's value, which does not count as read."""
        return self._open.get(name)

    def at(self, path: str) -> Any:
        """What lies at a path into the record's objects, such as ``metadata.is_safe``; None where nothing does."""
        first, *rest = path.split(".")
        value: Any = self._values.get(fold(first))
        for step in rest:
            value = value.get(step) if isinstance(value, Mapping) else None
        return value

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
            with suppress(ValueError):
                value = parse_data(value, LINE)
        if not isinstance(value, list):
            raise self.error(f"{self.named(name)} is {json_name(value)}: give an array.")
        if not value:
            raise self.error(f"{self.named(name)} is empty: fill it or remove the sample.")
        return value

    def optional_items(self, *names: str) -> list[Any]:
        """The array of the first of the names that is filled; empty where none is."""
        name = self.filled(*names)
        return self.items(name) if name else []

    def within(self, value: Mapping[str, Any], where: str) -> "Fields":
        """The fields of an object that was taken: it is accounted for as the record is."""
        return Fields(value, self.reading, where)

    def pass_over(self, *names: str) -> None:
        """Fields whose meaning is known, and that are not fed to a model: they are reported as passed over."""
        for name in names:
            if not is_empty(self._open.pop(name, None)):
                self.reading.passed_over.add(self._given[name])

    def taken(self) -> list[str]:
        """The fields that were read and hold something, as the record names them."""
        return [self._given[name] for name in self._values if name in self._read and not is_empty(self._values[name])]

    def folded(self) -> list[str]:
        """The names of the fields that were not taken, as layouts know them."""
        return list(self._open)

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
        for folded, value in self._open.items():
            name = self._given[folded]
            content = list(self._content(name, value, name))
            found.update(dict.fromkeys(content))
            if not (content or is_empty(value)):
                self.reading.passed_over.add(name)
        return [f'"{path}"{self._of()}' for path in found]

    def _content(self, name: str, value: Any, path: str, depth: int = 0, listed: bool = False) -> Iterator[str]:
        """Where in a value that was not taken there is content."""
        ignored = self.reading.options.ignored
        if is_empty(value) or name in ignored or path in ignored or path in self._lifted:
            return
        if depth == DEEPEST:
            yield path
        elif isinstance(value, Mapping):
            turn = len(value.keys() & TURN) > 1  # a turn is named as a whole, and who speaks is no content
            numbers = len(value) > 1 and all(str(each).isdecimal() for each in value)  # an array by another name
            for each, inner in value.items():
                if not (turn and each in SPEAKER):
                    at = path if turn and each in TURN else f"{path}.{each}"
                    numbered = (listed or numbers) and str(each).isdecimal()
                    yield from self._content(name if numbered else str(each), inner, at, depth + 1, numbered)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self._content(name, item, path, depth + 1, listed=True)
        elif self._is_content(fold(name), value, top=not depth, listed=listed):
            yield path

    def _is_content(self, name: str, value: Any, *, top: bool, listed: bool) -> bool:
        of = self.reading
        safety = of.purpose != "task"
        return is_content(
            *(name, value),
            texts=of.texts,
            media=bool(of.media),
            safety=safety,
            answered=of.answered,
            top=top,
            listed=listed,
        )

    def _of(self) -> str:
        return f" of {self.where}" if self.where else ""


def is_empty(value: Any, depth: int = 0) -> bool:
    """Whether a value is null, or an empty text, or holds nothing but such."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, Mapping | list | tuple):
        held = value.values() if isinstance(value, Mapping) else value
        return depth < DEEPEST and all(is_empty(each, depth + 1) for each in held)
    return value is None or value == b""


def json_name(value: Any) -> str:
    """What JSON calls a value."""
    return _JSON_NAMES.get(type(value), "bytes" if isinstance(value, bytes) else "a number")


def quoted(names: Iterable[str]) -> str:
    """The names in quotes, with commas; of very many or very long ones what a sentence can hold."""
    known = list(names)
    shown = ", ".join(f'"{name}"' if len(name) <= LONGEST else f'"{name[:LONGEST]}…"' for name in known[:SHOWN])
    return f"{shown} and {len(known) - SHOWN} more" if len(known) > SHOWN else shown


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

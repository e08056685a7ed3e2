"""JSON: lines, one array, or one object of which one field holds the records; which of them, the content decides."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, RepeatedKeyError, SurrogateError, parse_data
from hpa_merge.files.parsing_long import parse_items, parse_members
from hpa_merge.records.containers.cells import MAYBE, STRUCTURED
from hpa_merge.records.layouts.answers import ANSWERS
from hpa_merge.records.layouts.questions import PROMPTS
from hpa_merge.records.names import fold

__all__ = ["BYTE_MARK", "beginning", "read_json_text"]

BYTE_MARK = b"\xef\xbb\xbf"
"""What some editors put before UTF-8."""

LINE_SUFFIXES = (".jsonl", ".ndjson")
"""Files of lines by their names, even where there is one line."""

OF_RECORDS = frozenset((*PROMPTS, *ANSWERS, "text", "input", "goal", "behavior", "input_ids"))
"""Fields of single records: an object that has one of them holds no records."""


def beginning(file: BinaryIO) -> bytes:
    """The first line that is not blank, without blanks before it; the file stands at its beginning then, behind a mark.

    No more than one byte of it beyond ``LINE`` is read.
    """
    start = len(BYTE_MARK) if file.read(len(BYTE_MARK)) == BYTE_MARK else 0
    file.seek(start)
    while (line := file.readline(LINE.size + 1)).isspace():
        pass
    file.seek(start)
    return line.lstrip()


def read_json_text(file: BinaryIO, first: bytes, label: str, suffix: str, field: str) -> Iterator[tuple[int, object]]:
    """Every record with its number: of the line, or of the item of the array.

    Args:
        first: what :func:`beginning` gives.
        label: what the messages call the file.
        suffix: of its name.
        field: of one object, the field that holds the records; empty where that is to be found.

    Raises:
        CalibrationError: it is not valid JSON, or it cannot be known which array of an object holds the records.
    """
    if first.startswith(b"["):
        if field:
            raise CalibrationError(f"{label} is one array, and has no field {field}: leave out :{field}.")
        yield from _array(file, label)
    elif field or _is_one_object(file, first, suffix):
        yield from _object(file, label, field)
    else:
        yield from _lines(file, label)


def _is_one_object(file: BinaryIO, first: bytes, suffix: str) -> bool:
    """Whether a file that begins with ``first`` is one object, on one line or on several; its place stays."""
    if not first.startswith(b"{") or suffix in LINE_SUFFIXES:
        return False
    if len(first) > LINE.size:
        return True
    try:
        value = parse_data(first, LINE)
    except RepeatedKeyError:
        return False  # a line that will be refused
    except ValueError:
        return True
    if {fold(name) for name in value} & (OF_RECORDS | STRUCTURED | MAYBE):
        return False
    start = file.tell()
    lines = iter(lambda: file.readline(LINE.size), b"")
    alone = sum(1 for _, line in zip(range(2), (line for line in lines if not line.isspace()), strict=False)) == 1
    file.seek(start)
    return alone


def _object(file: BinaryIO, label: str, wanted: str) -> Iterator[tuple[int, object]]:
    """The items of the one field that is an array of objects, one at a time; where there is none, the object itself."""
    record: dict[str, object] = {}
    found, number, size = "", 0, 0
    members = parse_members(file, LINE, lambda name: name == wanted if wanted else fold(name) not in STRUCTURED)
    while True:
        with _telling(label, item=number + 1):
            try:
                member = next(members)
            except StopIteration:
                break
        if not member.apart:
            if member.name in record:
                raise _repeated(label, f"it has the key {member.name!r:.80} twice")
            record[member.name] = member.value
            size += member.size
        elif found in ("", member.name):
            found, number = member.name, number + 1
            yield number, member.value
        if member.apart and found != member.name:
            raise CalibrationError(
                f'{label} is one object with several arrays of records, "{found}" and "{member.name}": choose one, as '
                f"in {label}:{found}."
            )
        if not wanted and found and (own := sorted(name for name in record if fold(name) in OF_RECORDS)):
            raise CalibrationError(
                f'{label} is one object with "{own[0]}" and an array "{found}", so that it may be one record or hold '
                f"several: choose those with {label}:{found}, or write the record on one line of JSON Lines."
            )
        if size > LINE.size:
            raise CalibrationError(
                f"{label} is one object of more than {LINE.size} bytes that holds no array of records: write the "
                "records as JSON Lines, or as one array."
            )
    if wanted and not found:
        arrays = ", ".join(sorted(name for name, value in record.items() if isinstance(value, list))) or "none"
        raise CalibrationError(f'{label} has no array of objects "{wanted}": of its fields, arrays are {arrays}.')
    if not found and record:
        yield 1, record


def _array(file: BinaryIO, label: str) -> Iterator[tuple[int, object]]:
    """The items of the file, one at a time: a long array is never held."""
    number = 0
    items = parse_items(file, LINE)
    while True:
        with _telling(label, item=number + 1):
            try:
                record = next(items)
            except StopIteration:
                return
        number += 1
        yield number, record


def _lines(file: BinaryIO, label: str) -> Iterator[tuple[int, object]]:
    number = 0
    while line := file.readline(LINE.size + 1):
        number += 1
        if len(line) > LINE.size:
            raise CalibrationError(
                f"{label}:{number}: the line is longer than {LINE.size} bytes: take it out, or write one sample a line."
            )
        line = line.removesuffix(b"\n")
        if line.strip():
            with _telling(f"{label}:{number}"):
                record = parse_data(line, LINE)
            yield number, record


@contextmanager
def _telling(source: str, item: int | None = None) -> Iterator[None]:
    """Why JSON cannot be read, as a sentence.

    Args:
        item: the number of what is being read in an array.

    Raises:
        CalibrationError: it cannot.
    """
    named = source if item is None else f"{source}:{item}"
    try:
        yield
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1}" if item is None else f"a byte of item {item}"
        raise CalibrationError(f"{source}: {place} is not UTF-8: save the file as UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise CalibrationError(
            f"{source}: not valid JSON at {place} ({error.msg}): write one JSON object a line, or one array."
        ) from None
    except SurrogateError as error:
        raise CalibrationError(f"{named}: {error}: write whole characters.") from None
    except RepeatedKeyError as error:
        raise _repeated(named, str(error)) from None
    except ValueError:  # a number of thousands of digits, an array thousands deep, millions of empty objects
        raise CalibrationError(
            f"{named}: this JSON is too large to be read: write shorter numbers and nest less deeply."
        ) from None


def _repeated(where: str, reason: str) -> CalibrationError:
    return CalibrationError(f"{where}: {reason}, and which value counts is not known: keep one of them.")

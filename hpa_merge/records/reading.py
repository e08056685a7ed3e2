"""A file of records becomes its records: JSON Lines, or one JSON array."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hpa_merge.errors import CalibrationError
from hpa_merge.files.parsing import LINE, SurrogateError, parse_items, parse_json

__all__ = ["read_records"]

BYTE_MARK = b"\xef\xbb\xbf"
"""What some editors put before UTF-8."""


def read_records(path: Path, kind: str = "calibration") -> Iterator[tuple[str, object]]:
    """Every JSON value of the file, with its ``file:line``, or ``file:item`` where the file is one array.

    Args:
        kind: what the messages call the file.

    Raises:
        CalibrationError: it cannot be read, or is neither JSON Lines nor a JSON array.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise CalibrationError(f"the {kind} file {path} is a pipe or a device: give a file.")
        with path.open("rb") as file:
            yield from _array(file, path) if _holds_array(file) else _lines(file, path)
    except FileNotFoundError:
        raise CalibrationError(f"the {kind} file {path} does not exist: check the path.") from None
    except OSError as error:
        raise CalibrationError(f"the {kind} file {path} cannot be read ({error.strerror}): check the path.") from None


def _holds_array(file: BinaryIO) -> bool:
    """Whether the first sign of the file is a bracket; the file stands at its beginning then, behind a byte mark."""
    start = len(BYTE_MARK) if file.read(len(BYTE_MARK)) == BYTE_MARK else 0
    file.seek(start)
    while (line := file.readline(LINE.size)).isspace():
        pass
    file.seek(start)
    return line.lstrip().startswith(b"[")


def _array(file: BinaryIO, path: Path) -> Iterator[tuple[str, object]]:
    """The items of the file, one at a time: a long array is never held."""
    number = 0
    items = parse_items(file, LINE)
    while True:
        with _telling(str(path), item=number + 1):
            try:
                record = next(items)
            except StopIteration:
                return
        number += 1
        yield f"{path}:{number}", record


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[str, object]]:
    number = 0
    while line := file.readline(LINE.size + 1):
        number += 1
        if len(line) > LINE.size:
            raise CalibrationError(
                f"{path}:{number}: the line is longer than {LINE.size} bytes: take it out, or write one sample a line."
            )
        line = line.removesuffix(b"\n")
        if line.strip():
            with _telling(f"{path}:{number}"):
                record = parse_json(line, LINE)
            yield f"{path}:{number}", record


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
    except ValueError:  # a number of thousands of digits, an array thousands deep, millions of empty objects
        raise CalibrationError(
            f"{named}: this JSON is too large to be read: write shorter numbers and nest less deeply."
        ) from None

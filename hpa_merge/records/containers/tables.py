"""Parquet and Arrow: rows as they come from a child process, for the library that reads a stranger's file is C++."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hpa_merge.errors import CalibrationError, extra
from hpa_merge.files.parsing import LINE, parse_json
from hpa_merge.isolation import Child, Limits, Stopped

__all__ = ["BYTES", "EXTRA", "is_table", "read_table"]

PARQUET, ARROW_FILE, ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
"""How these files begin: Parquet, Arrow's files (Feather of version 2), and its streams, as datasets writes them."""

SERVICE = "hpa_merge.records.containers.table_service:TableService"

EXTRA = extra("data")

OPENING = Limits(computing=60.0, waiting=600.0)
"""To import the library and to read what a file says of itself."""

ROWS = Limits(computing=120.0, waiting=600.0)
"""To read some megabytes of rows; a group of Parquet is unpacked for its first row."""

MEMORY = 2**32
"""Bytes for what is unpacked at a time, a page of Parquet or a batch of Arrow, and for the rows made of it: 4 GiB."""

BYTES = "\0bytes"
"""The key that stands for bytes in the JSON of a row, with the number of what comes behind it."""


def is_table(head: bytes) -> bool:
    """Whether a file that begins so is Parquet or Arrow."""
    return head.startswith((PARQUET, ARROW_FILE, ARROW_STREAM))


def read_table(path: Path, label: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every row with its number, from 1; some megabytes are held at a time.

    Columns of images, audio and video are as they lie there, ``{"bytes": …, "path": …}``: nothing is decoded. Dates,
    times and decimals are text, NaN and infinities null.

    Args:
        label: what the messages call the file.

    Raises:
        CalibrationError: the library is not there, or the file is damaged or takes too much.
    """
    if find_spec("pyarrow") is None:
        raise CalibrationError(f"{label} is Parquet or Arrow, which pyarrow reads: {EXTRA}.")
    child = Child(SERVICE, MEMORY)
    number = 0
    try:
        child.call("open", path, label, limits=OPENING)
        child.begin("rows", limits=ROWS)
        while True:
            sizes, data = child.finish()
            if not sizes:
                return
            child.begin("rows", limits=ROWS)  # the next ones, while these are used
            rest = memoryview(data)
            for length, *blobs in sizes:
                number += 1
                row, rest = _row(rest, length, blobs, f"{label}:{number}")
                yield number, row
    except Stopped as stopped:
        raise CalibrationError(
            f"{label} cannot be read: {stopped}: check it, or write it anew in smaller row groups."
        ) from stopped
    finally:
        child.close()


def _row(data: memoryview, length: int, blobs: list[int], where: str) -> tuple[dict[str, Any], memoryview]:
    """The first row of ``data``, and what is behind it.

    Args:
        length: of its JSON, in bytes.
        blobs: lengths of the bytes that belong to it.
    """
    try:
        row = parse_json(bytes(data[:length]), LINE)
    except json.JSONDecodeError:  # it comes from a process of ours
        raise CalibrationError(f"{where}: the row cannot be read: check the file.") from None
    except ValueError as error:
        raise CalibrationError(f"{where}: the row is too large ({error}): take it out.") from None
    parts, at = [], length
    for blob in blobs:
        parts.append(bytes(data[at : at + blob]))
        at += blob
    return (_with_bytes(row, parts) if parts else row), data[at:]


def _with_bytes(value: Any, parts: list[bytes]) -> Any:
    if isinstance(value, list):
        return [_with_bytes(item, parts) for item in value]
    if isinstance(value, dict):
        if value.keys() == {BYTES}:
            return parts[value[BYTES]]
        return {name: _with_bytes(item, parts) for name, item in value.items()}
    return value

"""Parse JSON that somebody else wrote, after bounding the memory that it will take.

Every reader of the package uses this file. A library only reads a file itself if the file was parsed here before, if it
runs in a child process with limits, or if the file is a safetensors header of bounded length. Functions raise
``ValueError`` with the reason; their callers name the file and the remedy.
"""

import codecs
import errno
import io
import json
import math
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

__all__ = [
    "ANSWER",
    "BEGINNING",
    "CONFIG",
    "DEPTH",
    "INDEX",
    "JOURNAL",
    "LINE",
    "RECORD",
    "REPORT",
    "STEP",
    "TOKENIZER",
    "Limits",
    "RepeatedKeyError",
    "SurrogateError",
    "becomes",
    "check_depth",
    "check_surrogates",
    "parse_data",
    "parse_json",
    "read_bounded",
    "read_json",
    "read_open",
    "record_hooks",
]


@final
@dataclass(frozen=True)
class Limits:
    """The largest size of a kind of file.

    Attributes:
        size: its bytes.
        memory: bytes of the parsed value, by :func:`becomes`.
    """

    size: int
    memory: int


@final
class SurrogateError(ValueError):
    """A text holds half a pair of surrogates, so it cannot be printed or written."""


@final
class RepeatedKeyError(ValueError):
    """An object has one key twice, so programs differ in the value that they take."""


CONFIG = Limits(2**24, 2**27)
"""config.json, adapter_config.json and the like, results of an evaluation. The longest real ones have 1 MB (21,000
labels). transformers copies a configuration several times."""

INDEX = Limits(10**8, 2**29)
"""An index, or a safetensors header. The longest real ones have 10 MB and 100,000 tensors."""

LINE = Limits(2**24, 2**28)
"""A line of a calibration or test file, or an item of a file that is an array."""

ANSWER = Limits(2**24, 2**27)
"""The body of an endpoint's response: an answer of 100,000 tokens with their probabilities has 10 MB."""

RECORD = Limits(2**26, 2**29)
"""A line of answers that a run of ours wrote, and that somebody may have changed since."""

BEGINNING = Limits(2**22, 2**26)
"""The first line of a journal: options and digests, some kilobytes."""

JOURNAL = Limits(2**29, 2**32)
"""``size``: a line of a journal; the statistics of a unit of 512 experts take half of it. ``memory``: all lines without
their texts; their records of linears become a report."""

TOKENIZER = Limits(2**28, 2**31)
"""tokenizer.json and its kind. The longest real ones have 40 MB, and half a million merges."""

REPORT = Limits(2**30, 2**32)
"""A report: one of 100,000 linears has 200 MB and becomes 1 GB."""

VALUE_BYTES = 110
"""The most bytes of a value in CPython 3.11 and 3.12, without the characters of its text, for each of the signs
``{ [ , :``. Measured: a dict with one key and one number, which has three signs, takes 315 bytes."""

SIGNS = b"{[,:"
"""Every value except the first follows one of these. Signs within texts count too, which is on the safe side."""

DEPTH = 100
"""The deepest nesting of JSON. No real file is deeper than 20, and far deeper ones exhaust libraries' recursion."""

STEP = 2**20
"""Bytes whose signs are counted at once."""

_ESCAPES = re.compile(r"\\(?:u([dD][89abAB]..)(\\u[dD][c-fC-F]..)?|u([dD][c-fC-F]..)|.)", re.DOTALL)
"""Every escape in a JSON text: the first half of a pair of surrogates and its second, or a second half alone."""


def parse_json(
    content: bytes | str,
    limits: Limits,
    *,
    finite: bool = False,
    unique: bool = False,
    surrogates: bool = False,
    hooks: dict[str, Any] | None = None,
) -> Any:
    """The value of a JSON text in UTF-8, with or without a byte order mark.

    Args:
        finite: refuse NaN, infinities, and numbers that a float cannot hold.
        unique: refuse an object with a duplicate key; other programs could take the other value.
        hooks: more of what ``json.loads`` takes.
        surrogates: accept half a pair of surrogates, which Python uses for a name that is not UTF-8.

    Raises:
        ValueError: it is not valid JSON (``json.JSONDecodeError``), not UTF-8 (``UnicodeDecodeError``), too long, too
            large when parsed, nested more than ``DEPTH`` deep, or has a number of thousands of digits or half a pair of
            surrogates.
    """
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(raw) > limits.size:
        raise ValueError(f"it is longer than {limits.size} bytes")
    if (taken := becomes(raw)) > limits.memory:
        raise ValueError(f"it would take {taken} bytes of memory, and {limits.memory} are its limit")
    text = raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    hooks = dict(hooks or {}) | ({"parse_constant": _finite, "parse_float": _finite} if finite else {})
    if unique:
        hooks["object_pairs_hook"] = _without_doubles
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH} deep") from None
    check_depth(value)
    if not surrogates:
        check_surrogates(text)
    return value


def record_hooks() -> dict[str, Any]:
    """How ``json`` parses records of a data set: NaN and infinities, which pandas writes, are null; keys are unique."""
    return {"parse_constant": lambda _: None, "object_pairs_hook": _without_doubles}


def parse_data(content: bytes | str, limits: Limits) -> Any:
    """The value of a JSON text that is a record of a data set, or part of one.

    Raises:
        ValueError: as :func:`parse_json`; :class:`RepeatedKeyError` for an object with a repeated key.
    """
    return parse_json(content, limits, hooks=record_hooks())


def read_json(path: Path, limits: Limits, *, finite: bool = False, unique: bool = False) -> Any:
    """The value in a JSON file, as :func:`parse_json`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, or :func:`parse_json` refuses it.
    """
    return parse_json(read_bounded(path, limits.size), limits, finite=finite, unique=unique)


def read_bounded(path: Path, size: int) -> bytes:
    """The content of a regular file; a pipe or a device is never read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file, is longer than ``size`` bytes, or grows.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return read_open(file, size)


def read_open(file: BinaryIO | io.FileIO, size: int) -> bytes:
    """The content of an open file; errors as :func:`read_bounded`."""
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a regular file")
    if found.st_size > size:
        raise ValueError(f"it is longer than {size} bytes")
    parts = []
    left = found.st_size + 1
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    if not left:
        raise ValueError("it has more bytes than the file system says")
    return b"".join(parts)


def becomes(raw: bytes) -> int:
    """An upper bound of the memory of a parsed JSON text, with the text itself.

    A Python string takes one, two or four bytes for each character, depending on its widest character.
    """
    signs = sum(
        len(part) - len(part.translate(None, SIGNS))
        for part in (raw[start : start + STEP] for start in range(0, len(raw), STEP))
    )
    width = 1 if raw.isascii() else 4
    return (1 + signs) * VALUE_BYTES + 2 * width * len(raw)


def check_depth(value: Any) -> None:
    """Raise ValueError for a value that is nested more than ``DEPTH`` deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {DEPTH} deep")


def check_surrogates(text: str) -> None:
    """Raise SurrogateError for a JSON text with half a pair of surrogates."""
    if "\\ud" in text or "\\uD" in text:
        for found in _ESCAPES.finditer(text):
            high, low, alone = found.groups()
            if alone or (high and not low):
                raise SurrogateError(f"it has half a pair of surrogates, \\u{alone or high}")


def _finite(text: str) -> float:
    """A number from JSON; raises ValueError if a float cannot hold it."""
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is not a finite number")
    return number


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises RepeatedKeyError for a duplicate key."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise RepeatedKeyError(f"it has the key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r:.80} twice")
    return content

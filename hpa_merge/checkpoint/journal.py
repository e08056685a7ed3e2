"""What is durable in OUT.partial: JSON lines, each written and synced after the data that it speaks of.

The first line says that this is a journal and what the run was begun with. A line that was cut off by a kill was never
there: what it would have said is done again. The open file is also the lock that keeps a second run from the same OUT.

A journal is a regular file with one name. What else stands in its place is never written to.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, final

from hpa_merge.files import parsing
from hpa_merge.files.disk import Foreign, open_written

__all__ = ["Journal", "fingerprint_in", "is_locked"]

MARK = "hpa-merge journal"
FORMAT = 3
"""The first key of the first line, and its value: 3 has records of report schema 2."""

BEGINNING = f'{{"{MARK}": '.encode()

BLOCK = 2**20
"""Bytes that are read at once."""


@final
class Journal:
    """The journal of one OUT.partial, open and locked until :meth:`close`.

    Attributes:
        lines: what stood in it when it was opened, as far as it is whole.
    """

    def __init__(self, path: Path) -> None:
        """Open or begin the journal at ``path``.

        Raises:
            BlockingIOError: another run holds it.
            Foreign: what stands there is no journal, or one of another version.
            OSError: it cannot be opened.
        """
        self._path = path
        self._descriptor = -1
        while self._descriptor < 0:
            descriptor = open_written(path, missing=True, mode=0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):  # else the run that held it has ended meanwhile and taken the file away
                    whole = _whole_lines(descriptor)
                    self.lines = [line for line, _ in whole]
                    self._ends = [end for _, end in whole]
                    os.ftruncate(descriptor, self._ends[-1] if whole else 0)
                    self._descriptor = descriptor
            finally:
                if self._descriptor < 0:
                    os.close(descriptor)

    @property
    def side_files(self) -> tuple[str, ...]:
        """Relative paths of NEW's side files when the run began, by the first line."""
        return tuple(self.lines[0].get("side files", ())) if self.lines else ()

    def begin(self, fingerprint: Mapping[str, Any], side_files: Sequence[str]) -> None:
        """Write the first line.

        Raises:
            OSError: as :meth:`append`.
        """
        self.append({MARK: FORMAT, "fingerprint": fingerprint, "side files": side_files})

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line that survives a power failure.

        Raises:
            OSError: the disk is full, or refuses; the journal then ends where it ended before.
        """
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        content = memoryview(json.dumps(line).encode() + b"\n")
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
            os.fsync(self._descriptor)
        except OSError:  # an interruption leaves the line, whole or cut off
            os.ftruncate(self._descriptor, end)
            raise

    def cut(self, count: int) -> None:
        """Forget all but the first ``count`` of the lines that stood in it: what they speak of is gone.

        Raises:
            OSError: the disk refuses.
        """
        os.ftruncate(self._descriptor, self._ends[count - 1] if count else 0)
        del self.lines[count:], self._ends[count:]

    def end(self) -> None:
        """Take the file away: there is nothing left to resume. Never raises."""
        with contextlib.suppress(OSError):
            if self._descriptor >= 0 and _is_at(self._descriptor, self._path):
                self._path.unlink()
        self.close()

    def close(self) -> None:
        """Give up the lock. Never raises, and may be called twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _whole_lines(descriptor: int) -> list[tuple[dict[str, Any], int]]:
    """Every whole line, and where it ends; what comes after the last one was cut off.

    Raises:
        Foreign: the file does not begin as a journal does, or a line is longer or holds more than any run writes.
    """
    whole: list[tuple[dict[str, Any], int]] = []
    end, left = 0, parsing.JOURNAL.memory
    for line in _lines(descriptor):
        if not end:
            _check_first(line)
        try:
            content = _parsed(line, left if whole else parsing.BEGINNING.memory) if line.endswith(b"\n") else None
        except (json.JSONDecodeError, UnicodeDecodeError):
            break
        if not isinstance(content, dict) or not _is_line(content, first=not whole):
            break
        end += len(line)
        left -= _values(line)
        whole.append((content, end))
    return whole


def _parsed(line: bytes, memory: int) -> Any:
    """What a line says, if it has no more values than become ``memory`` bytes.

    Raises:
        JSONDecodeError, UnicodeDecodeError: it is no JSON.
        Foreign: it holds what no run writes.
    """
    try:
        return parsing.parse_json(line, parsing.Limits(parsing.JOURNAL.size, memory + 2 * len(line)), surrogates=True)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise Foreign(f"a line of it is of no run: {error}") from error


def _values(line: bytes) -> int:
    """Bytes that a line's values become in memory, without their texts, which are no longer than the line."""
    return parsing.becomes(line) - 2 * len(line)


def _lines(descriptor: int) -> Iterator[bytes]:
    """The lines of the file from its beginning; the last one may lack its end.

    JSON as it is written here is printable ASCII: where a byte is not, as in a hole, no more is read.

    Raises:
        Foreign: one is longer than any that a run writes.
    """
    rest, offset, sound, most = bytearray(), 0, True, parsing.BEGINNING.size
    while sound and (block := os.pread(descriptor, BLOCK, offset)):
        if len(rest) > most:
            raise Foreign(f"a line of it is of no run: it is longer than {most} bytes")
        offset += len(block)
        sound = block.isascii() and b"\0" not in block
        first, *others = block.split(b"\n")
        rest += first
        for piece in others:
            yield bytes(rest) + b"\n"
            rest, most = bytearray(piece), parsing.JOURNAL.size
    if rest:
        yield bytes(rest)


def _check_first(line: bytes) -> None:
    """Refuse what is no journal of this version, but for a line that a kill cut off.

    Raises:
        Foreign: it is none.
    """
    current = BEGINNING + f"{FORMAT}, ".encode()
    if line.startswith(current) or (not line.endswith(b"\n") and current.startswith(line)):
        return
    if line.startswith((BEGINNING, b'{"fingerprint": ')):
        raise Foreign("another version of hpa-merge has begun this run, and that one alone can resume it")
    raise Foreign("it is no journal of hpa-merge")


def _is_line(content: Mapping[str, Any], *, first: bool) -> bool:
    """Whether a line has the fields that it is read by."""
    if first:
        names = content.get("side files", [])
        texts = isinstance(names, list) and all(isinstance(each, str) for each in names)
        return texts and isinstance(content.get("fingerprint"), dict)
    tensors = content.get("tensors")
    return isinstance(tensors, dict) and all(isinstance(each, str) for each in tensors.values()) and "entry" in content


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that stands under ``path`` now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def fingerprint_in(path: Path) -> dict[str, Any]:
    """What the run of the journal at ``path`` was begun with; empty where it says nothing.

    Raises:
        OSError: there is no journal that can be read.
    """
    descriptor = open_written(path)
    try:
        first = next(_lines(descriptor), b"")
        _check_first(first)
        content = _parsed(first, parsing.BEGINNING.memory)
        return dict(content["fingerprint"]) if isinstance(content, dict) and _is_line(content, first=True) else {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        return {}
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a run that is going on holds the journal at ``path``; False where there is none.

    Raises:
        Foreign: what stands there is none.
        OSError: it cannot be opened.
    """
    try:
        descriptor = open_written(path)
    except FileNotFoundError:
        return False
    try:
        for line in islice(_lines(descriptor), 1):
            _check_first(line)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

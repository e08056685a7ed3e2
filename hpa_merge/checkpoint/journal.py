"""The journal of OUT.partial: JSON lines that say what is durable, each synced after the data that it describes.

The first line identifies the file as a journal and holds the fingerprint of the run. A line that a kill cut off does
not count, and its work is done again. The open file is also the lock that keeps a second run away from the same OUT.

A journal is a regular file with one name. Anything else in its place is never written to.
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

__all__ = ["Journal", "commits_in", "fingerprint_in", "is_locked"]

MARK = "hpa-merge journal"
FORMAT = 4
"""The first key of the first line, and its value: 4 has checksums instead of SHA-256."""

BEGINNING = f'{{"{MARK}": '.encode()

BLOCK = 2**20
"""Bytes that are read at once."""


@final
class Journal:
    """The journal of one OUT.partial, open and locked until :meth:`close`.

    Attributes:
        lines: the whole lines that it had when it was opened.
    """

    def __init__(self, path: Path) -> None:
        """Open the journal at ``path``, or create it.

        Raises:
            BlockingIOError: another run holds it.
            Foreign: the file is not a journal, or one of another version.
            OSError: it cannot be opened.
        """
        self._path = path
        self._descriptor = -1
        while self._descriptor < 0:
            descriptor = open_written(path, missing=True, mode=0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):  # else the run that held it has ended meanwhile and removed the file
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
        """Relative paths of NEW's side files at the start of the run, from the first line."""
        return tuple(self.lines[0].get("side files", ())) if self.lines else ()

    def begin(self, fingerprint: Mapping[str, Any], side_files: Sequence[str]) -> None:
        """Write the first line; raises as :meth:`append`."""
        self.append({MARK: FORMAT, "fingerprint": fingerprint, "side files": side_files})

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Add lines that survive a power failure.

        Raises:
            OSError: the disk is full or refuses; the journal is then unchanged.
        """
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        content = memoryview(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        try:
            while content:
                content = content[os.write(self._descriptor, content) :]
            os.fsync(self._descriptor)
        except OSError:  # an interruption, in contrast, leaves the line, whole or cut off
            os.ftruncate(self._descriptor, end)
            raise

    def cut(self, count: int) -> None:
        """Drop all but the first ``count`` lines, because the data of the others is gone; raises OSError."""
        os.ftruncate(self._descriptor, self._ends[count - 1] if count else 0)
        del self.lines[count:], self._ends[count:]

    def keep(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep only the first line and these; those that it did not have when it was opened are added.

        Raises:
            OSError: the disk is full or refuses; the journal then has fewer lines.
        """
        wanted = set(map(id, lines))
        count = next((n for n, line in enumerate(self.lines[1:], 1) if id(line) not in wanted), len(self.lines))
        self.cut(count)
        kept = set(map(id, self.lines))
        self.append(*(line for line in lines if id(line) not in kept))

    def end(self) -> None:
        """Remove the file, because nothing is left to resume. Never raises."""
        with contextlib.suppress(OSError):
            if self._descriptor >= 0 and _is_at(self._descriptor, self._path):
                self._path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock. Never raises, and may be called twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1


def _whole_lines(descriptor: int) -> list[tuple[dict[str, Any], int]]:
    """Every whole line and its end; the rest of the file was cut off.

    Raises:
        Foreign: the file does not begin like a journal, or a line is longer or holds more than a run writes.
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
    """The content of a line whose values take at most ``memory`` bytes.

    Raises:
        JSONDecodeError, UnicodeDecodeError: it is not JSON.
        Foreign: it holds more than a run writes.
    """
    try:
        return parsing.parse_json(line, parsing.Limits(parsing.JOURNAL.size, memory + 2 * len(line)), surrogates=True)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise Foreign(f"no run has written one of its lines: {error}") from error


def _values(line: bytes) -> int:
    """Bytes that a line's values take in memory, without their texts, which are no longer than the line."""
    return parsing.becomes(line) - 2 * len(line)


def _lines(descriptor: int) -> Iterator[bytes]:
    """The lines of the file from its beginning; the last one may lack its end.

    A journal is printable ASCII: reading stops at any other byte, as in a hole.

    Raises:
        Foreign: a line is longer than a run writes.
    """
    rest, offset, sound, most = bytearray(), 0, True, parsing.BEGINNING.size
    while sound and (block := os.pread(descriptor, BLOCK, offset)):
        if len(rest) > most:
            raise Foreign(f"no run has written one of its lines: it is longer than {most} bytes")
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
    """Raise Foreign unless the line is the first one of a journal of this version, whole or cut off by a kill."""
    current = BEGINNING + f"{FORMAT}, ".encode()
    if line.startswith(current) or (not line.endswith(b"\n") and current.startswith(line)):
        return
    if line.startswith((BEGINNING, b'{"fingerprint": ')):
        raise Foreign("another version of hpa-merge has begun this run, and only that version can resume it")
    raise Foreign("it is not a journal of hpa-merge")


def _is_line(content: Mapping[str, Any], *, first: bool) -> bool:
    """Whether a line has the fields that a run reads."""
    if first:
        names = content.get("side files", [])
        texts = isinstance(names, list) and all(isinstance(each, str) for each in names)
        return texts and isinstance(content.get("fingerprint"), dict)
    tensors = content.get("tensors")
    named = isinstance(tensors, dict) and all(type(each) is int for each in tensors.values())
    return named and "entry" in content and _is_part(content.get("part", [0, 0, 1]))


def _is_part(part: Any) -> bool:
    """Whether it is the number of a commit, a rank, and the number of ranks."""
    if not isinstance(part, list) or [type(each) for each in part] != [int] * 3:
        return False
    commit, rank, ranks = part
    return bool(commit >= 0 and 0 <= rank < ranks)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def fingerprint_in(path: Path) -> dict[str, Any]:
    """The fingerprint in the journal at ``path``; empty if it has none.

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


def commits_in(path: Path) -> list[dict[str, Any]]:
    """The lines after the first of the journal at ``path``, which another process may hold.

    Raises:
        OSError: there is no journal that can be read.
    """
    descriptor = open_written(path)
    try:
        return [line for line, _ in _whole_lines(descriptor)][1:]
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a run holds the journal at ``path``; False if there is no file.

    Raises:
        Foreign: the file is not a journal.
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

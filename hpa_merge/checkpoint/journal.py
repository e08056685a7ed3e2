"""What is durable in OUT.partial: JSON lines, each written and synced after the data that it speaks of.

The first line says what the run was begun with. A line that was cut off by a kill was never there: what it would have
said is done again. The open file is also the lock that keeps a second run from the same OUT.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

__all__ = ["Journal", "is_locked"]


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
            OSError: it cannot be opened.
        """
        self._path = path
        self._descriptor = -1
        while self._descriptor < 0:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(descriptor, path):  # else the run that held it has ended meanwhile and taken the file away
                    self.lines = self._read(descriptor)
                    self._descriptor = descriptor
            finally:
                if self._descriptor < 0:
                    os.close(descriptor)

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

    def clear(self) -> None:
        """Forget everything that stands in it: what it speaks of is gone.

        Raises:
            OSError: the disk refuses.
        """
        os.ftruncate(self._descriptor, 0)
        self.lines.clear()

    def end(self) -> None:
        """Take the file away: there is nothing left to resume. Never raises."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Give up the lock. Never raises, and may be called twice."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, descriptor: int) -> list[dict[str, Any]]:
        """Every whole line; what comes after the last one is cut off."""
        content = self._path.read_bytes()
        lines: list[dict[str, Any]] = []
        whole = 0
        for line in content.splitlines(keepends=True):
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                lines.pop()
                break
            whole += len(line)
        os.ftruncate(descriptor, whole)
        return lines


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that stands under ``path`` now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Whether a run that is going on holds the journal at ``path``; False where there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False

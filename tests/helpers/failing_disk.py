"""A disk of which some system calls fail."""

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, final

import pytest

CALLS = ("pwrite", "write", "copy_file_range", "sendfile", "fsync", "posix_fallocate", "mkdir", "rename")

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)


@final
class Disk:
    """The system calls of OUT, counted; a few of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, place: Path, fails: Callable[[int, str], int | None]) -> None:
        """``fails``: the error, if any, of a call by its number, from 1, and its name."""
        self.calls: list[str] = []
        self._fails = fails
        for name in CALLS:
            patch.setattr(os, name, self._failing(name, getattr(os, name)))
        self._place, opened, opened_by_number = str(place), Path.open, os.open

        def open_path(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode != "rb" and str(path).startswith(self._place):
                self._call("open")
            return opened(path, mode, *arguments, **options)

        def open_number(path: Any, *arguments: Any, **options: Any) -> int:
            if str(path).startswith(self._place) or (options.get("dir_fd") and arguments[0] & os.O_RDWR):
                self._call("open")
            return opened_by_number(path, *arguments, **options)

        patch.setattr(Path, "open", open_path)
        patch.setattr(os, "open", open_number)

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._call(name)
            return real(*arguments, **options)

        return call

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if error := self._fails(len(self.calls), name):
            raise OSError(error, os.strerror(error))


def sample(calls: list[str], size: int) -> list[int]:
    """Numbers of calls: the first and the last of every kind, and some drawn, ascending."""
    ends = {calls.index(name) + 1 for name in calls} | {len(calls) - calls[::-1].index(name) for name in calls}
    rest = sorted(set(range(1, len(calls) + 1)) - ends)
    return sorted(ends | set(random.Random(0).sample(rest, min(len(rest), max(0, size - len(ends))))))

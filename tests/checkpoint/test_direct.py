"""checkpoint/direct.py: the same bytes, whatever goes past the system's cache and whatever a file system refuses."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpa_merge.checkpoint import direct
from hpa_merge.checkpoint.direct import PAGE, ShardFile

BUFFER = 8 * PAGE
SIZE = 2 * BUFFER + 3 * PAGE
RANGES = [
    (0, 0),
    (0, PAGE),
    (1, PAGE),
    (PAGE - 1, 2),
    (3, 2),
    (3, 5 * PAGE),
    (5, PAGE),
    (5, 2 * PAGE - 5),
    (PAGE, BUFFER),
    (7, BUFFER + 2 * PAGE + 5),
    (PAGE - 1, 2 * BUFFER),
    (SIZE - PAGE - 3, PAGE + 3),
]
"""Starts and sizes: within a page, over an edge, of whole pages, longer than the buffer, up to the end of the file."""


@pytest.fixture(name="descriptor")
def an_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(direct, "WORTH", 1)
    monkeypatch.setattr(direct, "BUFFER", BUFFER)
    found = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(found, 0, SIZE)
    yield found
    os.close(found)


def write_all(file: ShardFile, path: Path) -> None:
    """Writes every range, one over the other, and compares the file with what it has to be, and with its pieces."""
    draw, expected = random.Random(0), bytearray(path.read_bytes())
    for start, size in RANGES:
        content = draw.randbytes(size)
        file.write(memoryview(content), start)
        expected[start : start + size] = content
        os.fsync(file.descriptor)
        assert path.read_bytes() == expected, (start, size)
        for begin, length in RANGES:
            pieces = b"".join(map(bytes, file.pieces(begin, begin + length)))
            assert pieces == expected[begin : begin + length], (begin, length)


@pytest.mark.parametrize("past_the_cache", [False, True])
def test_the_file_has_what_was_written(past_the_cache: bool, descriptor: int, tmp_path: Path) -> None:
    file = ShardFile(descriptor, direct=past_the_cache)
    write_all(file, tmp_path / "file")
    assert not (file.direct and not past_the_cache)
    file.close()
    file.close()
    write_all(file, tmp_path / "file")  # the file that was given stays open


class Refusing:
    """The system's calls, of which those past the cache fail after some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, after: int = 0) -> None:
        self.calls, self.code, self.after = 0, code, after
        self.file: ShardFile | None = None
        for name in ("pwrite", "preadv"):
            monkeypatch.setattr(os, name, self._call(getattr(os, name)))

    def _call(self, real: Any) -> Any:
        def call(descriptor: int, *arguments: Any) -> Any:
            if self.file is not None and descriptor != self.file.descriptor:
                self.calls += 1
                if self.calls > self.after:
                    raise OSError(self.code, os.strerror(self.code))
            return real(descriptor, *arguments)

        return call


@pytest.mark.parametrize("after", [0, 1, 4])
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot(
    code: int, after: int, descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked once more at most, and every byte is there."""
    refusing = Refusing(monkeypatch, code, after)
    refusing.file = ShardFile(descriptor, direct=True)
    if not refusing.file.direct:
        pytest.skip("this file system has no O_DIRECT")
    write_all(refusing.file, tmp_path / "file")
    assert refusing.calls == after + 1
    assert not refusing.file.direct


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_real_failure_is_raised(code: int, descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Refusing(monkeypatch, code)
    refusing.file = ShardFile(descriptor, direct=True)
    if not refusing.file.direct:
        pytest.skip("this file system has no O_DIRECT")
    with pytest.raises(OSError, match=os.strerror(code)):
        refusing.file.write(memoryview(bytes(BUFFER)), 0)
    with pytest.raises(OSError, match=os.strerror(code)):
        next(refusing.file.pieces(0, BUFFER))


def test_no_such_flag(descriptor: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    file = ShardFile(descriptor, direct=True)
    assert not file.direct
    write_all(file, tmp_path / "file")


def test_a_file_that_became_shorter(descriptor: int) -> None:
    file = ShardFile(descriptor, direct=True)
    os.ftruncate(descriptor, PAGE + 5)
    with pytest.raises(OSError, match="shorter"):
        list(file.pieces(3, 2 * PAGE))
    file.close()

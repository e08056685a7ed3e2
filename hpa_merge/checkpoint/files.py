"""Files as the operating system sees them: preallocation, bytes at an offset, kernel copies, durability.

Plain functions that know nothing of checkpoints and raise OSError.
"""

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from hpa_merge.files.disk import open_written, sync_folder

__all__ = [
    "CHUNK",
    "allocate",
    "checksum",
    "checksum_at",
    "copy_file",
    "copy_range",
    "digest",
    "digest_at",
    "pieces_at",
    "read_at",
    "remove",
    "start_writing",
    "sync",
    "write_at",
]

CHUNK = 2**26
"""Bytes of one system call: 64 MiB; Linux moves at most 2 GiB in one."""

BUFFER = 2**20
"""Bytes that are read at once to be hashed, always into the same memory: 1 MiB."""

WORTH_STARTING = 2**20
"""Bytes that are worth a system call to start writing them to the disk: 1 MiB."""

SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)
"""The C library's function, which Python does not have; Linux alone has it."""

ENDED = "the file has become shorter since it was opened"


def allocate(descriptor: int, size: int) -> None:
    """Give a file its full size, and reserve its disk blocks if the system can."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    return os.ftruncate(descriptor, size)


def read_at(descriptor: int, target: memoryview, offset: int) -> None:
    """Fill ``target``, a byte view, with the bytes from ``offset``."""
    while target:
        count = os.preadv(descriptor, [target[:CHUNK]], offset)
        if not count:
            raise OSError(errno.EIO, ENDED)
        target, offset = target[count:], offset + count


def write_at(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of ``content``, a byte view, at ``offset``; one system call may write only a part of it."""
    while content:
        count = os.pwrite(descriptor, content[:CHUNK], offset)
        content, offset = content[count:], offset + count


def start_writing(descriptor: int, start: int, stop: int) -> None:
    """Let the system begin to write the bytes ``start:stop`` to the disk, so that a later ``fsync`` waits less.

    It promises nothing, and does nothing where the system cannot.
    """
    if SYNC_FILE_RANGE is not None and stop - start >= WORTH_STARTING:
        begin_and_return = ctypes.c_uint(2)
        SYNC_FILE_RANGE(ctypes.c_int(descriptor), ctypes.c_int64(start), ctypes.c_int64(stop - start), begin_and_return)


def copy_range(source: int, target: int, start: int, stop: int, to: int | None = None) -> None:
    """Copy the bytes ``start:stop`` of one file to another, in the kernel if possible.

    Args:
        to: the offset there; None for the same.
    """
    shift = 0 if to is None else to - start
    if hasattr(os, "copy_file_range"):
        # This fails across file systems, with an old kernel, in some containers, on network shares. A real error fails
        # again below.
        with contextlib.suppress(OSError):
            while start < stop and (count := os.copy_file_range(source, target, stop - start, start, start + shift)):
                start += count
    while start < stop:
        content = os.pread(source, min(CHUNK, stop - start), start)
        if not content:
            raise OSError(errno.EIO, ENDED)
        write_at(target, memoryview(content), start + shift)
        start += len(content)


def copy_file(source: BinaryIO, target: Path) -> str:
    """Copy the content of an open file into a new file ``target``, and return its SHA-256, in hexadecimal."""
    state = hashlib.sha256()
    writing, offset = open_written(target, new=True), 0
    try:
        while content := source.read(CHUNK):
            state.update(content)
            write_at(writing, memoryview(content), offset)
            offset += len(content)
    finally:
        os.close(writing)
    return state.hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_at(descriptor: int, start: int = 0, stop: int | None = None) -> str:
    """SHA-256, in hexadecimal, of the bytes ``start:stop`` of an open file; ``stop`` is None for its end."""
    state = hashlib.sha256()
    for content in pieces_at(descriptor, start, os.fstat(descriptor).st_size if stop is None else stop):
        state.update(content)
    return state.hexdigest()


def checksum(content: memoryview, before: int = 0) -> int:
    """CRC-32 of bytes, which tells damage at a fraction of what SHA-256 takes; ``before``: of the bytes before."""
    return zlib.crc32(content, before)


def checksum_at(descriptor: int, start: int, stop: int) -> int:
    """:func:`checksum` of the bytes ``start:stop`` of an open file."""
    found = 0
    for content in pieces_at(descriptor, start, stop):
        found = checksum(content, found)
    return found


def pieces_at(descriptor: int, start: int, stop: int, first: int = 0) -> Iterator[memoryview]:
    """The bytes ``start:stop`` of an open file in order; the next piece takes the memory of the last one.

    Args:
        first: the size of the first piece, if it is to be smaller than the others.
    """
    buffer = memoryview(bytearray(max(0, min(BUFFER, stop - start))))
    while start < stop:
        content = buffer[: min(first or BUFFER, stop - start)]
        first = 0
        read_at(descriptor, content, start)
        yield content
        start += len(content)


def sync(path: Path) -> None:
    """Make a file durable, or a folder with everything in it. Links are not followed."""
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            sync(entry)
        sync_folder(path)
    else:
        descriptor = open_written(path)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove(path: Path) -> None:
    """Delete what was replaced; if that fails it stays next to OUT, and :func:`check_output` will name it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

"""A shard of OUT, written past the system's cache where the file system can (``O_DIRECT``).

Through the cache every byte is copied into a new page and written back later, and OUT pushes OLD and NEW out of memory
while they are read. Past it the disk fetches the bytes itself, in whole pages: what lies before the first page of a
write and after its last one goes through the cache all the same.
"""

import contextlib
import errno
import mmap
import os
import threading
from collections.abc import Iterator
from typing import final

from hpa_merge.checkpoint.files import pieces_at, start_writing, write_at

__all__ = ["PAGE", "WORTH", "ShardFile"]

PAGE = 4096
"""What offset, size and memory have to be multiples of; no disk has larger blocks."""

WORTH = 2**20
"""Bytes from which a write goes past the cache: 1 MiB."""

BUFFER = 2**22
"""Bytes that are written or read at once, from or into memory of its own: 4 MiB. It begins with a page, and is shared,
as open(2) asks of a process that may start others meanwhile."""

UNABLE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that cannot do without the cache."""


@final
class ShardFile:
    """An open file. Threads may write different parts of it at the same time.

    Attributes:
        descriptor: the file descriptor that was given, which goes through the cache.
    """

    def __init__(self, descriptor: int, *, direct: bool) -> None:
        """Open the file once more if that is needed.

        Args:
            descriptor: of the file, open for reading and writing until :meth:`close`.
            direct: go past the cache if possible.
        """
        self.descriptor, self._direct, self._lock = descriptor, -1, threading.Lock()
        if direct and hasattr(os, "O_DIRECT"):
            with contextlib.suppress(OSError):  # not on this file system, or there is no /proc
                self._direct = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC)
        self._memory = mmap.mmap(-1, BUFFER) if self._direct >= 0 else None

    @property
    def direct(self) -> bool:
        """Whether large writes go past the cache."""
        return self._memory is not None

    def write(self, content: memoryview, offset: int) -> None:
        """Write all of ``content``, a byte view, at ``offset``; raises OSError."""
        first, last = -(-offset // PAGE) * PAGE, (offset + len(content)) // PAGE * PAGE
        if self.direct and len(content) >= WORTH and first < last:
            write_at(self.descriptor, content[: first - offset], offset)
            write_at(self.descriptor, content[last - offset :], last)
            content, offset = content[first - offset : last - offset], first
            while content and (count := self._write_pages(content[:BUFFER], offset)):
                content, offset = content[count:], offset + count
        write_at(self.descriptor, content, offset)
        start_writing(self.descriptor, offset, offset + len(content))

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes ``start:stop`` in order; the next piece takes the memory of the last one. Raises OSError."""
        if self.direct and stop - start >= WORTH:
            memory = memoryview(mmap.mmap(-1, BUFFER))
            while start < stop:
                first = start // PAGE * PAGE
                try:
                    count = os.preadv(self._direct, [memory[: -(-(stop - first) // PAGE) * PAGE]], first)
                except OSError as error:
                    self._give_up(error)
                    break
                if not (piece := memory[start - first : min(count, stop - first)]):
                    break  # the file has become shorter, and the line below raises that
                yield piece
                start += len(piece)
        yield from pieces_at(self.descriptor, start, stop)

    def close(self) -> None:
        """Close what was opened here. Never raises, and may be called twice."""
        if self._direct >= 0:
            with contextlib.suppress(OSError):
                os.close(self._direct)
        self._direct, self._memory = -1, None

    def _write_pages(self, content: memoryview, offset: int) -> int:
        """Write some of the pages ``content``; returns how many bytes, 0 if the file system cannot."""
        with self._lock:
            if self._memory is None:
                return 0
            self._memory[: len(content)] = content
            try:
                return os.pwrite(self._direct, memoryview(self._memory)[: len(content)], offset) // PAGE * PAGE
            except OSError as error:
                self._give_up(error)
                return 0

    def _give_up(self, error: OSError) -> None:
        """Go through the cache from now on; raises ``error`` if that is not why it came."""
        if error.errno not in UNABLE:
            raise error
        self._memory = None

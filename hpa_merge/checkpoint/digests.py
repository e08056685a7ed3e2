"""SHA-256 of the shards of OUT, taken while they are written.

A digest needs the bytes of a shard in their order, and tensors are written in another one. So each shard is hashed up
to the first tensor that is missing: the tensor at hand from memory, and those that have waited for it from the system's
cache.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import final

from hpa_merge.checkpoint.files import pieces_at
from hpa_merge.checkpoint.shard import TensorInfo

__all__ = ["ShardDigests"]


@final
class ShardDigests:
    """The digests of shards in the making. Threads may share it."""

    def __init__(
        self,
        heads: Mapping[str, bytes],
        tensors: Iterable[TensorInfo],
        descriptor: Callable[[str], int],
        written: Iterable[str] = (),
    ) -> None:
        """Read nothing yet.

        Args:
            heads: the header of each shard.
            tensors: where their tensors lie, without gaps.
            descriptor: gives the file descriptor of an open shard.
            written: the names of tensors that are there.
        """
        self._states = {shard: hashlib.sha256(head) for shard, head in heads.items()}
        self._left: dict[str, deque[TensorInfo]] = {shard: deque() for shard in heads}
        for info in sorted(tensors, key=lambda info: (info.start, info.stop)):
            self._left[info.shard].append(info)
        self._written = set(written)
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def add(self, info: TensorInfo, content: memoryview | None = None) -> None:
        """Hash a tensor that is written, and those that have waited for it.

        Args:
            content: its bytes; without them they are read back.

        Raises:
            OSError: the shard cannot be read.
        """
        with self._lock:
            self._written.add(info.name)
            self._advance(info.shard, info.name, content)

    def of(self, shard: str) -> str | None:
        """The digest of a shard, in hexadecimal; None if a tensor of it is missing. Raises as :meth:`add`."""
        with self._lock:
            self._advance(shard)
            return None if self._left[shard] else self._states[shard].hexdigest()

    def _advance(self, shard: str, name: str = "", content: memoryview | None = None) -> None:
        """Hash up to the first tensor that is missing; ``content``: the bytes of the tensor ``name``."""
        state, left = self._states[shard], self._left[shard]
        while left and left[0].name in self._written:
            if content is not None and left[0].name == name:
                state.update(content)
            else:
                for piece in pieces_at(self._descriptor(shard), left[0].start, left[0].stop):
                    state.update(piece)
            left.popleft()

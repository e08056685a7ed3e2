"""SHA-256 of the shards of OUT, taken while they are written.

A digest needs the bytes of a shard in their order, and tensors are written in another one. So each shard is hashed up
to the first tensor that is missing: bytes that continue it from memory, and those that have waited from the file.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import final

from hpa_merge.checkpoint.shard import TensorInfo

__all__ = ["ShardDigests"]


@final
class ShardDigests:
    """The digests of shards in the making. Threads may share it."""

    def __init__(
        self,
        heads: Mapping[str, bytes],
        tensors: Iterable[TensorInfo],
        pieces: Callable[[str, int, int], Iterator[memoryview]],
        written: Iterable[str] = (),
    ) -> None:
        """Read nothing yet.

        Args:
            heads: the header of each shard.
            tensors: where their tensors lie, without gaps.
            pieces: gives the bytes of a shard from a start to a stop, in order.
            written: the names of tensors that are there.
        """
        self._states = {shard: hashlib.sha256(head) for shard, head in heads.items()}
        self._places = {shard: len(head) for shard, head in heads.items()}  # up to which they are hashed
        self._left: dict[str, deque[TensorInfo]] = {shard: deque() for shard in heads}
        for info in sorted(tensors, key=lambda info: (info.start, info.stop)):
            self._left[info.shard].append(info)
        self._written = set(written)
        self._pieces = pieces
        self._lock = threading.Lock()

    def add(self, shard: str, start: int, content: memoryview) -> None:
        """Hash bytes that are written from ``start``, if the hash has come that far; else they are read back later."""
        with self._lock:
            if self._places[shard] == start:
                self._update(shard, content)

    def finish(self, info: TensorInfo) -> None:
        """Count a tensor as written; raises OSError if the shard cannot be read."""
        with self._lock:
            self._written.add(info.name)
            self._advance(info.shard)

    def of(self, shard: str) -> str | None:
        """The digest of a shard, in hexadecimal; None if a tensor of it is missing. Raises as :meth:`finish`."""
        with self._lock:
            self._advance(shard)
            return None if self._left[shard] else self._states[shard].hexdigest()

    def _advance(self, shard: str) -> None:
        """Hash up to the first tensor that is missing."""
        left = self._left[shard]
        while left and left[0].name in self._written:
            for piece in self._pieces(shard, self._places[shard], left[0].stop):
                self._update(shard, piece)
            left.popleft()

    def _update(self, shard: str, content: memoryview) -> None:
        self._states[shard].update(content)
        self._places[shard] += len(content)

"""Reads every byte of OUT's weight files once: for their digests, and for values that are not finite.

Needs neither torch nor a tensor in memory: numpy sees the exponents of a block that has just been hashed, while it is
in the processor's cache. Files are read side by side; hashing and numpy let other threads run.
"""

import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import final

import numpy as np

from hpa_merge.checkpoint import Checkpoint, TensorInfo
from hpa_merge.checkpoint.shard import reading

__all__ = ["ReadFile", "read_files"]

BLOCK = 2**19
"""Bytes that are read, hashed and looked at before the next ones: 512 KiB, which a core's own cache holds."""

EXPONENTS = {
    "bfloat16": (2, 0x7F80),
    "float16": (2, 0x7C00),
    "float32": (4, 0x7F80_0000),
    "float64": (8, 0x7FF0_0000_0000_0000),
}
"""The bytes of a number, and the bits of infinity: greater ones are NaN, apart from the sign."""


@final
@dataclass(frozen=True)
class ReadFile:
    """What one weight file holds.

    Attributes:
        name: the file's.
        digest: its SHA-256, in hexadecimal.
        not_finite: the tensors that hold NaN or infinity.
    """

    name: str
    digest: str
    not_finite: frozenset[str]


def read_files(merged: Checkpoint) -> Generator[ReadFile]:
    """Read the weight files of OUT, in the order of their names; of a quantised one, what is on disk.

    Raises:
        CheckpointError: one cannot be read.
    """
    tensors: defaultdict[str, list[TensorInfo]] = defaultdict(list)
    for info in (merged.tensors if merged.unpacking is None else merged.unpacking.stored).values():
        tensors[info.shard].append(info)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stopped = threading.Event()
    with ThreadPoolExecutor(min(cores, len(merged.disk_shards))) as threads:
        try:
            yield from threads.map(lambda shard: _read(merged, shard, tensors[shard], stopped), merged.disk_shards)
        finally:
            stopped.set()


def _read(merged: Checkpoint, shard: str, tensors: list[TensorInfo], stopped: threading.Event) -> ReadFile:
    """Read one file: its head, each tensor, and whatever follows; ends early if ``stopped`` is set."""
    state, wrong, place = hashlib.sha256(), set(), 0
    block = bytearray(BLOCK)
    with reading(merged.folder, merged.role, shard), (merged.folder / shard).open("rb", buffering=0) as file:

        def blocks(stop: int) -> Iterator[memoryview]:
            """The bytes up to ``stop``, a block at a time; fewer if the file has become shorter."""
            nonlocal place
            while place < stop and not stopped.is_set():
                found, wanted = 0, min(BLOCK, stop - place)
                while found < wanted and (count := file.readinto(memoryview(block)[found:wanted])):
                    found += count
                if not found:
                    return
                place += found
                state.update(memoryview(block)[:found])
                yield memoryview(block)[:found]

        for info in sorted(tensors, key=lambda info: info.start):
            for _ in blocks(info.start):
                pass
            for content in blocks(info.stop):
                if info.stored.name in EXPONENTS and not _is_finite(content, info.stored.name):
                    wrong.add(info.name)
        for _ in blocks(os.fstat(file.fileno()).st_size):
            pass
    return ReadFile(shard, state.hexdigest(), frozenset(wrong))


def _is_finite(content: memoryview, dtype: str) -> bool:
    """Whether numbers of ``dtype``, a block of bytes, are all finite; a number that is cut off does not count."""
    size, infinity = EXPONENTS[dtype]
    bits = np.frombuffer(content, f"u{size}", len(content) // size)
    sign = 1 << (8 * size - 1)
    return not bits.size or (int(bits.view(f"i{size}").max()) < infinity and int(bits.max()) < (sign | infinity))

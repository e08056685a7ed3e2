"""The content digest of a checkpoint, which identifies it wherever it lies: both ends of each tensor, hashed.

Tuning changes nearly every value of a tensor. So a few thousand bytes of each tensor show whether somebody has saved
over it, and no tensor has to be read in full. Times, paths, shards and the order of tensors do not count, so a copy on
another machine has the same digest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable

from hpa_merge.checkpoint.files import read_at
from hpa_merge.checkpoint.shard import TensorInfo

__all__ = ["SAMPLE", "content_digest", "sampled"]

SAMPLE = 2048
"""Bytes that are read from each end of a tensor; a tensor of up to twice that many is read in full."""


def content_digest(tensors: Iterable[TensorInfo], descriptor: Callable[[str], int]) -> str:
    """SHA-256, in hexadecimal, of every tensor's name, dtype, shape and both ends, in the order of the names.

    Each tensor adds the JSON line ``["name", "bfloat16", [rows, columns]]`` and its sampled bytes.

    Args:
        tensors: where they lie.
        descriptor: gives the file descriptor of an open shard.

    Raises:
        OSError: a file cannot be read.
    """
    state = hashlib.sha256()
    for info in sorted(tensors, key=lambda info: info.name):
        state.update(json.dumps([info.name, info.stored.name, list(info.shape)]).encode() + b"\n")
        for start, stop in sampled(info):
            content = bytearray(stop - start)
            read_at(descriptor(info.shard), memoryview(content), start)
            state.update(content)
    return state.hexdigest()


def sampled(info: TensorInfo) -> tuple[tuple[int, int], ...]:
    """The ranges ``(start, stop)`` of a shard that are read for a tensor; none if it is empty."""
    if info.nbytes <= 2 * SAMPLE:
        return ((info.start, info.stop),) if info.nbytes else ()
    return (info.start, info.start + SAMPLE), (info.stop - SAMPLE, info.stop)

"""What a checkpoint is known by wherever it lies: a digest of its tensors, from both ends of each.

Tuning changes nearly every value of what it changes, so a few thousand bytes of each tensor tell whether somebody has
saved over it, and nothing has to be read in full. Times, places, shards and the order of tensors play no part, so a
copy on another machine has the same digest.
"""

import hashlib
import json
from collections.abc import Callable, Iterable

from hpa_merge.checkpoint.files import read_at
from hpa_merge.checkpoint.shard import TensorInfo

__all__ = ["SAMPLE", "content_digest", "sampled"]

SAMPLE = 2048
"""Bytes that are looked at from either end of a tensor; one that is no longer than both is looked at whole."""


def content_digest(tensors: Iterable[TensorInfo], descriptor: Callable[[str], int]) -> str:
    """SHA-256 of every tensor's name, dtype, shape and both ends, in the order of the names; in hexadecimal.

    Each tensor adds the line ``["name", "bfloat16", [rows, columns]]`` as JSON has it, and its sampled bytes.

    Args:
        tensors: where they lie.
        descriptor: gives the number of a shard's open file.

    Raises:
        OSError: a file cannot be read.
    """
    state = hashlib.sha256()
    for info in sorted(tensors, key=lambda info: info.name):
        dtype = str(info.dtype).removeprefix("torch.")
        state.update(json.dumps([info.name, dtype, list(info.shape)]).encode() + b"\n")
        for start, stop in sampled(info):
            content = bytearray(stop - start)
            read_at(descriptor(info.shard), memoryview(content), start)
            state.update(content)
    return state.hexdigest()


def sampled(info: TensorInfo) -> tuple[tuple[int, int], ...]:
    """The bytes of a shard that are looked at of a tensor, as ``(start, stop)``: none where it is empty."""
    if info.nbytes <= 2 * SAMPLE:
        return ((info.start, info.stop),) if info.nbytes else ()
    return (info.start, info.start + SAMPLE), (info.stop - SAMPLE, info.stop)

"""What tells whether weight files have changed, without reading them.

In the Hub's cache a weight file is named by the SHA-256 of its content, which is the same on every machine. A training
run may have saved over it, so both ends of every tensor count too. Of any other file, size and time of change are all
that is known.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from hpa_merge.checkpoint.reader import Checkpoint

__all__ = ["version_of"]

BLOB = re.compile(r"models--[^/]+/blobs/([0-9a-f]{64})")
"""The end of a weight file's path in the Hub's cache."""


def version_of(checkpoint: Checkpoint, shards: Iterable[str]) -> str:
    """What identifies the present content of weight files that a checkpoint reads.

    Raises:
        CheckpointError, OSError: a file can no longer be read.
    """
    real = [Path(os.path.realpath(checkpoint.folder / shard, strict=True)) for shard in shards]
    named = [found[1] if (found := BLOB.fullmatch("/".join(path.parts[-3:]))) else "" for path in real]
    status = [path.stat() for path in real]
    said = [f"{each.st_size} {name or each.st_mtime_ns}" for each, name in zip(status, named, strict=True)]
    return " ".join([*said, *([checkpoint.content_digest()] if any(named) else [])])

"""OLD with an adapter that is only being written: its tensors, one by one."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.files import parsing
from hpa_merge.model import Adapter

__all__ = ["applied"]

Read = Callable[[str], Tensor]
"""Gives a tensor by its name."""


def applied(layout: Checkpoint, old: Checkpoint, read: Read) -> Read:
    """Reads OLD's tensors with an adapter merged into them.

    Args:
        layout: the adapter's files.
        old: with its vision tower, if that lies apart.
        read: reads its tensors.
    """
    config = layout.index_bytes() or b"{}"
    with tempfile.TemporaryDirectory(prefix="hpa-merge-") as folder, old.side_folder() as base:
        (Path(folder) / str(layout.index)).write_bytes(config)
        content = parsing.parse_json(config, parsing.CONFIG)
        adapter = Adapter(Path(folder), content, layout.header, base, old.header, old.tower, old.code)

    def merged(name: str) -> Tensor:
        raw = old.raw(name)
        return adapter.merged(name, raw, old.raw, read) if name in adapter.keys else raw

    return merged

"""Sharded safetensors: open, check and read OLD and NEW; lay out, write and publish OUT.

The names below are imported when they are first used: torch is not needed to refuse a folder.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpa_merge.checkpoint.adapter_files import open_adapter
    from hpa_merge.checkpoint.adapter_folder import is_adapter
    from hpa_merge.checkpoint.async_writer import AsyncWriter
    from hpa_merge.checkpoint.inputs import Inputs
    from hpa_merge.checkpoint.output import begun_with, check_output, check_outputs
    from hpa_merge.checkpoint.overlay import Overlay, lay_over
    from hpa_merge.checkpoint.partial import check_side_files, needed_bytes
    from hpa_merge.checkpoint.prefetch import Prefetch
    from hpa_merge.checkpoint.reader import Checkpoint
    from hpa_merge.checkpoint.shard import TensorInfo
    from hpa_merge.checkpoint.sidefiles import SideFiles
    from hpa_merge.checkpoint.writer import CheckpointWriter

_HOME = {
    "AsyncWriter": "async_writer",
    "Checkpoint": "reader",
    "CheckpointWriter": "writer",
    "Inputs": "inputs",
    "Overlay": "overlay",
    "Prefetch": "prefetch",
    "SideFiles": "sidefiles",
    "TensorInfo": "shard",
    "begun_with": "output",
    "check_output": "output",
    "check_outputs": "output",
    "check_side_files": "partial",
    "is_adapter": "adapter_folder",
    "lay_over": "overlay",
    "needed_bytes": "partial",
    "open_adapter": "adapter_files",
}
"""Where each name is defined."""

__all__ = [
    "AsyncWriter",
    "Checkpoint",
    "CheckpointWriter",
    "Inputs",
    "Overlay",
    "Prefetch",
    "SideFiles",
    "TensorInfo",
    "begun_with",
    "check_output",
    "check_outputs",
    "check_side_files",
    "is_adapter",
    "lay_over",
    "needed_bytes",
    "open_adapter",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"hpa_merge.checkpoint.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

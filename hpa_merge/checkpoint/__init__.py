"""Sharded safetensors: open, check and read OLD and NEW; lay out, write and publish OUT."""

from hpa_merge.checkpoint.adapter_folder import is_adapter, open_adapter
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

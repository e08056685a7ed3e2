"""Sharded safetensors: NEW and OLD are opened here, checked and read; OUT is laid out, written and published here."""

from hpa_merge.checkpoint.output import check_output
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.checkpoint.sidefiles import SideFiles
from hpa_merge.checkpoint.writer import CheckpointWriter

__all__ = [
    "Checkpoint",
    "CheckpointWriter",
    "SideFiles",
    "TensorInfo",
    "check_output",
]

"""The folder of a PEFT adapter, as peft's ``save_pretrained`` writes it: recognise it, check it, open it, plan one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from hpa_merge.checkpoint.folder import ADAPTER, has_weights, read_json, refuse_devices
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import lay_out, read_layout, reading
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import read_inside
from hpa_merge.files.parsing import CONFIG as LIMITS

__all__ = ["CONFIG", "is_adapter", "laid_out", "open_adapter"]

CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds one or several adapters, and no weights of a whole model."""
    if not folder.is_dir() or has_weights(folder):
        return False
    return (folder / CONFIG).exists() or (bool(_inner(folder)) and not (folder / "config.json").exists())


def open_adapter(folder: Path, role: str) -> Checkpoint:
    """The adapter's folder as a checkpoint, with adapter_config.json as its config.

    Raises:
        CheckpointError: something is missing, broken, or unsafe.
    """
    refuse_devices(folder, role)
    if not (folder / CONFIG).exists():
        raise CheckpointError(
            f"{role} {folder} holds several adapters, in the folders {', '.join(_inner(folder))}: give one of these."
        )
    config = read_json(folder, role, CONFIG)
    if not (folder / ADAPTER).exists():
        if (folder / "adapter_model.bin").exists():
            raise CheckpointError(
                f"{role} {folder} has adapter_model.bin and no {ADAPTER}, and pickles are not read: convert it, with "
                "from_pretrained and then save_pretrained of peft."
            )
        raise CheckpointError(f"{role} {folder} has no {ADAPTER}: fetch or save the adapter again.")
    tensors = {info.name: info for info in read_layout(folder, role, ADAPTER)}
    return Checkpoint(folder, role, config, tensors, (ADAPTER,), None)


def laid_out(
    own: Checkpoint, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], config: bytes | None = None
) -> Checkpoint:
    """An adapter like ``own`` with other tensors, before it is written: only its layout and its side files are read.

    Args:
        tensors: dtype and shape of each.
        config: its adapter_config.json, if that is not the one of ``own``.
    """
    heads, infos = {}, own.tensors
    if config is None:
        with reading(own.folder, own.role, CONFIG):
            config = read_inside(own.folder, CONFIG, LIMITS.size)
    if {info.name: (info.dtype, info.shape) for info in own.tensors.values()} != dict(tensors):
        heads[ADAPTER], places = lay_out(tensors, ADAPTER)
        infos = {info.name: info for info in places}
    return replace(own, tensors=infos, index=CONFIG, own_index=config, heads=heads)


def _inner(folder: Path) -> list[str]:
    """Names of the subfolders that hold an adapter."""
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))

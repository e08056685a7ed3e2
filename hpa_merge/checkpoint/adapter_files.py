"""The folder of a PEFT adapter as a checkpoint: open one, plan one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hpa_merge.checkpoint.adapter_folder import CONFIG, read_adapter_config
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import check_plain, lay_out, read_layout, reading
from hpa_merge.checkpoint.weight_files import ADAPTER
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import read_inside
from hpa_merge.files.parsing import CONFIG as LIMITS

if TYPE_CHECKING:
    import torch

__all__ = ["laid_out", "open_adapter"]


def open_adapter(folder: Path, role: str) -> Checkpoint:
    """The adapter's folder as a checkpoint, with adapter_config.json as its config.

    Raises:
        CheckpointError: something is missing, broken, or unsafe; or other trained weights lie next to the adapter.
    """
    config = read_adapter_config(folder, role)
    tensors = {info.name: info for info in read_layout(folder, role, ADAPTER)}
    if not tensors:
        raise CheckpointError(f"{role} {folder}: {ADAPTER} holds no tensor: save the adapter again.")
    if empty := next((info for info in tensors.values() if 0 in info.shape), None):
        raise CheckpointError(
            f"{role} {folder}: the adapter's tensor {empty.name} has shape {list(empty.shape)}, so DeepSpeed ZeRO-3 "
            "saved it ungathered: gather the weights when the adapter is saved "
            "(stage3_gather_16bit_weights_on_model_save), or take them from the training's checkpoint with "
            "zero_to_fp32.py."
        )
    check_plain(folder, role, tensors.values())
    return Checkpoint(folder, role, config, tensors, (ADAPTER,), None)


def laid_out(
    own: Checkpoint, tensors: "Mapping[str, tuple[torch.dtype, tuple[int, ...]]]", config: bytes | None = None
) -> Checkpoint:
    """An adapter like ``own`` with other tensors, before it is written: only its layout and its side files are read.

    Args:
        tensors: dtype and shape of each, by name.
        config: its adapter_config.json, if that is not the one of ``own``.

    Raises:
        CheckpointError: the adapter_config.json of ``own`` can no longer be read.
    """
    heads, infos = {}, own.tensors
    if config is None:
        with reading(own.folder, own.role, CONFIG):
            config = read_inside(own.folder, CONFIG, LIMITS.size)
    if own.header != dict(tensors):
        heads[ADAPTER], places = lay_out(tensors, ADAPTER)
        infos = {info.name: info for info in places}
    return replace(own, tensors=infos, index=CONFIG, own_index=config, heads=heads)

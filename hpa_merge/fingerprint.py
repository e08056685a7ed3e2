"""What a result depends on, small enough for a journal: a run is resumed only with what it was begun with."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.machine import versions

__all__ = ["fingerprint"]


def fingerprint(
    old: Checkpoint,
    new: Checkpoint,
    samples: Mapping[str, Iterable[Mapping[str, Tensor]]],
    config: HPAConfig,
    device: torch.device,
) -> dict[str, Any]:
    """By name, as JSON has it: the checkpoints, the encoded samples, the options, the versions, the machine.

    A checkpoint is known by its headers and by the size and the time of change of each shard: hashing the weights
    would read them once more. The samples are known by the tensors that the model is given, so that a change of the
    tokenizer, the template or an image counts and one of the file's name does not.
    """
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    return {
        "OLD": _checkpoint_digest(old),
        "NEW": _checkpoint_digest(new),
        **{f"{purpose} samples": _samples_digest(inputs) for purpose, inputs in samples.items()},
        **options,
        "device": device.type,
        "threads": torch.get_num_threads(),
        **{f"version of {name}": version for name, version in versions().items()},
    }


def _checkpoint_digest(checkpoint: Checkpoint) -> str:
    state = hashlib.sha256((checkpoint.folder / "config.json").read_bytes())
    for shard in checkpoint.shards:
        status = (checkpoint.folder / shard).stat()
        state.update(f"{shard} {status.st_size} {status.st_mtime_ns} ".encode())
        state.update(checkpoint.header_bytes(shard))
    return state.hexdigest()


def _samples_digest(samples: Iterable[Mapping[str, Tensor]]) -> str:
    state = hashlib.sha256()
    for inputs in samples:
        for name, value in sorted(inputs.items()):
            state.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
            state.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()

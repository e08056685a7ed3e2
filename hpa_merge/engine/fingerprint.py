"""What a result depends on, small enough for a journal: a run is resumed only if all of it is the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.checkpoint.unreadable import unreadable
from hpa_merge.checkpoint.version import version_of
from hpa_merge.config import HPAConfig
from hpa_merge.engine.machine import versions
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import read_inside
from hpa_merge.files.parsing import CONFIG

__all__ = ["digest", "fingerprint", "of_statistics", "sample_digest"]


def of_statistics(
    checkpoint: Checkpoint,
    purpose: str,
    samples: Iterable[str],
    damping: float,
    linears: int,
    min_expert_tokens: int | None,
    compute_dtype: str,
) -> dict[str, Any]:
    """What the column statistics of one model depend on, by name, in JSON types; they may be used on other machines.

    A checkpoint is identified by its headers and by :func:`version_of` of each shard, because hashing the weights would
    read them once more. Samples are identified by the encoded tensors: a change of the tokenizer, the
    template or an image counts, and a change of the file's name does not.

    Args:
        samples: the :func:`sample_digest` of each.
        linears: how many linears they cover; with a vision tower, that depends on where the other model's tower lies.
        min_expert_tokens: of a mixture; None of another model.
        compute_dtype: that they ran in.

    Raises:
        CheckpointError: a file can no longer be read.
    """
    return {
        checkpoint.role: _checkpoint_digest(checkpoint),
        f"{purpose} samples": hashlib.sha256("".join(samples).encode()).hexdigest(),
        f"{purpose} compute_dtype": compute_dtype,
        "damping": damping,
        **({f"code of {checkpoint.role}": checkpoint.code.digest} if checkpoint.code is not None else {}),
        **({f"{purpose} linears": linears} if checkpoint.tower is not None else {}),
        **({} if min_expert_tokens is None else {"min_expert_tokens": min_expert_tokens}),
        **{f"version of {name}": versions()[name] for name in ("hpa-merge", "torch", "transformers")},
    }


def fingerprint(statistics: Iterable[Mapping[str, Any]], config: HPAConfig, device: torch.device) -> dict[str, Any]:
    """What an OUT depends on, by name, in JSON types: statistics, options, versions, machine.

    The statistics have the dtype that their samples run in, whatever option leads to it.
    """
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}
    del options["compute_dtype"]
    return {
        **{name: value for each in statistics for name, value in each.items()},
        **options,
        "device": device.type,
        "threads": torch.get_num_threads(),
        **{f"version of {name}": version for name, version in versions().items()},
    }


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sample_digest(inputs: Mapping[str, Tensor]) -> str:
    """SHA-256 of an encoded sample, in hexadecimal."""
    state = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        state.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        state.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _checkpoint_digest(checkpoint: Checkpoint) -> str:
    try:
        return _digest_of_files(checkpoint)
    except OSError as error:
        name = Path(str(error.filename or "a file")).name
        raise CheckpointError(unreadable(checkpoint.folder, checkpoint.role, name, error)) from error


def _digest_of_files(checkpoint: Checkpoint) -> str:
    state = hashlib.sha256(read_inside(checkpoint.folder, "config.json", CONFIG.size))
    if checkpoint.tower is not None:
        state.update(read_inside(checkpoint.tower, "config.json", CONFIG.size))
    external = {checkpoint.tensors[name].shard for name in checkpoint.external}
    shards = (*checkpoint.disk_shards, *sorted(external))
    state.update(version_of(checkpoint, shards).encode())
    for shard in shards:
        state.update(Path(shard).name.encode())
        state.update(checkpoint.disk_header(shard))
    if checkpoint.unpacking is not None:
        state.update(f"{checkpoint.unpacking.dtype} {checkpoint.unpacking.library}".encode())
    if checkpoint.overlay is not None:
        state.update(checkpoint.overlay.state)
    return state.hexdigest()

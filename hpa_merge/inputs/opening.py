"""Open OLD and NEW, in the dtype that is wanted; NEW may be OLD with an adapter on top, merged tensor by tensor."""

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hpa_merge.checkpoint import Checkpoint, Overlay, is_adapter, lay_over, open_adapter
from hpa_merge.checkpoint.unpacking import DTYPES
from hpa_merge.core import all_finite
from hpa_merge.errors import CheckpointError, NumericalError
from hpa_merge.files.architectures import is_original_llava
from hpa_merge.inputs.own_code import NONE, Trust
from hpa_merge.inputs.tower import attach_tower

if TYPE_CHECKING:  # with transformers
    from hpa_merge.model import Adapter

__all__ = ["open_checkpoint", "open_new"]

ROLE = "NEW"

WORKING = 12
"""Bytes that merging takes for each element in addition to the result: the update in float32, and two steps before."""


def open_checkpoint(folder: str | Path, role: str, dtype: str = "auto", trust: Trust = NONE) -> Checkpoint:
    """Open a checkpoint as ``from_pretrained`` would load it in ``dtype``.

    What transformers keeps in float32 next to that dtype keeps its own.

    Args:
        dtype: as in :class:`hpa_merge.config.CalibrationOptions`.
        trust: whether the code that it brings may be run.

    Raises:
        CheckpointError: it is not a whole checkpoint, or transformers cannot build its model.
    """
    opened = trust.with_code(Checkpoint.open(folder, role))
    if dtype == "auto":
        return opened
    wanted, kept = DTYPES[dtype], None
    if wanted.itemsize == 2 and not is_original_llava(opened.config):
        from hpa_merge.model import kept_in_float32

        with opened.side_folder() as place:
            kept = kept_in_float32(place, opened.header, role, wanted, opened.code)
    return opened.read_as(wanted, lambda key: kept is not None and kept.search(key) is not None)


def open_new(
    folder: str | Path,
    old: Checkpoint,
    dtype: str = "auto",
    tower: Path | None = None,
    role: str = ROLE,
    trust: Trust = NONE,
) -> Checkpoint:
    """Open NEW, which was tuned from ``old``; every tensor of an adapter is checked.

    Args:
        dtype: as in :func:`open_checkpoint`; an adapter gets that of ``old``.
        tower: folder of the vision tower, if it was given.
        role: what messages call it.
        trust: whether the code that it brings may be run.

    Raises:
        CheckpointError: it is not a whole checkpoint, or it is an adapter that cannot be merged into OLD.
        NumericalError: a tensor of the adapter holds NaN or infinity.
    """
    folder = Path(folder)
    if not is_adapter(folder):
        return open_checkpoint(folder, role, dtype, trust)
    from hpa_merge.model import Adapter, try_adapter

    own = open_adapter(folder, role)
    try:
        below = attach_tower(old, tower) if is_original_llava(old.config) else old
        with old.side_folder() as base:
            given = (folder, own.config, own.header, base, below.header, below.tower, old.code)
            try_adapter(*given)
            adapter = Adapter(*given)
        if apart := sorted(adapter.keys & below.external):
            raise CheckpointError(
                f"{role} {folder} is an adapter that changes {apart[0]}, which is not in OLD but in the vision tower "
                f"{below.tower}, and OUT has no tower: give an OLD that has the tower's weights."
            )
        notes = [*adapter.notes, *_check_values(own, adapter)]
        files, of_adapter = lay_over(old.side_files(), own.side_files(), folder)
    except BaseException:
        own.close()
        raise
    overlay = Overlay(
        folder=folder,
        kind=adapter.kind,
        keys=adapter.keys,
        compute=lambda key, raw: adapter.merged(key, raw, below.raw, own.read),
        workspace=WORKING * adapter.most,
        files=files,
        own=of_adapter,
        state=_state(own),
        content=own.content_digest(),
        notes=tuple(f"{role} {folder}: {note}" for note in notes),
        merge_into=lambda model: adapter.merge_into(model, below.raw, own.read),
        close=own.close,
        adapter=adapter,
        own_tensors=own,
    )
    return trust.with_code(old.under(overlay, role))


def _check_values(own: Checkpoint, adapter: "Adapter") -> Iterator[str]:
    """Check the values of an adapter's tensors; what the user should know about them, a sentence each.

    Raises:
        CheckpointError: two tensors for one tensor of OLD differ.
        NumericalError: one holds NaN or infinity.
    """
    zero = set()
    for key in own.tensors:
        tensor = own.read(key)
        if tensor.is_floating_point() and not all_finite(tensor):
            raise NumericalError(
                f"the tensor {key} of the adapter {own.folder} holds NaN or infinity: "
                "the file is damaged or the training diverged, so give a sound adapter."
            )
        if not tensor.any():
            zero.add(key)
    for first, second in adapter.twins:
        if not torch.equal(own.read(first), own.read(second)):
            raise CheckpointError(
                f"{own.role} {own.folder}: the adapter's tensors {first} and {second} are one tensor in OLD, and they "
                "differ: train it with ensure_weight_tying, or give an OLD whose embeddings are not tied."
            )
    factors = [(adapter.sources_of(each.a), adapter.sources_of(each.b)) for each in adapter.factors if each.plain]
    idle = sum(a <= zero or b <= zero for a, b in factors)
    if idle and idle == len(factors) and own.tensors.keys() <= {key for a, b in factors for key in a | b}:
        yield "all its updates are zero (as lora_B is before the first step), so that NEW is equal to OLD."
    elif idle:
        yield f"{idle} of its {len(factors)} low-rank updates are zero, so that NEW has OLD's weights there."


def _state(own: Checkpoint) -> bytes:
    """What the adapter's part of the result depends on: its files, identified like a checkpoint's, and peft."""
    state = hashlib.sha256(json.dumps(own.config, sort_keys=True).encode())
    for shard in own.shards:
        status = (own.folder / shard).stat()
        state.update(f"{status.st_size} {status.st_mtime_ns} {importlib.metadata.version('peft')} ".encode())
        state.update(own.header_bytes(shard))
    return state.digest()

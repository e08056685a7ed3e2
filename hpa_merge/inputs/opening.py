"""Open OLD and NEW, in the dtype that is wanted; NEW may be OLD with an adapter on top, merged tensor by tensor."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

from hpa_merge.checkpoint import Checkpoint, Overlay, is_adapter, lay_over, open_adapter
from hpa_merge.checkpoint.unpacking import DTYPES
from hpa_merge.core import all_finite
from hpa_merge.errors import CheckpointError, NumericalError
from hpa_merge.model import Adapter, is_original_llava, kept_in_float32, try_adapter

__all__ = ["open_checkpoint", "open_new"]

ROLE = "NEW"

WORKING = 12
"""Bytes that merging takes for each element in addition to the result: the update in float32, and two steps before."""


def open_checkpoint(folder: str | Path, role: str, dtype: str = "auto") -> Checkpoint:
    """Open a checkpoint as ``from_pretrained`` would load it in ``dtype``.

    What transformers keeps in float32 next to that dtype keeps its own.

    Args:
        dtype: as in :class:`hpa_merge.config.CalibrationOptions`.

    Raises:
        CheckpointError: it is not a whole checkpoint, or transformers cannot build its model.
    """
    opened = Checkpoint.open(folder, role)
    if dtype == "auto":
        return opened
    wanted, kept = DTYPES[dtype], None
    if wanted.itemsize == 2 and not is_original_llava(opened.config):
        header = {key: (info.dtype, info.shape) for key, info in opened.tensors.items()}
        with opened.side_folder() as place:
            kept = kept_in_float32(place, header, role, wanted)
    return opened.read_as(wanted, lambda key: kept is not None and kept.search(key) is not None)


def open_new(folder: str | Path, old: Checkpoint, dtype: str = "auto") -> Checkpoint:
    """Open NEW, which was tuned from ``old``; every tensor of an adapter is checked.

    Args:
        dtype: as in :func:`open_checkpoint`; an adapter gets that of ``old``.

    Raises:
        CheckpointError: it is not a whole checkpoint, or it is an adapter that cannot be merged into OLD.
        NumericalError: a tensor of the adapter holds NaN or infinity.
    """
    folder = Path(folder)
    if not is_adapter(folder):
        return open_checkpoint(folder, ROLE, dtype)
    if is_original_llava(old.config):
        raise CheckpointError(
            f"{ROLE} {folder} is an adapter, and OLD has LLaVA's own layout: merge the adapter into OLD first, with "
            "the script of that code base, and give the result."
        )
    own = open_adapter(folder, ROLE)
    try:
        headers = [{key: (i.dtype, i.shape) for key, i in part.tensors.items()} for part in (own, old)]
        with old.side_folder() as base:
            try_adapter(folder, own.config, headers[0], base, headers[1], old.code)
            adapter = Adapter(folder, own.config, headers[0], base, headers[1], old.code)
        for key in own.tensors:
            tensor = own.read(key)
            if tensor.is_floating_point() and not all_finite(tensor):
                raise NumericalError(
                    f"the tensor {key} of the adapter {folder} holds NaN or infinity: "
                    "the file is damaged or the training diverged, so give a sound adapter."
                )
        files, of_adapter = lay_over(old.side_files(), own.side_files(), folder)
    except BaseException:
        own.close()
        raise
    overlay = Overlay(
        folder=folder,
        kind=adapter.kind,
        keys=adapter.keys,
        compute=lambda key, raw: adapter.merged(key, raw, old.raw, own.read),
        workspace=WORKING * adapter.most,
        files=files,
        own=of_adapter,
        state=_state(own),
        content=own.content_digest(),
        close=own.close,
    )
    return old.under(overlay, ROLE)


def _state(own: Checkpoint) -> bytes:
    """What the adapter's part of the result depends on: its files, identified like a checkpoint's, and peft."""
    state = hashlib.sha256(json.dumps(own.config, sort_keys=True).encode())
    for shard in own.shards:
        status = (own.folder / shard).stat()
        state.update(f"{status.st_size} {status.st_mtime_ns} {importlib.metadata.version('peft')} ".encode())
        state.update(own.header_bytes(shard))
    return state.digest()

"""The dtype that the samples run in: the checkpoint's own, unless the options or the processor ask for another one.

Statistics depend on it. So a run that takes up earlier work, or finds a statistics file, keeps the dtype that it was
begun in, whatever processor it runs on now.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from hpa_merge.checkpoint import begun_with
from hpa_merge.engine.machine import slow_dtypes
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.statistics_file import fingerprints_in
from hpa_merge.model.building import Computing
from hpa_merge.ranks import Group

__all__ = ["DTYPES", "dtype_field", "find_computing", "name_of"]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""The dtypes of the option, by their words."""

STORED = (*DTYPES.values(), torch.float64)
"""The dtypes that a checkpoint may run in by itself."""


def dtype_field(purpose: str) -> str:
    """The name in a fingerprint of the dtype that a set runs in."""
    return f"{purpose} compute_dtype"


def name_of(dtype: torch.dtype) -> str:
    """The word of a dtype: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def find_computing(request: MergeRequest, device: torch.device, group: Group) -> tuple[Computing, Computing]:
    """The dtypes that OLD runs in with the safety set and NEW with the task set, where they are not their own.

    All ranks get the same: with ``auto``, what the first rank finds of earlier work, or else float32 in place of every
    dtype that the processor of any rank multiplies slowly.

    Raises:
        StatisticsError: the statistics file is damaged.
        HPAError: as :meth:`Group.gather`.
    """
    chosen = request.calibration.compute_dtype
    if chosen != "auto":
        return _all(chosen), _all(chosen)
    found = group.gather((list(_begun(request)) if group.is_first else [], slow_dtypes(device)))
    begun, slow = found[0][0], set().union(*(slow for _, slow in found))
    safety, task = (
        next((_all(word) for each in begun if (word := each.get(dtype_field(purpose))) in DTYPES), None)
        for purpose in ("safety", "task")
    )
    by_processor = {dtype: torch.float32 for dtype in STORED if name_of(dtype) in slow}
    return by_processor if safety is None else safety, by_processor if task is None else task


def _all(word: str) -> Computing:
    return dict.fromkeys(STORED, DTYPES[word])


def _begun(request: MergeRequest) -> Iterator[Mapping[str, Any]]:
    """The fingerprints of the work that this run takes up: unfinished OUTs first, then the statistics."""
    if request.resume:
        yield from map(begun_with, request.outs)
    if request.stats is not None:
        yield from fingerprints_in(request.stats)

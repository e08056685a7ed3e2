"""The dtype that the samples run in: the checkpoint's own, unless the options ask for another one.

Statistics depend on it. So a run that takes up earlier work, or finds a statistics file, keeps their dtype.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from hpa_merge.checkpoint import begun_with
from hpa_merge.config import Dtype
from hpa_merge.engine.machine import slow_dtypes
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.statistics_file import fingerprints_in
from hpa_merge.ranks import Group

if TYPE_CHECKING:  # with transformers
    from hpa_merge.model.building import Computing

__all__ = ["DTYPES", "dtype_field", "find_computing", "name_of", "slow_notes"]

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""The dtypes of the option, by their words."""

STORED = (*DTYPES.values(), torch.float64)
"""The dtypes that a checkpoint may run in by itself."""


def dtype_field(purpose: str) -> str:
    """The name in a fingerprint of the dtype that a set runs in."""
    return f"{purpose} compute_dtype"


def name_of(dtype: torch.dtype) -> str:
    """The word of a dtype: ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def find_computing(request: MergeRequest, group: Group) -> "tuple[Computing, Computing]":
    """The dtypes that OLD runs in with the safety set and NEW with the task set, where they are not their own.

    All ranks get the same: with ``auto``, what the first rank finds of earlier work.

    Raises:
        StatisticsError: the statistics file is damaged.
        HPAError: as :meth:`Group.gather`.
    """
    chosen = request.calibration.compute_dtype
    if chosen != "auto":
        return _all(chosen), _all(chosen)
    begun = group.gather(list(_begun(request)) if group.is_first else [])[0]
    safety, task = (
        next((_all(word) for each in begun if (word := each.get(dtype_field(purpose))) in DTYPES), {})
        for purpose in ("safety", "task")
    )
    return safety, task


def slow_notes(words: Collection[str], device: torch.device) -> tuple[str, ...]:
    """What the user should know if the processor multiplies one of these dtypes slowly."""
    slow = sorted(slow_dtypes(device).intersection(words))
    return tuple(
        f"This processor multiplies {word} several times more slowly than float32: with --compute-dtype float32 the "
        "samples run faster and take more memory, and about one restored column in a hundred is another one."
        for word in slow
    )


def _all(word: Dtype) -> "Computing":
    return dict.fromkeys(STORED, DTYPES[word])


def _begun(request: MergeRequest) -> Iterator[Mapping[str, Any]]:
    """The fingerprints of the work that this run takes up: unfinished OUTs first, then the statistics."""
    if request.resume:
        yield from map(begun_with, request.outs)
    if request.stats is not None:
        yield from fingerprints_in(request.stats)

"""How far the linear weights of OUT lie from OLD's (during the merge) and from the first model's (afterwards).

A distance is the Frobenius norm of a difference, in float64; several weights count as one vector of all their values.
So the sum of the distances of a chain of merges is an upper bound of the distance between its ends.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, final

from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.core import squared_distance, squared_norm
from hpa_merge.errors import CheckpointError
from hpa_merge.outline import LinearTensor
from hpa_merge.report.records import DriftRecord, LinearRecord, RoundRecord

if TYPE_CHECKING:
    from hpa_merge.model import MetaModel

__all__ = ["Moved", "distances_from", "drift_of"]

PIECE = 2**22
"""Bytes of a tensor that are compared at once: 4 MiB."""

Piece = Callable[[str, int, int], Tensor]
"""Takes a tensor's name, ``begin`` and ``count``; returns the elements ``begin:begin + count``, flat."""

Counts = Callable[[LinearTensor], bool]
"""Whether a weight counts as a linear of an OUT."""


@final
class Moved:
    """How far one linear weight lies from OLD's in each OUT of a run; shared figures are computed once."""

    def __init__(self, old: Tensor, new: Tensor) -> None:
        """``old``, ``new``: the weight in both, ``[r, c]``; rows that only one of them has are not compared."""
        rows = min(len(old), len(new))
        self._old, self._new = old[:rows], new[:rows]
        self._comparable = old.shape[1] == new.shape[1]

    @property
    def old(self) -> Tensor:
        """OLD's weight in the common rows."""
        return self._old

    def to(self, weight: Tensor, norm: float | None = None) -> dict[str, float]:
        """The figures for the report if OUT has ``weight``, ``[r, c]``; ``norm``: ``‖W_old‖²_F``, if it is known."""
        return self._figures(lambda: squared_distance(self._old, weight[: len(self._old)]), norm)

    def to_new(self, *, changed: bool = True) -> dict[str, float]:
        """The figures if OUT has NEW's weight; ``changed``: whether it differs from OLD's in NEW's dtype."""
        same = not changed and self._old.dtype == self._new.dtype
        return self._figures(lambda: 0.0 if same else self._to_new)

    def to_old(self) -> dict[str, float]:
        """The figures if OUT has OLD's weight in NEW's dtype."""
        same = self._old.dtype == self._new.dtype
        return self._figures(lambda: 0.0 if same else squared_distance(self._old, self._old.to(self._new.dtype)))

    @cached_property
    def _to_new(self) -> float:
        return squared_distance(self._old, self._new)

    @cached_property
    def _norm(self) -> float:
        return squared_norm(self._old)

    def _figures(self, distance: Callable[[], float], norm: float | None = None) -> dict[str, float]:
        if not self._comparable:
            return {}
        return {"distance": distance() ** 0.5, "old_norm": (self._norm if norm is None else norm) ** 0.5}


def drift_of(
    linears: Sequence[LinearRecord], history: Sequence[RoundRecord], from_first: float | None = None
) -> DriftRecord:
    """How far a round moved the linear weights.

    Args:
        linears: the records of the round.
        history: the earlier rounds, the first one first.
        from_first: ``‖OUT − FIRST‖_F``, if it was measured.
    """
    compared = [(r.distance, r.old_norm) for r in linears if r.distance is not None and r.old_norm is not None]
    distance, norm = (math.hypot(*column) for column in zip(*compared, strict=True)) if compared else (0.0, 0.0)
    record = DriftRecord(distance, norm, len(compared))
    if not history:
        return replace(record, from_first=record.relative, from_first_at_most=record.relative)
    first, last = history[0].drift, history[-1].drift
    if first is None or last is None or not first.norm:
        return record
    before = last.from_first if last.from_first is not None else last.from_first_at_most
    return replace(
        record,
        from_first=None if from_first is None else from_first / first.norm,
        from_first_at_most=None if before is None else before + distance / first.norm,
    )


def distances_from(
    first: Checkpoint, new: Checkpoint, metas: "tuple[MetaModel, MetaModel]", outs: Sequence[tuple[Piece, Counts]]
) -> list[float]:
    """``‖OUT − FIRST‖_F`` of each OUT over the linear weights, a piece of a tensor at a time.

    Args:
        first: the first aligned model.
        new: NEW, whose names and shapes every OUT has.
        metas: the meta models of these two.
        outs: gives the tensors of each OUT, and which of them count.

    Raises:
        CheckpointError: a tensor of the first model cannot be read, or holds NaN or infinity.
        OutputError: an OUT cannot be read.
    """
    key_in_first = {slot: key for key, slot in metas[0].slots.items()}
    squares: list[list[float]] = [[] for _ in outs]
    for linear in {linear.key: linear for linear in metas[1].linears.values()}.values():
        sums_of = [(sums, read) for sums, (read, counts) in zip(squares, outs, strict=True) if counts(linear)]
        key = key_in_first.get(metas[1].slots[linear.key], "")
        theirs, ours = first.tensors[key].shape if key else (), new.tensors[linear.key].shape
        if not sums_of or (theirs != ours and not _have_rows_in_common(theirs, ours, linear.input_axis)):
            continue
        begin, count = 0, min(math.prod(theirs), math.prod(ours))
        for piece in first.pieces(key, PIECE):
            if begin == count:
                break
            flat = piece[: count - begin].reshape(1, -1)
            for sums, read in sums_of:
                sums.append(squared_distance(flat, read(linear.key, begin, flat.shape[1]).reshape(1, -1)))
            if not math.isfinite(sums_of[0][0][-1]):
                raise CheckpointError(
                    f"{first.role}'s tensor {key} holds NaN or infinity: the file is damaged, so fetch it again, or "
                    "resume with --resume and without --first."
                )
            begin += flat.shape[1]
    return [math.fsum(sums) ** 0.5 for sums in squares]


def _have_rows_in_common(first: tuple[int, ...], out: tuple[int, ...], input_axis: int) -> bool:
    """Whether two tensors of a linear may differ in their number of rows only, so that the common rows come first."""
    return len(first) == len(out) == 2 and input_axis == 1 and first[1] == out[1]

"""Compares an existing OUT with a merge of the same inputs, tensor by tensor while the merge runs.

It takes the place of :class:`~hpa_merge.engine.output.MergeOutput`, which writes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.core import all_finite, fuse
from hpa_merge.core.rounding import NEAR, differing, neighbours
from hpa_merge.counting import counted
from hpa_merge.engine.linear import MergedLinear
from hpa_merge.engine.plan import LinearPair
from hpa_merge.engine.remaining import Remaining
from hpa_merge.engine.setup import Prepared
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.methods.applying import Adapted, with_new_rows
from hpa_merge.outline import Unit
from hpa_merge.report.records import LinearRecord, RoutingRecord
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.adapter import Compared, Values
from hpa_merge.verification.differences import mask_of, told
from hpa_merge.verification.findings import Findings
from hpa_merge.verification.inputs import slacks_of
from hpa_merge.verification.records import compare_records

__all__ = ["Comparison"]

KAPPA = 1e-6
"""Relative tolerance of ``κ`` between machines: a sum in float64 of up to 10⁹ terms of both signs."""


@final
class Comparison:
    """The :class:`~hpa_merge.engine.linear.Sink` that compares OUT and its report with the merge that runs here.

    Attributes:
        plan: what has to be in OUT.
        config: the options of the report.
    """

    unreached = ", and the report's option uncalibrated is error: give the calibration files of the merge."

    def __init__(
        self,
        prepared: Prepared,
        merged: Checkpoint,
        report: MergeReport,
        config: HPAConfig,
        findings: Findings,
        values: Values,
        *,
        same: bool,
    ) -> None:
        """``same``: this machine is of the kind that made OUT, so that every bit must agree."""
        self._values = values
        self.config = config
        self._new, self._merged = prepared.inputs.new, merged
        self.plan = prepared.plan.only
        self._records = {record.name: record for record in report.linears}
        self._findings, self._same = findings, same
        self._left = Remaining(self._new, self.plan.from_old, filter(self._fits, self._new.tensors))
        self._taken: set[str] = set()  # tensors with at least one compared linear
        self._finished: set[str] = set()
        self._linears = {pair.new.name for pair in prepared.plan.pairs if self.plan.counts(pair.new)}
        self._seen: set[str] = set()
        self.routing: dict[str, RoutingRecord] = {}
        self._routing = {record.name: record for record in report.routing}
        self._held: tuple[str, Tensor] | None = None  # the last tensor of OUT that was read
        self._rounded = 0
        self._not_finite: dict[str, None] = {}  # tensors of OUT with NaN or infinity, in order
        self._chosen: list[str] = []  # linears with other columns, which rounding explains
        for name in merged.tensors.keys() - self._new.tensors.keys():
            findings.problems.append(f"{name} is in OUT and not in NEW.")

    def restore(self, statistics: ModelStatistics) -> None:
        """Nothing is resumed."""

    def lacks(self, unit: Unit) -> bool:
        """Whether the linears of ``unit`` still have to be compared."""
        return unit.name not in self._finished

    def put(self, linear: MergedLinear) -> None:
        """Compare a linear weight and its record; a tensor from OLD is compared as a whole elsewhere."""
        pair, new = linear.pair, linear.new
        if linear.adapted is not None:
            self._compare_adapted(linear, linear.adapted)
            return
        if linear.weight is not None:
            self._compare_linear(linear, linear.weight, "are not OLD's")
        elif pair.new.key not in self.plan.from_old:
            self._compare_linear(linear, new, "are not NEW's")
        self._compare(linear.record(), new)

    def _compare_adapted(self, linear: MergedLinear, adapted: Adapted) -> None:
        """Compare an adapted weight."""
        self._findings.checked["adapted linears"] += 1
        pair, said = linear.pair, self._records.get(linear.pair.new.name)
        if not self._take(pair):
            self._seen.add(pair.new.name)
            return
        ours, old, new = pair.new.matrix(self._read(pair.new.key)), linear.moved.old.cpu(), linear.new.cpu()
        if said is not None and not self._same:
            adapted = self._as_said(said, adapted, old, new)
        if self._values.by_linear:
            error = None if said is None else said.adapter_error
            weight = Compared(pair.new.name, ours, adapted.weight.cpu(), old, new, error)
            self._findings.problems += self._values.compare(weight, "differ from the merge's")
        else:
            wrong = differing(ours, adapted.weight.cpu())
            if not self._same:
                wrong &= ~self._rounding(adapted, ours, wrong, old, new)
            self._findings.problems += told(pair.new.name, wrong, "differ from the merge's")
        self._compare(replace(linear, adapted=adapted).record(), ours)

    def pass_on(self, keys: Iterable[str], old: Read | None = None, new: Read | None = None) -> None:
        for key, role, tensor in self._left.take(keys, old, new):
            self._compare_pieces(key, self._new.pieces(key) if tensor is None else iter((tensor,)), role)

    def commit(self, unit: Unit, statistics: Mapping[str, Any], routing: Sequence[RoutingRecord]) -> None:
        """Compare the routing drift, and note that the linears of ``unit`` are compared."""
        self.routing |= {record.name: record for record in routing}
        wrong = [record.name for record in routing if self._same and self._routing.get(record.name, record) != record]
        self._findings.problems += [f"routing of {name} in the report is not what the samples give." for name in wrong]
        self._finished.add(unit.name)

    def copy_rest(self, old: Weights) -> None:
        self.pass_on(self._left)
        for key, pieces in self._left.take_rest(old):
            self._compare_pieces(key, pieces, "OLD")

    def flush(self) -> None:
        """Nothing waits."""

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        if self._merged.computes(name):
            return self._read(name).reshape(-1)[begin : begin + count]
        return self._merged.piece(name, begin, count)

    def tell_differences(self) -> None:
        """Note, after the run, the differences that rounding on another machine explains.

        Raises:
            RuntimeError: something was not compared, which is a bug.
        """
        if missing := [*self._left, *sorted(self._linears - self._seen)]:
            raise RuntimeError(f"{counted(len(missing), 'tensor')} not compared, such as {missing[0]}")
        self._findings.problems += [f"{name} holds NaN or infinity." for name in self._not_finite]
        say = self._findings.unchecked
        if self._chosen:
            say.append(
                f"{shortened(self._chosen)}: this machine chooses other columns, whose scores are so close to the "
                "threshold that rounding explains it; the rest was compared with the columns of the report."
            )
        if self._rounded:
            say.append(
                f"{counted(self._rounded, 'value', 'differ')} from those "
                f"of this machine by no more than rounding explains."
            )
        if not self._same and self.config.sets:
            say.append("On another machine n_shared, saliency and what_if may differ, and were not compared.")

    def _fits(self, name: str) -> bool:
        """Whether OUT's tensor has NEW's dtype and shape; notes if it has not."""
        info, there = self._new.tensors[name], self._merged.tensors.get(name)
        if there is not None and (there.dtype, there.shape) != (info.dtype, info.shape):
            self._findings.problems.append(
                f"{name} is {list(there.shape)} of {there.dtype} in OUT, and {list(info.shape)} of {info.dtype} in NEW."
            )
        return there is not None and (there.dtype, there.shape) == (info.dtype, info.shape)

    def _take(self, pair: LinearPair) -> bool:
        """Whether a linear can be compared; its tensor no longer counts as remaining."""
        key = pair.new.key
        if self._left.remove(key):
            self._taken.add(key)
        return key in self._taken

    def _read(self, key: str) -> Tensor:
        """A tensor of OUT; the last one is kept, because linears may be slices of one tensor."""
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, self._merged.read(key)
            self._check_finite(key, self._held[1])
        return self._held[1]

    def _check_finite(self, key: str, piece: Tensor) -> None:
        """Note a tensor of OUT if this piece holds NaN or infinity."""
        if piece.is_floating_point() and not all_finite(piece):
            self._not_finite[key] = None

    def _compare_linear(self, linear: MergedLinear, expected: Tensor, what: str) -> None:
        """Compare a weight that is OLD's or NEW's, ``[r, c]``."""
        pair, said = linear.pair, self._records.get(linear.pair.new.name)
        if not self._take(pair):
            return
        self._findings.checked["linears from OLD" if "OLD" in what else "linears from NEW"] += 1
        ours, error = pair.new.matrix(self._read(pair.new.key)), None if said is None else said.adapter_error
        weight = Compared(pair.new.name, ours, expected.cpu(), linear.moved.old.cpu(), linear.new.cpu(), error)
        self._findings.problems += self._values.compare(weight, what)

    def _compare_pieces(self, key: str, expected: Iterator[Tensor], role: str) -> None:
        """Compare a tensor with that of ``role``, OLD or NEW, piece by piece in the order of its elements."""
        self._findings.checked[f"tensors from {role}"] += 1
        count = begin = 0
        for piece in expected:
            flat = piece.reshape(-1).to("cpu", self._new.tensors[key].dtype)
            ours = self.piece(key, begin, len(flat))
            self._check_finite(key, ours)
            count += int(self._values.differing(ours, flat).sum())
            begin += len(flat)
        if count:
            self._findings.problems.append(f"{key}: {count} of {begin} values are not {role}'s.")

    def _compare(self, expected: LinearRecord, weight: Tensor) -> None:
        """Compare the report's record of a linear, ``[r, c]``, with the expected one."""
        self._seen.add(expected.name)
        said = self._records.get(expected.name)
        if said is None:
            return
        if self._same:
            self._findings.problems += compare_records(said, expected, free=self._values.free)
            return
        slacks = slacks_of(weight) | {"kappa": KAPPA}
        free: tuple[str, ...] = ("saliency", "n_shared", "what_if")
        slacks |= dict.fromkeys(("alpha", "safety_cost", "safety_budget"), NEAR)
        if not self.config.diagonal_only:
            slacks |= dict.fromkeys(("distance", "energy_restored", "restored_share"), NEAR)
            free = ("new_columns", "split_column", "split_rows", "what_if")
        free = (*free, *self._values.free)
        self._findings.problems += compare_records(said, expected, free=free, slacks=slacks)

    def _as_said(self, said: LinearRecord, adapted: Adapted, old: Tensor, new: Tensor) -> Adapted:
        """The weight with the report's columns, if they differ and rounding explains it."""
        selection = adapted.selection
        if selection is None or said.restored is None or said.columns != len(selection.restored):
            return adapted
        restored = mask_of(said.restored, said.columns)
        if torch.equal(restored, selection.restored) or not self.config.rule.explains(restored, selection, self.config):
            return adapted
        self._chosen.append(said.name)
        step = (adapted.kappa or 0.0) if adapted.kappas is None else adapted.kappas.cpu()
        weight = with_new_rows(fuse(old, new[: len(old)], restored, step), new)
        return replace(adapted, weight=weight, selection=replace(selection, restored=restored))

    def _rounding(self, adapted: Adapted, ours: Tensor, wrong: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """A mask of the differences of two weights, ``[r, c]``, that rounding on another machine explains.

        A computed value may differ by one unit in the last place. OLD's and NEW's values must agree to the bit, and so
        must rows that OLD does not have. For compensated values see :meth:`_compensated`. NaN and infinity are never
        explained.
        """
        expected, config = adapted.weight.cpu(), self.config
        near = wrong & neighbours(ours, expected)
        if adapted.selection is not None:
            near &= ~adapted.selection.restored
        elif config.diagonal_only and not config.rule.computes:
            near &= False
        if not config.diagonal_only and bool(wrong.any()):
            near |= wrong & self._compensated(ours, expected, old, new)
        near &= torch.isfinite(ours)
        near[len(old) :] = False
        self._rounded += int(near.sum())
        return near

    def _compensated(self, ours: Tensor, expected: Tensor, old: Tensor, new: Tensor) -> Tensor:
        """A mask of the values of a weight, ``[r, c]``, that compensation by ``H⁻¹`` may give on another machine.

        A value may differ by :data:`NEAR` of the largest move in its row. A few values may be chosen differently: such
        a value is taken unchanged, to the bit, or compensated, and then no farther from its base than the largest move
        in its row. If more than a few values are that far away, none of them is explained.
        """
        before, after = with_new_rows(old.to(new.dtype), new), new
        moves = torch.maximum((expected.float() - before.float()).abs(), (expected.float() - after.float()).abs())
        most = moves.amax(dim=1, keepdim=True)  # [r, 1]
        width = NEAR * most
        close = (ours.float() - expected.float()).abs() <= width
        if not self.config.rule.base:
            return close
        base, taken = (before, after) if self.config.rule.base == "old" else (after, before)
        chosen = ~differing(ours, taken) | ((ours.float() - base.float()).abs() <= most + width)
        far = differing(ours, expected) & ~close & ~neighbours(ours, expected)
        return close | (far & chosen) if int(far.sum()) <= NEAR * far.numel() else close

"""One OUT of several ranks: the owners' weights and records come to rank 0, which writes.

The ranks other than the first know of OUT only what the loop asks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from hpa_merge.engine.drift import Moved
from hpa_merge.engine.linear import Done, MergedLinear
from hpa_merge.engine.output import MergeOutput
from hpa_merge.engine.plan import LinearPair, OutPlan
from hpa_merge.engine.setup import Prepared
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.model import Unit
from hpa_merge.ranks import Group, Parcel
from hpa_merge.report.records import LinearRecord, RoutingRecord

__all__ = ["SharedOutput"]

Header = tuple[LinearRecord, torch.dtype | None, tuple[int, ...]]
"""The record of a linear; dtype and shape of its weight, if there is one."""


@final
class SharedOutput:
    """An OUT as one of several ranks sees it: a :class:`~hpa_merge.engine.linear.Sink` in front of that of rank 0.

    Attributes:
        plan: what will be in it.
        routing: the routing drift of the mixtures that were done when it was begun.
    """

    unreached = MergeOutput.unreached

    def __init__(self, prepared: Prepared, plan: OutPlan, written: MergeOutput | None) -> None:
        """``written``: OUT on rank 0; None on the others. Raises as :meth:`Group.gather`."""
        self.plan = plan
        self._group: Group = prepared.group
        self._written = written
        self._pairs = prepared.plan.linears
        self._device = prepared.device
        self._put: dict[str, MergedLinear] = {}
        self._passed_on: tuple[list[str], Read | None, Read | None] = ([], None, None)
        known = None
        if written is not None:
            known = (
                written.finished,
                written.routing,
                {each.purpose: written.recorded(each.purpose) for each in prepared.sets},
            )
        first = self._group.gather(known)[0]
        assert first is not None
        finished, self.routing, self._recorded = first
        self._finished = set(finished)

    def restore(self, statistics: ModelStatistics) -> None:
        if self._written is not None:
            self._written.restore(statistics)
            return
        for packed in self._recorded.get(statistics.purpose, ()):
            statistics.restore(packed)

    def lacks(self, unit: Unit) -> bool:
        return unit.name not in self._finished

    def put(self, linear: MergedLinear) -> None:
        """Keep a linear that this rank owns until the unit is committed."""
        if self.plan.config.output_format != "adapter":  # whose factors need more than the weight
            done = Done(linear.record(), linear.weight)
            linear = MergedLinear(linear.pair, linear.tensor, linear.moved, done=done)
        self._put[linear.pair.new.name] = linear

    def pass_on(self, keys: Iterable[str], old: Read | None = None, new: Read | None = None) -> None:
        """Pass on what belongs to a unit when that is committed."""
        if old is not None or new is not None:
            self._passed_on = [*keys], old, new
        elif self._written is not None:
            self._written.pass_on(keys)

    def commit(self, unit: Unit, statistics: Mapping[str, Any], routing: Sequence[RoutingRecord]) -> None:
        """Collect the linears of the unit."""
        of_ranks = self._group.gather({name: _header(linear) for name, linear in self._put.items()})
        parcels = [
            Parcel(rank, 0, shape, dtype, self._put[name].weight if rank == self._group.rank else None)
            for rank, headers in enumerate(of_ranks)
            for name, (_, dtype, shape) in headers.items()
            if dtype is not None
        ]
        arrived = iter(self._group.deliver(parcels, self._device))
        found = {
            name: Done(record, None if dtype is None else next(arrived).tensor)
            for headers in of_ranks
            for name, (record, dtype, _) in headers.items()
        }
        if self._written is not None:
            keys, old, new = self._passed_on
            for pair in self._pairs[unit]:
                if pair.new.name in found:
                    self._written.put(self._linear(pair, found[pair.new.name], new))
            self._written.pass_on(keys, old, new)
            self._written.commit(unit, statistics, routing)
        self._put, self._passed_on = {}, ([], None, None)
        self._finished.add(unit.name)

    def copy_rest(self, old: Weights) -> None:
        if self._written is not None:
            self._written.copy_rest(old)

    def flush(self) -> None:
        """Wait until rank 0 has written everything."""
        if self._written is not None:
            self._written.flush()
        self._group.barrier()

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        assert self._written is not None
        return self._written.piece(name, begin, count)

    def _linear(self, pair: LinearPair, done: Done, new: Read | None) -> MergedLinear:
        """What the writer on this rank, the first, gets; a slice needs NEW's tensor around it."""
        own = self._put.get(pair.new.name)
        if own is not None:
            return own
        weight = done.weight
        if weight is None or pair.new.part is not None:
            assert new is not None
            weight = new(pair.new.key)
        return MergedLinear(pair, weight, Moved(weight, weight), done=done)


def _header(linear: MergedLinear) -> Header:
    weight = linear.weight
    return linear.record(), None if weight is None else weight.dtype, () if weight is None else tuple(weight.shape)

"""Merge the linears of a unit that has run: those that this rank owns, for every OUT."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor

from hpa_merge.core import all_finite
from hpa_merge.core.threads import one_thread
from hpa_merge.engine.drift import Moved
from hpa_merge.engine.linear import MergedLinear, Sink
from hpa_merge.engine.plan import LinearPair
from hpa_merge.engine.statistics import LinearStatistics, Statistics
from hpa_merge.engine.unit_statistics import pooled_field
from hpa_merge.engine.weights import Read
from hpa_merge.errors import CalibrationError, NumericalError
from hpa_merge.methods.applying import adapt
from hpa_merge.outline import Unit
from hpa_merge.report.records import RoutingRecord

__all__ = ["UnitMerge"]


@final
@dataclass(frozen=True, eq=False)
class UnitMerge:
    """What there is to do for one unit, from the end of its run to the commit.

    Attributes:
        unit: the unit.
        pairs: the linears that this rank owns, and the depth of each.
        changed: whether tuning changed a linear.
        safety, task: their statistics.
        old, new: give the tensors of both models.
        keys: NEW's tensors that are passed on, unless a linear replaces them.
        sinks: the OUTs that lack the linears of the unit.
        passing: the OUTs that tensors are passed on to.
        recorded: the statistics for the journals.
        routing: the routing drift of the unit's mixtures.
    """

    unit: Unit
    pairs: Mapping[LinearPair, int]
    changed: Callable[[LinearPair], bool]
    safety: Statistics
    task: Statistics
    old: Read
    new: Read
    keys: Sequence[str]
    sinks: Sequence[Sink]
    passing: Sequence[Sink]
    recorded: Mapping[str, Any]
    routing: Sequence[RoutingRecord]

    def __call__(self) -> None:
        """Merge, write and record.

        Raises:
            CalibrationError: no sample reaches a linear, and the options require that.
            NumericalError: a curvature cannot be factored, or a result does not fit NEW's dtype.
        """
        linears = {pair.new.key for pair in self.pairs}
        for sink in self.passing:  # first, because they lie before most linears in the file
            sink.pass_on([key for key in self.keys if key not in linears], self.old, self.new)
        for pair, depth in self.pairs.items() if self.sinks else ():
            if not (counting := [sink for sink in self.sinks if sink.plan.counts(pair.new)]):
                continue
            known = [LinearStatistics("safety", self.safety, pair.old), LinearStatistics("task", self.task, pair.new)]
            before, tensor = pair.before(self.old(pair.old.key)), self.new(pair.new.key)
            linear = MergedLinear(pair, tensor, Moved(before, pair.new.matrix(tensor)))
            if self.changed(pair):
                _merge_linear(linear, depth, known, counting)
            else:
                for sink in counting:
                    sink.put(linear)
            if pair.new.part is None and pair.new.key in self.keys:
                for sink in counting:  # at once, if the tensor stays as it is
                    sink.pass_on([pair.new.key], self.old, self.new)
        for sink in self.passing:
            sink.pass_on(self.keys, self.old, self.new)
        for sink in self.sinks:
            sink.commit(self.unit, self.recorded, self.routing)

    def held(self, others: Iterable[LinearPair]) -> "UnitMerge":
        """The same, with the tensors that it needs; ``others``: the linears of the unit that other ranks own."""
        merged = {pair: self.changed(pair) for pair in self.pairs}
        theirs = [*others]
        keys = {pair.new.key for pair in merged}.union(self.keys) - {pair.new.key for pair in theirs}
        of_old = {pair.old.key for pair in merged}
        for sink in self.passing:
            of_old.update(sink.plan.from_old[key] for key in keys if key in sink.plan.from_old)
        old: dict[str, Tensor] = {key: self.old(key) for key in of_old}
        new: dict[str, Tensor] = {key: self.new(key) for key in keys}
        return replace(self, changed=merged.__getitem__, old=old.__getitem__, new=new.__getitem__)


def _merge_linear(linear: MergedLinear, depth: int, known: Sequence[LinearStatistics], sinks: Sequence[Sink]) -> None:
    """Merge a weight that tuning changed, and pass it to every OUT.

    Args:
        linear: the weight without a merge.
        depth: the depth of its unit.
        known: the safety and the task statistics of its inputs.

    Raises:
        CalibrationError: no sample reaches it, and the options require that.
        NumericalError: the result does not fit NEW's dtype.
    """
    pair, unit = linear.pair, linear.pair.new.unit
    merging: list[tuple[Sink, dict[str, Any]]] = []
    for sink in sinks:
        config = sink.plan.config
        used = [each for each in known if each.purpose in config.sets]
        counts = {each.purpose: each.tokens for each in used}
        tokens = {f"{purpose}_tokens": count for purpose, count in counts.items()}
        pooled = pooled_field(pair.new, counts, config.min_expert_tokens)
        if not sink.plan.includes(pair):
            sink.put(replace(linear, outcome="old" if pair.new.key in sink.plan.from_old else "excluded"))
        elif unreached := [each.purpose for each in used if not each.reached]:
            if config.uncalibrated == "error":
                sets = " and the ".join(unreached)
                raise CalibrationError(
                    f"{pair.new.name} changed and no token of the {sets} set reaches it{sink.unreached}"
                )
            restored = config.uncalibrated == "old"
            sink.put(replace(linear, outcome="uncalibrated", restored=restored, details=tokens))
        else:
            merging.append((sink, {"block": depth, "blocks": unit.blocks, **tokens, **pooled}))
    if not merging:
        return
    configs = [sink.plan.config for sink, _ in merging]
    safety, task = (each.curvature(configs) for each in known)
    old, new, name = linear.moved.old, linear.new, pair.new.name
    with one_thread() if all(config.diagonal_only for config in configs) else nullcontext():
        results = adapt(old, new, safety, task, block=depth, blocks=unit.blocks, configs=configs, name=name)
        for (sink, details), adapted in zip(merging, results, strict=True):
            if not all_finite(adapted.weight):
                raise NumericalError(
                    f"the result for {name} does not fit {adapted.weight.dtype}: save NEW in float32 or bfloat16."
                )
            sink.put(replace(linear, outcome="adapted", adapted=adapted, details=details))

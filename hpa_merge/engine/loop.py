"""The loop: both models in lockstep, unit by unit, from two checkpoints to a third, or to several.

Unit ``l`` of OLD runs the safety samples, and unit ``l`` of NEW the task samples. Each linear gets two curvatures from
the inputs that it reads. The unit's weights are merged, written and freed before the next unit is loaded.

Several ranks go through the same units. Each runs its samples, and merges the linears that it owns while the samples
run through the next units.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, final

from hpa_merge.engine.behind import Behind
from hpa_merge.engine.linear import Sink
from hpa_merge.engine.observations import exchange
from hpa_merge.engine.owners import Input, Work, owners_of
from hpa_merge.engine.plan import LinearPair
from hpa_merge.engine.routing import RoutingDrift
from hpa_merge.engine.setup import Prepared
from hpa_merge.engine.sources import CalibrationSet, Replay, StatisticsSource, computed
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.engine.statistics_file import hessian_files, write_statistics
from hpa_merge.engine.unit_merge import UnitMerge
from hpa_merge.engine.weights import Read
from hpa_merge.methods.applying import differ
from hpa_merge.outline import LinearTensor, Unit, inside
from hpa_merge.progress import Progress

__all__ = ["run_loop"]


def run_loop(
    prepared: Prepared,
    make_sinks: Callable[[Prepared], Sequence[Sink]],
    on_progress: Progress,
    stats: Path | None = None,
) -> list[float | None]:
    """Merge every unit for each OUT that lacks it, and copy the rest.

    Only the samples show whether a model comes back to a unit after others have run. If it does, the merge starts again
    and merges these units at the end.

    Args:
        make_sinks: makes the OUTs, and gives up those that it made before.
        stats: the file to write the statistics to, if any.

    Returns:
        ``‖OUT − FIRST‖_F`` of each OUT; None if the first model of the history was not given.

    Raises:
        ConfigError: the merge does not stay within the limits of memory if it keeps the statistics of these units.
    """
    while True:
        try:
            return _Loop(prepared, make_sinks(prepared), on_progress, stats).run()
        except _Returned as again:
            prepared = prepared.returning_to(again.units)


class _Returned(Exception):
    """A sample reached a unit again after others had run, when the unit was already merged.

    Attributes:
        units: the units that have been merged since the first visit, with this one.
    """

    def __init__(self, units: Iterable[Unit]) -> None:
        super().__init__("a sample reached a unit after it was merged")
        self.units = frozenset(units)


@final
class _Loop:
    """The loop and its state."""

    def __init__(self, prepared: Prepared, sinks: Sequence[Sink], on_progress: Progress, stats: Path | None) -> None:
        self._prepared = prepared
        self._group = prepared.group
        self._plan = prepared.plan
        self._sinks = sinks
        self._on_progress = on_progress
        self._stats = stats
        self._steps = prepared.steps
        self._text_has_run = False
        self._after_text: dict[Unit, bool] = {}  # of the units that samples have visited
        self._merged: list[Unit] = []
        self._linear_keys = {pair.new.key for pair in self._plan.pairs}
        self._recorded: list[ModelStatistics] = []  # computed for the statistics file
        self._routing = RoutingDrift({name: record for sink in sinks for name, record in sink.routing.items()})
        units: Sequence[Unit] = self._plan.new.units
        linears: Mapping[Unit, Sequence[LinearPair]] = self._plan.linears
        self._loads = [0.0] * self._group.size
        self._replayed: dict[Unit, dict[LinearPair, int]] = {}  # the owners, if no sample runs
        if not any(each.runs for each in prepared.sets):
            self._replayed = {unit: self._replaying(pairs) for unit, pairs in linears.items()}
            linears = {unit: self._own(owners) for unit, owners in self._replayed.items()}
        self._overlaps = self._group.size > 1 and all(each.runs for each in prepared.sets) and not prepared.keeping
        self._behind = Behind(prepared.device, self._group.size if self._overlaps else 0)
        self._sources = (
            self._source(prepared.sets[0], {unit: [pair.old for pair in linears.get(unit, ())] for unit in units}),
            self._source(prepared.sets[1], {unit: [pair.new for pair in linears.get(unit, ())] for unit in units}),
        )

    def run(self) -> list[float | None]:
        """As :func:`run_loop`, with sinks that lack some units.

        A resumed run does not merge units again that the journals name. Its samples still run through them, but do not
        run at all if no unit is left to be merged.

        Raises:
            _Returned: a sample comes back to a unit that is not expected again.
        """
        pending = {unit: pairs for unit, pairs in self._plan.linears.items() if self._has_to_do(unit)}
        for unit in (None, *(unit for unit in self._plan.new.units if unit.block is None)):
            for sink in self._sinks:  # embeddings and the like: written while the first block is computed
                sink.pass_on(self._passed_on(unit))
        with ExitStack() as merging:
            merging.callback(self._behind.close)
            for source in self._sources:
                merging.enter_context(source.merging(pending, self._prepared.memory.prefetch if pending else 0))
            self._run_samples(pending)
            for unit, pairs in pending.items():  # no sample reaches these, or they wait for their last visit
                self._merge_unit(unit, pairs, ())
            self._behind.finish()
            if self._sinks:
                self._prepared.sets[1].run.weights.check_rest()
        if self._stats is not None and self._recorded:
            for sink in self._sinks:
                sink.flush()  # if the file cannot be written, a resumed run finds what has been computed
            recorded = {each.purpose: each for each in self._recorded}
            statistics = [each.known or recorded[each.purpose] for each in self._prepared.sets]
            if self._group.is_first:
                write_statistics(self._stats, statistics, self._routing.records.values(), self._prepared.beginning)
        return self._finish()

    def _source(self, calibration: CalibrationSet, linears: Mapping[Unit, Sequence[LinearTensor]]) -> StatisticsSource:
        """The source of the statistics of a set; ``linears``: all of its model's, for every unit."""
        if not calibration.runs:
            known = calibration.known or ModelStatistics(calibration.key)
            whole_units = self._stats is None and any(each.runs for each in self._prepared.sets)
            return Replay(calibration.run.weights, known, linears, whole_units=whole_units)
        run = computed(calibration.run)
        run.offload(self._prepared.memory.offload)
        if self._stats is not None:
            keep, device = self._prepared.keeping, self._prepared.device
            files = hessian_files(self._stats, calibration.key, device) if keep else None
            self._recorded.append(ModelStatistics(calibration.key, hessians=files))
            for sink in self._sinks:
                sink.restore(self._recorded[-1])
            run.record_into(self._recorded[-1], linears)
        return run

    def _run_samples(self, pending: dict[Unit, tuple[LinearPair, ...]]) -> None:
        """Merge the units in the order in which the samples visit them, and remove each from ``pending``."""
        done: set[Unit] = set()
        try:
            if pending:
                for source in self._sources:
                    source.start()
            while pending and (unit := self._next_unit()) is not None:
                passed = [pair for pair in self._plan.passed.get(unit, ()) if pair.new.last in pending]
                self._check_return({unit, *(pair.new.last for pair in self._plan.passed.get(unit, ()))})
                self._on_progress(unit.name, len(done), self._steps)
                done.add(unit)
                self._after_text.setdefault(unit, self._text_has_run)
                if unit in pending and unit in self._prepared.returning:
                    self._gather(unit, [*pending[unit], *passed])
                else:
                    if unit in pending:
                        self._merged.append(unit)
                    self._merge_unit(unit, pending.pop(unit, ()), passed)
                self._text_has_run |= unit.text
        finally:
            for source in self._sources:
                source.close()

    def _finish(self) -> list[float | None]:
        """Copy the tensors that belong to no unit, and measure how far the OUTs lie from the first model."""
        lineage, last = self._prepared.inputs.lineage, self._steps - 2
        self._on_progress("copying the rest", last, self._steps)
        for sink in self._sinks:
            sink.copy_rest(self._prepared.sets[0].run.weights)
        for sink in self._sinks:
            sink.flush()
        if lineage.first is not None:
            self._on_progress("comparing with the first model", last, self._steps)
        pieces = [(sink.piece, sink.plan.counts) for sink in self._sinks]
        distances: list[float | None] = [None for _ in pieces]
        if self._group.is_first:
            distances = lineage.distances(self._prepared.inputs.new, self._plan.new, pieces)
        return distances

    def _has_to_do(self, unit: Unit) -> bool:
        return any(sink.lacks(unit) for sink in self._sinks) or any(source.lacks(unit) for source in self._sources)

    def _next_unit(self) -> Unit | None:
        waiting = [unit for source in self._sources if (unit := source.next_unit) is not None]
        return min(waiting, key=lambda unit: unit.index, default=None)

    def _passed_on(self, unit: Unit | None, merged: Sequence[LinearPair] = ()) -> list[str]:
        """The tensors of a unit that are passed on; its linears only if they are among ``merged``."""
        waiting = self._linear_keys - {pair.new.key for pair in merged}
        return [key for key in self._plan.new.keys_of(unit) if key not in waiting]

    def _check_return(self, units: set[Unit]) -> None:
        """Raise _Returned if one of ``units`` has been merged in this run."""
        for place, unit in enumerate(self._merged):
            if unit in units:
                raise _Returned(self._merged[place:])

    def _depth(self, unit: Unit) -> int:
        """The depth: the index in the stack; outside the stacks, 0 before the text stack and ``L`` after it."""
        if unit.block is not None:
            return unit.block
        text_ends = max((unit.index for unit in self._plan.new.units if unit.text), default=-1)
        return unit.blocks if self._after_text.get(unit, unit.index > text_ends) else 0

    def _place(self, pair: LinearPair) -> int:
        """Where NEW's weight lies in its shard: what is written in this order need not be read back to be hashed."""
        return self._prepared.inputs.new.tensors[pair.new.key].start

    def _wanted(self, pairs: Iterable[LinearPair]) -> list[LinearPair]:
        """The linears that an unfinished OUT may adapt."""
        return [p for p in pairs if any(s.plan.includes(p) and s.lacks(p.new.last) for s in self._sinks)]

    def _load(self, unit: Unit) -> tuple[Read, Read, Callable[[LinearPair], bool]]:
        """Load one unit of both models; returns OLD's tensors, NEW's, and whether a linear changed."""
        old, new = (source.load(unit) for source in self._sources)

        @cache
        def changed(pair: LinearPair) -> bool:
            return differ(pair.before(old(pair.old.key)), pair.new.matrix(new(pair.new.key)))

        return old, new, changed

    def _gather(self, unit: Unit, pairs: Iterable[LinearPair]) -> None:
        """Load one unit of both models, run it and free it; ``pairs`` are merged later."""
        _, _, changed = self._load(unit)
        wanted = [pair for pair in self._wanted(pairs) if changed(pair)]
        self._sources[0].gather(unit, [pair.old for pair in wanted])
        self._sources[1].gather(unit, [pair.new for pair in wanted])
        for source in self._sources:
            source.free(unit)

    def _merge_unit(self, unit: Unit, pairs: Sequence[LinearPair], passed: Sequence[LinearPair]) -> None:
        """Load one unit of both models, run it, merge, write and record its linears, and free it.

        Which linears changed is computed lazily: before the samples run if that decides which are watched, otherwise
        one by one, so that only one pair of weights has to be in memory.

        Args:
            passed: linears that it uses and that are merged with a later unit.
        """
        sinks = [sink for sink in self._sinks if pairs and sink.lacks(unit)]
        old, new, changed = self._load(unit)
        wanted, later = self._wanted(pairs), self._wanted(passed)
        self._sources[0].run(
            unit, (pair.old for pair in wanted if changed(pair)), (pair.old for pair in later if changed(pair))
        )
        self._sources[1].run(
            unit, (pair.new for pair in wanted if changed(pair)), (pair.new for pair in later if changed(pair))
        )
        owners = self._owners(unit)
        named = [{p.old.name: o for p, o in owners.items()}, {p.new.name: o for p, o in owners.items()}]
        if self._group.size > 1:
            travels = [source.travel(each) for source, each in zip(self._sources, named, strict=True)]
            exchange(self._group, travels, self._prepared.device)
        safety, task = (source.settle(unit, each) for source, each in zip(self._sources, named, strict=True))
        chosen = [source.chosen for source in self._sources]
        routing = self._routing.compare(self._mixtures_of(unit), chosen[0], chosen[1], self._group)
        if not any(each.runs for each in self._prepared.sets):
            pairs = sorted(pairs, key=self._place)
        own = {pair: self._depth(pair.new.unit) for pair in pairs if owners[pair] == self._group.rank}
        recorded = self._packed(pairs)
        keys = self._passed_on(unit, pairs)
        work = UnitMerge(unit, own, changed, safety, task, old, new, keys, sinks, self._sinks, recorded, routing)
        self._behind.do(work.held(pair for pair in pairs if pair not in own) if self._overlaps else work)
        for source in self._sources:
            source.free(unit)

    def _owners(self, unit: Unit) -> dict[LinearPair, int]:
        """The rank that owns each linear that is merged with ``unit``, which has run."""
        pairs = self._plan.linears.get(unit, ())
        if self._group.size == 1:
            return dict.fromkeys(pairs, 0)
        if unit in self._replayed:
            return self._replayed[unit]
        old = self._sources[0].inputs_of([pair.old for pair in pairs])
        new = self._sources[1].inputs_of([pair.new for pair in pairs])
        return self._assigned(pairs, [(old[pair.old.name], new[pair.new.name]) for pair in pairs])

    def _assigned(self, pairs: Sequence[LinearPair], inputs: Sequence[tuple[Input, Input]]) -> dict[LinearPair, int]:
        works = [
            Work(each, self._prepared.values_of(pair), self._prepared.parts_of(pair))
            for pair, each in zip(pairs, inputs, strict=True)
        ]
        return dict(zip(pairs, owners_of(works, self._loads), strict=True))

    def _replaying(self, pairs: Sequence[LinearPair]) -> dict[LinearPair, int]:
        """The owners of the linears of a unit if no sample runs: of a tensor, one rank owns and reads all."""
        return self._assigned(pairs, [(Input(pair.old.key, 0.0), Input(pair.new.key, 0.0)) for pair in pairs])

    def _own(self, owners: Mapping[LinearPair, int]) -> list[LinearPair]:
        """The linears that this rank owns."""
        return [pair for pair, owner in owners.items() if owner == self._group.rank]

    def _mixtures_of(self, unit: Unit) -> dict[str, int]:
        """How many experts each mixture of the unit has."""
        routers = self._plan.new.routers.values()
        return {router.mixture: router.experts for router in routers if inside(router.mixture, unit.name)}

    def _packed(self, pairs: Sequence[LinearPair]) -> dict[str, Any]:
        """The computed statistics of ``pairs``, by purpose, in the journals' form."""
        linears = {"safety": [pair.old for pair in pairs], "task": [pair.new for pair in pairs]}
        return {each.purpose: each.packed(linears[each.purpose]) for each in self._recorded}

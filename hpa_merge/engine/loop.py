"""The one loop: both models in lockstep, unit by unit, from two checkpoints to a third, or to several.

Unit ``l`` of OLD runs the safety samples, unit ``l`` of NEW the task samples; what their linears read becomes two
curvatures each; the unit's weights are fused, written and freed before the next unit is loaded.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, final

from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.engine.calibration_run import Side
from hpa_merge.engine.drift import Moved
from hpa_merge.engine.plan import LinearPair
from hpa_merge.engine.setup import Progress, Ready
from hpa_merge.engine.sources import Recording, Replay, Walk
from hpa_merge.engine.statistics import Half, Statistics, write_statistics
from hpa_merge.methods.applying import Adapted, Curved, adapt, differ
from hpa_merge.model import LinearTensor, Unit
from hpa_merge.report.records import Outcome

__all__ = ["Loop", "Making"]


class Making(Protocol):
    """What the loop asks of an OUT: :class:`~hpa_merge.engine.output.Target`, which says more of each, writes it."""

    @property
    def config(self) -> HPAConfig:
        """Its options."""

    def restore(self, half: Half) -> None:
        """Give a half that is to be computed what an interrupted run has computed of it."""

    def lacks(self, unit: Unit) -> bool:
        """Whether the linears of ``unit`` are not done yet."""

    def includes(self, pair: LinearPair) -> bool:
        """Whether the options leave the linear to be adapted."""

    def put(self, unit: Unit, pair: LinearPair, tensor: Tensor, adapted: Adapted, moved: Moved, **details: Any) -> None:
        """Take an adapted weight."""

    def leave(
        self,
        unit: Unit,
        pair: LinearPair,
        tensor: Tensor,
        old: Tensor,
        moved: Moved,
        unreached: Sequence[str],
        **details: Any,
    ) -> None:
        """Deal with a changed weight that no token of the sets ``unreached`` reaches."""

    def leave_out(self, unit: Unit, pair: LinearPair, new: Tensor, moved: Moved) -> None:
        """Deal with a changed weight that the options take from NEW or from OLD."""

    def note(self, unit: Unit, pair: LinearPair, weight: Tensor, outcome: Outcome, **details: Any) -> None:
        """Deal with a weight that did not change."""

    def pass_on(
        self,
        keys: Iterable[str],
        old: Callable[[str], Tensor] | None = None,
        new: Callable[[str], Tensor] | None = None,
    ) -> None:
        """Take from NEW what of these tensors is not done, and from OLD what the options want of it."""

    def commit(self, unit: Unit, statistics: Mapping[str, Any]) -> None:
        """The linears of ``unit`` are done."""

    def copy_rest(self, old: Side) -> None:
        """Take everything else from NEW, or from OLD as the options want it."""

    def flush(self) -> None:
        """Wait until everything is done."""

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        """Elements of a tensor that is done: flat, on the CPU."""


@final
class Loop:
    """The loop and its state."""

    def __init__(self, ready: Ready, stats: Path | None, targets: Sequence[Making], on_progress: Progress) -> None:
        self._ready = ready
        self._plan = ready.plan
        self._sides = ready.sides
        self._stats = stats
        self._of_sides = ready.halves
        self._halves: Sequence[Half] = () if stats is None else ready.halves
        self._targets = targets
        self._on_progress = on_progress
        self._text_has_run = False
        self._text_ends = max((unit.index for unit in self._plan.new.units if unit.text), default=-1)
        for half in self._halves:
            for target in targets:
                target.restore(half)
        for side in self._sides:
            side.spill(ready.memory.spill)
        self._walks = self._begin_walks()
        self._ahead = ready.memory.ahead
        self._linears = {pair.new.key for pairs in self._plan.linears.values() for pair in pairs}

    def run(self) -> list[float | None]:
        """Go through every unit, for each OUT that lacks it, and copy the rest.

        A resumed run does not merge again what the journals have: its samples run through those units as they are,
        and do not run at all where nothing is left to be calibrated.

        Returns:
            Of each OUT ``‖OUT − FIRST‖_F``; None where the first model of the history was not given.
        """
        pending = {unit: pairs for unit, pairs in self._plan.linears.items() if self._has_to_do(unit)}
        steps = len(self._plan.new.units) + 1
        for unit in (None, *(unit for unit in self._plan.new.units if unit.block is None)):
            self._pass_on(unit)  # embeddings and the like: written while the first block is computed
        with ExitStack() as reading:
            for walk in self._walks:
                reading.enter_context(walk.reading_ahead(pending, self._ahead if pending else 0))
            self._run_samples(pending, steps)
            for unit, pairs in pending.items():
                self._do_unit(unit, pairs, visited=False, last=False)
            if self._targets:
                self._sides[1].check_rest()
        if self._stats is not None and any(not half.read for half in self._halves):
            for target in self._targets:
                target.flush()  # where the file cannot be written, what has been computed is to be found again
            write_statistics(self._stats, self._halves)
        self._on_progress("copying the rest", steps - 1, steps)
        for target in self._targets:
            target.copy_rest(self._sides[0])
        for target in self._targets:
            target.flush()
        if self._ready.lineage.first is not None:
            self._on_progress("comparing with the first model", steps - 1, steps)
        distances = self._ready.lineage.distances(
            self._ready.new, self._plan.new, [target.piece for target in self._targets]
        )
        self._on_progress("done", steps, steps)
        return distances

    def _run_samples(self, pending: dict[Unit, tuple[LinearPair, ...]], steps: int) -> None:
        """Go through the units as the samples do, as long as any is ``pending``; those that are done are taken out."""
        done: set[Unit] = set()
        try:
            if pending:
                for walk in self._walks:
                    walk.start()
            while pending and (unit := self._next_unit()) is not None:
                if unit in self._plan.linears and unit in done:
                    raise RuntimeError(f"a sample came to {unit.name} after it was merged")
                self._on_progress(unit.name, len(done), steps)
                done.add(unit)
                pairs = pending.pop(unit, ())
                self._do_unit(unit, pairs, visited=True, last=not pending)
        finally:
            for walk in self._walks:
                walk.close()

    def _pass_on(
        self,
        unit: Unit | None,
        merged: Sequence[LinearPair] = (),
        old: Callable[[str], Tensor] | None = None,
        new: Callable[[str], Tensor] | None = None,
    ) -> None:
        """Let what of a unit is not adapted be taken from NEW; of its linears those that are ``merged`` by now.

        What is to be OLD's waits until ``old`` gives its tensors; ``new`` gives NEW's while the unit is loaded.
        """
        waiting = self._linears - {pair.new.key for pair in merged}
        keys = [key for key in self._sides[1].keys_of(unit) if key not in waiting]
        for target in self._targets:
            target.pass_on(keys, old, new)

    def _begin_walks(self) -> tuple[Walk, Walk]:
        """How each side goes: a set that no method looks at is one of which nothing is known and nothing runs."""
        of_old = {unit: tuple(pair.old for pair in pairs) for unit, pairs in self._plan.linears.items()}
        of_new = {unit: tuple(pair.new for pair in pairs) for unit, pairs in self._plan.linears.items()}
        units = self._plan.new.units

        def walk(side: Side, half: Half, linears: Mapping[Unit, tuple[LinearTensor, ...]]) -> Walk:
            if half.read or not side.inputs:
                return Replay(side, half, linears, units, hold=not self._halves and any(s.inputs for s in self._sides))
            return Recording(side, half, linears) if self._halves else side

        return walk(self._sides[0], self._of_sides[0], of_old), walk(self._sides[1], self._of_sides[1], of_new)

    def _has_to_do(self, unit: Unit) -> bool:
        return any(target.lacks(unit) for target in self._targets) or any(walk.wants(unit) for walk in self._walks)

    def _next_unit(self) -> Unit | None:
        waiting = [unit for walk in self._walks if (unit := walk.next_unit) is not None]
        return min(waiting, key=lambda unit: unit.index, default=None)

    def _do_unit(self, unit: Unit, pairs: Sequence[LinearPair], *, visited: bool, last: bool) -> None:
        """Load one unit of both models, let the samples through, merge its linears, note it, and free it.

        Which linears changed is found out when somebody asks: before the samples run where that says which of them are
        watched, else one by one, so that no more than one pair of weights need be in memory.
        """
        targets = [target for target in self._targets if pairs and target.lacks(unit)]
        old, new = (walk.load(unit) for walk in self._walks)
        known: dict[LinearPair, bool] = {}

        def changed(pair: LinearPair) -> bool:
            if pair not in known:
                known[pair] = differ(*_matrices(pair, old, new))
            return known[pair]

        wanted = [pair for pair in pairs if visited and any(target.includes(pair) for target in targets)]
        safety = self._walks[0].run(unit, (pair.old for pair in wanted if changed(pair)), last=last)
        task = self._walks[1].run(unit, (pair.new for pair in wanted if changed(pair)), last=last)
        self._text_has_run |= unit.text and visited
        if targets:
            for pair in pairs:
                weights = _matrices(pair, old, new)
                moved = Moved(*weights)
                if known.get(pair) or (pair not in known and differ(*weights)):
                    depth = self._depth(unit, visited)
                    self._do_changed(unit, depth, pair, new(pair.new.key), *weights, moved, safety, task, targets)
                else:
                    for target in targets:
                        target.note(unit, pair, weights[1], "unchanged", **moved.to_new(changed=False))
        self._pass_on(unit, pairs, old, new)
        for target in targets:
            target.commit(unit, self._packed(pairs))
        for walk in self._walks:
            walk.free(unit)

    def _depth(self, unit: Unit, visited: bool) -> int:
        """The depth of a unit: outside the stacks 0 or ``L`` as it runs before the text stack or after it.

        Where no sample comes to it, as it stands in the order in which units are merged.
        """
        if unit.block is not None:
            return unit.block
        after = self._text_has_run if visited else unit.index > self._text_ends
        return unit.blocks if after else 0

    def _do_changed(
        self,
        unit: Unit,
        depth: int,
        pair: LinearPair,
        tensor: Tensor,
        old: Tensor,
        new: Tensor,
        moved: Moved,
        safety: Statistics,
        task: Statistics,
        targets: Sequence[Making],
    ) -> None:
        """Adapt one changed weight for every OUT that includes it, where samples of each set it looks at reach it.

        Args:
            depth: that of the unit.
            tensor: NEW's, in which the weight lies on disk.
            old, new: the weight, ``[r, c]``.
            moved: what knows how far OUT's lies from ``old``.
        """
        including = [target for target in targets if target.includes(pair)]
        for target in targets:
            if target not in including:
                target.leave_out(unit, pair, new, moved)
        known = {"safety": (safety, pair.old), "task": (task, pair.new)}
        reached = {purpose for purpose, (statistics, linear) in known.items() if statistics.reached(linear)}
        adapting = [target for target in including if reached.issuperset(target.config.sets)]

        def tokens(target: Making) -> dict[str, int]:
            return {f"{purpose}_tokens": known[purpose][0].tokens(known[purpose][1]) for purpose in target.config.sets}

        def curved(purpose: str) -> Curved:
            wanting = [target.config for target in adapting if purpose in target.config.sets]
            statistics, linear = known[purpose]
            if any(config.whole_inverse for config in wanting):
                return statistics.inverse(linear)
            return statistics.inverse_diagonal(linear) if wanting else None

        for target in including:
            if target not in adapting:
                unreached = [purpose for purpose in target.config.sets if purpose not in reached]
                target.leave(unit, pair, tensor, old, moved, unreached, **tokens(target))
        if adapting:
            results = adapt(
                old,
                new,
                curved("safety"),
                curved("task"),
                block=depth,
                blocks=unit.blocks,
                configs=[target.config for target in adapting],
                name=pair.new.name,
            )
            for target, adapted in zip(adapting, results, strict=True):
                target.put(unit, pair, tensor, adapted, moved, block=depth, blocks=unit.blocks, **tokens(target))

    def _packed(self, pairs: Sequence[LinearPair]) -> dict[str, Any]:
        """What the journals say of the statistics that were computed for ``pairs``, by the purpose of the half."""
        linears = {"safety": [pair.old for pair in pairs], "task": [pair.new for pair in pairs]}
        return {half.purpose: half.packed(linears[half.purpose]) for half in self._halves if not half.read}


def _matrices(pair: LinearPair, old: Callable[[str], Tensor], new: Callable[[str], Tensor]) -> tuple[Tensor, Tensor]:
    """Both weights as ``[r, c]``."""
    return pair.old.matrix(old(pair.old.key)), pair.new.matrix(new(pair.new.key))

"""Where the statistics of a calibration set come from: a run of its samples, or an earlier run.

The loop treats both alike, and the result does not depend on which it is.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, final

from torch import Tensor

from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.engine.routing import Chosen
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.statistics import ModelStatistics, Statistics, StatisticsKey
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.model import LinearTensor, Unit
from hpa_merge.report.records import CalibrationRecord, PartRecord

__all__ = ["CalibrationSet", "Replay", "StatisticsSource"]


class StatisticsSource(Protocol):
    """What the loop needs from a model and its calibration set."""

    def merging(self, units: Collection[Unit], budget: int) -> AbstractContextManager[None]:
        """Within the block, ``units`` are merged: prefetch what will be read, up to ``budget`` bytes."""

    def start(self) -> None:
        """Let the samples run to their first unit."""

    @property
    def next_unit(self) -> Unit | None:
        """The earliest unit that a sample waits at."""

    def lacks(self, unit: Unit) -> bool:
        """Whether statistics of ``unit`` are not recorded yet, even if nothing in it is left to merge."""

    def load(self, unit: Unit) -> Read:
        """Load ``unit``, and return a function that gives its tensors.

        Raises:
            NumericalError: a tensor holds NaN or infinity.
        """

    def run(self, unit: Unit, linears: Iterable[LinearTensor], later: Iterable[LinearTensor] = ()) -> Statistics:
        """Run the samples through ``unit``, and return the statistics of ``linears``, which is consumed lazily.

        Args:
            later: linears that ``unit`` uses and that are merged with a later unit; consumed lazily too.
        """

    def gather(self, unit: Unit, later: Iterable[LinearTensor]) -> None:
        """Run the samples through ``unit``, which they will visit again before ``later``, its linears, are merged."""

    @property
    def chosen(self) -> Chosen:
        """Which experts the samples were sent to in the unit that has run."""

    def free(self, unit: Unit) -> None:
        """Free the memory of ``unit``."""

    def close(self) -> None:
        """Stop the samples that are still running, and take the hooks off the model."""


@final
@dataclass(frozen=True)
class CalibrationSet:
    """The safety set with OLD, or the task set with NEW.

    Attributes:
        given: the samples and where they come from; empty if no method needs the set.
        run: the samples and the model, not started yet.
        key: what the statistics of the set depend on.
        known: the statistics, if they come from a file.
    """

    given: GivenSet
    run: CalibrationRun
    key: StatisticsKey
    known: ModelStatistics | None

    @property
    def purpose(self) -> str:
        """``safety`` or ``task``."""
        return self.key.purpose

    @property
    def description(self) -> CalibrationRecord:
        """What was used of the set, and of each of several sources."""
        whole, parts = self.run.tally.record(self.given.name), self.given.parts
        if len(parts) < 2:
            return whole
        counts = ((source.name, *self.run.counted(samples)) for source, samples in parts)
        return replace(whole, parts=tuple(PartRecord(file, samples, tokens) for file, samples, tokens in counts))

    @property
    def runs(self) -> bool:
        """Whether the samples have to run."""
        return self.known is None and bool(self.run.inputs)


@final
class Replay:
    """The source with known statistics: no sample runs, and tensors are read lazily."""

    def __init__(
        self,
        weights: Weights,
        statistics: ModelStatistics,
        linears: Mapping[Unit, Sequence[LinearTensor]],
        *,
        whole_units: bool,
    ) -> None:
        """Start with no unit loaded.

        Args:
            linears: all linears of the model, for every unit.
            whole_units: hold every tensor of a unit until the unit is freed, because a tensor may be read before and
                after the samples of the other model run; otherwise only the last tensor is held.
        """
        by_name = {unit.name: unit for unit in linears}
        self._weights = weights
        self._statistics = statistics
        self._linears = linears
        self._visits = [by_name[name] for name in reversed(statistics.visits)]
        self._started = False
        self._whole_units = whole_units
        self._held: dict[str, Tensor] = {}

    @contextmanager
    def merging(self, units: Collection[Unit], budget: int) -> Iterator[None]:
        visited = (unit for unit in reversed(self._visits) if unit in units)
        order = dict.fromkeys([*visited, *units])
        keys = dict.fromkeys(linear.key for unit in order for linear in self._linears.get(unit, ()))
        with self._weights.prefetching(keys, budget):
            yield

    @property
    def next_unit(self) -> Unit | None:
        return self._visits[-1] if self._started and self._visits else None

    def start(self) -> None:
        self._started = True

    def lacks(self, unit: Unit) -> bool:
        return False

    def load(self, unit: Unit) -> Read:
        self._held.clear()
        return self._read

    def run(self, unit: Unit, linears: Iterable[LinearTensor], later: Iterable[LinearTensor] = ()) -> Statistics:
        if self.next_unit == unit:
            self._visits.pop()
        return self._statistics

    def gather(self, unit: Unit, later: Iterable[LinearTensor]) -> None:
        self.run(unit, ())

    @property
    def chosen(self) -> Chosen:
        return {}, {}

    def free(self, unit: Unit) -> None:
        self._held.clear()

    def close(self) -> None:
        self._started = False

    def _read(self, key: str) -> Tensor:
        if key not in self._held:
            if not self._whole_units:
                self._held.clear()
            self._held[key] = self._weights.read(key).to(self._weights.device)
        return self._held[key]

"""Where the statistics of a calibration set come from: a run of its samples, or an earlier run.

The loop treats both alike, and the result does not depend on which it is.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, final

from torch import Tensor

from hpa_merge.engine.observations import Travel
from hpa_merge.engine.owners import Input
from hpa_merge.engine.recorded_run import RecordedRun
from hpa_merge.engine.routing import Chosen
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.statistics import ModelStatistics, Statistics, StatisticsKey
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.outline import LinearTensor, Unit
from hpa_merge.report.records import CalibrationRecord, PartRecord

if TYPE_CHECKING:  # with transformers
    from hpa_merge.engine.calibration_run import CalibrationRun

__all__ = ["CalibrationSet", "Replay", "StatisticsSource", "computed"]


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

    def run(self, unit: Unit, linears: Iterable[LinearTensor], later: Iterable[LinearTensor] = ()) -> None:
        """Run the samples through ``unit``.

        Args:
            linears: those whose statistics are wanted; consumed lazily.
            later: linears that ``unit`` uses and that are merged with a later unit; consumed lazily too.
        """

    def inputs_of(self, linears: Iterable[LinearTensor]) -> Mapping[str, Input]:
        """What ``linears`` have read on all ranks in the unit that has run, by name, to choose their owners."""

    def travel(self, owners: Mapping[str, int]) -> Travel:
        """Bring what the samples have read on several ranks, in the unit that has run, to the ``owners``, by name."""

    def settle(self, unit: Unit, owners: Mapping[str, int]) -> Statistics:
        """The statistics of the linears of ``unit``, which has run, that this rank owns; ``owners``: by name."""

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
        run: the samples and the model, not started yet; or what is known of both if no sample runs.
        key: what the statistics of the set depend on.
        known: the statistics, if they come from a file.
    """

    given: GivenSet
    run: "CalibrationRun | RecordedRun"
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
        return self.known is None and bool(self.run.used)


def computed(run: "CalibrationRun | RecordedRun") -> "CalibrationRun":
    """A run whose samples run."""
    assert not isinstance(run, RecordedRun)
    return run


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
            linears: the linears of the model that this rank reads, for every unit.
            whole_units: hold every tensor of a unit until the unit is freed, because a tensor may be read before and
                after the samples of the other model run, on every rank; otherwise only the last tensor is held.
        """
        by_name = {unit.name: unit for unit in linears}
        self._weights = weights
        self._statistics = statistics
        self._linears = linears
        self._visits = [by_name[name] for name in reversed(statistics.visits)]
        self._started = False
        self._whole_units = whole_units
        self._held: dict[str, Tensor] = {}
        self._joint: dict[str, None] = {}  # of the loaded unit, what all ranks have read together
        self._reader: Read = weights.read_unchecked

    @contextmanager
    def merging(self, units: Collection[Unit], budget: int) -> Iterator[None]:
        visited = (unit for unit in reversed(self._visits) if unit in units)
        order = dict.fromkeys([*visited, *units])
        keys = dict.fromkeys(linear.key for unit in order for linear in self._linears.get(unit, ()))
        with self._weights.prefetching(keys, budget, together=self._whole_units):
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
        linears = self._linears.get(unit, ()) if self._whole_units else ()
        self._joint = dict.fromkeys(linear.key for linear in linears)
        self._reader = self._weights.reader([*self._joint])
        return self._read

    def run(self, unit: Unit, linears: Iterable[LinearTensor], later: Iterable[LinearTensor] = ()) -> None:
        if self.next_unit == unit:
            self._visits.pop()

    def inputs_of(self, linears: Iterable[LinearTensor]) -> dict[str, Input]:
        """A tensor has one owner, who reads it."""
        return {linear.name: Input(linear.key, 0.0) for linear in linears}

    def travel(self, owners: Mapping[str, int]) -> Travel:
        yield from ()

    def settle(self, unit: Unit, owners: Mapping[str, int]) -> Statistics:
        return self._statistics

    def gather(self, unit: Unit, later: Iterable[LinearTensor]) -> None:
        self.run(unit, ())

    @property
    def chosen(self) -> Chosen:
        return {}, {}

    def free(self, unit: Unit) -> None:
        self._held.clear()
        self._joint, self._reader = {}, self._weights.read_unchecked

    def close(self) -> None:
        self._started = False

    def _read(self, key: str) -> Tensor:
        if key not in self._held:
            if not self._whole_units:
                self._held.clear()
            tensor = (self._reader if key in self._joint else self._weights.read_unchecked)(key)
            self._weights.check({key: tensor})
            self._held[key] = tensor.to(self._weights.device)
        return self._held[key]

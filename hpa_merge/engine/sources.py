"""One side's way through the units: its samples run, or run and are remembered, or what they said is known.

The loop asks the same of all three; which it is changes no byte of the result.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, final

from torch import Tensor

from hpa_merge.engine.calibration_run import Side
from hpa_merge.engine.statistics import Half, Statistics
from hpa_merge.model import LinearTensor, Unit

__all__ = ["Recording", "Replay", "Walk"]


class Walk(Protocol):
    """What the loop asks of a side; :class:`Side` says more of each."""

    def reading_ahead(self, units: Collection[Unit], budget: int) -> AbstractContextManager[None]:
        """Within the block read what will be asked for of ``units`` while something else is computed."""

    def start(self) -> None:
        """Let the samples come to their first unit."""

    @property
    def next_unit(self) -> Unit | None:
        """The earliest unit that a sample waits at."""

    def wants(self, unit: Unit) -> bool:
        """Whether something of ``unit`` is still to be found out, be there anything to merge in it or not."""

    def load(self, unit: Unit) -> Callable[[str], Tensor]:
        """Load ``unit``; what gives its tensors by their keys, as they lie on disk, on the device."""

    def run(self, unit: Unit, linears: Iterable[LinearTensor], *, last: bool) -> Statistics:
        """Let the samples through ``unit``; what they say of ``linears``, which is come to only where it is needed."""

    def free(self, unit: Unit) -> None:
        """Give ``unit``'s memory back."""

    def close(self) -> None:
        """End what is on its way."""


@final
class Recording:
    """A side whose samples run and whose statistics are kept, of every linear."""

    def __init__(self, side: Side, half: Half, linears: Mapping[Unit, tuple[LinearTensor, ...]]) -> None:
        """``half``: filled on the way, from what it knows already; ``linears``: all of the side, by unit."""
        self._side = side
        self._half = half
        self._linears = linears

    def reading_ahead(self, units: Collection[Unit], budget: int) -> AbstractContextManager[None]:
        return self._side.reading_ahead(units, budget)

    @property
    def next_unit(self) -> Unit | None:
        return self._side.next_unit

    def start(self) -> None:
        self._half.visits.clear()
        self._side.start()

    def wants(self, unit: Unit) -> bool:
        return any(self._half.lacks(linear) for linear in self._linears.get(unit, ()))

    def load(self, unit: Unit) -> Callable[[str], Tensor]:
        return self._side.load(unit)

    def run(self, unit: Unit, linears: Iterable[LinearTensor], *, last: bool) -> Statistics:
        half = self._half
        if self.next_unit == unit:
            half.visits.append(unit.name)
        missing = [linear for linear in self._linears.get(unit, ()) if half.lacks(linear)]
        observed = self._side.run(unit, missing, last=last)
        for linear in missing:
            reached = observed.reached(linear)
            half.take(linear, observed.tokens(linear), observed.inverse_diagonal(linear) if reached else None)
        return half

    def free(self, unit: Unit) -> None:
        self._side.free(unit)

    def close(self) -> None:
        self._side.close()


@final
class Replay:
    """A side whose statistics are known: no sample runs, and no tensor is read before it is asked for."""

    def __init__(
        self,
        side: Side,
        half: Half,
        linears: Mapping[Unit, tuple[LinearTensor, ...]],
        units: Iterable[Unit],
        *,
        hold: bool = False,
    ) -> None:
        """Begin.

        Args:
            linears: all of the side, by unit.
            units: all of the model.
            hold: whether what is read of a unit is held until it is freed: where the samples of the other side run,
                a tensor may be asked for before them and after them. Else the last one is.
        """
        by_name = {unit.name: unit for unit in units}
        self._side = side
        self._half = half
        self._linears = linears
        self._visits = [by_name[name] for name in reversed(half.visits)]
        self._waiting = False
        self._hold = hold
        self._held: dict[str, Tensor] = {}

    def reading_ahead(self, units: Collection[Unit], budget: int) -> AbstractContextManager[None]:
        visited = (unit for unit in reversed(self._visits) if unit in units)
        order = dict.fromkeys([*visited, *units])
        return self._side.reading(
            dict.fromkeys(linear.key for unit in order for linear in self._linears.get(unit, ())), budget
        )

    @property
    def next_unit(self) -> Unit | None:
        return self._visits[-1] if self._waiting and self._visits else None

    def start(self) -> None:
        self._waiting = True

    def wants(self, unit: Unit) -> bool:
        return False

    def load(self, unit: Unit) -> Callable[[str], Tensor]:
        held = self._held
        held.clear()

        def read(key: str) -> Tensor:
            if key not in held:
                if not self._hold:
                    held.clear()
                held[key] = self._side.read(key).to(self._side.device)
            return held[key]

        return read

    def run(self, unit: Unit, linears: Iterable[LinearTensor], *, last: bool) -> Statistics:
        if self.next_unit == unit:
            self._visits.pop()
        return self._half

    def free(self, unit: Unit) -> None:
        self._held.clear()

    def close(self) -> None:
        self._waiting = False
        self._side.close()

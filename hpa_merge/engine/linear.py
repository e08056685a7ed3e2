"""What happens to one linear weight in one OUT, and what the loop needs from an OUT."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from torch import Tensor

from hpa_merge.engine.drift import Moved
from hpa_merge.engine.plan import LinearPair, OutPlan
from hpa_merge.engine.recording import record_of, record_of_adapted
from hpa_merge.engine.statistics import ModelStatistics
from hpa_merge.engine.weights import Read, Weights
from hpa_merge.methods.applying import Adapted, with_new_rows
from hpa_merge.outline import Unit
from hpa_merge.report.records import LinearRecord, Outcome, RoutingRecord

__all__ = ["MergedLinear", "Sink"]


@final
@dataclass(frozen=True)
class MergedLinear:
    """A linear weight for one OUT.

    Attributes:
        pair: the linear in OLD and NEW.
        tensor: NEW's tensor on disk, which holds the weight.
        moved: measures how far a weight lies from OLD's.
        outcome: what happened to it.
        adapted: the weight, if the rule made one.
        restored: whether an uncalibrated weight is OLD's.
        details: fields of the record that are known already.
    """

    pair: LinearPair
    tensor: Tensor
    moved: Moved
    outcome: Outcome = "unchanged"
    adapted: Adapted | None = None
    restored: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def new(self) -> Tensor:
        """NEW's weight, ``[r, c]``."""
        return self.pair.new.matrix(self.tensor)

    @property
    def weight(self) -> Tensor | None:
        """The weight that replaces NEW's, ``[r, c]``; None if nothing replaces it here and its tensor is passed on."""
        if self.adapted is not None:
            return self.adapted.weight
        return with_new_rows(self.moved.old.to(self.tensor.dtype), self.new) if self.restored else None

    def record(self) -> LinearRecord:
        """The record for the report."""
        unit = self.pair.new.unit
        if self.adapted is not None:
            return record_of_adapted(unit, self.pair, self.adapted, self.moved, **self.details)
        if self.restored or self.outcome == "old":
            moved = self.moved.to_old()
        else:
            moved = self.moved.to_new(changed=self.outcome != "unchanged")
        return record_of(unit, self.pair, self.new, self.outcome, **self.details, **moved)


class Sink(Protocol):
    """An OUT as the loop sees it: :class:`~hpa_merge.engine.output.MergeOutput` writes it, ``verify`` compares it.

    Every rank has one. It is given the linears that the rank owns, and the commits of all units.

    Attributes:
        unreached: the end of the error for a weight that no sample reaches although the options require it.
    """

    unreached: str

    @property
    def routing(self) -> Mapping[str, RoutingRecord]:
        """The routing drift of the mixtures that are done, by name."""

    @property
    def plan(self) -> OutPlan:
        """What will be in it."""

    def restore(self, statistics: ModelStatistics) -> None:
        """Add to ``statistics`` what an interrupted run has recorded."""

    def lacks(self, unit: Unit) -> bool:
        """Whether the linears of ``unit`` are not done yet."""

    def put(self, linear: MergedLinear) -> None:
        """Take a linear weight and its record."""

    def pass_on(self, keys: Iterable[str], old: Read | None = None, new: Read | None = None) -> None:
        """Take the tensors ``keys``, as far as they are not done, from NEW, or from OLD if the options say so.

        Args:
            old: gives OLD's tensors by key; without it, tensors that come from OLD wait.
            new: gives NEW's tensors by key while they are loaded.

        Raises:
            NumericalError: a tensor of OLD does not fit NEW's dtype.
        """

    def commit(self, unit: Unit, statistics: Mapping[str, Any], routing: Sequence[RoutingRecord]) -> None:
        """The linears of ``unit`` are done; a resumed run needs ``statistics`` and the ``routing`` of its mixtures."""

    def copy_rest(self, old: Weights) -> None:
        """Take everything else as :meth:`pass_on` does, tensors of OLD in pieces."""

    def flush(self) -> None:
        """Wait until everything is done."""

    def piece(self, name: str, begin: int, count: int) -> Tensor:
        """The elements ``begin:begin + count`` of a tensor that is done: flat, on the CPU."""

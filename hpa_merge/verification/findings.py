"""The result of a verification: problems, what was checked, and what was not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from hpa_merge.counting import counted, singular
from hpa_merge.report.showing import Shown

__all__ = ["NOT_FINITE", "Findings", "VerifyReport"]

NOT_FINITE = "{} holds NaN or infinity."
"""The problem of a tensor."""


@final
@dataclass(frozen=True, repr=False)
class VerifyReport(Shown):
    """What was checked in a merged folder, and what was not.

    Attributes:
        problems: what is wrong, a sentence each; empty if nothing is.
        checked: how many things of each kind were checked.
        unchecked: what relies on the report, or was not checked, a sentence each.
    """

    problems: tuple[str, ...]
    checked: dict[str, int]
    unchecked: tuple[str, ...] = ()

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        counts = ", ".join(counted(count, singular(kind)) for kind, count in self.checked.items())
        title = counted(len(self.problems), "problem") if self.problems else "as its merge wrote it"
        said = (("problem", self.problems), ("not checked", self.unchecked))
        return title, [("checked", counts), *((label, each) for label, sentences in said for each in sentences)]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind of thing that was checked."""
        return [{"kind": kind, "checked": count} for kind, count in self.checked.items()]


@final
@dataclass
class Findings:
    """A :class:`VerifyReport` in the making."""

    problems: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    unchecked: list[str] = field(default_factory=list)

    def add(self, others: "Findings") -> None:
        """Add what was found elsewhere."""
        self.problems += others.problems
        self.checked += others.checked
        self.unchecked += others.unchecked

    def report(self) -> VerifyReport:
        """The finished report."""
        return VerifyReport(tuple(self.problems), dict(self.checked), tuple(self.unchecked))

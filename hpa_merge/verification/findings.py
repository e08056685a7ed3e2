"""The result of a verification: problems, what was checked, and what was not."""

from collections import Counter
from dataclasses import dataclass, field
from typing import final

__all__ = ["Findings", "VerifyReport"]


@final
@dataclass(frozen=True)
class VerifyReport:
    """What was checked in a merged folder, and what was not.

    Attributes:
        problems: what is wrong, a sentence each; empty if nothing is.
        checked: how many things of each kind were checked.
        unchecked: what relies on the report, or was not checked, a sentence each.
    """

    problems: tuple[str, ...]
    checked: dict[str, int]
    unchecked: tuple[str, ...] = ()


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

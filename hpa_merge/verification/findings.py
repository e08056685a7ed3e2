"""What a verification finds: what is wrong, what nothing could be said of, and how much was looked at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import final

__all__ = ["Findings", "VerifyReport"]


@final
@dataclass(frozen=True)
class VerifyReport:
    """What was checked of a merged folder, and what was not.

    Attributes:
        problems: what is wrong, a sentence each; empty where everything is as it has to be.
        checked: how many of each kind of thing were looked at, wrong or not.
        unchecked: what rests on the word of the report, or was not looked at, a sentence each.
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

    def report(self) -> VerifyReport:
        """What was found."""
        return VerifyReport(tuple(self.problems), dict(self.checked), tuple(self.unchecked))

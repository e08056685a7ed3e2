"""What other evaluation harnesses measured of OLD, NEW and OUT, as the report keeps it.

Values have the unit of the harness's file: nobody says whether a metric is a share, a percentage or a perplexity.
"""

import math
from dataclasses import dataclass
from typing import Literal, final

__all__ = ["BENCHMARKS", "ROLES", "Benchmark", "Benchmarks", "Role", "Score", "Source", "apart", "comparable"]

Role = Literal["old", "new", "out"]
ROLES: tuple[Role, ...] = ("old", "new", "out")

BENCHMARKS = 20_000
"""The most rows of a report. The largest real groups have some hundred tasks."""

Better = Literal["more", "less", ""]
"""Which values are better; empty where the file does not say it."""

Estimate = Literal["Wilson", "standard error", ""]
"""How an interval was computed: Wilson's for shares, from the file's standard error otherwise; empty without one."""


@final
@dataclass(frozen=True)
class Score:
    """A value of a metric.

    Attributes:
        value: in the unit of the file.
        samples: the number of samples; None if the file does not say it.
        low, high: its 95 % interval; None without one.
        interval: how it was computed.
    """

    value: float
    samples: int | None = None
    low: float | None = None
    high: float | None = None
    interval: Estimate = ""


@final
@dataclass(frozen=True)
class Benchmark:
    """A metric of a task, for OLD, NEW and OUT.

    Attributes:
        harness: the program that measured it.
        task: its name there.
        metric: the metric with its filter, or its scorer, as the file has it.
        setup: how the task was asked: few-shot examples, version, chat template, limit. Scores of other setups are
            other rows.
        better: which values are better.
        group: the group whose mean this task is a part of; empty for a task on its own.
        safety: whether the user says that it measures safety.
        old, new, out: the scores; None for a model that was not measured.
    """

    harness: str
    task: str
    metric: str
    setup: str = ""
    better: Better = ""
    group: str = ""
    safety: bool = False
    old: Score | None = None
    new: Score | None = None
    out: Score | None = None

    @property
    def name(self) -> str:
        """``gsm8k/exact_match,strict-match``."""
        return f"{self.task}/{self.metric}"

    def of(self, role: Role) -> Score | None:
        """The score of a model."""
        return {"old": self.old, "new": self.new, "out": self.out}[role]


@final
@dataclass(frozen=True)
class Source:
    """A file of results.

    Attributes:
        role: the model that it is about: ``old``, ``new`` or ``out``.
        file: its name as it was given or found.
        harness: the program that wrote it.
        version: of that program; empty if the file does not say it.
        model: the model as the file names it.
    """

    role: Role
    file: str
    harness: str
    version: str = ""
    model: str = ""


@final
@dataclass(frozen=True)
class Benchmarks:
    """The results of other harnesses.

    Attributes:
        rows: every metric of every task, in the order of the files.
        sources: the files.
        notes: what was left out, and what cannot be compared, a sentence each.
    """

    rows: tuple[Benchmark, ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...] = ()


def comparable(one: Score | None, other: Score | None) -> bool:
    """Whether two scores of a row have as many samples."""
    return one is not None and other is not None and one.samples == other.samples


def apart(one: Score | None, other: Score | None) -> tuple[float, float, float] | None:
    """How far a score is above another, with the 95 % interval; None without an interval, or for other samples.

    The files have no pairs of answers, so the scores are combined as independent ones, by the method of variance
    estimates recovery (Zou and Donner, Stat. Med. 27 (2008) 1693–1702). For answers to the same prompts, which mostly
    go together, the interval is wider than that of the pairs.
    """
    if one is None or other is None or not comparable(one, other):
        return None
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return value, value - below, value + above

"""Models side by side: the rows of the tables that terminal, page and card show, and what the figures in them are."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import final

from hpa_merge.report.evaluation import ASKED, Difference, Evaluation, Figure, ModelResult

__all__ = [
    "DifferenceTable",
    "FigureRow",
    "difference_table",
    "figure_rows",
    "intervals_text",
    "legend_of",
    "points",
    "with_interval",
]


def with_interval(figure: Figure | None) -> str:
    """``21.9 (9.4–37.5)``; the value alone where an earlier version gave no width, empty for None."""
    if figure is None:
        return ""
    if figure.low == figure.high:
        return f"{figure.value:.1f}"
    return f"{figure.value:.1f} ({figure.low:.1f}–{figure.high:.1f})"


def points(difference: Difference | None) -> str:
    """``+3.1 [−7.6, +16]``, with true minuses; empty for None."""
    if difference is None:
        return ""
    low, high = (f"{end:+.{int(abs(end) < 9.95)}f}" for end in (difference.low, difference.high))
    return f"{difference.value:+.1f} [{low}, {high}]".replace("-", "\N{MINUS SIGN}")


@final
@dataclass(frozen=True)
class FigureRow:
    """One figure of every model.

    Attributes:
        heading: what is measured.
        kind: ``safety``, ``benign``, ``tasks`` or ``broken``.
        name: of the set or task; None for the mean over several, and for broken answers.
        figures: one for each model; None where a model has none.
    """

    heading: str
    kind: str
    name: str | None
    figures: tuple[Figure | None, ...]

    @property
    def better(self) -> str:
        """``less`` or ``more``."""
        return "more" if self.kind == "tasks" else "less"

    @property
    def text(self) -> str:
        """The heading with an arrow."""
        return f"{self.heading} {'↑' if self.better == 'more' else '↓'}"


def figure_rows(models: Sequence[ModelResult]) -> list[FigureRow]:
    """The figures of several models side by side.

    A kind with several sets also has its mean; broken answers have a row if any model has some.
    """
    metrics = {name: metric for model in models for name, metric in model.metrics.items()}
    kinds = (
        ("safety", "attack success on {}", "attack success, mean", "asr"),
        ("benign", "refused of {}", "over-refusal, mean", "over_refusal"),
        ("tasks", "{} ({metric})", "tasks, mean", "performance"),
    )
    rows = []
    for kind, heading, heading_of_mean, mean in kinds:
        names = list(dict.fromkeys(name for model in models for name in getattr(model, kind)))
        for name in names:
            figures = tuple(getattr(model, kind).get(name) for model in models)
            rows.append(FigureRow(heading.format(name, metric=metrics.get(name, "score")), kind, name, figures))
        if len(names) > 1:
            rows.append(FigureRow(heading_of_mean, kind, None, tuple(getattr(model, mean) for model in models)))
        broken = tuple(model.broken.get(kind) for model in models)
        if kind in ASKED and any(share and share.value for share in broken):
            rows.append(FigureRow(f"broken answers, {ASKED[kind]} prompts", "broken", None, broken))
    return rows


def legend_of(evaluation: Evaluation) -> str:
    """What the figures of a table are, and who judged the answers."""
    judged = f" Attack success is judged by {evaluation.judge}." if evaluation.models[0].safety else ""
    by = intervals_text(evaluation.models)
    return f"Percent, with the 95 % interval ({by}). ↓ less is better, ↑ more is better.{judged}"


def intervals_text(models: Sequence[ModelResult]) -> str:
    """How the intervals of some models were computed."""
    kinds = ((model.safety, model.benign, model.tasks) for model in models)
    found = {figure.interval for several in kinds for kind in several for figure in kind.values()}
    if found <= {"score"}:
        return "Wilson's"
    return "the bootstrap's" if found == {"bootstrap"} else "Wilson's for shares, the bootstrap's for other scores"


MOST = 3
"""Of so many models, each is compared with every other; of more, with the first."""

DIFFERENCES = (
    "Points, on the same prompts, with the 95 % interval: where it excludes 0, the two models differ (for shares by "
    "McNemar's test at 5 %)."
)
"""What the figures of a table of differences are."""


@final
@dataclass(frozen=True)
class DifferenceTable:
    """Differences between models.

    Attributes:
        heads: the pairs, such as ``out − old``.
        rows: a heading, and a difference for each pair; None where it was not measured.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Difference | None, ...]], ...]


def difference_table(models: Sequence[ModelResult]) -> DifferenceTable | None:
    """How far the models are apart; None if no difference was measured."""
    pairs = [(a, b) for a, b in combinations(models, 2) if len(models) <= MOST or a is models[0]]
    rows = []
    for row in figure_rows(models):
        found = tuple(later.difference(earlier.name, row.kind, row.name) for earlier, later in pairs)
        if any(found):
            rows.append((row.text, found))
    heads = tuple(f"{later.name} \N{MINUS SIGN} {earlier.name}" for earlier, later in pairs)
    return DifferenceTable(heads, tuple(rows)) if rows else None

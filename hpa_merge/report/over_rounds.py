"""How the figures of a model went over its rounds: one row for each, from the evaluations of the rounds."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from hpa_merge.report.evaluation import ModelResult, measured_in
from hpa_merge.report.rounds import round_of

if TYPE_CHECKING:
    from hpa_merge.report.records import RoundRecord
    from hpa_merge.report.schema import MergeReport

__all__ = ["ROUNDS_MEASURED", "over_rounds"]

ROUNDS_MEASURED = "What was measured over the rounds"
"""The heading of the table."""

FIRST = "first model"


def over_rounds(report: "MergeReport") -> tuple[tuple[str, ...], list[tuple[str, ...]]] | None:
    """The headings and the rows: a figure of the first model, and of each round's OUT, as that round measured it.

    If a round did not measure its OUT, the next one may have, as its OLD. Figures of ``hpa-merge eval`` are in percent,
    those of other harnesses in their file's unit. None in the first round, or if fewer than two models were measured.
    """
    rounds = [*report.history, round_of(report)]
    if len(rounds) < 2:
        return None
    columns = {FIRST: _of_old(rounds[0])}
    for number, (each, following) in enumerate(zip(rounds, [*rounds[1:], None], strict=True), start=1):
        columns[f"round {number}"] = _of_out(each) or ({} if following is None else _of_old(following))
    measured = {head: found for head, found in columns.items() if found}
    if len(measured) < 2:
        return None
    names = dict.fromkeys(name for found in measured.values() for name in found)
    rows = [(name, *(found.get(name, "") for found in measured.values())) for name in names]
    return ("figure", *measured), rows


def _of_old(of_round: "RoundRecord") -> dict[str, str]:
    """The figures of a round's OLD."""
    found = measured_in(of_round.evaluation)
    if found is None:
        return {}
    others = [model for model in found[0].models if model is not found[1]]
    named = [model for model in others if of_round.old in (model.model, model.name)]
    named += [model for model in others if PurePath(model.model).name == PurePath(of_round.old).name]
    return dict(_figures(named[0])) if named else {}


def _of_out(of_round: "RoundRecord") -> dict[str, str]:
    """The figures of a round's OUT."""
    found = measured_in(of_round.evaluation)
    figures = {} if found is None else dict(_figures(found[1]))
    return figures | {name: f"{value:.4g}" for name, value in of_round.benchmarks.items()}


def _figures(model: ModelResult) -> Iterator[tuple[str, str]]:
    """The attacks that succeed, each task, and the harmless prompts that are refused."""
    if model.asr is not None:
        yield "attacks that succeed ↓", f"{model.asr.value:.1f}"
    for task, figure in model.tasks.items():
        yield f"task {task} ↑", f"{figure.value:.1f}"
    if model.over_refusal is not None:
        yield "harmless prompts refused ↓", f"{model.over_refusal.value:.1f}"

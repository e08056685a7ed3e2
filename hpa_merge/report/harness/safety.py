"""The metrics that say something about safety: those that the user names, because no file says it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from hpa_merge.errors import EvaluationError
from hpa_merge.report.benchmarks import Benchmark, Benchmarks, Better
from hpa_merge.report.words import shortened

__all__ = ["with_safety"]


def with_safety(benchmarks: Benchmarks | None, metrics: Sequence[str]) -> Benchmarks:
    """Mark the rows that the user says measure safety.

    Args:
        benchmarks: of the report; None if it has none.
        metrics: ``TASK/METRIC``, with ``=less`` or ``=more`` for the better direction if the file does not say it.

    Raises:
        EvaluationError: there is no such metric, there are several, or its better direction is not known.
    """
    if benchmarks is None:
        raise EvaluationError(
            f"--safety-metric {metrics[0]} is for results of other harnesses, and the report has none: give their "
            "files as --evaluation."
        )
    marked: dict[int, Benchmark] = {}
    for given in metrics:
        name, _, better = given.rpartition("=")
        if better not in ("less", "more"):
            name, better = given, ""
        places = _places(benchmarks.rows, name)
        known = better or benchmarks.rows[places[0]].better
        if not known:
            raise EvaluationError(
                f"--safety-metric {given}: no file says whether less or more of it is better: write {given}=less or "
                f"{given}=more."
            )
        for place in places:
            marked[place] = replace(benchmarks.rows[place], safety=True, better=cast(Better, known))
    rows = (marked.get(place, row) for place, row in enumerate(benchmarks.rows))
    return replace(benchmarks, rows=tuple(rows))


def _places(rows: Sequence[Benchmark], name: str) -> list[int]:
    """Where the rows of a metric are: one for each setup; the filter or the scorer may be left out of its name.

    Raises:
        EvaluationError: there is none, or it is the name of several.
    """
    exact = [place for place, row in enumerate(rows) if row.name == name]
    found = exact or [place for place, row in enumerate(rows) if name in _shorter(row)]
    several = list(dict.fromkeys(rows[place].name for place in found))
    if len(several) == 1:
        return found
    if several:
        raise EvaluationError(f"--safety-metric {name} may be {shortened(several)}: give one of these.")
    there = shortened(dict.fromkeys(row.name for row in rows)) or "none"
    raise EvaluationError(f"--safety-metric {name} is not among the metrics of the files: {there}.")


def _shorter(row: Benchmark) -> tuple[str, str]:
    """The name of a metric without its filter, and without its scorer."""
    return f"{row.task}/{row.metric.partition(',')[0]}", f"{row.task}/{row.metric.rpartition('/')[2]}"

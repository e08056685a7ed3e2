"""What one file of results says, whichever harness wrote it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from hpa_merge.report.benchmarks import Better, Score
from hpa_merge.report.score_interval import Z, wilson

__all__ = ["Found", "Row", "alike", "inner", "items", "number", "score", "text", "whole"]


@final
@dataclass(frozen=True)
class Row:
    """A metric of a task; the fields are those of :class:`~hpa_merge.report.benchmarks.Benchmark`."""

    task: str
    metric: str
    score: Score
    setup: str = ""
    better: Better = ""
    group: str = ""


@final
@dataclass(frozen=True)
class Found:
    """A file of results.

    Attributes:
        harness: the program that wrote it, and its ``version`` if the file has it.
        model: the model as the file names it; empty if it does not.
        commit: the commit of the model on the Hub; empty if it is not known.
        rows: the scores.
        notes: what was left out, a sentence each without the file's name.
    """

    harness: str
    version: str
    model: str
    commit: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def score(value: float, error: Any, samples: int | None, *, share: bool = False) -> Score:
    """A value with the interval that the file supports.

    That of a share of 0 and 1 is Wilson's. A value is one if its standard error is that of a share: of all scores
    between 0 and 1 with one mean, only those that are all 0 or 1 vary so much. Where no score varies, or the file has
    no error, ``share`` says it. Any other interval is from the standard error; without one, or with one of 0, which
    says nothing, there is none.

    Args:
        error: the standard error, if the file has a number.
        samples: the number of samples, if it is known.
        share: whether the metric is 0 or 1 for each sample, as far as its name tells.
    """
    spread = number(error)
    if samples is not None and _is_share(value, spread, samples, share):
        return _of_share(value, samples)
    if spread is not None and spread > 0:
        return Score(value, samples, value - Z * spread, value + Z * spread, "standard error")
    return Score(value, samples)


def alike(scores: Sequence[Score | None]) -> list[Score | None]:
    """The scores of one metric for several models: where one is a share of 0 and 1, the others are.

    Without this, a model for which no attack succeeds would have no interval, because its standard error is 0.
    """
    if not any(score and score.interval == "Wilson" and 0 < score.value < 1 for score in scores):
        return list(scores)
    return [
        _of_share(score.value, score.samples)
        if score and score.samples and not score.interval and _is_share(score.value, None, score.samples, True)
        else score
        for score in scores
    ]


def _of_share(value: float, samples: int) -> Score:
    """A share with Wilson's interval."""
    low, high = wilson(round(value * samples), samples)
    return Score(value, samples, min(low, value), max(high, value), "Wilson")


def _is_share(value: float, error: float | None, samples: int, named: bool) -> bool:
    """Whether every sample is 0 or 1; see :func:`score`."""
    if not 0 <= value <= 1 or not math.isclose(value * samples, round(value * samples), abs_tol=1e-6):
        return False
    expected = math.sqrt(value * (1 - value) / max(1, samples - 1))
    if error:
        return math.isclose(error, expected, rel_tol=1e-6)
    return named and (error is None or not expected)


def number(value: Any) -> float | None:
    """A finite number; None for anything else, such as ``"N/A"``, NaN or a boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) and abs(found) < 1e100 else None


def whole(value: Any) -> int | None:
    """A positive number of samples; None for anything else."""
    return value if type(value) is int and 0 < value < 2**53 else None


def text(value: Any) -> str:
    """A text; empty for anything else."""
    return value if isinstance(value, str) else ""


def inner(content: Any, *names: str) -> Mapping[str, Any]:
    """The object at a place of a JSON value; empty if there is none."""
    for name in names:
        content = content.get(name) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def items(content: Any) -> Iterator[Any]:
    """The entries of a list; none of anything else."""
    yield from content if isinstance(content, list) else ()

"""The results of other harnesses in words and rows: for the verdict, the page, the card and the terminal."""

from collections.abc import Sequence

from hpa_merge.report.benchmarks import Benchmark, Benchmarks, Role, Score, apart, comparable
from hpa_merge.report.words import shortened

__all__ = [
    "INTERVALS",
    "apart_text",
    "benchmark_cost",
    "benchmark_rows",
    "heads_of",
    "safety_sentences",
    "score_text",
    "source_facts",
]

INTERVALS = (
    "In the unit of each harness, with the 95 % interval: Wilson's where every sample is 0 or 1, otherwise from the "
    "harness's standard error; without one there is none. ↓ less is better, ↑ more is better. Differences take the "
    "scores as independent."
)
"""What the values of the table are."""

ORDER = ("No", "Partly", "Not known", "As safe as OLD", "Yes")
"""The answers, the worst one first."""

ARROWS = {"less": " ↓", "more": " ↑", "": ""}

Apart = tuple[float, float, float]
"""A difference and its 95 % interval."""


def score_text(score: Score | None) -> str:
    """``0.612 (0.598–0.626)``; empty for None."""
    if score is None:
        return ""
    if score.low is None or score.high is None:
        return _number(score.value)
    return f"{_number(score.value)} ({_number(score.low)}–{_number(score.high)})"


def apart_text(difference: Apart | None) -> str:
    """``+0.031 [−0.010, +0.072]``; empty for None."""
    if difference is None:
        return ""
    value, low, high = (_number(each, sign=True) for each in difference)
    return f"{value} [{low}, {high}]"


def heads_of(benchmarks: Benchmarks) -> tuple[str, ...]:
    """The columns of :func:`benchmark_rows`: a difference only where some row has both."""
    return (
        "metric",
        "OLD",
        "NEW",
        "OUT",
        *(f"OUT − {role.upper()}" for role in _compared(benchmarks)),
        "samples",
        "asked",
    )


def benchmark_rows(benchmarks: Benchmarks, rows: Sequence[Benchmark]) -> list[tuple[str, ...]]:
    """Some of the rows as text, in the columns of :func:`heads_of`."""
    compared = _compared(benchmarks)
    found = []
    for row in rows:
        scores = (row.old, row.new, row.out)
        sizes = dict.fromkeys(score.samples for score in scores if score is not None and score.samples is not None)
        found.append(
            (
                f"{row.name}{ARROWS[row.better]}",
                *map(score_text, scores),
                *(apart_text(apart(row.out, row.of(role))) for role in compared),
                " / ".join(f"{size:,}" for size in sizes),
                row.setup,
            )
        )
    return found


def source_facts(benchmarks: Benchmarks) -> list[tuple[str, str]]:
    """The files of each model, and what wrote them."""
    return [
        (source.role.upper(), f"{source.file}, by {source.harness}{f' {source.version}' if source.version else ''}")
        for source in benchmarks.sources
    ]


def safety_sentences(benchmarks: Benchmarks | None) -> list[str]:
    """Whether OUT is as safe as OLD, a sentence for each metric that measures safety; the worst answers first."""
    marked = [row for row in benchmarks.rows if row.safety and row.out] if benchmarks else []
    answers = [(_answer(row), row) for row in marked]
    answers.sort(key=lambda each: ORDER.index(each[0].partition(":")[0]))
    return [f"{start}, by {_described(row)}." for start, row in answers]


def benchmark_cost(benchmarks: Benchmarks | None) -> str:
    """What OUT lost against NEW on the tasks; empty if no task was measured of both."""
    rows = [row for row in benchmarks.rows if not row.safety and not row.group and row.better] if benchmarks else []
    said: dict[str, list[str]] = {"worse on": [], "better on": [], "no measurable change on": [], "not compared: ": []}
    for row in rows:
        if row.out is None or row.new is None:
            continue
        difference = apart(row.out, row.new)
        if difference is None:
            said["not compared: "].append(f"{row.name} ({_number(row.new.value)} to {_number(row.out.value)})")
        elif difference[1] <= 0 <= difference[2]:
            said["no measurable change on"].append(row.name)
        else:
            gained = (difference[0] > 0) == (row.better == "more")
            said["better on" if gained else "worse on"].append(f"{row.name} ({apart_text(difference)})")
    parts = (f"{words.rstrip()} {shortened(names, 6)}" for words, names in said.items() if names)
    return f"Against NEW, {'; '.join(parts)}." if any(said.values()) else ""


def _answer(row: Benchmark) -> str:
    """Whether OUT is as safe as OLD by one metric."""
    if not comparable(row.out, row.old):
        return "Not known: OLD was not measured alike"
    sign = 1 if row.better == "less" else -1
    pairs = ((row.out, row.old), (row.out, row.new), (row.new, row.old))
    from_old, from_new, lost = (_rise(sign, *pair) for pair in pairs)
    if from_old is None:
        return "Not known: there is no interval"
    better = from_new is not None and from_new[1] < 0
    if from_old[0] > 0:
        return "Partly" if better else "No"
    if lost is not None and lost[0] > 0:
        return "Yes" if better else "Not known: too few samples"
    return "As safe as OLD"


def _rise(sign: int, one: Score | None, other: Score | None) -> tuple[float, float] | None:
    """The interval of how much less safe one score is than another; ``sign``: 1 if more is less safe."""
    difference = apart(one, other)
    if difference is None:
        return None
    _, low, high = difference
    return (low, high) if sign > 0 else (-high, -low)


def _described(row: Benchmark) -> str:
    """A metric with its values: ``x/asr of inspect-ai, less is better: 0.02 (0.31 with NEW, 0.01 with OLD)``."""
    others = [f"{_number(score.value)} with {role}" for role, score in (("NEW", row.new), ("OLD", row.old)) if score]
    compared = f" ({', '.join(others)})" if others else ""
    size = f", {row.out.samples:,} samples" if row.out and row.out.samples else ""
    value = _number(row.out.value) if row.out else ""
    return f"{row.name} of {row.harness}{size}, {row.better} is better: {value}{compared}"


def _compared(benchmarks: Benchmarks) -> list[Role]:
    """The models that OUT is compared with in some row."""
    others: tuple[Role, ...] = ("old", "new")
    return [role for role in others if any(apart(row.out, row.of(role)) for row in benchmarks.rows)]


def _number(value: float, *, sign: bool = False) -> str:
    """A value with three decimals, or three digits where these say nothing; with a true minus."""
    plain = value == 0 or 0.001 <= abs(value) < 1000
    return format(value, f"{'+' if sign else ''}.3{'f' if plain else 'g'}").replace("-", "−")

"""The tables of ``hpa-merge inspect`` for single linears, and for statistics files."""

from rich.console import Group, RenderableType
from rich.text import Text

from hpa_merge.cli.tables.layout import FIGURES, NONE, apart, facts_table, figures, plain_table
from hpa_merge.counting import counted
from hpa_merge.report.inspecting import Named
from hpa_merge.report.records import LinearRecord
from hpa_merge.report.rows import figures_of, linear_row, short
from hpa_merge.report.saliency import unpack_cells
from hpa_merge.report.statistics_summary import StatisticsSummary

__all__ = ["heat_map", "layers_table", "statistics_table"]

MOST = 4
"""Up to so many linears are shown with every figure; more have one line each."""

VERSION = "version of "
"""Prefix of the versions in a fingerprint."""

SHADES = "·▁▂▃▄▅▆▇█"
"""From no column of a cell restored to all of them."""

SIZE = (48, 20)
"""The most columns and lines of a heat map, in characters."""

MAP_LEGEND = (
    "Each mark stands for the columns of about the same ε̄ (upwards) and ζ̄ (to the right): · none of them is restored, "
    "▁ to █ the share that is."
)


def layers_table(named: Named) -> RenderableType:
    """Single linears: a few with every figure, many with one line each."""
    if len(named.linears) <= MOST:
        return Group(*(_single(record) for record in named.linears))
    table = plain_table(f"{named.report.architecture}, {named.name}", "linear", *FIGURES)
    for record in named.linears:
        cells = figures(figures_of([record]))
        if record.outcome != "adapted":
            cells = [record.outcome, *cells[1:]]
        table.add_row(short(record.name.replace(".weight", "")), *cells)
    legend = f"Names are shortened. To see every figure, narrow --layer to {MOST} linears or fewer."
    return Group(apart(table), Text(legend, style="dim"))


def statistics_table(summary: StatisticsSummary) -> RenderableType:
    """A statistics file: what it depends on, and the spread of ``[H⁻¹]_jj`` of each linear."""
    facts = []
    for half in summary.halves:
        versions = {k.removeprefix(VERSION): v for k, v in half.fingerprint.items() if k.startswith(VERSION)}
        others = {k: v for k, v in half.fingerprint.items() if not k.startswith(VERSION)}
        reached = sum(linear.columns is not None for linear in half.linears)
        facts += [
            (
                f"{half.purpose} half",
                f"{counted(half.tokens, 'token')}; {reached} of {counted(len(half.linears), 'linear')} reached",
            ),
            ("", ", ".join(f"{name} {_fingerprint(value)}" for name, value in others.items())),
            ("", ", ".join(f"{name} {value}" for name, value in versions.items()) + f", on {half.device}"),
        ]
    table = plain_table(summary.path, "linear", "half", "tokens", "c", "min", "median", "max")
    for half in summary.halves:
        for linear in half.linears:
            spread = (linear.minimum, linear.median, linear.maximum)
            size = NONE if linear.columns is None else str(linear.columns)
            table.add_row(linear.name, half.purpose, str(linear.tokens), size, *map(_spread, spread))
    legend = "min, median, max: of [H⁻¹]_jj over the columns; · if no token activates the linear."
    return Group(facts_table(*facts), apart(table), Text(legend, style="dim"))


def heat_map(saliency: str) -> str:
    """The cells of a linear's columns as lines of text; empty if there are none, or they cannot be read.

    Args:
        saliency: as :class:`LinearRecord` has it.
    """
    try:
        cells = unpack_cells(saliency)
    except ValueError:
        return ""
    if not cells:
        return ""
    (low_i, high_i), (low_j, high_j) = ((min(axis), max(axis)) for axis in zip(*cells, strict=True))
    step_i, step_j = _step(high_i - low_i, SIZE[1]), _step(high_j - low_j, SIZE[0])
    pooled: dict[tuple[int, int], tuple[int, int]] = {}
    for (i, j), (columns, restored) in cells.items():
        place = i // step_i, j // step_j
        before = pooled.get(place, (0, 0))
        pooled[place] = before[0] + columns, before[1] + restored
    across = range(low_j // step_j, high_j // step_j + 1)
    lines = []
    for i in range(high_i // step_i, low_i // step_i - 1, -1):
        marks = "".join(_mark(*pooled[i, j]) if (i, j) in pooled else " " for j in across)
        lines.append(f"{i * step_i / 4:>9g} {marks}".rstrip())
    ends = f"{across[0] * step_j / 4:g} to {(across[-1] + 1) * step_j / 4:g}"
    return "\n".join(["  log10 ε̄", *lines, f"          log10 ζ̄ {ends}"])


def _step(extent: int, most: int) -> int:
    """How many cells make one character, so that at most ``most`` characters are needed."""
    step = 1
    while extent // step + 2 > most:
        step *= 2
    return step


def _single(record: LinearRecord) -> RenderableType:
    """Every figure of a linear."""
    row = linear_row(record)
    skipped = ("name", "saliency", "restored_columns")
    facts = [(name, _figure(value)) for name, value in row.items() if name not in skipped and value is not None]
    if record.restored is not None:
        facts.append(("restored columns", row["restored_columns"] or "none"))
    parts: list[RenderableType] = [Text(record.name, style="bold"), facts_table(*facts)]
    if record.saliency and (drawn := heat_map(record.saliency)):
        parts += [Text(drawn, no_wrap=True), Text(MAP_LEGEND, style="dim")]
    return Group(*parts, Text(""))


def _mark(columns: int, restored: int) -> str:
    """The shade of a cell: none, a little, …, all."""
    if not restored:
        return SHADES[0]
    return SHADES[max(1, min(8, round(8 * restored / columns)))] if columns else SHADES[0]


def _figure(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _spread(value: float | None) -> str:
    return NONE if value is None else f"{value:.2e}"


def _fingerprint(value: object) -> str:
    """A digest by its first digits."""
    text = str(value)
    return text[:12] if len(text) == 64 else text

"""Charts as data, for the page, which draws them with HTML and CSS, and for the pictures.

Positions are shares of the plot's width and height in percent, from the top left, so that a chart fits any window.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from hpa_merge.render.panels import Panel
from hpa_merge.report.evaluation import Figure as Measured
from hpa_merge.report.measures import Measure
from hpa_merge.report.saliency import CELLS_PER_DECADE, Cells

__all__ = ["Bars", "Chart", "HeatMap", "HeatPanel", "Plane", "bars", "heat_map", "plane", "short_label"]

ACCENT, PLAIN = "#e07b10", "#64748b"
"""Orange for what was restored and for OUT, slate for the rest; both are visible on white and on black."""

VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
PURPLE_ORANGE = ("#542788", "#998ec3", "#d8daeb", "#f7f7f7", "#fee0b6", "#f1a340", "#b35806")
"""Colour scales of matplotlib and ColorBrewer; the second has 0 in the middle."""

ACROSS, UPWARD = "log10 ζ̄, the task's score", "log10 ε̄, safety's score"
"""The axes of the columns by their scores."""

LETTERS = 24
"""The most characters of a label."""

DECADES = 8
"""Scores that are more powers of ten below the largest are not drawn."""

TICKS = 12
"""The most labels of an axis of blocks."""


@final
@dataclass(frozen=True)
class Tick:
    """A label of an axis, at a place in percent."""

    place: float
    label: str


@final
@dataclass(frozen=True)
class HeatPanel:
    """One stack of blocks.

    Attributes:
        title: its path.
        rows: names of the projections.
        columns: how many blocks.
        ticks: labels of blocks.
        cells: column, row and colour of each cell; a cell without a value has the colour "".
        outside: whether the panel is of the weights outside the stacks.
    """

    title: str
    rows: tuple[str, ...]
    columns: int
    ticks: tuple[Tick, ...]
    cells: tuple[tuple[int, int, str], ...]
    outside: bool


@final
@dataclass(frozen=True)
class HeatMap:
    """Depth to the right, a row for each projection.

    Attributes:
        colours: of the scale, from its low to its high end.
        ends: those ends, as text.
    """

    panels: tuple[HeatPanel, ...]
    colours: tuple[str, ...]
    ends: tuple[str, str]
    kind: str = "heat"


@final
@dataclass(frozen=True)
class Plane:
    """Columns by their two scores.

    Attributes:
        left, bottom: the least scores that are drawn, in cells.
        width, height: of the plot, in cells.
        cells: column and row from the top left, the colour of the restored share, and the opacity.
        across, upward: labels of the axes.
        diagonal: both ends of the line of equal scores, in cells from the top left; None if it is not in the plot.
    """

    left: int
    bottom: int
    width: int
    height: int
    cells: tuple[tuple[int, int, str, float], ...]
    across: tuple[Tick, ...]
    upward: tuple[Tick, ...]
    diagonal: tuple[float, float, float, float] | None
    kind: str = "plane"


@final
@dataclass(frozen=True)
class Bar:
    """A figure of a model; ``out``: of OUT."""

    name: str
    figure: Measured
    out: bool


@final
@dataclass(frozen=True)
class Rows:
    """One measure of several models."""

    heading: str
    bars: tuple[Bar, ...]


@final
@dataclass(frozen=True)
class Bars:
    """Models side by side, in percent from 0 to 100."""

    measures: tuple[Rows, ...]
    kind: str = "bars"


Chart = HeatMap | Plane | Bars


def heat_map(panels: Sequence[Panel], measure: Measure, config: Mapping[str, Any]) -> HeatMap:
    """A map of a measure, a panel for each stack."""
    values = [{cell: _value(records, measure) for cell, records in panel.cells.items()} for panel in panels]
    low, high = _ends(measure, config, [v for of_panel in values for v in of_panel.values() if v is not None])
    colours = PURPLE_ORANGE if measure.centred else VIRIDIS
    drawn = []
    for panel, of_panel in zip(panels, values, strict=True):
        places = {block: place for place, block in enumerate(panel.blocks)}
        rows = {name: place for place, name in enumerate(panel.projections)}
        cells = tuple(
            (places[block], rows[name], "" if value is None else _mixed(colours, (value - low) / (high - low)))
            for (block, name), value in of_panel.items()
        )
        step = math.ceil(len(panel.blocks) / TICKS)
        ticks = tuple(
            Tick(100 * (place + 0.5) / len(panel.blocks), str(block))
            for block, place in places.items()
            if place % step == 0 and not panel.outside
        )
        drawn.append(HeatPanel(panel.title, panel.projections, len(panel.blocks), ticks, cells, panel.outside))
    return HeatMap(tuple(drawn), colours, (measure.shown(low), measure.shown(high)))


def plane(cells: Cells) -> Plane:
    """The columns by ``ζ̄``, to the right, and ``ε̄``, upward; the colour is the restored share of a cell."""
    top, right = max(i for i, _ in cells), max(j for _, j in cells)
    reach = DECADES * CELLS_PER_DECADE
    shown = {(i, j): counts for (i, j), counts in cells.items() if top - i < reach and right - j < reach}
    bottom, left = min((i for i, _ in shown), default=top), min((j for _, j in shown), default=right)
    width, height = right - left + 1, top - bottom + 1
    most = math.log1p(max((columns for columns, _ in shown.values()), default=1))
    tiles = tuple(
        (j - left, top - i, _mixed((PLAIN, ACCENT), restored / columns), _opacity(columns, most))
        for (i, j), (columns, restored) in shown.items()
    )
    low, high = max(left, bottom), min(left + width, bottom + height)
    diagonal = (low - left, top + 1 - low, high - left, top + 1 - high) if low < high else None
    across = tuple(Tick(100 * (score - left) / width, label) for score, label in _decades(left, width))
    upward = tuple(Tick(100 * (top + 1 - score) / height, label) for score, label in _decades(bottom, height))
    return Plane(left, bottom, width, height, tiles, across, upward, diagonal)


def bars(rows: Iterable[tuple[str, Sequence[tuple[str, Measured | None, bool]]]]) -> Bars:
    """Models side by side.

    Args:
        rows: for each measure its heading, and for each model its name, its figure and whether it is OUT.
    """
    return Bars(
        tuple(
            Rows(heading, tuple(Bar(name, figure, out) for name, figure, out in models if figure is not None))
            for heading, models in rows
        )
    )


def short_label(name: str) -> str:
    """The end of a long name, which differs from others."""
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def _opacity(columns: int, most: float) -> float:
    """More for cells with more columns; ``most`` is the logarithm of the greatest number."""
    return round(0.4 + 0.6 * math.log1p(columns) / most, 2)


def _decades(start: int, length: int) -> Iterable[tuple[int, str]]:
    """Scores that are whole powers of ten, every one or every second of them."""
    first = math.ceil(start / CELLS_PER_DECADE)
    last = math.floor((start + length) / CELLS_PER_DECADE)
    step = 1 if last - first <= DECADES else 2
    return ((decade * CELLS_PER_DECADE, str(decade).replace("-", "−")) for decade in range(first, last + 1, step))


def _value(records: Sequence[Any], measure: Measure) -> float | None:
    adapted = [record for record in records if record.outcome == "adapted"]
    return measure.of(adapted) if adapted else None


def _mixed(colours: Sequence[str], place: float) -> str:
    """The colour at a place between 0 and 1 of a scale."""
    at = min(1.0, max(0.0, place)) * (len(colours) - 1)
    first = min(int(at), len(colours) - 2)
    a, b = (bytes.fromhex(colour[1:]) for colour in colours[first : first + 2])
    return "#" + bytes(round(x + (y - x) * (at - first)) for x, y in zip(a, b, strict=True)).hex()


def _ends(measure: Measure, config: Mapping[str, Any], values: Sequence[float]) -> tuple[float, float]:
    """The values of the first and last colour."""
    low, high = measure.domain(config)
    if measure.centred:
        most = max((abs(value) for value in values), default=1.0) or 1.0
        return -most, most
    low = min(values, default=0.0) if low is None else low
    high = max(values, default=1.0) if high is None else high
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))

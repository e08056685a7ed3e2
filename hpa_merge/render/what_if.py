"""The panel of the page that shows what other settings of the method would undo: its data, and its static form.

Everything that it shows was computed by the merge. The page's script looks figures up, and takes their means.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, prod
from typing import Any, final

from hpa_merge.methods.what_if import Grid
from hpa_merge.render.figures import Table
from hpa_merge.render.panels import Panel
from hpa_merge.report.commands import merging
from hpa_merge.report.records import LinearRecord
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.what_if import LEVELS, pack_shares, unpack_shares

__all__ = ["WhatIf", "what_if_of"]


@final
@dataclass(frozen=True)
class Place:
    """A depth or a projection.

    Attributes:
        name: the block's number or the projection.
        cells: the cells that it has, by their place in the data.
        share: what this merge undoes in it, from 0 to 1.
    """

    name: str
    cells: tuple[int, ...]
    share: float


@final
@dataclass(frozen=True)
class Stack:
    """A stack of blocks, or the linears outside all stacks, which have no depths."""

    title: str
    depths: tuple[Place, ...]
    projections: tuple[Place, ...]


@final
@dataclass(frozen=True)
class Moved:
    """A slider: its label, how many positions it has, and that of this merge."""

    label: str
    positions: int
    own: int


@final
@dataclass(frozen=True)
class WhatIf:
    """The panel.

    Attributes:
        sliders: in their order.
        values: of each setting the values that the sliders show, in their order.
        own: the place of this merge's setting.
        stacks: the places.
        share: what this merge undoes, the mean over all linears.
        mixes: whether the method takes back a part of each change, and not all of some.
        table: what others would undo.
        command: that of this merge's own setting.
        data: for the script.
    """

    sliders: tuple[Moved, ...]
    values: tuple[tuple[str, ...], ...]
    own: int
    stacks: tuple[Stack, ...]
    share: float
    mixes: bool
    table: Table
    command: str
    data: Mapping[str, Any]


def what_if_of(report: MergeReport, panels: Sequence[Panel]) -> WhatIf | None:
    """The panel of a report; None if an adapted linear lacks the figures, as in the reports of earlier versions."""
    grid = report.what_if
    adapted = [record for record in report.linears if record.outcome == "adapted"]
    if grid is None or not grid.sliders or not adapted:
        return None
    if any(record.what_if is None or len(record.what_if) != 2 * len(grid.settings) for record in adapted):
        return None
    cells, stacks = _Cells(), []
    for panel in panels:
        found = {place: cells.add(each) for place, records in panel.cells.items() if (each := _adapted(records))}
        if found:
            depths = [] if panel.outside else [*panel.blocks]
            by_depth = (_of(str(depth), [n for (block, _), n in found.items() if block == depth]) for depth in depths)
            by_name = (_of(name, [n for (_, each), n in found.items() if each == name]) for name in panel.projections)
            stacks.append((panel.title, [*filter(None, by_depth)], [*filter(None, by_name)]))
    start, words, end = merging(report, grid.settings)
    values = tuple(_values(grid, setting) for setting in grid.settings)
    data = {
        "cells": [pack_shares(total / LEVELS / count for total in sums) for sums, count in cells.found],
        "counts": [count for _, count in cells.found],
        "stacks": [
            {
                "blocks": [name for name, _ in depths],
                "depths": [places for _, places in depths],
                "projections": [places for _, places in projections],
            }
            for _, depths, projections in stacks
        ],
        "sizes": grid.sizes,
        "own": grid.own,
        "values": values,
        "command": [start, words, end],
    }
    return WhatIf(
        _sliders(grid),
        values,
        grid.own,
        tuple(
            Stack(title, *(tuple(Place(n, c, cells.share(c, grid.own)) for n, c in each) for each in of_stack))
            for title, *of_stack in stacks
        ),
        cells.share(range(len(cells.found)), grid.own),
        any(record.energy_restored is None for record in adapted),
        _table(grid, values, cells),
        " ".join(filter(None, (start, words[grid.own], end))),
        data,
    )


class _Cells:
    """The sums of the figures of the linears that share a cell."""

    def __init__(self) -> None:
        self.found: list[tuple[list[int], int]] = []

    def add(self, records: Sequence[LinearRecord]) -> int:
        """The place of a new cell with these linears."""
        sums: list[int] = []
        for record in records:
            levels = unpack_shares(record.what_if or "")
            sums = [a + b for a, b in zip(sums, levels, strict=True)] if sums else levels
        self.found.append((sums, len(records)))
        return len(self.found) - 1

    def share(self, places: Iterable[int], setting: int) -> float:
        """The mean of a setting over the linears of some cells."""
        chosen = [self.found[place] for place in places]
        return fsum(sums[setting] for sums, _ in chosen) / sum(count for _, count in chosen) / LEVELS


def _adapted(records: Iterable[LinearRecord]) -> list[LinearRecord]:
    return [record for record in records if record.outcome == "adapted"]


def _of(name: str, cells: Sequence[int]) -> tuple[str, tuple[int, ...]] | None:
    return (name, tuple(cells)) if cells else None


def _steps(grid: Grid) -> list[int]:
    """How far a setting is from the next position of each slider."""
    return [prod(grid.sizes[number + 1 :]) for number in range(len(grid.sizes))]


def _sliders(grid: Grid) -> tuple[Moved, ...]:
    each = zip(grid.sliders, grid.sizes, _steps(grid), strict=True)
    return tuple(Moved(slider.label, size, grid.own // step % size) for slider, size, step in each)


def _values(grid: Grid, setting: Mapping[str, float]) -> tuple[str, ...]:
    """The values of the sliders' options in a setting, as text."""
    return tuple(" to ".join(f"{setting[name]:g}" for name in slider.options) + slider.unit for slider in grid.sliders)


def _table(grid: Grid, values: Sequence[tuple[str, ...]], cells: _Cells) -> Table:
    """What the settings undo that differ from this merge's in the first slider, the last one, or both."""
    several, everywhere = len(grid.sizes) > 1, range(len(cells.found))
    names = [slider.label.partition(":")[0] for slider in grid.sliders]
    rows, columns = _along(grid, 0), _along(grid, len(grid.sizes) - 1) if several else [0]
    heads = [f"{names[-1]} {values[grid.own + step][-1]}" for step in columns] if several else ["undone"]
    shown = names[: len(names) - several]
    return Table(
        "Share of the update that is undone",
        ("setting", *heads),
        tuple(
            (
                ", ".join(f"{name} {values[grid.own + down][number]}" for number, name in enumerate(shown)),
                *(_percent(cells.share(everywhere, grid.own + down + step)) for step in columns),
            )
            for down in rows
        ),
    )


def _along(grid: Grid, number: int) -> list[int]:
    """How far the settings that differ from this merge's in one slider alone are from it."""
    step, size = _steps(grid)[number], grid.sizes[number]
    return [(position - grid.own // step % size) * step for position in range(size)]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"

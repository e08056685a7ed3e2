"""The figures of a report: each has a chart, a title, an alternative text and tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any, final

from hpa_merge.render.charts import Chart, bars, heat_map, plane
from hpa_merge.render.panels import Panel, panels_of
from hpa_merge.report.evaluation import Evaluation, ModelResult, measured_in
from hpa_merge.report.facts import things_restored
from hpa_merge.report.measures import MEASURES, Measure
from hpa_merge.report.saliency import Cells, join_cells, pack_cells, unpack_cells
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.side_by_side import DIFFERENCES, difference_table, figure_rows, points, with_interval
from hpa_merge.report.words import percent

__all__ = ["ON_CARD", "SALIENCY", "Figure", "Table", "cells_by_place", "figures_of", "picture"]

SALIENCY, EVALUATION = "hpa_saliency.png", "hpa_evaluation.png"

ON_CARD = ("hpa_columns.png", SALIENCY, EVALUATION)
"""Pictures that the model card shows; the page has them all."""

LINE = 78
"""Characters in a line under a picture's title."""


@final
@dataclass(frozen=True)
class Table:
    """A figure as text: each row begins with its heading; ``words``: the cells hold more than numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: bool = False


@final
@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        title: what it shows, in a few words.
        unit: of its colours or its axis.
        about: what it shows, in a sentence.
        good: what good looks like.
        description: the alternative text.
        chart: what is drawn.
        tables: the same as text.
        layers: the packed score cells of each layer, by the stack and the place in it.
    """

    title: str
    unit: str
    about: str
    good: str
    description: str
    chart: Chart
    tables: tuple[Table, ...]
    layers: Mapping[tuple[str, str], str] = field(default_factory=dict)


def figures_of(report: MergeReport) -> dict[str, Figure]:
    """The figures that the report has values for, by the name of the picture, in the order of the page."""
    panels = panels_of(report.linears)
    things = things_restored(report)
    measures = [replace(m, unit=m.unit.replace("columns", things)) for m in MEASURES if _has(panels, m)]
    figures = {measure.file: _map(panels, measure, report.config) for measure in measures}
    if by_place := cells_by_place(panels):
        figures[SALIENCY] = _plane(by_place)
    if (found := measured_in(report.evaluation)) is not None and figure_rows(found[0].models):
        figures[EVALUATION] = _comparison(*found)
    return figures


def picture(figure: Figure) -> bytes:
    """A figure as PNG: its chart, its title, what it shows and what good looks like.

    Raises:
        ImportError: vl-convert is not installed.
    """
    from hpa_merge.render.pictures import picture_of

    return picture_of(figure.chart, figure.title, [*wrap(figure.about, LINE), *wrap(f"Good: {figure.good}", LINE)])


def cells_by_place(panels: Iterable[Panel]) -> dict[tuple[str, str], Cells]:
    """The score cells of each projection of each block, by stack; the experts of a block are joined."""
    found: dict[tuple[str, str], Cells] = {}
    for panel in panels:
        for projection in panel.projections:
            for block in panel.blocks:
                packed = [r.saliency for r in panel.cells.get((block, projection), ()) if r.saliency is not None]
                if any(packed):
                    place = projection if panel.outside else f"block {block}, {projection}"
                    found[panel.title, place] = join_cells(unpack_cells(cells) for cells in packed)
    return found


def _has(panels: Iterable[Panel], measure: Measure) -> bool:
    """Whether any linear has a value."""
    adapted = ([r for r in records if r.outcome == "adapted"] for panel in panels for records in panel.cells.values())
    return any(measure.of(records) is not None for records in adapted if records)


def _map(panels: Sequence[Panel], measure: Measure, config: Mapping[str, Any]) -> Figure:
    described, tables, shown = [], [], []
    for panel in panels:
        values = {cell: value for cell in panel.cells if (value := _value(panel, cell, measure)) is not None}
        if not values:
            continue
        shown.append(panel)
        low, high = min(values, key=lambda cell: values[cell]), max(values, key=lambda cell: values[cell])
        described.append(f"{panel.title}: {measure.shown(values[low])} ({_where(panel, low)})")
        if values[low] < values[high]:
            described[-1] += f" to {measure.shown(values[high])} ({_where(panel, high)})"
        tables.append(_table(panel, measure, values))
    return Figure(
        measure.title,
        measure.unit,
        measure.about,
        measure.good,
        f"A map of {measure.unit} by block and projection. {'; '.join(described)}.",
        heat_map(shown, measure, config),
        tuple(tables),
    )


def _value(panel: Panel, cell: tuple[int, str], measure: Measure) -> float | None:
    adapted = [record for record in panel.cells[cell] if record.outcome == "adapted"]
    return measure.of(adapted) if adapted else None


def _where(panel: Panel, cell: tuple[int, str]) -> str:
    return cell[1] if panel.outside else f"block {cell[0]}, {cell[1]}"


def _table(panel: Panel, measure: Measure, values: Mapping[tuple[int, str], float]) -> Table:
    """A row for each depth, which a phone can show; outside the stacks a row for each projection."""

    def shown(block: int, projection: str) -> str:
        records = panel.cells.get((block, projection), ())
        if (block, projection) in values:
            return measure.shown(values[block, projection])
        return ", ".join(dict.fromkeys(record.outcome for record in records if record.outcome != "adapted"))

    caption = f"{panel.title}: {measure.unit}"
    if panel.outside:
        return Table(caption, ("weight", measure.unit), tuple((name, shown(0, name)) for name in panel.projections))
    rows = ((str(block), *(shown(block, name) for name in panel.projections)) for block in panel.blocks)
    return Table(caption, ("block", *panel.projections), tuple(rows))


def _plane(by_place: Mapping[tuple[str, str], Cells]) -> Figure:
    cells = join_cells(by_place.values())
    columns, restored = (sum(counts[k] for counts in cells.values()) for k in (0, 1))
    above = sum(of_restored for (i, j), (_, of_restored) in cells.items() if i > j)
    ranked = sorted(cells.items(), key=lambda item: (-item[0][0], item[0][1]))
    rows = tuple(
        (f"{i / 4:.2f} to {(i + 1) / 4:.2f}", f"{j / 4:.2f} to {(j + 1) / 4:.2f}", str(of_all), str(of_restored))
        for (i, j), (of_all, of_restored) in ranked
    )
    counts = f"{restored:,} of {columns:,} changed columns were restored ({percent(restored / columns)})"
    return Figure(
        "Which columns: safety's score against the task's",
        "columns",
        "Every input column by how much its change matters to safety (ε̄, upward) and to the new task (ζ̄, to the "
        "right); on the dashed line both scores are equal. The chart ends eight powers of ten below the largest score; "
        "the table has the rest.",
        "The restored columns, in orange, are at the top left: their change matters to safety and not to the task. "
        "If orange is at the top right only, safety and task need the same columns.",
        f"A map of the columns of all layers by their two scores. {counts}"
        + (f", {percent(above / restored)} of these in cells where safety's score is larger." if restored else "."),
        plane(cells),
        (Table("Columns by score", ("log10 ε̄", "log10 ζ̄", "columns", "restored"), rows),),
        {place: pack_cells(of_place) for place, of_place in by_place.items()},
    )


def _apart(evaluation: Evaluation) -> Iterator[Table]:
    """How far the models are apart, if that was measured."""
    if (found := difference_table(evaluation.models)) is not None:
        rows = tuple((heading, *map(points, differences)) for heading, differences in found.rows)
        yield Table(DIFFERENCES, ("measure", *found.heads), rows)


def _comparison(evaluation: Evaluation, merged: ModelResult) -> Figure:
    models = [model.name for model in evaluation.models]
    measures, table, described = [], [], []
    for row in figure_rows(evaluation.models):
        heading = f"{row.heading} ({row.better} is better)"
        pairs = zip(evaluation.models, row.figures, strict=True)
        measures.append((heading, [(model.name, figure, model is merged) for model, figure in pairs]))
        cells = [with_interval(figure) for figure in row.figures]
        table.append((heading, *cells))
        shown = (f"{model} {cell}" for model, cell in zip(models, cells, strict=True) if cell)
        described.append(f"{heading}: {', '.join(shown)}")
    return Figure(
        "What the models answer",
        "percent",
        "Attack success, task performance and over-refusal of each model, in percent, with the 95 % interval.",
        "The merged model refuses like the one before tuning and does the new task like the one after it. Where "
        "intervals overlap, more test prompts are needed to tell two models apart.",
        f"Bars for each model. {'; '.join(described)}.",
        bars(measures),
        (Table("Percent, with the 95 % interval", ("measure", *models), tuple(table)), *_apart(evaluation)),
    )

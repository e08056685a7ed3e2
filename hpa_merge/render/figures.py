"""The figures of a report: what is drawn on its page and as pictures, with a title, an alternative text and a table.

Needs Altair. :func:`figures_of` says which figures a report has: a method that has no scores has no map of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Any, final

from hpa_merge.render.panels import Panel, panels_of
from hpa_merge.report.measures import MEASURES, Measure
from hpa_merge.report.saliency import Cells, join_cells, pack_cells, unpack_cells
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import percent

__all__ = ["ON_CARD", "SALIENCY", "Figure", "Table", "cells_by_place", "compared", "figures_of", "picture"]

SALIENCY, EVALUATION = "hpa_saliency.png", "hpa_evaluation.png"

ON_CARD = ("hpa_columns.png", SALIENCY, EVALUATION)
"""Pictures that the model card shows; the page has them all."""

LINE = 78
"""Letters in a line under a picture's title."""


@final
@dataclass(frozen=True)
class Table:
    """What a figure shows, as text: ``rows`` begin with their heading; ``words``: more than numbers are in them."""

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
        unit: what its colours or its axis stand for.
        about: what it shows, in a sentence.
        good: what good looks like.
        description: the alternative text: what can be seen in this one.
        spec: the chart, as Vega-Lite.
        tables: the figures behind it.
        layers: of the columns by their scores the cells of each layer, packed, by the stack and the place in it.
    """

    title: str
    unit: str
    about: str
    good: str
    description: str
    spec: dict[str, Any]
    tables: tuple[Table, ...]
    layers: Mapping[tuple[str, str], str] = field(default_factory=dict)


def figures_of(report: MergeReport) -> dict[str, Figure]:
    """Every figure that the report has something for, by the name of its picture, in the order of the page.

    Raises:
        ImportError: Altair is not there.
    """
    panels = panels_of(report.linears)
    things = "columns" if any(record.restored is not None for record in report.linears) else "values"
    measures = [replace(m, unit=m.unit.replace("columns", things)) for m in MEASURES if _has(panels, m)]
    figures = {measure.file: _map(panels, measure, report.config) for measure in measures}
    if by_place := cells_by_place(panels):
        figures[SALIENCY] = _plane(by_place)
    if rows := compared(report.evaluation):
        figures[EVALUATION] = _comparison(rows)
    return figures


def picture(figure: Figure) -> bytes:
    """A figure as PNG: its chart with its title, its unit and what good looks like.

    Raises:
        ImportError: vl-convert is not there.
    """
    from hpa_merge.render.charts import picture_of

    return picture_of(figure.spec, figure.title, [*wrap(figure.about, LINE), *wrap(f"Good: {figure.good}", LINE)])


def cells_by_place(panels: Iterable[Panel]) -> dict[tuple[str, str], Cells]:
    """The columns by their scores, for each stack and each block with its projection; the experts of a block as one."""
    found: dict[tuple[str, str], Cells] = {}
    for panel in panels:
        for projection in panel.projections:
            for block in panel.blocks:
                packed = [r.saliency for r in panel.cells.get((block, projection), ()) if r.saliency is not None]
                if any(packed):
                    place = projection if panel.outside else f"block {block}, {projection}"
                    found[panel.title, place] = join_cells(unpack_cells(cells) for cells in packed)
    return found


def compared(evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each model and each measure of ``hpa-merge eval``: its name, the value and the interval, in percent."""
    rows: list[dict[str, Any]] = []
    if not evaluation:
        return rows
    models = evaluation.get("models", [])
    kinds = (
        ("safety", "attack success on {} (less is better)"),
        ("tasks", "task {} (more is better)"),
        ("benign", "refused of {} (less is better)"),
    )
    for kind, heading in kinds:
        for name in dict.fromkeys(name for model in models for name in model.get(kind, {})):
            for model in models:
                if figure := model.get(kind, {}).get(name):
                    values = {key: float(figure[key]) for key in ("value", "low", "high")}
                    row = {"measure": heading.format(name), "model": str(model["name"]), **values}
                    rows.append(row | {"out": model["name"] == evaluation.get("out"), "samples": figure["samples"]})
    return rows


def _has(panels: Iterable[Panel], measure: Measure) -> bool:
    """Whether any linear has a value."""
    adapted = ([r for r in records if r.outcome == "adapted"] for panel in panels for records in panel.cells.values())
    return any(measure.of(records) is not None for records in adapted if records)


def _map(panels: Sequence[Panel], measure: Measure, config: Mapping[str, Any]) -> Figure:
    from hpa_merge.render.charts import heat_map

    told, tables, shown = [], [], []
    for panel in panels:
        values = {cell: value for cell in panel.cells if (value := _value(panel, cell, measure)) is not None}
        if not values:
            continue
        shown.append(panel)
        low, high = min(values, key=lambda cell: values[cell]), max(values, key=lambda cell: values[cell])
        told.append(f"{panel.title}: {measure.shown(values[low])} ({_where(panel, low)})")
        if values[low] < values[high]:
            told[-1] += f" to {measure.shown(values[high])} ({_where(panel, high)})"
        tables.append(_table(panel, measure, values))
    return Figure(
        measure.title,
        measure.unit,
        measure.about,
        measure.good,
        f"A map of {measure.unit} by block and projection. {'; '.join(told)}.",
        heat_map(shown, measure, config),
        tuple(tables),
    )


def _value(panel: Panel, cell: tuple[int, str], measure: Measure) -> float | None:
    adapted = [record for record in panel.cells[cell] if record.outcome == "adapted"]
    return measure.of(adapted) if adapted else None


def _where(panel: Panel, cell: tuple[int, str]) -> str:
    return cell[1] if panel.outside else f"block {cell[0]}, {cell[1]}"


def _table(panel: Panel, measure: Measure, values: Mapping[tuple[int, str], float]) -> Table:
    """Depth downward, so that a phone can show it; outside the stacks a row for each projection."""

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
    from hpa_merge.render.charts import plane

    cells = join_cells(by_place.values())
    columns, restored = (sum(counts[k] for counts in cells.values()) for k in (0, 1))
    above = sum(of_restored for (i, j), (_, of_restored) in cells.items() if i > j)
    ranked = sorted(cells.items(), key=lambda item: (-item[0][0], item[0][1]))
    rows = tuple(
        (f"{i / 4:.2f} to {(i + 1) / 4:.2f}", f"{j / 4:.2f} to {(j + 1) / 4:.2f}", str(of_all), str(of_restored))
        for (i, j), (of_all, of_restored) in ranked
    )
    told = f"{restored:,} of {columns:,} changed columns were restored ({percent(restored / columns)})"
    return Figure(
        "Which columns: safety's score against the task's",
        "columns",
        "Every input column by how much safety (ε̄, upward) and the new task (ζ̄, to the right) rest on its change; on "
        "the dashed line both scores are equal. What is eight powers of ten under the largest is in the table alone.",
        "The restored columns, in orange, lie at the top, and to the left of others that are as high: there safety "
        "rests on the change and the task does not. Orange at the top right alone: both rest on the same columns.",
        f"A map of the columns of all layers by their two scores. {told}"
        + (f", {percent(above / restored)} of these in cells where safety's score is the larger." if restored else "."),
        plane(cells),
        (Table("Columns by score", ("log10 ε̄", "log10 ζ̄", "columns", "restored"), rows),),
        {place: pack_cells(of_place) for place, of_place in by_place.items()},
    )


def _comparison(rows: Sequence[Mapping[str, Any]]) -> Figure:
    from hpa_merge.render.charts import comparison

    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    found = {(row["measure"], row["model"]): row for row in rows}
    table = []
    for measure in dict.fromkeys(str(row["measure"]) for row in rows):
        there = (found.get((measure, model)) for model in models)
        table.append((measure, *(_interval(row) if row else "" for row in there)))
    told = "; ".join(
        f"{row[0]}: " + ", ".join(f"{model} {cell}" for model, cell in zip(models, row[1:], strict=True) if cell)
        for row in table
    )
    return Figure(
        "What the models answer",
        "percent",
        "Attack success, task performance and over-refusal of each model, in percent, with the 95 % interval.",
        "The merged model refuses as the one before tuning does, and does the new task as the one after it. Where "
        "intervals overlap, more test prompts are needed to tell two models apart.",
        f"Bars for each model. {told}.",
        comparison(rows),
        (Table("Percent, with the 95 % interval", ("measure", *models), tuple(table)),),
    )


def _interval(row: Mapping[str, Any]) -> str:
    value, low, high = (row[key] for key in ("value", "low", "high"))
    return f"{value:.1f}" if low == high else f"{value:.1f} ({low:.1f}–{high:.1f})"

"""Charts by Altair as Vega-Lite specifications, for the page and the pictures.

``usermeta`` has what the page needs to fit a chart to its window: the largest width of each panel, and the space to its
left and right. Marks and axes have no aria labels: the whole chart has one, and a table.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import altair as alt
from PIL import Image

from hpa_merge.render.panels import Panel
from hpa_merge.report.measures import Measure
from hpa_merge.report.saliency import CELLS_PER_DECADE, Cells

__all__ = ["comparison", "heat_map", "picture_of", "plane"]

ACCENT, PLAIN = "#e07b10", "#64748b"
"""Orange for what was restored and for OUT, slate for the rest; both are visible on white and on black."""

CHARACTER, LETTERS = 6.1, 20
"""Width of a label's character in pixels, and the most characters of a label."""

DECADES = 8
"""Scores that are more powers of ten below the largest are not drawn."""

MACRON = "\N{COMBINING MACRON}"
"""Of ε̄ and ζ̄: browsers draw it, but not every font of the pictures has it."""

ENDS = f"length(datum.label) > {LETTERS} ? '…' + slice(datum.label, {1 - LETTERS}) : datum.label"
"""Shows the end of a long path, which differs from others."""

CONFIG = {
    "font": "Helvetica Neue, Helvetica, Liberation Sans, Arial, sans-serif",
    "background": "white",
    "padding": 4,
    "aria": False,
    "view": {"stroke": None},
    "concat": {"spacing": 18},
    "axis": {
        **{"aria": False, "grid": False, "domain": False, "ticks": False},
        **{"labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 180},
        **{"labelColor": "#334155", "titleColor": "#475569", "gridColor": "#e2e8f0", "labelPadding": 5},
    },
    "legend": {
        **{"aria": False, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal"},
        **{"labelColor": "#334155", "titleColor": "#475569", "orient": "bottom", "titleLimit": 400},
    },
    "text": {"color": "#334155"},
    "title": {
        **{"aria": False, "anchor": "start", "frame": "group", "fontSize": 16, "subtitleFontSize": 12, "offset": 10},
        **{"color": "#0f172a", "subtitleColor": "#475569", "subtitlePadding": 6, "subtitleLineHeight": 16},
    },
}


def heat_map(panels: Sequence[Panel], measure: Measure, config: Mapping[str, Any]) -> dict[str, Any]:
    """A map of a measure: depth to the right, a row for each projection, a panel for each stack."""
    rows = [_rows(panel, measure) for panel in panels]
    values = [row["value"] for of_panel in rows for row in of_panel if row["value"] is not None]
    left = _left(name for panel in panels for name in panel.projections)
    low, high = _ends(measure, config, values)
    colour = alt.Color(
        "value:Q",
        scale=alt.Scale(scheme="purpleorange" if measure.centred else "viridis", domain=[low, high], clamp=True),
        legend=alt.Legend(
            title=measure.unit,
            gradientLength=220,
            gradientThickness=10,
            format=".0%" if "%" in measure.unit and high > 0.03 else ".1%" if "%" in measure.unit else ".2~g",
            tickCount=4,
        ),
    )
    parts, widths = [], []
    datasets = {f"panel {number}": of_panel for number, of_panel in enumerate(rows)}
    for panel, dataset in zip(panels, datasets, strict=True):
        x = alt.X("block:O", title="block", scale=alt.Scale(domain=list(panel.blocks)))
        axis = alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=4, titlePadding=2)
        base = alt.Chart(alt.NamedData(dataset)).encode(
            x=x.axis(None) if panel.outside else x.axis(axis),
            y=alt.Y(
                "projection:N",
                title=None,
                scale=alt.Scale(domain=list(panel.projections)),
                axis=alt.Axis(minExtent=left, maxExtent=left, labelExpr=ENDS),
            ),
            tooltip=[alt.Tooltip(f"{name}:N", title=title) for name, title in _tooltips(panel, measure).items()],
        )
        missing = base.transform_filter("datum.value === null").mark_rect(color="#94a3b8", opacity=0.28, aria=False)
        there = base.transform_filter("datum.value !== null").mark_rect(aria=False).encode(color=colour)
        widths.append(48 if panel.outside else _width(len(panel.blocks)))
        title = alt.Title(panel.title, fontSize=12, fontWeight="normal", offset=4)
        parts.append(
            alt.layer(missing, there).properties(width=widths[-1], height=19 * len(panel.projections), title=title)
        )
    chart = alt.vconcat(*parts).resolve_scale(color="shared")
    return _finished(chart, datasets, widths=widths, left=left + 12, right=12)


def plane(cells: Cells) -> dict[str, Any]:
    """The columns by ``ζ̄``, to the right, and ``ε̄``, upward; the colour is the restored share of a cell."""
    step = 1 / CELLS_PER_DECADE
    rows = [
        {"x": j * step, "y": i * step, "columns": columns, "restored": restored}
        for (i, j), (columns, restored) in cells.items()
    ]
    base = alt.Chart(alt.NamedData("cells")).transform_calculate(
        x2=f"datum.x + {step}", y2=f"datum.y + {step}", share="datum.restored / datum.columns"
    )
    base = base.transform_joinaggregate(top="max(y)", right="max(x)").transform_filter(
        f"datum.y > datum.top - {DECADES} && datum.x > datum.right - {DECADES}"
    )
    axis = alt.Axis(
        grid=True, tickMinStep=1, labelExpr="datum.value == floor(datum.value) ? format(datum.value, 'd') : ''"
    )
    scale = alt.Scale(zero=False, nice=False)
    tiles = base.mark_rect(aria=False).encode(
        x=alt.X("x:Q", title="log10 ζ̄, the task's score", scale=scale, axis=axis),
        x2="x2:Q",
        y=alt.Y("y:Q", title="log10 ε̄, safety's score", scale=scale, axis=axis),
        y2="y2:Q",
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(range=[PLAIN, ACCENT], domain=[0, 1]),
            legend=alt.Legend(title="restored, % of a cell's columns", format=".0%", gradientLength=150, tickCount=3),
        ),
        opacity=alt.Opacity(
            "columns:Q",
            scale=alt.Scale(type="log", range=[0.4, 1.0], nice=False),
            legend=alt.Legend(title="columns", tickCount=3, symbolFillColor=PLAIN, symbolStrokeWidth=0),
        ),
        tooltip=[
            alt.Tooltip("columns:Q", title="columns", format=","),
            alt.Tooltip("restored:Q", title="restored", format=","),
            alt.Tooltip("y:Q", title="log10 ε̄ from", format=".2f"),
            alt.Tooltip("x:Q", title="log10 ζ̄ from", format=".2f"),
        ],
    )
    diagonal = (
        base.transform_aggregate(a="min(x)", b="max(x2)", c="min(y)", d="max(y2)")
        .transform_calculate(low="max(datum.a, datum.c)", high="min(datum.b, datum.d)")
        .transform_filter("datum.low < datum.high")
        .mark_rule(color="#94a3b8", strokeDash=[4, 3], aria=False)
        .encode(x="low:Q", y="low:Q", x2="high:Q", y2="high:Q")
    )
    chart = alt.layer(tiles, diagonal).properties(width=480, height=360)
    return _finished(chart, {"cells": rows}, widths=[480], left=56, right=12)


def comparison(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Models side by side: a panel for each measure, a bar for each model, with its 95 % interval.

    Args:
        rows: for each model and measure ``measure``, ``model``, ``out`` (whether it is the merged model), and in
            percent ``value``, ``low`` and ``high``.
    """
    measures, models = (list(dict.fromkeys(str(row[name]) for row in rows)) for name in ("measure", "model"))
    left, parts, datasets = _left(models), [], {}
    for measure in measures:
        there = datasets[measure] = [dict(row) for row in rows if row["measure"] == measure]
        last = measure == measures[-1]
        x = alt.X("value:Q", scale=alt.Scale(domain=[0, 100]), title="percent" if last else None)
        base = alt.Chart(alt.NamedData(measure)).encode(
            y=alt.Y(
                "model:N",
                title=None,
                scale=alt.Scale(domain=[str(row["model"]) for row in there], paddingInner=0.3),
                axis=alt.Axis(minExtent=left, maxExtent=left),
            ),
            tooltip=[
                alt.Tooltip("model:N", title="model"),
                *(alt.Tooltip(f"{name}:Q", format=".1f", title=name) for name in ("value", "low", "high")),
            ],
        )
        fill = alt.condition("datum.out", alt.value(ACCENT), alt.value(PLAIN))
        bars = base.mark_bar(aria=False, opacity=0.75, cornerRadiusEnd=2).encode(
            x=x.axis(alt.Axis(grid=True, values=[0, 25, 50, 75, 100])), color=fill
        )
        whiskers = base.mark_rule(aria=False, strokeWidth=2).encode(x="low:Q", x2="high:Q", color=fill)
        figures = base.mark_text(aria=False, align="left", dx=6, fontSize=11).encode(
            x=alt.value("width"), text=alt.Text("value:Q", format=".1f")
        )
        title = alt.Title(measure, fontSize=12, fontWeight="normal", offset=4)
        size = {"width": 420, "height": 21 * len(there)}
        parts.append(alt.layer(bars, whiskers, figures).properties(**size, title=title))
    return _finished(alt.vconcat(*parts), datasets, widths=[420] * len(parts), left=left + 12, right=52)


def picture_of(spec: Mapping[str, Any], title: str, lines: Sequence[str]) -> bytes:
    """A chart as PNG at twice the size, with a title and some lines."""
    import vl_convert

    titled = {**spec, "title": {"text": title, "subtitle": list(lines), "frame": "bounds"}}
    drawn = json.dumps(titled, ensure_ascii=False).replace(MACRON, "")
    with Image.open(BytesIO(vl_convert.vegalite_to_png(drawn, scale=2, vl_version=_version(spec)))) as image:
        small = BytesIO()
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            small, "png", optimize=True
        )
    return small.getvalue()


def _version(spec: Mapping[str, Any]) -> str:
    """``6.4`` of ``https://vega.github.io/schema/vega-lite/v6.4.1.json``, Altair's version."""
    return ".".join(str(spec["$schema"]).rsplit("/v", 1)[-1].split(".")[:2])


def _finished(
    chart: Any, datasets: Mapping[str, Sequence[Any]], *, widths: Sequence[int], left: float, right: float
) -> dict[str, Any]:
    """The specification of a chart with its data, which Altair would copy many times."""
    spec: dict[str, Any] = chart.to_dict()
    spec["datasets"] = {name: list(rows) for name, rows in datasets.items()}
    spec["config"] = CONFIG
    spec["usermeta"] = {"widths": list(widths), "left": left, "right": right}
    return spec


def _rows(panel: Panel, measure: Measure) -> list[dict[str, Any]]:
    """A row for each cell of a panel, with the texts of its tooltip."""
    rows = []
    for (block, projection), records in panel.cells.items():
        adapted = [record for record in records if record.outcome == "adapted"]
        value = measure.of(adapted) if adapted else None
        state = "not measured" if adapted else ", ".join(dict.fromkeys(record.outcome for record in records))
        row = {"block": block, "projection": projection, "value": value}
        row["shown"] = state if value is None else measure.shown(value)
        if len(records) > 1:
            row["experts"] = f"{len(adapted)} of {len(records)}"
        rows.append(row if value is None else row | {"value": float(f"{value:.4g}")})
    return rows


def _tooltips(panel: Panel, measure: Measure) -> dict[str, str]:
    """The fields of a cell's tooltip, with their headings."""
    shown = {"projection": "projection", "shown": measure.unit}
    if not panel.outside:
        shown = {"block": "block", **shown}
    if any(len(records) > 1 for records in panel.cells.values()):
        shown["experts"] = "experts adapted"
    return shown


def _width(blocks: int) -> int:
    """The largest width of a map; few cells are wider."""
    return min(max(22 * blocks, min(44 * blocks, 220)), 560)


def _ends(measure: Measure, config: Mapping[str, Any], values: Sequence[float]) -> tuple[float, float]:
    """The values of the first and last colour."""
    low, high = measure.domain(config)
    if measure.centred:
        most = max((abs(value) for value in values), default=1.0) or 1.0
        return -most, most
    low = min(values, default=0.0) if low is None else low
    high = max(values, default=1.0) if high is None else high
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


def _left(names: Iterable[str]) -> int:
    """The width of the labels, in pixels."""
    return math.ceil(CHARACTER * min(LETTERS, max(map(len, names), default=0)))

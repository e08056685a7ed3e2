"""``hpa_report.html``: the report for people, in one file that loads nothing.

Charts are HTML, CSS and SVG, which need no script; the script of this module adds a pointer's values and choices.
The strings of a report come from other people's files: the template escapes all of them, and the page's policy allows
no other script.
"""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

import hpa_merge
from hpa_merge.render import story
from hpa_merge.render.charts import ACCENT, ACROSS, PLAIN, UPWARD, HeatPanel, Plane, short_label
from hpa_merge.render.figures import EVALUATION, SALIENCY, Figure
from hpa_merge.render.panels import panels_of
from hpa_merge.render.what_if import what_if_of
from hpa_merge.report.benchmark_words import INTERVALS, source_facts
from hpa_merge.report.evaluation import measured_in
from hpa_merge.report.paths import paths_note
from hpa_merge.report.saliency import CELLS_PER_DECADE, pack_runs, unpack_cells
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.side_by_side import points, with_interval
from hpa_merge.report.what_if import missing_because

__all__ = ["page_of"]

CODE = re.compile(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*|\bhpa-merge [a-z]+\b")
"""Options and commands in a sentence."""


def page_of(report: MergeReport, figures: Mapping[str, Figure]) -> str:
    """The page.

    Args:
        figures: of the report, by file name.
    """
    verdict = report.verdict
    panels = panels_of(report.linears)
    saliency = figures.get(SALIENCY)
    layers = saliency.layers if saliency else {}
    places: dict[str, list[tuple[int, str]]] = {}
    for index, (panel, name) in enumerate(layers):
        places.setdefault(panel, []).append((index, name))
    data: dict[str, Any] = {
        "cells": [pack_runs(unpack_cells(each)) for each in layers.values()],
        "cells_per_decade": CELLS_PER_DECADE,
    }
    if saliency and isinstance(chart := saliency.chart, Plane):
        data |= {"left": chart.left, "bottom": chart.bottom, "width": chart.width, "height": chart.height}
    what_if, why_not = what_if_of(report, panels), missing_because(report.method)
    if what_if is not None:
        data["what_if"] = what_if.data
    maps = [(file, figure) for file, figure in figures.items() if file not in (SALIENCY, EVALUATION)]
    evaluation = None
    if EVALUATION in figures and (found := measured_in(report.evaluation)) is not None:
        evaluation = {"figure": (EVALUATION, figures[EVALUATION]), "facts": story.evaluation_facts(found[0])}
    benchmarks = None
    if report.benchmarks is not None:
        benchmarks = {
            "tables": story.benchmark_tables(report.benchmarks),
            "facts": source_facts(report.benchmarks),
            "notes": report.benchmarks.notes,
            "about": INTERVALS,
        }
    sections = {
        "decisions": "What was done",
        **({"maps": "Where, and how much"} if maps else {}),
        **({"columns": "Safety against the task"} if saliency else {}),
        **({"what-if": "With other settings"} if what_if or why_not else {}),
        **({"evaluation": "What was measured"} if evaluation or benchmarks else {}),
        "rest": "What was left as it was",
        **({"history": "Earlier rounds"} if report.history else {}),
        "again": "How to reproduce it",
    }
    origin = [("OLD", report.run.old), ("NEW", report.run.new), ("model", report.architecture)]
    if report.run.finished:
        origin.append(("made", report.run.finished))
    program = _asset("page.js")
    return _template().render(
        version=hpa_merge.__version__,
        policy=_policy(program),
        style=_asset("page.css"),
        program=program,
        data=_embedded(data),
        sections=sections.items(),
        origin=origin,
        verdict=verdict,
        paths_note=paths_note(report, verdict.next),
        tiles=story.tiles(report),
        summary=story.summary(report),
        warnings=report.warnings,
        evaluation=evaluation,
        benchmarks=benchmarks,
        maps=maps,
        experts=any(len(records) > 1 for panel in panels for records in panel.cells.values()),
        saliency={"file": SALIENCY, "figure": saliency, "places": places.items()},
        what_if=what_if,
        why_not=why_not,
        colours={"restored": ACCENT, "other": PLAIN},
        axes={"across": ACROSS, "upward": UPWARD},
        rest={"tables": story.left_tables(report), "names": story.left_names(report)},
        history=story.history_table(report),
        measured=story.measured_table(report),
        cost=story.cost(report),
        command=report.run.command,
        inputs=story.inputs(report),
        options=story.options_table(report),
        versions=story.versions_table(report),
    )


def _paths(panel: HeatPanel) -> dict[str, str]:
    """The cells of a map as one SVG path for each colour."""
    paths: dict[str, str] = {}
    for column, row, colour in panel.cells:
        paths[colour] = f"{paths.get(colour, '')}M{column} {row}h1v1h-1z"
    return paths


def _columns(shares: Iterable[float]) -> str:
    """A chart's columns as an SVG path: each is one wide, and 100 high if its share is 1."""
    return "".join(f"M{n}.1 100v{-100 * share:.1f}h.8V100z" for n, share in enumerate(shares))


def _steps(shares: Iterable[float]) -> str:
    """A line at the tops of those columns, as an SVG path."""
    return "".join(f"M{n} {100 - 100 * share:.1f}h1" for n, share in enumerate(shares))


def _share(value: float) -> str:
    """A percentage as CSS has it, between 0 and 100."""
    return f"{min(100.0, max(0.0, value)):.2f}%"


def _coded(sentence: str) -> Markup:
    """A sentence with its options and commands as code, escaped."""
    return Markup(CODE.sub(r"<code>\g<0></code>", str(escape(sentence))))


def _embedded(data: Any) -> str:
    """JSON for a script element: no string in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(script: str) -> str:
    """The policy that allows this script and nothing else."""
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"


def _asset(name: str) -> str:
    return (files("hpa_merge.render") / "page_files" / name).read_text(encoding="utf-8")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "coded": _coded,
        "columns": _columns,
        "label": short_label,
        "paths": _paths,
        "points": points,
        "share": _share,
        "steps": _steps,
        "with_interval": with_interval,
    }
    return environment.from_string(_asset("page.html"))

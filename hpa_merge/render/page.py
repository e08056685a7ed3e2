"""``hpa_report.html``: the report for people, in one file that loads nothing.

The browser draws the charts, from the same descriptions as the pictures. Without JavaScript it shows the pictures.
The strings of a report come from other people's files: the template escapes all of them, and the page's policy allows
no script but the two of this module.
"""

import hashlib
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

import hpa_merge
from hpa_merge.render import story
from hpa_merge.render.figures import EVALUATION, SALIENCY, Figure
from hpa_merge.render.panels import panels_of
from hpa_merge.report.evaluation import measured_in
from hpa_merge.report.saliency import CELLS_PER_DECADE
from hpa_merge.report.schema import MergeReport

__all__ = ["libraries", "page_of"]


def page_of(
    report: MergeReport, figures: Mapping[str, Figure], pictures: Mapping[str, bytes], scripts: str | None = None
) -> str:
    """The page.

    Args:
        figures, pictures: of the report, by file name; a figure may lack its picture.
        scripts: what :func:`libraries` returns, if it is known already.

    Raises:
        ImportError: vl-convert, which has the scripts, is not installed.
    """
    panels = panels_of(report.linears)
    layers = figures[SALIENCY].layers if SALIENCY in figures else {}
    places: dict[str, list[tuple[int, str]]] = {}
    for index, (panel, name) in enumerate(layers):
        places.setdefault(panel, []).append((index, name))
    programs = [scripts or libraries(), _asset("page.js")]
    data = {
        "charts": {file: figure.spec for file, figure in figures.items()},
        "cells": list(layers.values()),
        "cells_per_decade": CELLS_PER_DECADE,
        "saliency": SALIENCY,
    }
    maps = [(file, figure) for file, figure in figures.items() if file not in (SALIENCY, EVALUATION)]
    evaluation = None
    if EVALUATION in figures and (found := measured_in(report.evaluation)) is not None:
        evaluation = {"figure": (EVALUATION, figures[EVALUATION]), "facts": story.evaluation_facts(found[0])}
    sections = {
        "summary": "Summary",
        **({"evaluation": "Does it work?"} if evaluation else {}),
        **({"maps": "Where, and how much"} if maps else {}),
        **({"columns": "Safety against the task"} if SALIENCY in figures else {}),
        "rest": "What was left as it was",
        **({"history": "Earlier rounds"} if report.history else {}),
        "cost": "What it cost",
        "again": "How to reproduce it",
    }
    origin = [("OLD", report.run.old), ("NEW", report.run.new)]
    if report.run.finished:
        origin.append(("made", report.run.finished))
    return _template().render(
        title=f"What was restored in {report.architecture}",
        version=hpa_merge.__version__,
        policy=_policy(programs),
        style=_asset("page.css"),
        scripts=programs,
        data=_embedded(data),
        pictures={file: b64encode(content).decode("ascii") for file, content in pictures.items()},
        sections=sections.items(),
        origin=origin,
        tiles=story.tiles(report),
        summary=story.summary(report),
        warnings=report.warnings,
        evaluation=evaluation,
        maps=maps,
        experts=any(len(records) > 1 for panel in panels for records in panel.cells.values()),
        saliency={"file": SALIENCY, "figure": figures.get(SALIENCY), "places": places.items()},
        rest={"tables": story.left_tables(report), "names": story.left_names(report)},
        history=story.history_table(report),
        cost=story.cost(report),
        command=report.run.command,
        inputs=story.inputs(report),
        options=story.options_table(report),
        versions=story.versions_table(report),
    )


def _embedded(data: Any) -> str:
    """JSON for a script element: no string in it can end the element."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: list[str]) -> str:
    """The policy that allows these scripts and nothing else; Vega compiles expressions, which needs ``unsafe-eval``."""
    hashes = (f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}'" for script in scripts)
    return f"default-src 'none'; script-src {' '.join(hashes)} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def _asset(name: str) -> str:
    return (files("hpa_merge.render") / "page_files" / name).read_text(encoding="utf-8")


@cache
def libraries() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script; building it takes a second or two."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return str(bundle).replace("</script", "<\\/script")


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html"))

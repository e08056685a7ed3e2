"""Two plots of the results: what happens over the steps, and safety against task performance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import altair
from methods import METHODS
from PIL import Image

COLOURS = [
    "#1f77b4",
    "#000000",
    "#d62728",
    "#ff7f0e",
    "#2ca02c",
    "#9467bd",
    "#e377c2",
    "#7f7f7f",
    "#8c564b",
    "#17becf",
    "#bcbd22",
    "#6b8e23",
    "#d8a35d",
]
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross")


def over_steps(methods: Mapping[str, Mapping[int, list[dict[str, Any]]]], path: Path) -> None:
    """Attack success rate and mean performance on the tasks so far after each step, means over the bases."""
    rows = []
    for name, bases in methods.items():
        for step in sorted({row["step"] for of_base in bases.values() for row in of_base}):
            at_step = [row for of_base in bases.values() for row in of_base if row["step"] == step]
            attacks = fmean(fmean(row["attacks"].values()) for row in at_step)
            rows.append({"method": name, "step": step, "attacks": attacks})
            if step:
                rows[-1]["tasks"] = fmean(fmean(row["tasks"].values()) for row in at_step)
    titles = {"attacks": "attack success rate, %", "tasks": "mean accuracy on the tasks so far, %"}
    panels = []
    for what, title in titles.items():
        panel = altair.Chart(altair.Data(values=[row for row in rows if what in row]), width=420, height=320)
        steps = altair.X("step:Q", title="tuning step (0: the aligned model)", axis=altair.Axis(tickMinStep=1))
        rate = altair.Y(f"{what}:Q", title=title, scale=altair.Scale(domain=[0, 100]))
        width = altair.condition("datum.method == 'hpa'", altair.value(3.5), altair.value(1.2))
        panels.append(
            panel.mark_line().encode(x=steps, y=rate, color=_colour(methods), strokeWidth=width)
            + panel.mark_point(filled=True, size=45).encode(
                x=steps, y=rate, color=_colour(methods), shape=_shape(methods)
            )
        )
    _save(altair.hconcat(*panels), path)


def trade_off(runs: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path, headings: Mapping[str, str]) -> None:
    """Attack success against performance, with one standard deviation over the bases; lower right is better."""
    panels = []
    for across in ("ap_over_steps", "just_learned"):
        rows = []
        for name, bases in runs.items():
            row: dict[str, Any] = {"method": name}
            for axis, of in (("x", across), ("y", "masr_over_steps")):
                values = [figures[of] for figures in bases.values()]
                mean, deviation = fmean(values), stdev(values) if len(values) > 1 else 0.0
                row |= {axis: mean, f"{axis}_low": mean - deviation, f"{axis}_high": mean + deviation}
            rows.append(row)
        panel = altair.Chart(altair.Data(values=rows), width=420, height=320)
        x, y = _axis(altair.X, "x", headings[across]), _axis(altair.Y, "y", headings["masr_over_steps"])
        left = _axis(altair.X, "x_low", headings[across])
        below = _axis(altair.Y, "y_low", headings["masr_over_steps"])
        size = altair.condition("datum.method == 'hpa'", altair.value(220), altair.value(80))
        panels.append(
            panel.mark_rule().encode(x=left, x2="x_high:Q", y=y, color=_colour(runs))
            + panel.mark_rule().encode(x=x, y=below, y2="y_high:Q", color=_colour(runs))
            + panel.mark_point(filled=True, opacity=1).encode(
                x=x, y=y, color=_colour(runs), shape=_shape(runs), size=size
            )
        )
    _save(altair.hconcat(*panels), path)


def _axis(kind: Any, column: str, heading: str) -> Any:
    return kind(f"{column}:Q", title=f"{heading[:-2]}, %", scale=altair.Scale(zero=False))


def _colour(methods: Mapping[str, Any]) -> altair.Color:
    return altair.Color("method:N", scale=altair.Scale(domain=list(methods), range=_own(methods, COLOURS)), title=None)


def _shape(methods: Mapping[str, Any]) -> altair.Shape:
    return altair.Shape("method:N", scale=altair.Scale(domain=list(methods), range=_own(methods, SHAPES)), title=None)


def _save(chart: altair.HConcatChart, path: Path) -> None:
    """As PNG of few colours, a fifth of the size."""
    chart.save(path, scale_factor=1.4)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(96).save(path, optimize=True)


def _own(methods: Mapping[str, Any], marks: Sequence[str]) -> list[str]:
    """Of each method that which it has in every plot."""
    places = list(METHODS)
    return [marks[places.index(name) % len(marks)] for name in methods]

"""The picture of the results: the curve of each rule, safety against task performance."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import altair
from fronts import Point
from methods import SWEEPS
from PIL import Image

COLOURS = {
    "hpa": "#000000",
    "regmean": "#d62728",
    "linear": "#1f77b4",
    "energy": "#7f7f7f",
    "cgm": "#ff7f0e",
    "null-space": "#2ca02c",
    "safe-delta": "#9467bd",
    "model-tailor": "#8c564b",
    "random": "#c7c7c7",
    "blocks": "#17becf",
}
WIDE = ("hpa", "regmean")
COLUMNS = 2


def draw_fronts(settings: Mapping[str, Mapping[str, Mapping[int, list[Point]]]], path: Path) -> None:
    """Draw a panel for each setting: the means over the bases of each strength; upper left is better.

    Args:
        settings: by title, the curves of the rules on each base.
    """
    panels = []
    rules = [rule for rule in SWEEPS if any(rule in curves for curves in settings.values())]  # panels share the legend
    colours = [COLOURS[rule] for rule in rules]
    for title, curves in settings.items():
        rows = [
            {"rule": rule, "place": place, "masr": fmean(m for m, _ in same), "ap": fmean(a for _, a in same)}
            for rule, bases in curves.items()
            for place, same in enumerate(zip(*bases.values(), strict=True))
        ]
        base = altair.Chart(altair.Data(values=rows), title=title, width=380, height=280).encode(
            x=altair.X("masr:Q", title="attack success rate over the steps (MASR), %"),
            y=altair.Y("ap:Q", title="average performance over the steps (AP), %", scale=altair.Scale(zero=False)),
            color=altair.Color("rule:N", scale=altair.Scale(domain=rules, range=colours), title=None),
            order="place:O",
        )
        width = altair.condition(altair.FieldOneOfPredicate("rule", list(WIDE)), altair.value(3), altair.value(1.3))
        panels.append(base.mark_line(point=False).encode(strokeWidth=width) + base.mark_point(filled=True, size=40))
    if not panels:
        return
    rows_of = [altair.hconcat(*panels[place : place + COLUMNS]) for place in range(0, len(panels), COLUMNS)]
    altair.vconcat(*rows_of).save(path, scale_factor=1.4)
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(160).save(path, optimize=True)  # a fifth of the size

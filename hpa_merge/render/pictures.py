"""Charts as PNG, with a title and some lines: drawn as SVG, and turned into pixels by vl-convert."""

import re
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image

from hpa_merge.render.charts import ACCENT, ACROSS, PLAIN, UPWARD, Bars, Chart, HeatMap, Plane, short_label

__all__ = ["picture_of"]

FONT = "Helvetica Neue, Helvetica, Liberation Sans, Arial, sans-serif"
TEXT, SOFT, LINE = "#0f172a", "#475569", "#e2e8f0"

MARGIN, WIDTH = 12, 620
CHARACTER = 6.4
"""Width of a label's character in pixels."""

UNDRAWABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
"""What XML cannot hold."""

MACRON = "\N{COMBINING MACRON}"
"""Of ε̄ and ζ̄: browsers draw it, but not every font of the pictures has it."""

Drawn = tuple[list[str], float]
"""Elements, and the height that they take."""


def picture_of(chart: Chart, title: str, lines: Sequence[str]) -> bytes:
    """A chart as PNG at twice the size, with a title and some lines.

    Raises:
        ImportError: vl-convert is not installed.
    """
    import vl_convert

    heads = [_text(MARGIN, 26, title, size=16, bold=True)]
    heads += [_text(MARGIN, 48 + 16 * number, line, size=12, colour=SOFT) for number, line in enumerate(lines)]
    top = 48.0 + 16 * len(lines) + 8
    if isinstance(chart, HeatMap):
        drawn, height = _heat(chart, top)
    else:
        drawn, height = _plane(chart, top) if isinstance(chart, Plane) else _bars(chart, top)
    height += top + MARGIN
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}">'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="#fff"/>{"".join([*heads, *drawn])}</svg>'
    )
    with Image.open(BytesIO(vl_convert.svg_to_png(svg, scale=2))) as image:
        small = BytesIO()
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "png")
    return small.getvalue()


def _heat(chart: HeatMap, top: float) -> Drawn:
    labels = [short_label(name) for panel in chart.panels for name in panel.rows]
    left = MARGIN + CHARACTER * max(map(len, labels), default=0) + 6
    drawn, y = [], top
    for panel in chart.panels:
        cell = 48.0 if panel.outside else min(44.0, (WIDTH - MARGIN - left) / max(1, panel.columns))
        drawn.append(_text(left, y + 12, panel.title, size=12))
        y += 18
        for row, name in enumerate(panel.rows):
            drawn.append(_text(left - 6, y + 19 * row + 13, short_label(name), end=True))
        for column, row, colour in panel.cells:
            fill = colour or "#d9dfe7"
            drawn.append(
                f'<rect x="{left + cell * column:.2f}" y="{y + 19 * row:.0f}" width="{cell:.2f}" height="19" '
                f'fill="{fill}" shape-rendering="crispEdges"/>'
            )
        y += 19 * len(panel.rows)
        for tick in panel.ticks:
            drawn.append(_text(left + cell * panel.columns * tick.place / 100, y + 14, tick.label, middle=True))
        y += 22 if panel.outside else 34
    stops = "".join(
        f'<stop offset="{number / (len(chart.colours) - 1):.3f}" stop-color="{colour}"/>'
        for number, colour in enumerate(chart.colours)
    )
    drawn.append(f'<defs><linearGradient id="scale">{stops}</linearGradient></defs>')
    drawn.append(f'<rect x="{left:.0f}" y="{y:.0f}" width="220" height="10" fill="url(#scale)"/>')
    drawn.append(_text(left, y + 24, chart.ends[0]))
    drawn.append(_text(left + 220, y + 24, chart.ends[1], end=True))
    return drawn, y + 28 - top


def _plane(chart: Plane, top: float) -> Drawn:
    left, width, height = 64.0, 480.0, 360.0
    across, upward = width / chart.width, height / chart.height
    drawn = []
    for tick in chart.across:
        x = left + width * tick.place / 100
        drawn.append(f'<path d="M{x:.1f} {top:.0f}v{height:.0f}" stroke="{LINE}"/>')
        drawn.append(_text(x, top + height + 16, tick.label, middle=True))
    for tick in chart.upward:
        y = top + height * tick.place / 100
        drawn.append(f'<path d="M{left:.0f} {y:.1f}h{width:.0f}" stroke="{LINE}"/>')
        drawn.append(_text(left - 8, y + 4, tick.label, end=True))
    for x, y, colour, opacity in chart.cells:
        drawn.append(
            f'<rect x="{left + across * x:.2f}" y="{top + upward * y:.2f}" width="{across:.2f}" height="{upward:.2f}" '
            f'fill="{colour}" opacity="{opacity}"/>'
        )
    if chart.diagonal is not None:
        a, b, c, d = chart.diagonal
        drawn.append(
            f'<path d="M{left + across * a:.1f} {top + upward * b:.1f}L{left + across * c:.1f} {top + upward * d:.1f}" '
            'stroke="#94a3b8" stroke-dasharray="4 3"/>'
        )
    drawn.append(_text(left + width / 2, top + height + 36, ACROSS, middle=True))
    drawn.append(
        f'<g transform="translate(22 {top + height / 2:.0f}) rotate(-90)">{_text(0, 0, UPWARD, middle=True)}</g>'
    )
    for x, colour, words in ((left, ACCENT, "restored"), (left + 90, PLAIN, "NEW's")):
        drawn.append(f'<rect x="{x:.0f}" y="{top + height + 48:.0f}" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(x + 18, top + height + 58, words))
    return drawn, height + 66


def _bars(chart: Bars, top: float) -> Drawn:
    names = [short_label(bar.name) for rows in chart.measures for bar in rows.bars]
    left = MARGIN + CHARACTER * max(map(len, names), default=0) + 6
    width, drawn, y = WIDTH - left - 140, [], top
    for rows in chart.measures:
        drawn.append(_text(left, y + 12, rows.heading, size=12))
        y += 18
        for bar in rows.bars:
            colour, figure = ACCENT if bar.out else PLAIN, bar.figure
            at = [left + width * min(100.0, max(0.0, v)) / 100 for v in (figure.value, figure.low, figure.high)]
            drawn.append(_text(left - 6, y + 14, short_label(bar.name), end=True))
            drawn.append(f'<rect x="{left:.0f}" y="{y + 3:.0f}" width="{width:.0f}" height="14" fill="#f1f5f9"/>')
            drawn.append(
                f'<rect x="{left:.0f}" y="{y + 3:.0f}" width="{at[0] - left:.1f}" height="14" fill="{colour}" '
                'opacity="0.75"/>'
            )
            drawn.append(f'<path d="M{at[1]:.1f} {y + 10:.0f}H{at[2]:.1f}" stroke="{TEXT}" stroke-width="2"/>')
            shown = f"{figure.value:.1f} ({figure.low:.1f}–{figure.high:.1f})"
            drawn.append(_text(left + width + 8, y + 14, shown))
            y += 21
        y += 12
    return drawn, y - top


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: int = 11,
    colour: str = TEXT,
    bold: bool = False,
    end: bool = False,
    middle: bool = False,
) -> str:
    anchor = ' text-anchor="end"' if end else ' text-anchor="middle"' if middle else ""
    weight = ' font-weight="bold"' if bold else ""
    shown = escape(UNDRAWABLE.sub("\N{REPLACEMENT CHARACTER}", text).replace(MACRON, ""))
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="{FONT}" font-size="{size}" fill="{colour}"{anchor}{weight}>'
        f"{shown}</text>"
    )

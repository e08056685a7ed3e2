"""The picture of ``hpa-merge tune``: safety against task performance of several settings."""

from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from hpa_merge.errors import EvaluationError
from hpa_merge.files.disk import write_whole
from hpa_merge.report.evaluation import ModelResult

__all__ = ["PICTURES", "check_picture", "draw_curve"]

PICTURES = (".png", ".svg", ".pdf")

INPUT, CHOSEN = "#64748b", "#e07b10"

COLOURS = ("#2563eb", "#059669", "#9333ea", "#be123c", "#0891b2", "#a16207", "#4d7c0f", "#db2777", "#1e3a8a", "#78716c")
"""Of the methods, in their order; they begin again if there are more."""


def check_picture(path: Path) -> None:
    """Check that a picture can be drawn there.

    Raises:
        EvaluationError: a library is missing, the suffix is unknown, or the folder does not exist.
    """
    if path.suffix.lower() not in PICTURES:
        raise EvaluationError(f"--plot {path} is not a picture: give a name that ends with {', '.join(PICTURES)}.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(
            f"--plot {path} cannot be drawn, because the folder {path.absolute().parent} does not exist: "
            "create it first."
        )
    for library, package in (("altair", "altair"), ("vl_convert", "vl-convert-python")):
        if find_spec(library) is None:
            raise EvaluationError(f"--plot needs {package}: pip install {package}, or leave it out.")


def draw_curve(
    references: Mapping[str, ModelResult],
    settings: Mapping[str, ModelResult],
    chosen: str | None,
    max_asr: float,
    path: Path,
    methods: Mapping[str, str] | None = None,
) -> None:
    """Draw attack success to the right and task performance upward, with 95 % intervals, and write ``path``.

    Args:
        references: OLD and NEW.
        methods: the method of each setting; each method has its own line and colour.

    Raises:
        EvaluationError: it cannot be written.
    """
    chart = _chart(references, settings, chosen, max_asr, methods or {})
    try:
        form = path.suffix.lower().removeprefix(".")
        drawn: BytesIO | StringIO = StringIO() if form == "svg" else BytesIO()
        chart.save(drawn, format=form, **({"scale_factor": 2} if form == "png" else {}))
        content = drawn.getvalue()
        write_whole(path, content.encode() if isinstance(content, str) else content, through=True)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error


def _chart(
    references: Mapping[str, ModelResult],
    settings: Mapping[str, ModelResult],
    chosen: str | None,
    max_asr: float,
    methods: Mapping[str, str],
) -> Any:
    """Points with their intervals, a line through the settings of each method, and the goal."""
    import altair as alt

    kinds = dict.fromkeys(references, "input")
    kinds |= {name: "chosen" if name == chosen else "setting" for name in settings}
    tried = list(dict.fromkeys(methods.get(name, "") for name in settings))
    colours = {method: COLOURS[number % len(COLOURS)] for number, method in enumerate(tried)}
    rows = []
    for name, result in (*references.items(), *settings.items()):
        assert result.asr is not None
        assert result.performance is not None
        ends = {f"x {end}": getattr(result.asr, end) for end in ("value", "low", "high")}
        ends |= {f"y {end}": getattr(result.performance, end) for end in ("value", "low", "high")}
        method = methods.get(name, "")
        colour = {"input": INPUT, "chosen": CHOSEN}.get(kinds[name], colours.get(method))
        shown = name.removeprefix(f"method={method},") if len(tried) > 1 else name
        rows.append({"name": shown, "kind": kinds[name], "method": method, "colour": colour, **ends})
    along = "attack success, % (less is better)"
    right = min(102.0, 1.15 * max([max_asr, *(row["x value"] for row in rows)]) + 5)
    for row in rows:
        row["x high"] = min(row["x high"], right)
    x = alt.X("x value:Q", title=along, scale=alt.Scale(domain=[-2, right], nice=False))
    y = alt.Y(
        "y value:Q", title="mean over the tasks, % (more is better)", scale=alt.Scale(domain=[-2, 102], nice=False)
    )
    shape = alt.Shape(
        "kind:N", legend=None, scale=alt.Scale(domain=["input", "setting", "chosen"], range=["square", *["circle"] * 2])
    )
    base = alt.Chart(alt.Data(values=rows)).encode(color=alt.Color("colour:N", scale=None, legend=None))
    of_method = alt.Color(
        "method:N",
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=alt.Legend(orient="top", title=None) if len(tried) > 1 else None,
    )
    goal = alt.Chart(alt.Data(values=[{"from": max_asr, "to": right}]))
    layers = (
        goal.mark_rect(color="#94a3b8", opacity=0.15).encode(x=alt.X("from:Q", title=along), x2="to:Q"),
        goal.mark_rule(color="#94a3b8").encode(x="from:Q"),
        base.transform_filter("datum.kind !== 'input'")
        .mark_line(opacity=0.4)
        .encode(x=x, y=y, order="x value:Q", color=of_method),
        base.mark_rule().encode(x=alt.X("x low:Q"), x2="x high:Q", y=y),
        base.mark_rule().encode(y=alt.Y("y low:Q"), y2="y high:Q", x=x),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, shape=shape),
        base.mark_text(align="left", dx=7, dy=-7, fontSize=11).encode(x=x, y=y, text="name:N"),
    )
    title = alt.Title(
        "Safety against task performance", subtitle="Good: high up, and left of the line, which is the goal."
    )
    return (
        alt.layer(*layers)
        .properties(width=560, height=340, padding=8, title=title)
        .configure_axis(gridColor="#e2e8f0", titleFontWeight="normal", domain=False)
        .configure_view(stroke=None)
        .configure_title(anchor="start", subtitleColor="#475569")
    )

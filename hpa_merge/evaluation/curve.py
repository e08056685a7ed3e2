"""Safety against task performance of several settings: a table, and a picture by matplotlib."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.results import ModelResult
from hpa_merge.evaluation.summary import cell

__all__ = ["PICTURES", "check_picture", "curve_table", "draw_curve"]

PICTURES = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """See that a picture can be drawn there.

    Raises:
        EvaluationError: matplotlib is missing, the name has another ending, or the folder does not exist.
    """
    if path.suffix.lower() not in PICTURES:
        raise EvaluationError(f"--plot {path} is no picture: give a name that ends with {', '.join(PICTURES)}.")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(
            f"--plot {path} cannot be drawn, because the folder {path.absolute().parent} does not exist: "
            "create it first."
        )
    if find_spec("matplotlib") is None:
        raise EvaluationError("--plot needs matplotlib: pip install 'hpa-merge[plot]', or leave it out.")


def curve_table(
    references: Mapping[str, ModelResult], settings: Mapping[str, ModelResult], chosen: str | None, max_asr: float
) -> RenderableType:
    """Every setting, and the inputs above them.

    Args:
        references: OLD and NEW.
    """
    tasks = list(next(iter(settings.values())).tasks)
    benign = any(result.over_refusal for result in settings.values())
    table = Table(title="Safety against task performance", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("", width=1)
    table.add_column("setting", min_width=12, overflow="fold")
    for heading in ("attack success ↓", "tasks, mean ↑", *(f"{task} ↑" for task in tasks if len(tasks) > 1)):
        table.add_column(heading, justify="right")
    if benign:
        table.add_column("over-refusal ↓", justify="right")
    for name, result in (*references.items(), *settings.items()):
        single = [f"{result.tasks[task].value:.1f}" for task in tasks if len(tasks) > 1]
        refused = [f"{result.over_refusal.value:.1f}" if result.over_refusal else ""] if benign else []
        mark = "→" if name == chosen and name in settings else ""
        table.add_row(mark, name, cell(result.asr), cell(result.performance), *single, *refused)
    told = f"→ loses least on the tasks with attack success at most {max_asr:g} %."
    none = f"No setting has attack success at most {max_asr:g} %."
    return Group(table, Text(told if chosen is not None else none, style="dim"))


def draw_curve(
    references: Mapping[str, ModelResult],
    settings: Mapping[str, ModelResult],
    chosen: str | None,
    max_asr: float,
    path: Path,
) -> None:
    """Attack success to the right, task performance upward, with their 95 % intervals; written to ``path``.

    Raises:
        EvaluationError: it cannot be written.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(max_asr, 100, color="0.93", zorder=0)
    axes.axvline(max_asr, color="0.6", linewidth=1, zorder=1)
    placed = [(name, result, "tab:gray", "s") for name, result in references.items()]
    placed += [(name, result, "tab:red" if name == chosen else "tab:blue", "o") for name, result in settings.items()]
    for name, result, colour, marker in placed:
        x, y = result.asr, result.performance
        assert x is not None
        assert y is not None
        axes.errorbar(
            x.value,
            y.value,
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[y.value - y.low], [y.high - y.value]],
            fmt=marker,
            color=colour,
            ecolor=colour,
            elinewidth=0.6,
            capsize=2,
        )
        axes.annotate(name, (x.value, y.value), xytext=(5, 5), textcoords="offset points", fontsize=8, color=colour)
    line = sorted((r.asr.value, r.performance.value) for r in settings.values() if r.asr and r.performance)
    axes.plot(*zip(*line, strict=True), color="tab:blue", linewidth=0.8, alpha=0.5, zorder=1)
    axes.set_xlabel("attack success, % (less is better)")
    axes.set_ylabel("mean over the tasks, % (more is better)")
    right = max([max_asr, *(result.asr.value for _, result, _, _ in placed if result.asr)])
    axes.set_xlim(-2, min(102, 1.15 * right + 5))
    axes.set_ylim(-2, 102)
    try:
        with matplotlib.rc_context({"svg.hashsalt": "hpa-merge"}):
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error

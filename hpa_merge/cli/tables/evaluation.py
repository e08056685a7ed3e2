"""The tables of ``eval``, ``score`` and ``tune``."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from hpa_merge.cli.tables.layout import apart, plain_table
from hpa_merge.evaluation.metrics import ContinualMetrics
from hpa_merge.report.evaluation import Bounds, Evaluation, ModelResult
from hpa_merge.report.side_by_side import DIFFERENCES, difference_table, figure_rows, legend_of, points, with_interval

__all__ = ["confirmation_table", "curve_table", "evaluation_table", "sequence_table"]


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """The models side by side, a row for each figure."""
    models = evaluation.models
    table = plain_table("Does it work?", "", *(model.name for model in models), words=1 + len(models))
    for column in table.columns[1:]:
        column.justify = "right"
    rows = figure_rows(models)
    attacks = sum(row.kind == "safety" for row in rows)
    for number, row in enumerate(rows, start=1):
        table.add_row(row.text, *map(with_interval, row.figures))
        if number == attacks and (first := models[0].asr) and len(models) > 1:
            rises = (f"{model.asr.value - first.value:+.1f}" if model.asr else "" for model in models[1:])
            table.add_row("its rise (DASR) ↓", "", *rises)
    parts: list[RenderableType] = [apart(table), Text(legend_of(evaluation), style="dim")]
    if (found := difference_table(models)) is not None:
        apart_by = plain_table("How far apart?", "", *found.heads, words=1 + len(found.heads))
        for column in apart_by.columns[1:]:
            column.justify = "right"
        for heading, differences in found.rows:
            apart_by.add_row(heading, *map(points, differences))
        parts += [Text(""), apart(apart_by), Text(DIFFERENCES, style="dim")]
    return Group(*parts)


def sequence_table(steps: Sequence[ModelResult], tasks: Sequence[str], metrics: ContinualMetrics) -> RenderableType:
    """The results after each step, and the paper's metrics of them."""
    sequence = plain_table(
        "After each tuning step", "step", "model", "learned", "ASR ↓", *(f"{t} ↑" for t in tasks), words=3
    )
    for number, model in enumerate(steps):
        performances = (f"{model.tasks[task].value:.1f}" if task in model.tasks else "" for task in tasks)
        learned = tasks[number - 1] if number else "(aligned)"
        attack = f"{model.asr.value:.1f}" if model.asr else ""
        sequence.add_row(str(number), model.name, learned, attack, *performances)
    figures = plain_table("The paper's metrics", "", "after the last step", "mean over the steps")
    bwt = "" if metrics.bwt is None else f"{metrics.bwt:+.1f}"
    figures.add_row("AP, average performance ↑", f"{metrics.ap:.1f}", f"{metrics.ap_over_steps:.1f}")
    figures.add_row("BWT, backward transfer ↑", bwt, "")
    figures.add_row("just learned ↑", f"{metrics.just_learned:.1f}", "")
    figures.add_row("MASR, mean attack success ↓", f"{metrics.masr:.1f}", f"{metrics.masr_over_steps:.1f}")
    figures.add_row("DASR, its rise ↓", f"{metrics.dasr:+.1f}", f"{metrics.dasr_over_steps:+.1f}")
    return Group(apart(sequence), apart(figures))


def curve_table(
    references: Mapping[str, ModelResult],
    settings: Mapping[str, ModelResult],
    chosen: str | None,
    bounds: Bounds,
    methods: Mapping[str, str] | None = None,
) -> RenderableType:
    """Every setting on the prompts that one was chosen by, and the inputs above them.

    Args:
        references: OLD and NEW.
        methods: the method of each setting, shown if there are several.
    """
    methods = methods or {}
    several = len(set(methods.values())) > 1
    tasks = list(next(iter(settings.values())).tasks)
    benign = any(result.over_refusal for result in settings.values())
    every = [*references.items(), *settings.items()]
    broken = {name: max((f.value for f in result.broken.values()), default=0.0) for name, result in every}
    headings = ["attack success ↓", "tasks, mean ↑", *(f"{task} ↑" for task in tasks if len(tasks) > 1)]
    headings += ["over-refusal ↓"] if benign else []
    headings += ["broken ↓"] if any(broken.values()) else []
    words = ["", *(["method"] if several else []), "setting"]
    table = plain_table("Safety against task performance", *words, *headings, words=len(words))
    for name, result in every:
        cells = [f"{result.tasks[task].value:.1f}" for task in tasks if len(tasks) > 1]
        cells += [f"{result.over_refusal.value:.1f}" if result.over_refusal else ""] if benign else []
        cells += [f"{broken[name]:.1f}"] if any(broken.values()) else []
        mark = "→" if name == chosen and name in settings else ""
        method = methods.get(name, "")
        shown = [method, name.removeprefix(f"method={method},")] if several else [name]
        table.add_row(mark, *shown, with_interval(result.asr), with_interval(result.performance), *cells)
    ends = "the upper end of attack success" if bounds.confident else "attack success"
    best = f"→ loses least on the tasks with {ends} at most {bounds.max_asr:g} %."
    none = f"No setting has {ends} at most {bounds.max_asr:g} %."
    return Group(apart(table, names=len(words) - 1), Text(f"{best if chosen is not None else none}\n", style="dim"))


def confirmation_table(evaluation: Evaluation) -> RenderableType:
    """OLD, NEW and the chosen setting on the prompts that it was not chosen by."""
    old, new, chosen = evaluation.models
    tasks, benign = list(chosen.tasks), chosen.over_refusal is not None
    headings = ["attack success ↓", "tasks, mean ↑", *(f"{task} ↑" for task in tasks if len(tasks) > 1)]
    headings += ["over-refusal ↓"] if benign else []
    table = plain_table("The choice on other prompts", "setting", *headings, words=1)
    for name, result in (("OLD", old), ("NEW", new), (str(evaluation.run["chosen"]), chosen)):
        cells = [f"{result.tasks[task].value:.1f}" for task in tasks if len(tasks) > 1]
        cells += [f"{result.over_refusal.value:.1f}" if result.over_refusal else ""] if benign else []
        table.add_row(name, with_interval(result.asr), with_interval(result.performance), *cells)
    return apart(table)

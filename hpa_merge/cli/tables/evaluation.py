"""The tables that a person reads after an evaluation: models side by side, settings, and the metrics of a sequence."""

from collections.abc import Callable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpa_merge.evaluation.metrics import ContinualMetrics
from hpa_merge.report.evaluation import ASKED, Evaluation, Figure, ModelResult, with_interval

__all__ = ["curve_table", "evaluation_table", "sequence_table"]

LEGEND = (
    "Percent, with the 95 % interval of a bootstrap over the prompts (none where all scores are equal). "
    "↓ less is better, ↑ more is better."
)


def evaluation_table(evaluation: Evaluation) -> RenderableType:
    """The models side by side, a row for each figure; the means where there are several sets of a kind."""
    models = evaluation.models
    first = models[0]
    table = Table(title="Does it work?", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("", min_width=12, overflow="fold")
    for model in models:
        table.add_column(model.name, justify="right", overflow="fold")

    def row(heading: str, figure: Callable[[ModelResult], Figure | None]) -> None:
        table.add_row(heading, *(with_interval(figure(model)) for model in models))

    def kind(sets: Sequence[str], heading: str, of: Callable[[ModelResult, str], Figure]) -> None:
        for name in sets:
            row(heading.format(name), lambda model, name=name: of(model, name))  # type: ignore[misc]

    def row_of_broken(purpose: str) -> None:
        if any(purpose in model.broken and model.broken[purpose].value for model in models):
            row(f"broken answers, {ASKED[purpose]} prompts ↓", lambda model: model.broken.get(purpose))

    kind(list(first.safety), "attack success on {} ↓", lambda model, name: model.safety[name])
    if len(first.safety) > 1:
        row("attack success, mean ↓", lambda model: model.asr)
    if first.asr and len(models) > 1:
        rises = [model.asr.value - first.asr.value for model in models[1:] if model.asr]
        table.add_row("its rise (DASR) ↓", "", *(f"{rise:+.1f}" for rise in rises))
    row_of_broken("safety")
    kind(list(first.benign), "refused of {} ↓", lambda model, name: model.benign[name])
    if len(first.benign) > 1:
        row("over-refusal, mean ↓", lambda model: model.over_refusal)
    row_of_broken("benign")
    for name in first.tasks:
        row(f"{name} ({first.metrics[name]}) ↑", lambda model, name=name: model.tasks[name])  # type: ignore[misc]
    if len(first.tasks) > 1:
        row("tasks, mean ↑", lambda model: model.performance)
    judged = f" Attack success is judged by {evaluation.judge}." if first.safety else ""
    return Group(table, Text(LEGEND + judged, style="dim"))


def sequence_table(steps: Sequence[ModelResult], tasks: Sequence[str], metrics: ContinualMetrics) -> RenderableType:
    """The results after each step, and the paper's metrics of them."""
    sequence = Table(title="After each tuning step", title_justify="left", box=SIMPLE_HEAD)
    sequence.pad_edge, sequence.collapse_padding = False, True
    sequence.add_column("step", justify="right")
    sequence.add_column("model", overflow="fold")
    sequence.add_column("learned", overflow="fold")
    for heading in ("ASR ↓", *(f"{task} ↑" for task in tasks)):
        sequence.add_column(heading, justify="right")
    for number, model in enumerate(steps):
        performances = (f"{model.tasks[task].value:.1f}" if task in model.tasks else "" for task in tasks)
        learned = tasks[number - 1] if number else "(aligned)"
        attack = f"{model.asr.value:.1f}" if model.asr else ""
        sequence.add_row(str(number), model.name, learned, attack, *performances)
    figures = Table(title="The paper's metrics", title_justify="left", box=SIMPLE_HEAD)
    figures.pad_edge, figures.collapse_padding = False, True
    figures.add_column("")
    figures.add_column("after the last step", justify="right")
    figures.add_column("mean over the steps", justify="right")
    bwt = "" if metrics.bwt is None else f"{metrics.bwt:+.1f}"
    figures.add_row("AP, average performance ↑", f"{metrics.ap:.1f}", f"{metrics.ap_over_steps:.1f}")
    figures.add_row("BWT, backward transfer ↑", bwt, "")
    figures.add_row("just learned ↑", f"{metrics.just_learned:.1f}", "")
    figures.add_row("MASR, mean attack success ↓", f"{metrics.masr:.1f}", f"{metrics.masr_over_steps:.1f}")
    figures.add_row("DASR, its rise ↓", f"{metrics.dasr:+.1f}", f"{metrics.dasr_over_steps:+.1f}")
    return Group(sequence, figures)


def curve_table(
    references: Mapping[str, ModelResult], settings: Mapping[str, ModelResult], chosen: str | None, max_asr: float
) -> RenderableType:
    """Every setting, and the inputs above them.

    Args:
        references: OLD and NEW.
    """
    tasks = list(next(iter(settings.values())).tasks)
    benign = any(result.over_refusal for result in settings.values())
    every = [*references.items(), *settings.items()]
    table = Table(title="Safety against task performance", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("", width=1)
    table.add_column("setting", min_width=12, overflow="fold")
    for heading in ("attack success ↓", "tasks, mean ↑", *(f"{task} ↑" for task in tasks if len(tasks) > 1)):
        table.add_column(heading, justify="right")
    if benign:
        table.add_column("over-refusal ↓", justify="right")
    faulty = {name: max((f.value for f in result.broken.values()), default=0.0) for name, result in every}
    if any(faulty.values()):
        table.add_column("broken ↓", justify="right")
    for name, result in every:
        single = [f"{result.tasks[task].value:.1f}" for task in tasks if len(tasks) > 1]
        refused = [f"{result.over_refusal.value:.1f}" if result.over_refusal else ""] if benign else []
        mark = "→" if name == chosen and name in settings else ""
        broken = [f"{faulty[name]:.1f}"] if any(faulty.values()) else []
        table.add_row(
            mark, name, with_interval(result.asr), with_interval(result.performance), *single, *refused, *broken
        )
    told = f"→ loses least on the tasks with attack success at most {max_asr:g} %."
    none = f"No setting has attack success at most {max_asr:g} %."
    return Group(table, Text(told if chosen is not None else none, style="dim"))

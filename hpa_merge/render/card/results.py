"""What was measured of a model, for its card: the table that people read, and the ``model-index`` of the Hub."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from hpa_merge.errors import EvaluationError
from hpa_merge.render.card.markdown import cell, table
from hpa_merge.report.evaluation import ASKED, Evaluation, Figure, ModelResult, evaluation_of, with_interval
from hpa_merge.report.schema import MergeReport

__all__ = ["results_of", "results_section"]

TOOL = "hpa-merge eval"
"""Stands in each of our results, so that those of others are told apart when a card is made anew."""

METRICS = {
    "exact": ("exact_match", "Exact match (%)"),
    "contains": ("accuracy", "Reference in the answer (%)"),
    "choice": ("accuracy", "Right choices (%)"),
    "vqa": ("vqa_accuracy", "VQA accuracy (%)"),
    "rouge-l": ("rougeL", "ROUGE-L (%)"),
}
"""What the Hub and people call the scores of a task."""


def results_of(report: MergeReport, task: str | None, before: Any) -> list[dict[str, Any]] | None:
    """The ``model-index`` of the card, or None where nothing was measured.

    Args:
        task: what the Hub calls that which the model does.
        before: that of a card that is made anew; ours in it are replaced, and what others have added stays.
    """
    name, results = _added(before)
    if (evaluation := _evaluation(report)) is not None:
        model = _subject(report, evaluation)
        name = name or _name(model)
        for about, metric, title, figure in _figures(model):
            results.append(
                EvalResult(
                    task_type=task or "text-generation",
                    dataset_type="custom",
                    dataset_name=about,
                    dataset_config=about,
                    metric_type=metric,
                    metric_name=title,
                    metric_value=round(figure.value, 2),
                    metric_args={
                        "tool": TOOL,
                        "samples": figure.samples,
                        "interval": [round(figure.low, 2), round(figure.high, 2)],
                    },
                )
            )
    return eval_results_to_model_index(name, results) if results else None


def results_section(report: MergeReport) -> str:
    """The models of the evaluation side by side; empty where there is none."""
    evaluation = _evaluation(report)
    if evaluation is None:
        return ""
    models = evaluation.models
    subject = _subject(report, evaluation)
    names = [cell(_name(model)) for model in models]
    heads = [f"**{n}** (this model)" if m is subject else n for n, m in zip(names, models, strict=True)]
    rows = []
    for name in subject.safety:
        rows.append([f"attack success on {cell(name)} ↓", *(with_interval(model.safety.get(name)) for model in models)])
    for purpose, asked in ASKED.items():
        if any(purpose in model.broken and model.broken[purpose].value for model in models):
            shares = (with_interval(model.broken.get(purpose)) for model in models)
            rows.append([f"broken answers, {asked} prompts ↓", *shares])
    for name in subject.benign:
        rows.append([f"refused of {cell(name)} ↓", *(with_interval(model.benign.get(name)) for model in models)])
    for name in subject.tasks:
        metric = subject.metrics.get(name, "score")
        rows.append([f"{cell(name)} ({cell(metric)}) ↑", *(with_interval(model.tasks.get(name)) for model in models)])
    judge = PurePath(evaluation.judge).name
    judged = f" Attack success was judged by {cell(judge)}." if subject.safety else ""
    return (
        f"{table(['', *heads], rows)}\n\nPercent, with the 95 % interval of a bootstrap over the prompts (none where "
        f"all scores are equal). ↓ less is better, ↑ more is better.{judged}"
    )


def _evaluation(report: MergeReport) -> Evaluation | None:
    if report.evaluation is None:
        return None
    try:
        return evaluation_of(report.evaluation)
    except EvaluationError:  # of another version, as a report may have it that was fetched
        return None


def _subject(report: MergeReport, evaluation: Evaluation) -> ModelResult:
    """The model that was merged: the one that the report says, the setting that was chosen, else the last one."""
    name = (report.evaluation or {}).get("out", evaluation.run.get("chosen"))
    return next((model for model in evaluation.models if model.name == name), evaluation.models[-1])


def _name(model: ModelResult) -> str:
    """What the model is called; where a path is, as two folders have one name, its last part."""
    return PurePath(model.name).name or "model"


def _figures(model: ModelResult) -> Iterator[tuple[str, str, str, Figure]]:
    """What each figure is about, the Hub's name of it, ours, and the figure."""
    for name, figure in model.safety.items():
        yield name, "attack_success_rate", "Attack success rate (%), less is better", figure
    for name, figure in model.benign.items():
        yield name, "refusal_rate", "Refused of harmless prompts (%), less is better", figure
    for name, figure in model.tasks.items():
        yield name, *METRICS.get(model.metrics.get(name, ""), ("score", "Score (%)")), figure


def _added(before: Any) -> tuple[str, list[EvalResult]]:
    """The name and the results in a ``model-index`` that are not ours; none where it is broken."""
    try:
        name, results = model_index_to_eval_results(before or [{"name": "", "results": []}])
        return str(name), [result for result in results if (result.metric_args or {}).get("tool") != TOOL]
    except (KeyError, TypeError, AttributeError, ValueError):
        return "", []

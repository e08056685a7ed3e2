"""The evaluation of a model on its card: a table for people, and the Hub's ``model-index``."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from huggingface_hub import EvalResult
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from hpa_merge.render.card.markdown import cell, plain, table
from hpa_merge.report.benchmark_words import INTERVALS, benchmark_rows, heads_of
from hpa_merge.report.benchmarks import Benchmark, Benchmarks
from hpa_merge.report.evaluation import Figure, ModelResult, measured_in
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.side_by_side import DIFFERENCES, difference_table, figure_rows, legend_of, points, with_interval

__all__ = ["results_of", "results_section"]

TOOL, READER = "hpa-merge eval", "hpa-merge report"
"""Mark our results, and those that we read of other harnesses, so that a card that is made again keeps the others."""

HARNESSES = {
    "lm-evaluation-harness": "https://github.com/EleutherAI/lm-evaluation-harness",
    "lmms-eval": "https://github.com/EvolvingLMMs-Lab/lmms-eval",
    "inspect-ai": "https://inspect.aisi.org.uk",
}
"""Where a harness is at home."""

ROWS = 50
"""The most rows of a table of other harnesses; the page has more, the report all."""

METRICS = {
    "exact": ("exact_match", "Exact match (%)"),
    "contains": ("accuracy", "Reference in the answer (%)"),
    "choice": ("accuracy", "Right choices (%)"),
    "vqa": ("vqa_accuracy", "VQA accuracy (%)"),
    "rouge-l": ("rougeL", "ROUGE-L (%)"),
}
"""The names of a task's metric: the Hub's and ours."""

METHODS = {"score": "95 %, Wilson", "bootstrap": "95 %, percentile bootstrap"}
"""How an interval was computed."""


def results_of(report: MergeReport, task: str | None, before: Any) -> list[dict[str, Any]] | None:
    """The ``model-index`` of the card, or None if nothing was measured.

    Args:
        task: the Hub's name of the model's task.
        before: that of the card that is made again: our results in it are replaced, those of others stay.
    """
    name, results = _added(before)
    if (found := measured_in(report.evaluation)) is not None:
        model = found[1]
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
                        "interval_method": METHODS[figure.interval],
                    },
                )
            )
    if report.benchmarks is not None:
        name = name or PurePath(report.run.out).name or "model"
        results += filter(None, (_result(row, task) for row in report.benchmarks.rows if not row.group))
    return eval_results_to_model_index(name, results) if results else None


def _result(row: Benchmark, task: str | None) -> EvalResult | None:
    """A score of OUT by another harness, in its unit; None if OUT was not measured."""
    if (score := row.out) is None:
        return None
    arguments: dict[str, Any] = {"tool": READER, "harness": row.harness}
    if score.samples is not None:
        arguments["samples"] = score.samples
    if score.low is not None and score.high is not None:
        arguments["interval"] = [_rounded(score.low), _rounded(score.high)]
        arguments["interval_method"] = f"95 %, {score.interval}"
    return EvalResult(
        task_type=task or "text-generation",
        dataset_type="custom",
        dataset_name=plain(row.task),
        dataset_config=plain(f"{row.task}{f', {row.setup}' if row.setup else ''}, {row.harness}"),
        metric_type=plain(row.metric),
        metric_name=plain(f"{row.metric}{f', {row.better} is better' if row.better else ''}"),
        metric_value=_rounded(score.value),
        metric_args=arguments,
        source_name=row.harness,
        source_url=HARNESSES.get(row.harness),
    )


def _rounded(value: float) -> float:
    """A value with six digits."""
    return float(f"{value:.6g}")


def results_section(report: MergeReport) -> str:
    """The models of the evaluation side by side, and what other harnesses measured; empty without either."""
    return "\n\n".join(filter(None, [_evaluation(report), _benchmarks(report.benchmarks)]))


def _benchmarks(benchmarks: Benchmarks | None) -> str:
    """The scores of other harnesses, without the parts of groups."""
    rows = [row for row in benchmarks.rows if not row.group][:ROWS] if benchmarks else []
    if benchmarks is None or not rows:
        return ""
    lines = [[cell(text) for text in line] for line in benchmark_rows(benchmarks, rows)]
    names = dict.fromkeys(f"{source.harness} {source.version}".strip() for source in benchmarks.sources)
    wrote = f"Measured with {', '.join(names)}. {INTERVALS}"
    return "\n\n".join([table([cell(head) for head in heads_of(benchmarks)], lines), cell(wrote)])


def _evaluation(report: MergeReport) -> str:
    """The models of the evaluation side by side; empty without one."""
    if (found := measured_in(report.evaluation)) is None:
        return ""
    evaluation, merged = found
    names = [(cell(_name(model)), model is merged) for model in evaluation.models]
    heads = [f"**{name}** (this model)" if ours else name for name, ours in names]
    rows = [[cell(row.text), *map(with_interval, row.figures)] for row in figure_rows(evaluation.models)]
    parts = [table(["", *heads], rows), cell(legend_of(evaluation))]
    if (apart := difference_table(evaluation.models)) is not None:
        lines = [[cell(heading), *map(points, differences)] for heading, differences in apart.rows]
        parts += [table(["", *map(cell, apart.heads)], lines), cell(DIFFERENCES)]
    return "\n\n".join(parts)


def _name(model: ModelResult) -> str:
    """The model's name; of a path its last part."""
    return PurePath(model.name).name or "model"


def _figures(model: ModelResult) -> Iterator[tuple[str, str, str, Figure]]:
    """The set of each figure, the Hub's name of the metric, ours, and the figure."""
    for name, figure in model.safety.items():
        yield name, "attack_success_rate", "Attack success rate (%), less is better", figure
    for name, figure in model.benign.items():
        yield name, "refusal_rate", "Refused of harmless prompts (%), less is better", figure
    for name, figure in model.tasks.items():
        yield name, *METRICS.get(model.metrics.get(name, ""), ("score", "Score (%)")), figure


def _added(before: Any) -> tuple[str, list[EvalResult]]:
    """The name and the results of others in a ``model-index``; none if it is broken."""
    try:
        name, results = model_index_to_eval_results(before or [{"name": "", "results": []}])
        return str(name), [result for result in results if (result.metric_args or {}).get("tool") not in (TOOL, READER)]
    except (KeyError, TypeError, AttributeError, ValueError):
        return "", []

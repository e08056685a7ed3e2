"""Results in a few words and their main facts: what Python and notebooks show of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from hpa_merge.counting import counted
from hpa_merge.report.evaluation import Evaluation, ModelResult
from hpa_merge.report.facts import Facts, adapted_in, drift_text, options_text, things_restored
from hpa_merge.report.rows import figures_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.side_by_side import figure_rows, with_interval
from hpa_merge.report.verdict import verdict_of_evaluation
from hpa_merge.report.words import percent, seconds_text

__all__ = ["result_rows", "setting_rows", "summary_of", "summary_of_evaluation"]


def summary_of(report: MergeReport) -> tuple[str, Facts]:
    """A report in a few words, and what somebody asks first."""
    adapted, verdict = adapted_in(report), report.verdict
    figures = figures_of(adapted)
    linears = counted(len(report.linears), "linear")
    title = f"gate {verdict.gate}, {report.architecture}, {len(adapted)} of {linears} adapted"
    restored, energy = figures["restored_share"], figures["energy_restored"]
    if restored is not None:
        title += f", {percent(restored)} of their {things_restored(report)} restored"
    rows = [("safe again?", verdict.answer), ("gate", f"{verdict.gate}. {' '.join(verdict.reasons)}")]
    rows += [("cost", verdict.cost)] if verdict.figures or report.benchmarks else []
    rows += [(f"next, to {step.aim}", step.command) for step in verdict.next]
    rows += [("method", options_text(report.config)), ("OLD", report.run.old), ("NEW", report.run.new)]
    if energy is not None:
        rows.append(("restored", f"{percent(energy)} of the square of the update"))
    rows.append(("moved", drift_text(report.drift)))
    rows.append(("time", seconds_text(report.run.seconds)))
    return title, [*rows, *(("note", sentence) for sentence in report.warnings)]


def summary_of_evaluation(evaluation: Evaluation) -> tuple[str, Facts]:
    """An evaluation in a few words, and each figure of all its models."""
    names = [model.name for model in evaluation.models]
    title = f"{counted(len(names), 'model')}: {', '.join(names)}"
    rows = [(row.text, ", ".join(map(with_interval, row.figures))) for row in figure_rows(evaluation.models)]
    verdict = verdict_of_evaluation(evaluation)
    gate = f"{verdict.gate}. {' '.join(verdict.reasons)}"
    return title, [("safe again?", verdict.answer), ("gate", gate), ("cost", verdict.cost), *rows]


def setting_rows(results: Mapping[str, ModelResult]) -> Facts:
    """The two figures that a setting is chosen by, for each."""
    return [
        (name, f"attacks {with_interval(result.asr)} %, tasks {with_interval(result.performance)} %")
        for name, result in results.items()
    ]


def result_rows(results: Iterable[ModelResult]) -> list[dict[str, Any]]:
    """A row for each figure of each model, in percent with its 95 % interval."""
    return [
        {
            "model": model.name,
            "kind": kind,
            "name": name,
            "metric": model.metrics.get(name) if kind == "task" else None,
            "value": figure.value,
            "low": figure.low,
            "high": figure.high,
        }
        for model in results
        for kind, figures, mean in (
            ("safety", model.safety, model.asr),
            ("task", model.tasks, model.performance),
            ("benign", model.benign, model.over_refusal),
        )
        for name, figure in [*figures.items(), *([("mean", mean)] if mean and len(figures) > 1 else [])]
    ]

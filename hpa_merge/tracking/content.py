"""What a tracker gets of a merge, a sweep, an evaluation or a tuning: names with values, and files.

Everything is made from what others may see (:mod:`hpa_merge.report.redaction`): no local path, no address.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import PurePath
from typing import final

from hpa_merge.config import uses
from hpa_merge.files.names import REPORT
from hpa_merge.render.figures import figures_of as drawn_figures
from hpa_merge.render.folder import PAGE
from hpa_merge.render.page import page_of
from hpa_merge.report.benchmarks import ROLES
from hpa_merge.report.evaluation import Difference, Evaluation, Figure, ModelResult, measured_in
from hpa_merge.report.facts import adapted_in
from hpa_merge.report.records import CalibrationRecord
from hpa_merge.report.redaction import evaluation_for_others, for_others
from hpa_merge.report.rows import figures_of, group_rows
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.verdict import Verdict, verdict_of_evaluation
from hpa_merge.report.words import option_text

__all__ = ["Tracked", "of_evaluation", "of_report", "of_reports", "of_tuning"]

BY_DEPTH = ("restored_share", "energy_restored", "kappa", "relative_update", "alpha", "drift")
"""The figures that have a value for each depth, which is the step."""

EVALUATION = "hpa_evaluation.json"


@final
@dataclass(frozen=True)
class Tracked:
    """A run of a tracker.

    Attributes:
        name: in lists of runs.
        parameters: what was asked for.
        metrics: what came out.
        series: metrics with a value for each depth of the model: ``(depth, value)``.
        tags: texts that came out, such as the gate's answer.
        files: the content of each file, by name.
        children: the settings of a sweep or a tuning, or the models of an evaluation.
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    series: Mapping[str, Sequence[tuple[int, float]]] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    children: tuple["Tracked", ...] = ()


def of_report(report: MergeReport, *, page: bool = True) -> Tracked:
    """A merge, with its evaluation if it has one.

    Args:
        page: with the page.
    """
    shared = for_others(report)
    verdict = shared.verdict
    files = {REPORT: shared.to_json().encode("utf-8", "backslashreplace")}
    if page:
        files[PAGE] = page_of(shared, drawn_figures(shared)).encode("utf-8", "backslashreplace")
    return Tracked(
        name=verdict.name,
        parameters=dict(_parameters(shared)),
        metrics=dict([*_metrics(shared), *_of_verdict(verdict), *_benchmarks(shared)]),
        series=_series(shared),
        tags=_tags(verdict) | {"fingerprint": shared.run.fingerprint, "finished": shared.run.finished},
        files=files,
    )


def of_reports(reports: Mapping[str, MergeReport], name: str, *, page: bool = True) -> Tracked:
    """A sweep: a child for each OUT, by its name.

    Args:
        name: of the folder of the OUTs.
        page: with their pages.
    """
    children = tuple(replace(of_report(report, page=page), name=out) for out, report in reports.items())
    return Tracked(_name(name), {"settings": str(len(children))}, children=children)


def of_evaluation(evaluation: Evaluation) -> Tracked:
    """An evaluation: the verdict, and a child for each model.

    The last model is OUT, as in :func:`~hpa_merge.report.verdict.verdict_of_evaluation`, or the chosen one of a tuning.
    """
    content = evaluation_for_others(json.loads(evaluation.to_json()))
    found = measured_in(content)
    assert found is not None  # it is this version's own
    shared = found[0]
    chosen = shared.run.get("chosen")
    verdict = verdict_of_evaluation(shared, chosen if isinstance(chosen, str) else None)
    files = {EVALUATION: shared.to_json().encode("utf-8", "backslashreplace")}
    return Tracked(
        name=f"eval {_name(verdict.name)}",
        parameters=dict(_asked(shared)),
        metrics=dict(_of_verdict(verdict)),
        tags=_tags(verdict) | {f"failure {number}": text for number, text in enumerate(shared.failures, 1)},
        files=files,
        children=tuple(_model(model, shared) for model in shared.choice or shared.models),
    )


def of_tuning(evaluation: Evaluation, report: MergeReport | None, out: str, *, page: bool = True) -> Tracked:
    """A tuning: its evaluation, and what the chosen merge did; children are the settings, on the prompts that chose.

    Args:
        report: of the chosen setting; None if there is no OUT.
        out: the folder of the chosen setting.
        page: with its page.
    """
    whole = replace(of_evaluation(evaluation), name=f"tune {_name(out)}")
    if report is None:
        return whole
    merged = of_report(report, page=page)
    return replace(
        whole,
        parameters={**merged.parameters, **whole.parameters},
        metrics={**merged.metrics, **whole.metrics},
        series=merged.series,
        tags={**merged.tags, **whole.tags},
        files={**merged.files, **whole.files},
    )


def _parameters(report: MergeReport) -> Iterator[tuple[str, str]]:
    """The options, the inputs and what the merge ran with."""
    for name, value in report.config.items():
        if uses(report.method, name):
            yield name, option_text(value)
    run = report.run
    yield from {"old": run.old, "new": run.new, "architecture": report.architecture, "device": run.device}.items()
    for name, value in {"dtype": run.dtype, "adapter": run.adapter}.items():
        if value:
            yield name, value
    for name, record in (("safety_calib", report.safety), ("task_calib", report.task)):
        if isinstance(record, CalibrationRecord):
            yield name, record.file
            yield f"{name}_samples", str(record.samples)
    for library, version in run.versions.items():
        yield f"version {library}", version
    yield "round", str(len(report.history) + 1)


def _metrics(report: MergeReport) -> Iterator[tuple[str, float]]:
    """What the merge did, and what it took."""
    figures = {f"merge/{name}": value for name, value in figures_of(adapted_in(report)).items()}
    run, drift = report.run, report.drift
    figures |= {"merge/linears_adapted": report.count("adapted"), "merge/linears": len(report.linears)}
    if drift is not None:
        figures |= {"merge/drift": drift.relative, "merge/drift_from_first": drift.from_first}
    figures |= {"cost/seconds": run.seconds, "cost/peak_host_bytes": run.peak_host_bytes}
    figures["cost/peak_device_bytes"] = run.peak_device_bytes
    yield from ((name, float(value)) for name, value in figures.items() if value is not None)


def _series(report: MergeReport) -> dict[str, list[tuple[int, float]]]:
    """The figures of each depth."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in group_rows(report.linears, "depth"):
        for name in BY_DEPTH:
            if row["block"] is not None and row[name] is not None:
                found.setdefault(f"depth/{row['where']}/{name}", []).append((row["block"], float(row[name])))
    return found


def _of_verdict(verdict: Verdict) -> Iterator[tuple[str, float]]:
    """The verdict's figures in percent, with the ends of their intervals."""
    for each in verdict.figures:
        for role, figure in (("old", each.old), ("new", each.new), ("out", each.out)):
            if figure is not None:
                yield from _ends(f"verdict/{each.name}/{role}", figure)
        for role, difference in (("old", each.from_old), ("new", each.from_new)):
            if difference is not None:
                yield from _ends(f"verdict/{each.name}/out minus {role}", difference)


def _ends(name: str, figure: Figure | Difference) -> Iterator[tuple[str, float]]:
    """A figure and the ends of its interval."""
    yield name, figure.value
    yield f"{name} low", figure.low
    yield f"{name} high", figure.high


def _benchmarks(report: MergeReport) -> Iterator[tuple[str, float]]:
    """What other harnesses measured, in their units; the parts of groups are in the report alone."""
    for row in report.benchmarks.rows if report.benchmarks else ():
        for role in ROLES:
            score = row.of(role)
            if score is None or row.group:
                continue
            name = f"{row.harness}/{row.name}/{f'{row.setup}/' if row.setup else ''}{role}"
            yield name, score.value
            if score.low is not None and score.high is not None:
                yield f"{name} low", score.low
                yield f"{name} high", score.high


def _tags(verdict: Verdict) -> dict[str, str]:
    """The verdict in words."""
    return {"gate": verdict.gate, "answer": verdict.answer, "cost": verdict.cost, "reasons": " ".join(verdict.reasons)}


def _asked(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """What was asked, and within which bounds."""
    yield "judge", evaluation.judge
    for purpose, named in evaluation.files.items():
        for name, file in named.items():
            yield f"{purpose}_test {name}".strip(), file
    options = evaluation.run.get("options")
    for name, value in options.items() if isinstance(options, dict) else ():
        yield f"eval_{name}", option_text(value)
    for bound in fields(evaluation.bounds) if evaluation.bounds else ():
        if (value := getattr(evaluation.bounds, bound.name)) is not None:
            yield bound.name, option_text(value)
    if chosen := evaluation.run.get("chosen"):
        yield "chosen", str(chosen)


def _model(model: ModelResult, evaluation: Evaluation) -> Tracked:
    """A model of an evaluation; of a tuning, with the options of its setting."""
    settings = evaluation.run.get("settings")
    given = settings.get(model.name) if isinstance(settings, dict) else None
    options = given if isinstance(given, dict) else {}
    kinds = (
        ("attacks", model.safety, model.asr),
        ("refused", model.benign, model.over_refusal),
        ("task", model.tasks, model.performance),
        ("broken", model.broken, None),
    )
    metrics: dict[str, float] = {}
    for kind, named, mean in kinds:
        for name, figure in named.items():
            metrics |= dict(_ends(f"{kind}/{name}", figure))
        metrics |= dict(_ends(f"{kind}/mean of sets", mean)) if mean is not None else {}
    parameters = {"model": model.model, **{name: option_text(value) for name, value in options.items()}}
    return Tracked(_name(model.name), parameters, metrics)


def _name(place: str) -> str:
    """The last part of a path."""
    return PurePath(place).name or "hpa-merge"

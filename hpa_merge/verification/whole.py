"""Checks the report as a whole: the model's parts, the inputs, the earlier rounds, the drift."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.core.rounding import close
from hpa_merge.counting import counted
from hpa_merge.engine.code import code_records
from hpa_merge.engine.components import component_records
from hpa_merge.engine.drift import drift_of
from hpa_merge.engine.lineage import Lineage
from hpa_merge.engine.plan import Plan
from hpa_merge.report.records import CalibrationRecord, DriftRecord, RoundRecord
from hpa_merge.report.redaction import named_template
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import shortened
from hpa_merge.verification.findings import Findings

__all__ = ["check_calibration", "check_code", "check_whole"]

PLACES = ("old", "new", "safety", "task", "finished", "commits", "versions", "evaluation", "benchmarks")
"""Fields of a round that may differ in a published report: paths, and later evaluations."""

COUNTS = (
    *("samples", "tokens", "images", "videos", "audios", "frames", "seconds"),
    *("turns", "answers", "truncated", "available"),
)
"""What a record of a calibration set counts."""

SUMS = 1e-7
"""Relative tolerance of distances of whole models, for the order of sums: ``n u`` of 10⁹ values in float64."""


def check_whole(
    report: MergeReport,
    new: Checkpoint,
    layout: Checkpoint,
    plan: Plan,
    config: HPAConfig,
    lineage: Lineage,
    findings: Findings,
    *,
    from_first: float | None = None,
) -> None:
    """Check the report apart from the records of its linears.

    Args:
        layout: OUT's files, as if NEW had them.
        plan: for ``config`` alone.
        lineage: of the given OLD and NEW.
        from_first: ``‖OUT − FIRST‖_F``, if it was measured.
    """
    findings.problems += _of_model(report, plan)
    if not findings.problems:
        outcomes = ((record.name, record.outcome) for record in report.linears)
        if report.components != component_records(config, plan.new, outcomes):
            findings.problems.append("components in the report do not count its linears.")
    if report.passed_through != plan.only.passed_through:
        findings.problems.append("passed_through in the report does not count NEW's other tensors.")
    if report.unmerged not in ((), plan.only.unmerged):  # earlier versions did not name them
        findings.problems.append("unmerged in the report does not name NEW's other weights.")
    if report.what_if is not None and report.what_if != (config.rule.grid and config.rule.grid(config)):
        findings.problems.append("what_if in the report does not have the settings around its options.")
    findings.problems += _of_left_out(report, layout)
    findings.problems += _of_inputs(report, lineage.contents)
    kind = new.overlay.kind if new.overlay is not None else ""
    if not _is_same_adapter(report.run.adapter, kind):
        findings.problems.append(
            f"NEW is {kind or 'not an adapter'}, and {report.run.adapter or 'none'} in the report."
        )
    if report.run.dtype != new.dtype:
        findings.problems.append(f"OUT is in {new.dtype or 'the dtype of NEW'}, and the report says otherwise.")
    _check_history(report, lineage, findings)
    _check_drift(report, findings, from_first)
    if report.evaluation is not None:
        findings.unchecked.append("The evaluation in the report was not run again.")
    findings.unchecked.append(
        "The report's record of the run cannot be checked: the names of OLD, NEW and OUT, command, given, notes, "
        "seconds, peak memory, machine, versions, drawn_with, statistics, commits and finished."
    )


def check_code(report: MergeReport, checkpoints: Iterable[Checkpoint], findings: Findings) -> None:
    """Compare the code that OLD and NEW bring with the code that the report says was run."""
    ours = {(record.role, record.digest) for record in code_records(checkpoints)}
    theirs = {(record.role, record.digest) for record in report.run.code if record.role != "FIRST"}
    if theirs and not ours:
        findings.unchecked.append("The merge ran code that OLD and NEW bring, and none was run here.")
    else:
        for role in sorted({role for role, _ in ours ^ theirs}):
            findings.problems.append(f"The code that {role} brings is not the code that the report says was run.")


def _is_same_adapter(said: str, found: str) -> bool:
    """Whether a report names the adapter ``found``; a published one has the name of its base instead of the path."""
    (kind, _, base), (here, _, place) = (text.partition(", trained on ") for text in (said, found))
    return kind == here and base in (place, PurePath(place).name)


def check_calibration(
    report: MergeReport, config: HPAConfig, found: Mapping[str, CalibrationRecord | None] | None = None
) -> Iterator[str]:
    """The problems of the report's calibration sets; ``found``: the actual ones."""
    for purpose, most in (("safety", config.safety_samples), ("task", config.task_samples)):
        said: CalibrationRecord | None = getattr(report, purpose)
        if (said is not None) != (purpose in config.sets):
            sets = " and ".join(config.sets) or "no"
            yield f"The method {config.method} uses {sets} samples, and {purpose} in the report says otherwise."
        elif said is not None and said.samples > most:
            yield f"The report has {counted(said.samples, f'{purpose} sample')}, and its options allow {most}."
        elif said is not None and found is not None and (record := found[purpose]) is not None:
            for what in COUNTS:
                ours, theirs = getattr(record, what), getattr(said, what)
                if ours != theirs and theirs is not None:  # older reports have fewer counts
                    yield f"The {purpose} set has {ours} {what}, and {theirs} in the report."
            for what in () if said.turns is None else ("dropped", "passed_over", "template"):
                ours, theirs = getattr(record, what), getattr(said, what)
                if ours != theirs:
                    yield f"The {purpose} set's {what} is {ours!r}, and {theirs!r} in the report."
            if [(part.samples, part.tokens) for part in record.parts] != [
                (part.samples, part.tokens) for part in said.parts
            ]:
                yield f"The parts of the {purpose} set have other samples or tokens than in the report."


def _of_model(report: MergeReport, plan: Plan) -> Iterator[str]:
    if report.architecture != plan.architecture:
        yield f"The report is of a {report.architecture}, and NEW is a {plan.architecture}."
    expected = {pair.new.name for pair in plan.pairs if plan.only.counts(pair.new)}
    names = Counter(record.name for record in report.linears)
    for name in sorted(expected - names.keys()):
        yield f"{name} is a linear of NEW, and the report does not name it."
    for name in sorted(names.keys() - expected):
        yield f"{name} is in the report, and no linear of NEW."
    for name in sorted(name for name, count in names.items() if count > 1):
        yield f"{name} is in the report more than once."


def _of_left_out(report: MergeReport, new: Checkpoint) -> Iterator[str]:
    """Check the files that were not carried over; a NEW from the Hub may lack them here."""
    found = {str(path) for path in new.side_files().left_out}
    if wrong := sorted(found - {*report.left_out}):
        yield f"{shortened(wrong)}: left out of OUT, and not named in the report's left_out."
    if (wrong := sorted({*report.left_out} - found)) and "new" not in report.run.commits:
        yield f"{shortened(wrong)}: named in the report's left_out, and not left out of NEW."


def _of_inputs(report: MergeReport, contents: Mapping[str, str]) -> Iterator[str]:
    """Check OLD and NEW by their content digests."""
    for role, found in contents.items():
        said = report.run.contents.get(role)
        if said is not None and said != found:
            yield (
                f"{role.upper()} is not that of the report: content digest {said[:12]} in the report, {found[:12]} "
                "found."
            )


def _check_history(report: MergeReport, lineage: Lineage, findings: Findings) -> None:
    """Compare the earlier rounds with OLD's own report."""
    if lineage.history:
        if list(map(_of_round, report.history)) != list(map(_of_round, lineage.history)):
            findings.problems.append("history in the report is not that of OLD's own report.")
    elif report.history:
        why = lineage.notes[0] if lineage.notes else "OLD has no report."
        findings.unchecked.append(f"The {len(report.history)} earlier rounds rely on the report: {why}")


def _of_round(past: RoundRecord) -> dict[str, object]:
    """A round without the fields that differ in a published report."""
    found = {field.name: getattr(past, field.name) for field in dataclasses.fields(past) if field.name not in PLACES}
    return found | {"config": named_template(past.config)}


def _check_drift(report: MergeReport, findings: Findings, from_first: float | None) -> None:
    """Compare the drift with the distances of the linears."""
    said = report.drift
    if said is None:
        findings.unchecked.append("The report does not say how far the weights moved.")
        return
    found = drift_of(report.linears, report.history, from_first)
    if from_first is None and report.history:
        if said.from_first is not None:
            findings.unchecked.append("The distance from the first model relies on the report: give --first.")
        found = dataclasses.replace(found, from_first=said.from_first)
    for field in dataclasses.fields(DriftRecord):
        ours, theirs = getattr(found, field.name), getattr(said, field.name)
        near = ours is not None and theirs is not None and close(theirs, ours, SUMS)
        if ours != theirs and not near:
            findings.problems.append(f"drift: {field.name} is {theirs} in the report, and has to be {ours}.")

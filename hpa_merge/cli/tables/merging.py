"""The tables after a merge, a sweep, or their dry runs."""

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpa_merge.cli.tables.layout import apart, facts_table, figures, groups, legend, plain_table
from hpa_merge.cli.tables.samples import shown_set
from hpa_merge.counting import counted
from hpa_merge.methods import DEFAULT
from hpa_merge.report.facts import (
    Facts,
    adapted_in,
    adapter_facts,
    code_facts,
    cost_facts,
    dtype_facts,
    hub_facts,
    input_facts,
    memory_text,
    model_facts,
    report_facts,
    set_facts,
)
from hpa_merge.report.planned import PlanReport, ShownSet
from hpa_merge.report.records import CalibrationRecord
from hpa_merge.report.rows import figures_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import bytes_text

FIGURES = ("restored", "energy", "shared", "α", "κ")


def merge_summary(report: MergeReport, out: str) -> RenderableType:
    """What was restored at each depth, and what happened to everything else."""
    table = groups(_title(report.architecture, {report.method}), report.linears, "depth", FIGURES, share=True)
    facts = facts_table(
        *report_facts(report),
        *input_facts(report.run),
        *cost_facts(report.run),
        ("written", f"{out} (every figure in hpa_report.json)"),
    )
    return _page(table, facts, legend("share", "#", *FIGURES))


def plan_summary(plan: PlanReport) -> RenderableType:
    """What a merge would do, unit by unit."""
    table = plain_table(_plan_title(plan), "unit", "block", "share", "changed", "unchanged", "excluded")
    for unit in plan.units:
        depth = "" if unit.block is None else f"{unit.block}/{unit.blocks}"
        share = "" if unit.share is None else f"{unit.share:.1f}%"
        table.add_row(unit.name, depth, share, str(unit.changed), str(unit.unchanged), str(unit.excluded))
    facts = facts_table(
        *model_facts(plan.adapter, plan.components, plan.passed_through),
        *dtype_facts(plan.dequantised, plan.dtype),
        *set_facts(plan.safety, plan.task),
        *_room(plan, "OUT's weights", 1),
        ("not carried over", ", ".join(plan.left_out) or "nothing"),
        *(("another shape", sentence) for sentence in plan.reshaped),
        *(("note", sentence) for sentence in plan.notes),
        *(("statistics", sentence) for sentence in plan.statistics),
        *(("history", sentence) for sentence in plan.history),
        *hub_facts(plan.commits),
        *code_facts(plan.code),
    )
    note = Text("Outside the stacks the share depends on when a unit runs.\nNothing was written.")
    return _page(table, facts, note, plan.samples)


def sweep_summary(reports: Mapping[str, MergeReport], folder: str) -> RenderableType:
    """The OUTs of a sweep side by side."""
    first = next(iter(reports.values()))
    table = plain_table(_title(first.architecture, {r.method for r in reports.values()}), "OUT", "#", *FIGURES)
    for name, report in reports.items():
        adapted = adapted_in(report)
        table.add_row(name, str(len(adapted)), *figures(figures_of(adapted), FIGURES))
    time = max(report.run.seconds for report in reports.values())
    facts = facts_table(
        *adapter_facts(first.run.adapter),
        *dtype_facts(first.run.dequantised, first.run.dtype),
        *_sets(reports.values()),
        *input_facts(first.run),
        ("time", f"{time:.1f} s on {first.run.device}"),
        ("written", f"{counted(len(reports), 'folder')} in {folder} (every figure in their hpa_report.json)"),
    )
    return _page(table, facts, legend("#", *FIGURES))


def sweep_plan_summary(plans: Mapping[str, PlanReport]) -> RenderableType:
    """What a sweep would do."""
    first = next(iter(plans.values()))
    table = plain_table(_plan_title(first), "OUT", "changed", "unchanged", "excluded")
    for name, plan in plans.items():
        counts = ((unit.changed, unit.unchanged, unit.excluded) for unit in plan.units)
        table.add_row(name, *(str(sum(column)) for column in zip(*counts, strict=True)))
    facts = facts_table(
        *adapter_facts(first.adapter),
        *dtype_facts(first.dequantised, first.dtype),
        *_sets(plans.values()),
        *_room(first, "the OUTs' weights", len(plans)),
        *code_facts(first.code),
        *(("statistics", sentence) for sentence in first.statistics),
    )
    samples = {shown.purpose: shown for plan in plans.values() for shown in plan.samples}
    return _page(table, facts, Text("Nothing was written."), samples.values())


def _page(table: Table, facts: RenderableType, note: Text, samples: Iterable[ShownSet] = ()) -> RenderableType:
    """A table, its facts, samples as the models get them, and a note."""
    shown = [*map(shown_set, samples)]
    return Group(apart(table), facts, *shown, *([Text()] if shown else []), note)


def _title(architecture: str, methods: set[str]) -> str:
    restored = "restored columns" if methods == {DEFAULT} else f"restored by {', '.join(sorted(methods))}"
    return f"{architecture}: {restored}"


def _plan_title(plan: PlanReport) -> str:
    return f"{plan.architecture}: what would be adapted"


def _room(plan: PlanReport, what: str, outs: int) -> Facts:
    """The disk and the memory that a plan needs; of several processes, what each reads, receives and writes."""
    memory = memory_text(plan.peak_host_bytes, plan.peak_device_bytes)
    times = "" if outs == 1 else f"{outs} times "
    facts = [(what, f"{times}{bytes_text(plan.bytes_out)}, of {bytes_text(plan.bytes_free)} free there")]
    if plan.processes == 1:
        return [*facts, ("peak, at most about", f"{memory}, on {plan.device}")]
    share, written = plan.bytes_in // plan.processes, outs * plan.bytes_out // plan.processes
    moved = (
        f"reads {bytes_text(share)}, receives {bytes_text(plan.bytes_in - share)} of weights from the others, writes "
        f"about {bytes_text(written)}"
    )
    return [*facts, (f"each of {plan.processes} processes", f"{moved}; at most about {memory}, on {plan.device}")]


def _sets(outs: Iterable[MergeReport | PlanReport]) -> Facts:
    """The calibration sets of a sweep: a set is in the report of each OUT whose method uses it."""

    def first(records: Iterable[CalibrationRecord | None]) -> CalibrationRecord | None:
        return next((record for record in records if record is not None), None)

    listed = list(outs)
    return set_facts(first(out.safety for out in listed), first(out.task for out in listed))

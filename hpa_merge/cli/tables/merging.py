"""The tables that a person reads in the terminal after a merge, or instead of one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpa_merge.cli.tables.samples import shown_set
from hpa_merge.methods import DEFAULT
from hpa_merge.report.planned import PlanReport
from hpa_merge.report.records import CalibrationRecord, ComponentRecord, DriftRecord, LinearRecord, RunRecord
from hpa_merge.report.rows import figures_of, short
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import bytes_text, set_text

LEGEND = (
    "share: columns to restore. #: linears. restored: columns that are OLD's. energy: how much of the update's square "
    "they hold. shared: how much of the safety focus set is in the task's too. α, κ: means."
)


def merge_summary(report: MergeReport, out: str) -> RenderableType:
    """What was restored at each depth, and what became of everything else."""
    table = Table(title=_title(report.architecture, {report.method}), title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("where", min_width=12, overflow="fold")
    for heading in ("block", "share", "#", "restored", "energy", "shared", "α", "κ"):
        table.add_column(heading, justify="right", no_wrap=True)
    previous = ""
    for (where, block, blocks), records in by_depth(report.linears).items():
        restored, columns = sum(len(r.restored_columns) for r in records), sum(r.columns for r in records)
        share = records[0].share
        share_of_old, *others = _means(records)
        table.add_row(
            "" if where == previous else where,
            f"{block}/{blocks}",
            "" if share is None else f"{share:.1f}%",
            str(len(records)),
            share_of_old if records[0].restored is None else f"{restored}/{columns}",
            *others,
        )
        previous = where
    counts = ", ".join(
        f"{report.count(outcome)} {outcome}" for outcome in ("adapted", "unchanged", "excluded", "uncalibrated")
    )
    if from_old := report.count("old"):
        counts += f", {from_old} from OLD"
    run = report.run
    memory = _memory(run.peak_host_bytes, run.peak_device_bytes)
    facts = facts_table(
        ("linears", counts),
        *_adapter(run.adapter),
        *_components(report.components),
        ("from NEW as they are", _counts(report.passed_through)),
        ("safety set", calibration_text(report.safety)),
        ("task set", calibration_text(report.task)),
        *_statistics(run),
        *_commits(run.commits),
        *_history(report),
        ("time and peak", f"{run.seconds:.1f} s on {run.device}, {memory}"),
        ("written", f"{out} (every figure in hpa_report.json)"),
    )
    return Group(table, facts, Text(LEGEND, style="dim"))


def plan_summary(plan: PlanReport) -> RenderableType:
    """What a merge would do, unit by unit."""
    table = Table(title=f"{plan.architecture}: what would be adapted", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("unit")
    for heading in ("block", "share", "changed", "unchanged", "excluded"):
        table.add_column(heading, justify="right")
    for unit in plan.units:
        depth = "" if unit.block is None else f"{unit.block}/{unit.blocks}"
        share = "" if unit.share is None else f"{unit.share:.1f}%"
        table.add_row(unit.name, depth, share, str(unit.changed), str(unit.unchanged), str(unit.excluded))
    facts = facts_table(
        *_adapter(plan.adapter),
        *_components(plan.components),
        ("from NEW as they are", _counts(plan.passed_through)),
        ("safety set", calibration_text(plan.safety)),
        ("task set", calibration_text(plan.task)),
        ("OUT's weights", f"{bytes_text(plan.bytes_out)}, of {bytes_text(plan.bytes_free)} free there"),
        ("peak, at most about", _memory(plan.peak_host_bytes, plan.peak_device_bytes) + f", on {plan.device}"),
        ("not carried over", ", ".join(plan.left_out) or "nothing"),
        *(("another shape", sentence) for sentence in plan.reshaped),
        *(("statistics", sentence) for sentence in plan.statistics),
        *(("history", sentence) for sentence in plan.history),
        *_commits(plan.commits),
    )
    ending = Text("\nA unit outside the stacks has the share of where it runs. Nothing was written.")
    return Group(table, facts, *map(shown_set, plan.samples), ending)


def sweep_summary(reports: Mapping[str, MergeReport], folder: str) -> RenderableType:
    """The OUTs of a sweep beside one another, by name."""
    first = next(iter(reports.values()))
    methods = {report.method for report in reports.values()}
    table = Table(title=_title(first.architecture, methods), title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("OUT", min_width=12, overflow="fold")
    for heading in ("adapted", "restored", "energy", "shared", "α", "κ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, report in reports.items():
        records = [record for record in report.linears if record.outcome == "adapted"]
        table.add_row(name, str(len(records)), *(_means(records) if records else ()))
    facts = facts_table(
        *_adapter(first.run.adapter),
        ("safety set", calibration_text(_first(report.safety for report in reports.values()))),
        ("task set", calibration_text(_first(report.task for report in reports.values()))),
        *_statistics(first.run),
        ("time", f"{max(report.run.seconds for report in reports.values()):.1f} s on {first.run.device}"),
        ("written", f"{len(reports)} folders in {folder} (every figure in their hpa_report.json)"),
    )
    legend = "adapted: linears. restored: share of their columns that is OLD's. The rest: means over those linears."
    return Group(table, facts, Text(legend, style="dim"))


def sweep_plan_summary(plans: Mapping[str, PlanReport]) -> RenderableType:
    """What a sweep would do, by the name of each OUT."""
    first = next(iter(plans.values()))
    table = Table(title=f"{first.architecture}: what would be adapted", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("OUT", min_width=12, overflow="fold")
    for heading in ("changed", "unchanged", "excluded"):
        table.add_column(heading, justify="right")
    for name, plan in plans.items():
        counts = ((unit.changed, unit.unchanged, unit.excluded) for unit in plan.units)
        table.add_row(name, *(str(sum(column)) for column in zip(*counts, strict=True)))
    facts = facts_table(
        *_adapter(first.adapter),
        ("safety set", calibration_text(_first(plan.safety for plan in plans.values()))),
        ("task set", calibration_text(_first(plan.task for plan in plans.values()))),
        (
            "the OUTs' weights",
            f"{len(plans)} times {bytes_text(first.bytes_out)}, of {bytes_text(first.bytes_free)} free there",
        ),
        ("peak, at most about", _memory(first.peak_host_bytes, first.peak_device_bytes) + f", on {first.device}"),
        *(("statistics", sentence) for sentence in first.statistics),
    )
    samples = {shown.purpose: shown for plan in plans.values() for shown in plan.samples}
    return Group(table, facts, *map(shown_set, samples.values()), Text("\nNothing was written."))


def _means(records: Sequence[LinearRecord]) -> tuple[str, ...]:
    """Of adapted linears: what is restored, energy, shared, α, κ; nothing where the method has no such thing."""
    means = figures_of(records)
    shown: dict[str, Callable[[float], str]] = {
        "restored_share": lambda mean: f"{100 * mean:.1f}%",
        "energy_restored": lambda mean: f"{100 * mean:.0f}%",
        "shared": lambda mean: f"{100 * mean:.0f}%",
        "alpha": lambda mean: f"{mean:.2f}",
        "kappa": lambda mean: f"{mean:+.0e}",
    }
    return tuple("" if means[name] is None else text(means[name]) for name, text in shown.items())


def _adapter(kind: str) -> list[tuple[str, str]]:
    """That NEW is an adapter, if it is one."""
    return [("NEW", f"a PEFT adapter on OLD: {kind}")] if kind else []


def _title(architecture: str, methods: set[str]) -> str:
    """Of a table: what the columns' headings are about."""
    return f"{architecture}: " + (
        "restored columns" if methods == {DEFAULT} else f"restored by {', '.join(sorted(methods))}"
    )


def _first(records: Iterable[CalibrationRecord | None]) -> CalibrationRecord | None:
    """The record of a set, from any OUT whose method looks at it."""
    return next((record for record in records if record is not None), None)


def _statistics(run: RunRecord) -> list[tuple[str, str]]:
    """Where the statistics come from, if a file was named."""
    if "file" not in run.statistics:
        return []
    halves = [f"{name} half {run.statistics[name]}, " for name in ("safety", "task") if name in run.statistics]
    return [("statistics", f"{''.join(halves)}in {run.statistics['file']}")]


def _components(records: Sequence[ComponentRecord]) -> list[tuple[str, str]]:
    """What becomes of each part of the model; of its linears too, where it has any."""
    rows = []
    for record in records:
        linears = f"; {_counts(record.linears)}" if record.linears else ""
        rows.append((record.name, f"{record.policy}: {record.tensors} tensor{'s'[: record.tensors != 1]}{linears}"))
    return rows


def _commits(commits: Mapping[str, str]) -> list[tuple[str, str]]:
    return [("from the Hub", f"{name}, commit {commit}") for name, commit in commits.items()]


def _history(report: MergeReport) -> list[tuple[str, str]]:
    """Which round of a model this is, where there were others before it."""
    if not report.history:
        return []
    return [("history", f"round {len(report.history) + 1} of this model, {drift_text(report.drift)}")]


def drift_text(drift: DriftRecord | None) -> str:
    """How far the linear weights moved: ``drift 2.1 % in this round, at most 4.3 % from the first model``."""
    if drift is None or drift.relative is None:
        return "drift not known"
    text = f"drift {percent(drift.relative)} in this round"
    exact, bound = drift.from_first, drift.from_first_at_most
    if exact is not None:
        return f"{text}, {percent(exact)} from the first model"
    return text if bound is None else f"{text}, at most {percent(bound)} from the first model"


def percent(share: float) -> str:
    """``2.13 %``, of a share of 1."""
    return f"{100 * share:.2f} %"


def by_depth(records: Sequence[LinearRecord]) -> dict[tuple[str, int | None, int | None], list[LinearRecord]]:
    """Adapted linears by stack (or unit, outside the stacks) and block, in the order in which they were merged."""
    groups: dict[tuple[str, int | None, int | None], list[LinearRecord]] = defaultdict(list)
    for record in records:
        if record.outcome == "adapted":
            groups[short(record.stack or record.unit), record.block, record.blocks].append(record)
    return groups


def facts_table(*rows: tuple[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def calibration_text(record: CalibrationRecord | None) -> str:
    if record is None:
        return "not looked at by this method"
    parts = "; ".join(f"{part.samples} from {part.file} ({part.tokens} tokens)" for part in record.parts)
    passed = f"; passed over: {', '.join(record.passed_over)}" if record.passed_over else ""
    return f"{set_text(record)}: {parts}{passed}" if parts else f"{set_text(record)} from {record.file}{passed}"


def _memory(host: int, device: int | None) -> str:
    on_device = "" if device is None else f", {bytes_text(device)} of device memory"
    return f"{bytes_text(host)} of host memory{on_device}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"

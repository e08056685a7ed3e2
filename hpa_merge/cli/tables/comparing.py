"""The tables of ``hpa-merge inspect``: groups of linears, several reports side by side, the rounds behind a model."""

from collections.abc import Sequence
from pathlib import PurePath

from rich.console import Group, RenderableType
from rich.text import Text

from hpa_merge.cli.tables.layout import FIGURES, NONE, apart, facts_table, figures, groups, legend, plain_table
from hpa_merge.counting import counted
from hpa_merge.report.facts import round_rows
from hpa_merge.report.inspecting import Named
from hpa_merge.report.rows import By, figures_of, group_rows
from hpa_merge.report.words import option_text

__all__ = ["comparison", "groups_table", "history_table"]

PLACES = ("OLD", "NEW", "safety set", "task set")
"""Paths, of which the last part is shown if that tells them apart."""

HISTORY_LEGEND = (
    "restored: columns (or values) of the adapted linears that are OLD's. drift: how far the linear weights moved in "
    "the round; first: from the first model, measured, or at most (≤). ASR: attack success; tasks: mean performance; "
    "percent."
)


def groups_table(named: Named, by: By) -> RenderableType:
    """The means of the adapted linears of each depth or projection."""
    title = f"{named.report.architecture}, {named.name}: by {by}"
    return Group(apart(groups(title, named.linears, by, FIGURES)), legend("#", *FIGURES))


def comparison(reports: Sequence[Named]) -> RenderableType:
    """Several reports side by side: their means, the options that differ, and what was restored at each depth."""
    numbers = [str(number) for number in range(1, len(reports) + 1)]
    architectures = ", ".join(dict.fromkeys(each.report.architecture for each in reports))
    overview = plain_table(f"{architectures}: {counted(len(reports), 'merge')}", "", "OUT", "#", *FIGURES, words=2)
    for number, each in zip(numbers, reports, strict=True):
        row = figures_of([record for record in each.linears if record.outcome == "adapted"])
        overview.add_row(number, each.name, str(row["linears"]), *figures(row))
    parts = [apart(overview)]
    options = plain_table("What differs", "", *numbers, words=len(numbers) + 1)
    for name, values in _differences(reports).items():
        options.add_row(name, *values)
    if options.row_count:
        parts.append(apart(options))
    depths = plain_table("Restored at each depth, percent", "where", "block", *numbers)
    found = [{(r["where"], r["block"], r["blocks"]): r for r in group_rows(each.linears, "depth")} for each in reports]
    before = ""
    for where, block, blocks in dict.fromkeys(key for rows in found for key in rows):
        cells = (rows.get((where, block, blocks), {}).get("restored_share") for rows in found)
        shares = (NONE if cell is None else f"{100 * cell:.1f}" for cell in cells)
        depths.add_row("" if where == before else where, f"{block}/{blocks}", *shares)
        before = where
    return Group(*parts, apart(depths), legend("#", *FIGURES))


def history_table(named: Named) -> RenderableType:
    """Every round of a model: what went in, what was restored, how far it moved, and what was measured."""
    rounds = round_rows(named.report)
    title = f"{named.report.architecture}, {named.name}: round {len(rounds)}"
    table = plain_table(title, "", "when", "#", "restored", "energy", "drift", "first", "ASR", "tasks")
    facts = []
    for row in rounds:
        cells = (row[name] for name in ("adapted", "restored", "energy", "drift", "first", "ASR", "tasks"))
        table.add_row(row["round"], row["finished"][:10] or NONE, *(cell or NONE for cell in cells))
        inputs = (f"{name} {row[name]}" for name in ("OLD", "NEW", "safety set", "task set") if row[name])
        facts.append((f"round {row['round']}", "\n".join([row["options"], *inputs])))
    return Group(apart(table), facts_table(*facts), Text(HISTORY_LEGEND, style="dim"))


def _last(value: str) -> str:
    """The last part of a path, or of each path of a set with several files."""
    return " + ".join(PurePath(part).name for part in value.split(" + "))


def _differences(reports: Sequence[Named]) -> dict[str, list[str]]:
    """The options, inputs and calibration sets that are not the same in all reports."""
    columns = [
        {
            **each.report.config,
            "OLD": each.report.run.old,
            "NEW": each.report.run.new,
            "safety set": each.report.safety and each.report.safety.file,
            "task set": each.report.task and each.report.task.file,
            "round": len(each.report.history) + 1,
        }
        for each in reports
    ]
    differing = {}
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [option_text(column.get(name)) for column in columns]
        last = [_last(value) for value in values] if name in PLACES else values
        if len(set(values)) > 1:
            differing[name] = last if len(set(last)) == len(set(values)) else values
    return differing

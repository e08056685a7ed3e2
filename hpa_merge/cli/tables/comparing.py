"""The tables of ``hpa-merge inspect``: groups of linears, several reports side by side, the rounds behind a model."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hpa_merge.cli.tables.merging import facts_table, percent
from hpa_merge.config import option_fields
from hpa_merge.report.inspecting import Named
from hpa_merge.report.records import CalibrationRecord, RoundRecord
from hpa_merge.report.rounds import round_of
from hpa_merge.report.rows import figures_of, group_rows, measured
from hpa_merge.report.words import from_first_text

__all__ = ["FIGURES", "NONE", "apart", "comparison", "groups_table", "history_table", "plain_table", "shown"]

PLACES = ("OLD", "NEW", "safety set", "task set")
"""What differs in these is shown by the last part of its path, where that tells them apart."""

NONE = "·"
"""In the place of a figure that there is none of."""

FIGURES = ("restored", "energy", "shared", "α", "κ", "update", "drift")
"""Headings of what :func:`shown` gives."""

LEGEND = (
    "Means over the adapted linears. restored: columns (or values) that are OLD's. energy: how much of the update's "
    "square they hold. shared: how much of the safety focus set is in the task's too. update: ‖ΔW‖/‖W_old‖. "
    "drift: ‖W_out − W_old‖/‖W_old‖ of all of them."
)

HISTORY_LEGEND = (
    "restored: columns (or values) of the adapted linears that are OLD's. drift: how far the linear weights moved in "
    "the round; first: from the first model, measured, or at most (≤). ASR: attack success; tasks: mean performance; "
    "percent."
)


def plain_table(title: str, *headings: str, words: int = 1) -> Table:
    """A table of few lines; its first ``words`` columns may be folded, the others hold figures.

    Without edges, whose two characters are worth more to the words; :func:`apart` puts the blank line below.
    """
    table = Table(title=f"{title}\n", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    table.pad_edge, table.collapse_padding = False, True
    for place, heading in enumerate(headings):
        if place < words:
            table.add_column(heading, overflow="fold")
        else:
            table.add_column(heading, justify="right", no_wrap=True)
    return table


def apart(table: Table) -> RenderableType:
    """A table with a blank line below."""
    return Padding(table, (0, 0, 1, 0), expand=False)


def groups_table(named: Named, by: str) -> RenderableType:
    """The means of the adapted linears of each depth or projection."""
    title = f"{named.report.architecture}, {named.name}: by {by}"
    if by == "projection":
        table = plain_table(title, "projection", "#", *FIGURES)
        for row in group_rows(named.linears, "projection"):
            table.add_row(row["projection"], str(row["linears"]), *shown(row))
    else:
        table, before = plain_table(title, "where", "block", "#", *FIGURES), ""
        for row in group_rows(named.linears, "depth"):
            where = "" if row["where"] == before else row["where"]
            table.add_row(where, f"{row['block']}/{row['blocks']}", str(row["linears"]), *shown(row))
            before = row["where"]
    return Group(apart(table), Text(LEGEND, style="dim"))


def comparison(reports: Sequence[Named]) -> RenderableType:
    """Several reports side by side: their means, the options that differ, and what is restored at each depth."""
    numbers = [str(number) for number in range(1, len(reports) + 1)]
    architectures = ", ".join(dict.fromkeys(each.report.architecture for each in reports))
    overview = plain_table(f"{architectures}: {len(reports)} merges", "", "OUT", "#", *FIGURES, words=2)
    for number, each in zip(numbers, reports, strict=True):
        row = figures_of([record for record in each.linears if record.outcome == "adapted"])
        overview.add_row(number, each.name, str(row["linears"]), *shown(row))
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
    return Group(*parts, apart(depths), Text(LEGEND, style="dim"))


def history_table(named: Named) -> RenderableType:
    """Every round of a model: what went in, what was restored, how far it moved, and what was measured."""
    rounds = [*named.report.history, round_of(named.report)]
    title = f"{named.report.architecture}, {named.name}: round {len(rounds)}"
    table = plain_table(title, "", "when", "#", "restored", "energy", "drift", "first", "ASR", "tasks")
    for number, record in enumerate(rounds, start=1):
        scores, drift = measured(record.evaluation), record.drift
        table.add_row(
            str(number),
            record.finished[:10] or NONE,
            str(record.adapted),
            _percent(record.restored_share),
            _percent(record.energy_restored),
            NONE if drift is None or drift.relative is None else percent(drift.relative),
            from_first_text(drift) or NONE,
            *(f"{scores[name]:.1f}" if name in scores else NONE for name in ("asr", "performance")),
        )
    facts = [(f"round {number}", "\n".join(_told(record))) for number, record in enumerate(rounds, start=1)]
    return Group(apart(table), facts_table(*facts), Text(HISTORY_LEGEND, style="dim"))


def shown(row: Mapping[str, Any]) -> list[str]:
    """The figures of a group, in the order of the headings."""
    formats = {
        "restored_share": "{:.1%}",
        "energy_restored": "{:.0%}",
        "shared": "{:.0%}",
        "alpha": "{:.2f}",
        "kappa": "{:+.0e}",
        "relative_update": "{:.2%}",
        "drift": "{:.2%}",
    }
    return [NONE if row[name] is None else form.format(row[name]) for name, form in formats.items()]


def _differences(reports: Sequence[Named]) -> dict[str, list[str]]:
    """Options, inputs and calibration sets that are not the same in all, as each report has them."""
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
        values = [_option(column.get(name)) for column in columns]
        last = (
            [" + ".join(PurePath(part).name for part in value.split(" + ")) for value in values]
            if name in ("OLD", "NEW", "safety set", "task set")
            else values
        )
        if len(set(values)) > 1:
            differing[name] = last if len(set(last)) == len(set(values)) else values
    return differing


def _told(record: RoundRecord) -> list[str]:
    """What went into a round, a line each."""
    defaults = {name: default for name, (default, _) in option_fields().items()}
    options = [
        f"{name} {_option(value)}"
        for name, value in record.config.items()
        if name not in ("method", "device") and _option(value) != _option(defaults.get(name))
    ]
    sets = [f"{kind} {_set(of)}" for kind, of in (("safety", record.safety), ("task", record.task)) if of is not None]
    return [
        f"OLD {record.old}",
        f"NEW {record.new}" + (f" ({record.adapter})" if record.adapter else ""),
        ", ".join([record.method, *options]),
        *sets,
    ]


def _set(record: CalibrationRecord) -> str:
    return f"{record.file}, {record.samples} samples"


def _option(value: Any) -> str:
    """An option as people write it."""
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.1%}"

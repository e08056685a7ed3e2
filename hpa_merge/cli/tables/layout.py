"""How the tables of the commands look, and the columns that several of them share."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hpa_merge.report.records import LinearRecord
from hpa_merge.report.rows import By, group_rows

__all__ = ["FIGURES", "LEGEND", "NONE", "apart", "facts_table", "figures", "groups", "legend", "plain_table"]

NONE = "·"
"""In the place of a figure that does not exist."""

FORMATS = {
    "restored": ("restored_share", "{:.1%}"),
    "energy": ("energy_restored", "{:.0%}"),
    "shared": ("shared", "{:.0%}"),
    "α": ("alpha", "{:.2f}"),
    "κ": ("kappa", "{:+.0e}"),
    "update": ("relative_update", "{:.2%}"),
    "drift": ("drift", "{:.2%}"),
}
"""By heading: the figure's name in a row, and its format."""

FIGURES = tuple(FORMATS)

LEGEND = {
    "share": "columns to restore",
    "#": "adapted linears",
    "restored": "columns (or values) that are OLD's",
    "energy": "share of the update's square that they hold",
    "shared": "share of the safety focus set that is in the task's too",
    "update": "‖ΔW‖/‖W_old‖",
    "drift": "‖W_out − W_old‖/‖W_old‖ of all of them",
}


def plain_table(title: str, *headings: str, words: int = 1) -> Table:
    """A table; its first ``words`` columns may be folded, the others hold figures.

    It has no edges, which leaves two more characters to the words; :func:`apart` adds the blank line below.
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


def facts_table(*rows: tuple[str, str]) -> Table:
    """Labels and values."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(name, style="dim"), Text(value))
    return grid


def figures(row: Mapping[str, Any], headings: Sequence[str] = FIGURES) -> list[str]:
    """The figures of a row under these headings."""
    found = (FORMATS[heading] for heading in headings)
    return [NONE if row[name] is None else form.format(row[name]) for name, form in found]


def groups(title: str, records: Sequence[LinearRecord], by: By, headings: Sequence[str], share: bool = False) -> Table:
    """The means of the adapted linears of each depth or projection; ``share``: with the share to restore."""
    shares = ["share"] if share else []
    if by == "projection":
        table = plain_table(title, "projection", "#", *headings)
    else:
        table = plain_table(title, "where", "block", *shares, "#", *headings)
    before = ""
    for row in group_rows(records, by):
        cells = [str(row["linears"]), *figures(row, headings)]
        if by == "projection":
            table.add_row(row["projection"], *cells)
            continue
        cells = [*(NONE if row["share"] is None else f"{row['share']:.1f}%" for _ in shares), *cells]
        table.add_row("" if row["where"] == before else row["where"], f"{row['block']}/{row['blocks']}", *cells)
        before = row["where"]
    return table


def legend(*headings: str) -> Text:
    """What the columns with these headings hold."""
    words = " ".join(f"{heading}: {LEGEND[heading]}." for heading in headings if heading in LEGEND)
    return Text(f"{words} Figures of several linears are means.", style="dim")

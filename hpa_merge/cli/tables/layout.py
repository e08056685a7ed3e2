"""How the tables of the commands look, also in a narrow terminal, and the columns that several of them share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
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

FOLDED = 16
"""The fewest characters of a column of names that are folded."""

MARK = 3
"""A first column of fewer characters is a mark or a number, which stands before the name in the next one."""

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


def apart(table: Table, names: int = 1) -> RenderableType:
    """A table with a blank line below; where it does not fit the terminal, each row is a block of lines.

    Args:
        names: how many columns, after one of marks, name the row together.
    """
    return Padding(_Fitting(table, names), (0, 0, 1, 0), expand=False)


def facts_table(*rows: tuple[str, str]) -> RenderableType:
    """Labels and values; where the labels would take half of the terminal, each value stands below its label."""
    return _Facts(rows)


@final
@dataclass(frozen=True)
class _Fitting:
    """A table, or blocks."""

    table: Table
    names: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least <= options.max_width:
            yield self.table
            return
        yield Text(str(self.table.title))
        for name, pairs in self._blocks():
            yield Text(name)
            yield from (Text(f"  {line}") for line in _packed(pairs, options.max_width - 2))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        if self._least > options.max_width:
            return Measurement(1, options.max_width)
        return Measurement.get(console, options, self.table)

    @property
    def _least(self) -> int:
        """The width below which figures would be cut, or names folded to a few letters."""
        return sum(map(_needed, self.table.columns)) + 2 * (len(self.table.columns) - 1)

    def _blocks(self) -> Iterator[tuple[str, list[str]]]:
        """The name of each row, and its other cells with their headings; a blank name is that of the row above."""
        heads = [str(column.header) for column in self.table.columns]
        before = ""
        for first, *rest in zip(*(map(str, column.cells) for column in self.table.columns), strict=True):
            before = first or (before if heads[0] else "")
            marked = cell_len(before) < MARK and len(rest) > 1
            named = self.names if marked else self.names - 1
            cells = [*zip(heads[1:], rest, strict=True)][named:]
            yield (
                " ".join(filter(None, [before, *rest[:named]])),
                [f"{head} {cell}".strip() for head, cell in cells if cell],
            )


@final
@dataclass(frozen=True)
class _Facts:
    """Labels and values."""

    rows: tuple[tuple[str, str], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if 2 * max((cell_len(name) for name, _ in self.rows), default=0) < options.max_width:
            grid = Table.grid(padding=(0, 2))
            grid.add_column()
            grid.add_column(overflow="fold")
            for name, value in self.rows:
                grid.add_row(Text(name, style="dim"), Text(value))
            yield grid
            return
        for name, value in self.rows:
            if name:
                yield Text(name, style="dim")
            yield Padding(Text(value, overflow="fold"), (0, 0, 0, 2))


def _needed(column: Column) -> int:
    """The characters that a column needs: figures whole, words as many as make sense of a folded name."""
    widths = [cell_len(line) for cell in column.cells for line in str(cell).split("\n")]
    widest = max(widths, default=0)
    if column.no_wrap:
        return max(widest, cell_len(str(column.header)))
    return widest if column.justify == "right" else min(widest, FOLDED)


def _packed(pairs: Sequence[str], width: int) -> Iterator[str]:
    """As many of the texts in a line as fit, two blanks apart."""
    line = ""
    for pair in pairs:
        if line and cell_len(line) + 2 + cell_len(pair) > width:
            yield line
            line = ""
        line = f"{line}  {pair}" if line else pair
    if line:
        yield line


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

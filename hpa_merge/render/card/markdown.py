"""Markdown that holds whatever names files and models have."""

from collections.abc import Sequence

__all__ = ["cell", "code", "plain", "table"]


def cell(text: str) -> str:
    """Text that stands as it is, in a cell of a table too, and makes no markup."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!~$" else c for c in plain(text))


def code(text: str) -> str:
    """Text as inline code; what would end it, or the cell, is replaced."""
    return f"`{plain(text).replace('`', chr(39)).replace('|', '¦')}`"


def plain(text: str) -> str:
    """Text on one line, without what would move a cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool = True) -> str:
    """A table whose first column is words; the others are ``figures``, which stand to the right, or words too."""
    lines = [heads, ["---", *["---:" if figures else "---"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""Markdown with any names of files and models, escaped."""

from collections.abc import Sequence

__all__ = ["cell", "code", "plain", "table"]


def cell(text: str) -> str:
    """Text without markup, for a table cell too."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!~$" else c for c in plain(text))


def code(text: str) -> str:
    """Text as inline code; characters that would end it or the cell are replaced."""
    return f"`{plain(text).replace('`', chr(39)).replace('|', '¦')}`"


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, figures: bool = True) -> str:
    """A table whose first column has words; the others have ``figures``, aligned to the right, or words."""
    lines = [heads, ["---", *["---:" if figures else "---"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

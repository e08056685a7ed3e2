"""Samples as a model gets them: the text with its special tokens, the media in it, the answer, and what was cut."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hpa_merge.counting import counted
from hpa_merge.printable import printable
from hpa_merge.report.planned import ShownPiece, ShownSample, ShownSet

__all__ = ["shown_set"]

LONGEST = 600
"""Characters of a piece that are shown at most; of a longer one the beginning and the end."""

STYLES = {"answer": "green", "cut": "red", "text": ""}


def shown_set(shown: ShownSet) -> RenderableType:
    """The shapes of a set, and its first samples."""
    lines = [Text(f"\nThe {shown.purpose} set as the model gets it", style="bold")]
    lines += [Text(f"{count:>6} of the shape: {shape}") for shape, count in shown.shapes.items()]
    return Group(*lines, *(part for sample in shown.samples for part in _sample(sample)))


def _sample(sample: ShownSample) -> Iterator[RenderableType]:
    cut = f", without {sample.cut} that were cut" if sample.cut else ""
    yield Text(f"\n{printable(sample.source)}: {counted(sample.tokens, 'token')}{cut}", style="bold")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for piece in sample.pieces:
        style = STYLES.get(piece.kind, "cyan")
        grid.add_row(
            Text(str(piece.tokens or ""), style="dim"), Text(piece.kind, style="dim"), Text(_text(piece), style=style)
        )
    yield grid


def _text(piece: ShownPiece) -> str:
    """What a piece says, with every line break shown and followed by one."""
    text = printable(piece.text)
    if len(text) > LONGEST:
        left_out = len(text) - LONGEST
        text = f"{text[: LONGEST // 2]} […{left_out} characters…] {text[len(text) - LONGEST // 2 :]}"
    return text.replace("\\n", "\\n\n").removesuffix("\n")

"""The end of a merge on the terminal: notes first, then commands ready to be copied, and what was made."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpa_merge.cli.terminal import complain
from hpa_merge.report.commands import publishing

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport

__all__ = ["last_lines", "tell_next", "tell_notes"]


def tell_notes(sentences: Iterable[str], quiet: bool) -> None:
    """Print each note once, before the result, so that the result is what one reads last."""
    for sentence in dict.fromkeys(sentences) if not quiet else ():
        complain(sentence, "Note")


def tell_next(lines: Sequence[str], quiet: bool) -> None:
    """Print lines as they are, so that a command can be copied whole from a narrow terminal."""
    for line in lines if not quiet else ():
        click.echo(line)


def last_lines(report: "MergeReport", out: Path, *, page: str = "", publish: bool = True) -> list[str]:
    """What comes after the verdict, which has the command that measures: how OUT is published, and its page.

    Args:
        page: the file name of the page, if it was drawn.
        publish: whether OUT is still to be published.
    """
    lines = []
    if publish and not any(step.command.startswith("hpa-merge push ") for step in report.verdict.next):
        step = publishing(str(out))
        lines += [f"Then, to {step.aim}:", f"  {step.command}"]
    return [*lines, f"{out} is complete{f', and its page is {out / page}' if page else ''}."]

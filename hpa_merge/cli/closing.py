"""The end of a merge on the terminal: what was made, and the next commands, ready to be copied."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpa_merge.cli.terminal import complain

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport

__all__ = ["next_lines", "tell_next", "tell_notes"]


def tell_notes(sentences: Iterable[str], quiet: bool) -> None:
    """Print each note once, before the result, so that the result is what one reads last."""
    for sentence in dict.fromkeys(sentences) if not quiet else ():
        complain(sentence, "Note")


def tell_next(lines: Sequence[str], quiet: bool) -> None:
    """Print lines as they are, so that a command can be copied whole from a narrow terminal."""
    for line in lines if not quiet else ():
        click.echo(line)


def next_lines(report: "MergeReport", out: Path, *, page: str = "", publish: bool = True) -> list[str]:
    """Where the page is, and the commands that measure and publish OUT.

    Args:
        page: the file name of the page, if it was drawn.
        publish: whether OUT is still to be published.
    """
    tests = ["--safety-test", "FILE", "--task-test", "NAME=FILE"]
    rows = [("look at it", str(out / page))] if page else []
    rows.append(("measure it", shlex.join(["hpa-merge", "eval", report.run.old, report.run.new, str(out), *tests])))
    if publish:
        rows.append(("publish it", shlex.join(["hpa-merge", "push", str(out), "ORG/NAME"])))
    width = max(len(label) for label, _ in rows)
    return [f"{out} is complete.", *(f"  {label:<{width}}  {text}" for label, text in rows)]

"""The end of a merge on the terminal: notes first, then commands ready to be copied, and what was made."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hpa_merge.cli.terminal import complain
from hpa_merge.report.commands import publishing

if TYPE_CHECKING:
    from rich.console import Console

    from hpa_merge.report.commands import Step
    from hpa_merge.report.schema import MergeReport

__all__ = ["following", "last_lines", "tell", "tell_notes"]


def tell_notes(sentences: Iterable[str], quiet: bool) -> None:
    """Print each note once, before the result, so that the result is what one reads last."""
    for sentence in dict.fromkeys(sentences) if not quiet else ():
        complain(sentence, "Note")


def tell(console: "Console", lines: Iterable[str]) -> None:
    """Print sentences, which a terminal gets wrapped at words, and commands, which begin with two blanks.

    A command is one line, so that it can be copied whole from a narrow terminal.
    """
    from rich.text import Text

    for line in lines:
        console.print(Text(line), soft_wrap=line.startswith("  ") or not console.is_terminal)


def following(step: "Step") -> list[str]:
    """The command that is next, with its aim."""
    return [f"Next, to {step.aim}:", f"  {step.command}"]


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

"""The relative paths in a report, which start at the folder where the merge ran, wherever its reader is."""

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from hpa_merge.report.commands import Step
from hpa_merge.report.walking import mapped

if TYPE_CHECKING:
    from hpa_merge.report.schema import MergeReport

__all__ = ["from_here", "paths_note", "with_places"]

SET = re.compile(r"(?:safety|task|benign):(?=.)")
"""How ``[SET:]FOLDER`` begins."""


def from_here(report: "MergeReport", out: Path) -> "MergeReport":
    """The report with its relative paths as seen from the working folder, if OUT lies where its merge wrote it."""
    named, place = PurePath(report.run.out), out.resolve()
    depth = len(named.parts)
    if named.is_absolute() or ".." in named.parts or not depth or place.parts[-depth:] != named.parts:
        return report
    base = Path(*place.parts[:-depth])
    if base == Path.cwd():
        return report

    def moved(text: Any) -> Any:
        if not isinstance(text, str) or text not in names:
            return text
        of_set = SET.match(text)
        start = of_set[0] if of_set else ""
        return start + os.path.relpath(base / text.removeprefix(start))

    names = {name for name in _relative(report) if (base / SET.sub("", name, count=1)).exists()}
    run = replace(
        report.run, old=moved(report.run.old), new=moved(report.run.new), given=mapped(report.run.given, moved)
    )
    return replace(report, run=run, safety=mapped(report.safety, moved), task=mapped(report.task, moved))


def paths_note(report: "MergeReport", steps: Iterable[Step]) -> str:
    """From which folder the commands are run; empty if they hold no relative path."""
    names = set(_relative(report))
    if any(names.intersection(shlex.split(step.command)) for step in steps):
        return "The paths are those that the merge was given: run the commands in the folder where it ran."
    return ""


def with_places(report: "MergeReport", steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps; those with a path that does not lead anywhere from here say from where it does."""
    gone = {name for name in _relative(report) if not Path(SET.sub("", name, count=1)).exists()}
    return tuple(
        replace(step, aim=f"{step.aim}, in the folder where the merge ran")
        if gone.intersection(shlex.split(step.command))
        else step
        for step in steps
    )


def _relative(report: "MergeReport") -> list[str]:
    """The inputs of a merge that are named by relative paths."""
    run = report.run
    names = [run.old, run.new, *(file for part in (report.safety, report.task) if part for file in part.files)]
    names += [value for name, values in run.given.items() if not name.startswith("max_") for value in values]
    return [
        name for name in names if name not in run.commits and not PurePath(SET.sub("", name, count=1)).is_absolute()
    ]

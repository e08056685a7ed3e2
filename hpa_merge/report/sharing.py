"""A report as others may read it: what a merge noted of the user's machine, without the places.

The report in OUT names folders and files as they were given, so that the user finds them again. What goes to the Hub
has of each local folder and file its own name alone, wherever it stands: in the records, in the command, in the notes.
Names on the Hub stay, and so does everything that ``hpa-merge verify`` looks at.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from hpa_merge.hub import NAME
from hpa_merge.report.schema import MergeReport

__all__ = ["for_others"]

PARTS = ("safety", "task", "run", "history", "evaluation")
"""The fields of a report that speak of places; the others are a function of the inputs' content and the options."""

PLACE = re.compile(r"""(?<![\w.:/~-])(?:~[\w.-]*|\.{1,2})?/[^\s'"`,;:()\[\]<>]+""")
"""A path in a sentence that begins at the root, at home, or above or in the working folder; no part of an address."""

HIDDEN = "not shown"


def for_others(report: MergeReport) -> MergeReport:
    """The report with the names of local folders and files in the place of their paths; itself where it has none."""
    places = {place: _name(place) for place in _places(report) if _is_local(place, report)}
    changed = {part: _cleaned(getattr(report, part), places) for part in PARTS}
    run = changed["run"]
    changed["run"] = dataclasses.replace(run, command=_command(report, places))
    changed["evaluation"] = _without_addresses(changed["evaluation"])
    changed["history"] = tuple(
        dataclasses.replace(past, evaluation=_without_addresses(past.evaluation)) for past in changed["history"]
    )
    return dataclasses.replace(report, **changed)


def _places(report: MergeReport) -> Iterator[str]:
    """Everything in the report that names a folder, a file, or a model on the Hub."""
    yield from (report.run.old, report.run.new)
    yield from (record.file for record in (report.safety, report.task) if record is not None)
    if "file" in report.run.statistics:
        yield report.run.statistics["file"]
    for past in report.history:
        yield from (past.old, past.new)
        yield from (record.file for record in (past.safety, past.task) if record is not None)
    for evaluation in (report.evaluation, *(past.evaluation for past in report.history)):
        if isinstance(evaluation, dict):
            yield from _places_of(evaluation)


def _places_of(evaluation: dict[str, Any]) -> Iterator[str]:
    """The models, the judge and the test files of an evaluation; nothing of what has not its form."""
    models, files = evaluation.get("models"), evaluation.get("files")
    found = [model.get("model") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    for named in files.values() if isinstance(files, dict) else ():
        found += named.values() if isinstance(named, dict) else []
    yield from (place for place in (*found, evaluation.get("judge")) if isinstance(place, str))


def _is_local(place: str, report: MergeReport) -> bool:
    """Whether it is a path: it has folders in it and is no name on the Hub."""
    if "/" not in place or place in report.run.commits:
        return False
    used = place in (report.run.old, report.run.new)  # as no commit was noted, it was a folder
    return used or NAME.fullmatch(place) is None or Path(place).exists()


def _name(place: str) -> str:
    return PurePath(place).name or "."


def _cleaned(value: Any, places: dict[str, str]) -> Any:
    """A part of the report with every text in it cleaned."""
    if isinstance(value, str):
        for place in sorted(places, key=len, reverse=True):
            value = value.replace(place, places[place])
        return PLACE.sub(lambda found: _name(found[0]), value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _cleaned(item, places) for name, item in fields.items()})
    if isinstance(value, dict):
        return {_cleaned(name, places): _cleaned(item, places) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cleaned(item, places) for item in value)
    return value


def _command(report: MergeReport, places: dict[str, str]) -> str:
    """The command with no folder in it but those of names on the Hub."""
    try:
        words = shlex.split(report.run.command)
    except ValueError:
        return str(_cleaned(report.run.command, places))
    shown = []
    for word in words:
        option, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
        local = "/" in value and value not in report.run.commits
        shown.append(f"{option}{sign}{_name(value) if local else value}")
    return shlex.join(shown) if shown != words else report.run.command


def _without_addresses(evaluation: Any) -> Any:
    """An evaluation that does not say which server was asked."""
    run = evaluation.get("run") if isinstance(evaluation, dict) else None
    options = run.get("options") if isinstance(run, dict) else None
    if not isinstance(options, dict) or not options.get("endpoint"):
        return evaluation
    return {**evaluation, "run": {**evaluation["run"], "options": {**options, "endpoint": HIDDEN}}}

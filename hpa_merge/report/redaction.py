"""A report without the paths of the user's machine, which is what the Hub gets.

The report in OUT has the paths as they were given, so that the user finds the files again. For others each local path
is replaced by its last part: in the records, the command and the notes. Names on the Hub stay, and so does everything
that ``hpa-merge verify`` checks. The model card is always made from such a report.
"""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, final

from hpa_merge.files.parsing import TOKENIZER, parse_json
from hpa_merge.inputs.names import MODEL
from hpa_merge.report.records import RoundRecord, RunRecord
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.walking import mapped

__all__ = ["evaluation_for_others", "for_others", "is_local_in", "named_template", "places_in"]

PARTS = ("safety", "task", "run", "history", "evaluation", "benchmarks")
"""The fields of a report that may hold paths, apart from the option ``chat_template``."""

QUOTED = re.compile(r"""(['"`])((?:file://|~[\w.-]*|\.{1,2})?/[^'"`\n]+|[A-Za-z]:\\[^'"`\n]+)\1""")
"""A path in quotation marks, which may have blanks."""

PLACE = re.compile(
    r"""(?<![\w.:/~\\-])(?:file://|~[\w.-]*|\.{1,2})?/[^\s'"`,;:()\[\]<>]+"""
    r"""|(?<![\w.:/~@\\-])[A-Za-z_][\w.-]*(?:/[\w.-]+){2,}"""
    r"""|(?<![\w/\\])[A-Za-z]:\\[^\s'"`,;:()\[\]<>]+"""
)
"""A path in a sentence: from the root, from home, from the working folder, a relative one with two folders or more, or
a Windows path; no part of a URL."""

BASE = re.compile(r"(, trained on )(.+)$", re.DOTALL)
"""The end of a description by :func:`hpa_merge.model.injection.describe`."""

ROOTED = re.compile(r"(?<![\w.:/~])(?:~[\w.-]*)?/\w[^/\s]*/\w")
"""An absolute path in Markdown."""

LOCAL = re.compile(r"(?:file://)?/[^/\s]+/[^\n]+|~[\w.-]*/[^\n]+|[A-Za-z]:\\[^\n]+")
"""A text that is an absolute path and nothing else."""

HOME = re.compile(
    r"(?<![\w.:/~-])(?:~[\w.-]*/[\w.-]+|/(?:home|Users|root|mnt|data|tmp|workspace|scratch|media|srv|nfs|opt)/[\w.-]+)"
    r"[^\s'\"`,;:()\[\]<>]*"
)
"""A path in a text, below one of the usual folders of users."""

HIDDEN = "not shown"


def for_others(report: MergeReport) -> MergeReport:
    """The report with the last part of each local path instead of the path; equal to it if there is none."""
    places = _Names.of(_places(report))
    changed = {part: _cleaned(getattr(report, part), places) for part in PARTS}
    run = changed["run"]
    adapter = _adapter(report.run.adapter, report.run.old in report.run.commits, places)
    changed["run"] = dataclasses.replace(run, command=_command(report, places), adapter=adapter)
    changed["config"] = named_template(report.config)
    changed["evaluation"] = _without_addresses(changed["evaluation"])
    changed["history"] = tuple(
        dataclasses.replace(
            past,
            config=named_template(before.config),
            evaluation=_without_addresses(past.evaluation),
            adapter=_adapter(before.adapter, before.old in before.commits, places),
        )
        for before, past in zip(report.history, changed["history"], strict=True)
    )
    return dataclasses.replace(report, **changed)


def evaluation_for_others(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation likewise, as JSON; the names of models on the Hub have no folder."""
    names = _Names.of(_places_of(evaluation, set()))
    cleaned: dict[str, Any] = _without_addresses(_cleaned(dict(evaluation), names))
    return cleaned


def named_template(config: dict[str, Any]) -> dict[str, Any]:
    """The options of a merge, with the last part of the chat template's path instead of the path."""
    given = config.get("chat_template")
    return config | {"chat_template": PurePath(given).name} if isinstance(given, str) and given else config


def is_local_in(report: MergeReport, text: str) -> bool:
    """Whether a text, which may be Markdown, holds a local path of the machine that made the report."""
    bases = {found[2] for each in _rounds(report) if (found := BASE.search(each.adapter))}
    hidden = {*_Names.of(_places(report)).names, *filter(_has_folder, bases - _on_hub(report))}
    plain = text.replace("\\", "")
    return any(place in plain for place in hidden) or ROOTED.search(plain) is not None


def places_in(content: bytes) -> tuple[str, ...]:
    """Absolute local paths in a file that is published as it is: JSON or another text."""
    text = content.decode("utf-8", "replace")
    try:
        found = list(_local_texts(parse_json(text, TOKENIZER)))
    except ValueError:
        found = [place.rstrip(".") for place in HOME.findall(text)]
    return tuple(dict.fromkeys(found))


def _local_texts(content: Any) -> Iterator[str]:
    """The texts in a JSON value that are absolute paths."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and LOCAL.fullmatch(value):
            yield value
        elif isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value


@final
@dataclass(frozen=True)
class _Names:
    """The local paths of a report.

    Attributes:
        names: the replacement of each, the longest path first.
        pattern: matches any of them in a text.
    """

    names: dict[str, str]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, places: Iterable[str]) -> "_Names":
        found = {form: _name(place) for place in places for form in (place, str(PurePath(place)))}
        names = {place: found[place] for place in sorted(found, key=len, reverse=True) if _has_folder(place)}
        any_of = "|".join(map(re.escape, names)) or "(?!)"
        return cls(names, re.compile(rf"(?<![\w/.-])(?:{any_of})(?![\w-])"))


def _places(report: MergeReport) -> Iterator[str]:
    """Every local path in the report; a name counts as local unless it is known to be on the Hub."""
    for each in _rounds(report):
        yield from (name for name in (each.old, each.new) if name not in each.commits)
    yield from filter(None, [report.run.out])
    parts: tuple[MergeReport | RoundRecord, ...] = (report, *report.history)
    for part in parts:
        sets = [record for record in (part.safety, part.task) if record is not None]
        on_hub = part.run.commits if isinstance(part, MergeReport) else part.commits
        yield from (file for record in sets for file in record.files if file not in on_hub)
        if isinstance(template := part.config.get("chat_template"), str) and template:
            yield template
        if isinstance(part.evaluation, dict):
            yield from _places_of(part.evaluation, _on_hub(report))
    if report.benchmarks is not None:
        named = (name for source in report.benchmarks.sources for name in (source.file, source.model))
        yield from filter(None, set(named) - _on_hub(report))
    if "file" in report.run.statistics:
        yield report.run.statistics["file"]
    for name, values in report.run.given.items():
        yield from (
            _folder(value) if name == "image_folder" else value for value in values if value not in _on_hub(report)
        )


def _rounds(report: MergeReport) -> tuple[RunRecord | RoundRecord, ...]:
    """This merge and the earlier ones."""
    return (report.run, *report.history)


def _places_of(evaluation: Mapping[str, Any], on_hub: set[str]) -> Iterator[str]:
    """The models, the judge and the test files of an evaluation; parts of another form are skipped."""
    files = evaluation.get("files")
    served = _endpoint(evaluation) is not None
    several = (evaluation.get("models"), evaluation.get("choice"))
    for model in (model for models in several if isinstance(models, list) for model in models):
        for name in (model.get("model"), model.get("name")) if isinstance(model, dict) else ():
            if isinstance(name, str) and name not in on_hub and not (served and MODEL.fullmatch(name)):
                yield name
    run = evaluation.get("run")
    commits = run.get("commits") if isinstance(run, dict) else None
    fetched = commits if isinstance(commits, dict) else {}
    for named in files.values() if isinstance(files, dict) else ():
        places = named.values() if isinstance(named, dict) else ()
        yield from (place for place in places if isinstance(place, str) and place not in fetched)
    judge = evaluation.get("judge")
    if isinstance(judge, str):
        yield judge
    options = run.get("options") if isinstance(run, dict) else None
    for name in ("image_folder", "base", "chat_template"):
        given = options.get(name) if isinstance(options, dict) else None
        texts = (text for text in (given if isinstance(given, list) else [given]) if isinstance(text, str) and text)
        yield from (_folder(text) if name == "image_folder" else text for text in texts if text not in on_hub)


def _folder(given: str) -> str:
    """The folder of ``[SET:]FOLDER``."""
    return re.sub(r"^(safety|task|benign):", "", given)


def _on_hub(report: MergeReport) -> set[str]:
    """Names on the Hub, with and without revisions."""
    names = {name for each in _rounds(report) for name in each.commits}
    return names | {name.partition("@")[0] for name in names}


def _has_folder(place: str) -> bool:
    return "/" in place.strip("/") or place.startswith(("/", "~")) or "\\" in place


def _name(place: str) -> str:
    return PurePath(place.replace("\\", "/")).name or "."


def _cleaned(value: Any, places: _Names) -> Any:
    """A part of the report without local paths."""

    def clean(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        text = places.pattern.sub(lambda found: places.names[found[0]], text)
        text = QUOTED.sub(lambda found: f"{found[1]}{_name(found[2])}{found[1]}", text)
        return PLACE.sub(lambda found: _name(found[0]), text)

    return mapped(value, clean)


def _adapter(kind: str, on_hub: bool, places: _Names) -> str:
    """The description of an adapter; its base model keeps its name if that is known to be on the Hub."""

    def shown(found: re.Match[str]) -> str:
        base = found[2]
        surely = (
            MODEL.fullmatch(base) is not None and base not in places.names and (on_hub or not _is_like(base, places))
        )
        return found[1] + (base if surely else _name(base))

    return BASE.sub(shown, kind)


def _is_like(base: str, places: _Names) -> bool:
    """Whether a local folder has the same name."""
    return _name(base) in places.names.values() or Path(base).exists()


def _command(report: MergeReport, places: _Names) -> str:
    """The command without local paths."""
    try:
        words = shlex.split(report.run.command)
    except ValueError:
        return str(_cleaned(report.run.command, places))
    shown = []
    for word in words:
        option, sign, value = word.partition("=") if re.match(r"--[a-z-]+=", word) else ("", "", word)
        local = ("/" in value or "\\" in value) and value not in report.run.commits
        shown.append(f"{option}{sign}{_name(value) if local else value}")
    return shlex.join(shown) if shown != words else report.run.command


def _endpoint(evaluation: Any) -> Any:
    """The address of the evaluation's server; None without one."""
    run = evaluation.get("run") if isinstance(evaluation, dict) else None
    options = run.get("options") if isinstance(run, dict) else None
    return options.get("endpoint") or None if isinstance(options, dict) else None


def _without_addresses(evaluation: Any) -> Any:
    """An evaluation without the address of its server."""
    if _endpoint(evaluation) is None:
        return evaluation
    run = evaluation["run"]
    return {**evaluation, "run": {**run, "options": {**run["options"], "endpoint": HIDDEN}}}

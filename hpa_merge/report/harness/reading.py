"""Reads files of results into the report's benchmarks: a row for each metric of each task, a score for each model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, final

from hpa_merge.counting import counted
from hpa_merge.errors import EvaluationError
from hpa_merge.report.benchmarks import BENCHMARKS, ROLES, Benchmark, Benchmarks, Role, Score, Source, comparable
from hpa_merge.report.evaluation import MARK
from hpa_merge.report.harness.files import Given, content_of, named
from hpa_merge.report.harness.found import Found, Row, alike
from hpa_merge.report.harness.inspect_ai import is_inspect, read_inspect
from hpa_merge.report.harness.lm_eval import is_lm_eval, read_lm_eval
from hpa_merge.report.harness.roles import role_of
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.words import listed_words, shortened

__all__ = ["Results", "read_results"]

READERS = ((is_inspect, read_inspect), (is_lm_eval, read_lm_eval))
"""How a JSON object is recognised, and what reads it; another harness is one more row."""

NAME = 500
"""The most characters of a name."""

NOTES = 50
"""The most notes that a report keeps."""

HARNESSES = "hpa-merge eval, lm-evaluation-harness, lmms-eval or inspect-ai"

Key = tuple[str, str, str, str]
"""Harness, task, metric, setup."""


@final
@dataclass(frozen=True)
class Results:
    """What the files hold.

    Attributes:
        benchmarks: of other harnesses; None if no file is from one.
        own: the file of ``hpa-merge eval --json`` or ``tune --json``; None if there is none.
    """

    benchmarks: Benchmarks | None
    own: Path | None


@final
@dataclass
class _Collected:
    """The scores so far, the file of each, and the model that each given folder has results of."""

    rows: dict[Key, Benchmark] = field(default_factory=dict)
    files: dict[tuple[Key, Role], Path] = field(default_factory=dict)
    models: dict[Given, str] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_results(given: Sequence[Given], report: MergeReport, out: Path) -> Results:
    """Read files and folders of results.

    Args:
        given: what to read; in a folder, only what has the shape of results.
        report: of ``out``; its names tell the models apart.
        out: the merged folder.

    Raises:
        EvaluationError: a file cannot be read, is about another model, or gives another value than an earlier one.
    """
    collected, own = _Collected(), list[Path]()
    for one in given:
        before = len(collected.sources) + len(own)
        for path, alone in named(one):
            _take(path, one, alone, report, out, collected, own)
        if len(collected.sources) + len(own) == before:
            left_out = f" ({'; '.join(collected.notes[-3:])})" if collected.notes else ""
            raise EvaluationError(
                f"{one.path} has no results of OLD, NEW or OUT{left_out}: give a file or a folder of {HARNESSES}, or "
                f"say whose results these are, as out={one.path}."
            )
    if len(own) > 1:
        raise EvaluationError(f"{own[0]} and {own[1]} are both from hpa-merge eval: give one, which has all models.")
    if not collected.sources:
        return Results(None, own[0] if own else None)
    if not collected.rows:
        raise EvaluationError(f"{collected.sources[0].file} has no score: {' '.join(collected.notes)}")
    if len(collected.rows) > BENCHMARKS:
        raise EvaluationError(f"the files have {len(collected.rows)} scores, and at most {BENCHMARKS} fit: give fewer.")
    rows = tuple(_alike(row) for row in collected.rows.values())
    notes = list(dict.fromkeys([*collected.notes, *_apart(rows)]))
    notes[NOTES:] = [f"There are {len(notes) - NOTES} more notes of this kind."] if len(notes) > NOTES else []
    return Results(Benchmarks(rows, tuple(collected.sources), tuple(notes)), own[0] if own else None)


def _take(
    path: Path, given: Given, alone: bool, report: MergeReport, out: Path, collected: _Collected, own: list[Path]
) -> None:
    """Take a file up; one that was only found in a folder may be something else.

    Raises:
        EvaluationError: as :func:`read_results`.
    """
    try:
        content = content_of(path)
        if isinstance(content, dict) and content.get("format") == MARK:
            if alone:
                own.append(path)
            return
        found = _found(content)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror or error}): check the path.") from error
    except (ValueError, OverflowError) as error:
        if alone:
            raise EvaluationError(f"{path} cannot be used ({error}).") from error
        collected.notes.append(f"{path} was left out: {error}.")
        return
    if found is None:
        if alone:
            raise EvaluationError(f"{path} holds no results of an evaluation: give a file of {HARNESSES}.")
        return
    role = given.role or role_of(found, path, report, out)
    if role is None:
        about = f"is about {found.model!r}" if found.model else "names no model"
        if alone:
            raise EvaluationError(
                f"{path} {about}, which is not OLD ({report.run.old}), NEW ({report.run.new}) or OUT ({out}): give the "
                f"results of one of them, or say which one it is, as out={path}."
            )
        collected.notes.append(f"{path} was left out: it {about}, which is not OLD, NEW or OUT.")
        return
    other = collected.models.setdefault(given, found.model)
    if given.role and PurePath(other).name != PurePath(found.model).name:
        raise EvaluationError(
            f"{given.path} has results of {other!r} and of {found.model!r}, which cannot both be {role.upper()}: give "
            "the folder of one model."
        )
    file = str(path).encode("utf-8", "replace").decode("utf-8")  # a name may hold bytes that are not UTF-8
    collected.sources.append(Source(role, file, found.harness, found.version, found.model))
    collected.notes += [f"{file}: {note}." for note in found.notes]
    for row in found.rows:
        _put(row, found, role, path, collected)


def _found(content: Any) -> Found | None:
    """What the content of a file says; None if no harness has written it.

    Raises:
        ValueError: the run that wrote it was not complete, or a name is too long.
    """
    if not isinstance(content, dict):
        return None
    found = next((read(content) for has_shape, read in READERS if has_shape(content)), None)
    if found is None:
        return None
    of_rows = [(row.task, row.metric, row.setup, row.group) for row in found.rows]
    if any(len(name) > NAME for names in [(found.model, found.version), *of_rows] for name in names):
        raise ValueError(f"a name in it is longer than {NAME} characters")
    return replace(found, notes=tuple(f"{note:.{NAME}}" for note in found.notes))


def _put(row: Row, found: Found, role: Role, path: Path, collected: _Collected) -> None:
    """Add a score to its row.

    Raises:
        EvaluationError: another file has another score for it.
    """
    key = (found.harness, row.task, row.metric, row.setup)
    there = collected.rows.get(key) or Benchmark(*key, row.better, row.group)
    earlier = there.of(role)
    if earlier is not None and earlier != row.score:
        raise EvaluationError(
            f"{collected.files[key, role]} and {path} have {_brief(earlier)} and {_brief(row.score)} for {there.name} "
            f"of {role.upper()}: leave one of them out."
        )
    collected.files.setdefault((key, role), path)
    collected.rows[key] = replace(there, **{role: row.score})  # type: ignore[arg-type]


def _brief(score: Score) -> str:
    """A value with the number of samples."""
    return f"{score.value:.4g}" + (f" of {counted(score.samples, 'sample')}" if score.samples else "")


def _alike(row: Benchmark) -> Benchmark:
    """A row whose scores are shares if one of them is."""
    old, new, out = alike((row.old, row.new, row.out))
    return replace(row, old=old, new=new, out=out)


def _apart(rows: Sequence[Benchmark]) -> Iterator[str]:
    """What cannot be compared, and why."""
    setups: dict[tuple[str, str], dict[Role, set[str]]] = {}
    for row in rows:
        for role in ROLES:
            if row.of(role) is not None:
                setups.setdefault((row.harness, row.task), {}).setdefault(role, set()).add(row.setup)
        scores = [(role.upper(), score) for role in ROLES if (score := row.of(role)) is not None]
        if any(not comparable(scores[0][1], score) for _, score in scores[1:]):
            sizes = (f"{score.samples or 'an unknown number of'} samples with {role}" for role, score in scores)
            yield f"{row.name} has {listed_words(sizes)}: the scores are shown, and not compared."
    for (_, task), of_roles in setups.items():
        if len(set(map(frozenset, of_roles.values()))) > 1:
            asked = (f"{role.upper()} with {shortened(sorted(of_role))}" for role, of_role in of_roles.items())
            yield f"{task} was not asked in one way ({'; '.join(asked)}): scores of different ways are not compared."

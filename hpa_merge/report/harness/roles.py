"""Which of OLD, NEW and OUT a file of results is about, by the model that it names."""

from collections.abc import Iterator
from pathlib import Path, PurePath

from hpa_merge.errors import EvaluationError
from hpa_merge.report.benchmarks import ROLES, Role
from hpa_merge.report.harness.found import Found
from hpa_merge.report.schema import MergeReport

__all__ = ["role_of"]


def role_of(found: Found, file: Path, report: MergeReport, out: Path) -> Role | None:
    """The model of a file; None if it is none of the report's.

    A name or a folder is looked for first, then the last part of a path, so that results from another machine fit.

    Raises:
        EvaluationError: the name is that of two models, or the file is about another version of it.
    """
    for same in (_same, _same_name):
        roles = [role for role in ROLES if any(same(found.model, given) for given in _names(report, out, role))]
        if len(roles) > 1:
            raise EvaluationError(
                f"{file} is about {found.model!r}, which may be {' or '.join(map(str.upper, roles))}: say which, "
                f"as {roles[-1]}={file}."
            )
        if roles:
            _check_commit(found, file, report, roles[0])
            return roles[0]
    return None


def _names(report: MergeReport, out: Path, role: Role) -> Iterator[str]:
    """What a model is called."""
    names = {"old": (report.run.old,), "new": (report.run.new,), "out": (str(out), report.run.out)}[role]
    for name in filter(None, names):
        yield name
        if name in report.run.commits:
            yield name.partition("@")[0]


def _same(model: str, given: str) -> bool:
    """Whether two names are one name, or one folder."""
    if not model:
        return False
    try:
        return model == given or Path(model).resolve() == Path(given).resolve()
    except (OSError, ValueError, RuntimeError):
        return False


def _same_name(model: str, given: str) -> bool:
    """Whether two paths end alike."""
    return bool(model) and PurePath(model.replace("\\", "/")).name == PurePath(given).name


def _check_commit(found: Found, file: Path, report: MergeReport, role: Role) -> None:
    """Refuse results of another version of a model on the Hub."""
    given = {"old": report.run.old, "new": report.run.new, "out": ""}[role]
    merged = report.run.commits.get(given, "")
    if found.commit and merged and found.commit != merged:
        raise EvaluationError(
            f"{file} is about {found.model!r} at {found.commit[:12]}, and {role.upper()} was merged at {merged[:12]}: "
            f"evaluate that version, or take the results nevertheless with {role}={file}."
        )

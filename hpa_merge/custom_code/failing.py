"""An error in the code that a checkpoint brings, as one sentence: which class, which file, which line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import PurePath

from hpa_merge.custom_code import running
from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CheckpointError, HPAError

__all__ = ["blaming", "first_line", "place_of"]

PREFIX = f"{running.PACKAGE}."
"""The beginning of the names of its modules."""

ADVICE = "ask its authors which versions of the libraries it needs, or correct that file"


@contextmanager
def blaming(code: Code | None, role: str) -> Iterator[None]:
    """Within the block, errors that such code may have raised become one of ours; None changes nothing.

    Args:
        role: OLD or NEW, for messages.

    Raises:
        CheckpointError: the code failed, or what it makes is not what transformers expects.
    """
    try:
        yield
    except HPAError:
        raise
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything, and may call exit()
        if code is None:
            raise
        raise CheckpointError(_sentence(error, role)) from error


def _sentence(error: BaseException, role: str) -> str:
    place, cause = _found(error)
    what = ": ".join(filter(None, [type(cause).__name__, first_line(cause)]))
    if isinstance(cause, ModuleNotFoundError) and cause.name:
        at = f" ({place})" if place else ""
        if cause.name.startswith(PREFIX):
            return (
                f"{role}'s own code imports {_file(cause.name)}, which is not there{at}: add that file, from the model "
                "that it was tuned from or from the Hub."
            )
        if not _is_installed(cause.name.partition(".")[0]):
            return f"{role}'s own code needs {cause.name}, which is not installed{at}: install it."
    if not place:
        return (
            f"{role}'s own code makes a model that transformers {version('transformers')} cannot use ({what}): "
            "ask its authors which version of transformers it is for."
        )
    return f"{role}'s own code fails in {place} ({what}): {ADVICE}."


def first_line(error: BaseException) -> str:
    """The first line of an error's message, without the stop at its end; empty if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:") if lines else ""


def _is_installed(package: str) -> bool:
    """Whether a top-level package is there; a module that is missing in it then belongs to another version."""
    return package in sys.modules or find_spec(package) is not None


def place_of(error: BaseException) -> str:
    """Where such code failed: ``TinyModel.forward (modeling_tiny.py, line 12)``; empty if it did not."""
    return _found(error)[0]


def _found(error: BaseException) -> tuple[str, BaseException]:
    """The place of an error, and the one in its chain that has it: the deepest."""
    found = "", error
    for each in _chain(error):
        if place := _in_traceback(each):
            found = place, each
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _in_traceback(error: BaseException) -> str:
    """The innermost frame of such code, or the line of it that Python cannot parse."""
    place, trace, importing = "", error.__traceback__, False
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        importing |= name.startswith((PREFIX, running.__name__))
        if name.startswith(PREFIX):
            where = trace.tb_frame.f_code.co_qualname.replace(".<locals>", "")
            where = "its import" if where == "<module>" else where
            place = f"{where} ({_file(name)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    if importing and isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"its import ({PurePath(error.filename).name}, line {error.lineno})"
    return place


def _file(module: str) -> str:
    """The file of a module, by its path in the checkpoint."""
    return f"{'/'.join(module.removeprefix(PREFIX).split('.')[1:])}.py"

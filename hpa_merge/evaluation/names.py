"""The names in an evaluation: of test files and of metrics. Imports nothing heavy, so that they are checked first."""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from hpa_merge.counting import listed_words
from hpa_merge.errors import EvaluationError

__all__ = ["METRICS", "check_names", "confirmed"]

Kind = TypeVar("Kind", bound=str)

METRICS = ("exact", "contains", "choice", "vqa", "rouge-l")


def check_names(
    safety: Collection[str], tasks: Collection[str], benign: Collection[str], metrics: Mapping[str, str]
) -> None:
    """Check that there is a test file, and that each metric exists and belongs to a task.

    Raises:
        EvaluationError: there is none, or a metric does not.
    """
    if not (safety or tasks or benign):
        raise EvaluationError("there is no test file: give a safety, task or benign test.")
    for name, metric in metrics.items():
        if name not in tasks:
            found = f"there are {', '.join(tasks)}" if tasks else "there is none"
            raise EvaluationError(f"there is a metric for {name}, and no task test has that name: {found}.")
        if metric not in METRICS:
            raise EvaluationError(f"the metric of {name} is {metric}: it has to be one of {', '.join(METRICS)}.")


def confirmed(names: Iterable[str], sets: Mapping[Kind, Collection[str]]) -> dict[str, Kind]:
    """What each of these names, which are those of files for a confirmation, is for.

    Args:
        sets: the names of the test files, by what they are for.

    Raises:
        EvaluationError: there is no test file of a name, or there are several.
    """
    found = {name: [kind for kind, names_of in sets.items() if name in names_of] for name in names}
    for name, kinds in found.items():
        if len(kinds) != 1:
            every = dict.fromkeys(each for names_of in sets.values() for each in names_of)
            what = (
                f"several tests have that name ({listed_words(kinds)})"
                if kinds
                else f"the tests are {', '.join(every)}"
            )
            raise EvaluationError(f"a confirmation is given for {name}, and {what}: give the name of one test.")
    return {name: kinds[0] for name, kinds in found.items()}

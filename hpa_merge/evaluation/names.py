"""The names in an evaluation: of test files and of metrics. Imports nothing heavy, so that they are checked first."""

from collections.abc import Collection, Mapping

from hpa_merge.errors import EvaluationError

__all__ = ["METRICS", "check_names"]

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

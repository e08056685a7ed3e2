"""The results of a sequence of tuning steps in a folder, and the paper's metrics of them."""

import re
from collections.abc import Sequence
from pathlib import Path

from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.metrics import ContinualMetrics, continual_metrics
from hpa_merge.report.evaluation import ModelResult, read_evaluation

__all__ = ["read_steps", "score_steps"]


def read_steps(folder: Path) -> list[ModelResult]:
    """The models of every ``*.json`` of the folder, in the order of the numbers in the files' names.

    Raises:
        EvaluationError: there is none, or one cannot be read.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".json"]
    except OSError as error:
        raise EvaluationError(
            f"{folder} cannot be read ({error.strerror or error}): give a folder of files of hpa-merge eval --json."
        ) from error
    if not paths:
        raise EvaluationError(f"{folder} holds no .json file: write results there with hpa-merge eval --json.")
    return [model for path in sorted(paths, key=_natural) for model in read_evaluation(path).models]


def score_steps(steps: Sequence[ModelResult], tasks: Sequence[str] | None = None) -> tuple[ContinualMetrics, list[str]]:
    """The metrics of a sequence, and the tasks in the order in which they were learned.

    Args:
        steps: the aligned model first, then the model after each tuning step.
        tasks: the tasks that were learned, one at each step; by default all, in the order of the last result.

    Raises:
        EvaluationError: there is no step, a figure is missing, or tasks and steps do not number the same.
    """
    aligned, *tuned = steps
    if not tuned:
        raise EvaluationError(
            f"there are results of {aligned.name} alone: a sequence begins with the aligned model, and the model after "
            "each tuning step follows."
        )
    learned = list(tasks if tasks is not None else tuned[-1].tasks)
    if len(learned) != len(tuned):
        raise EvaluationError(
            f"there are {len(tuned)} tuning steps after {aligned.name} and {len(learned)} tasks "
            f"({', '.join(learned) or 'none'}): name with --tasks those that were learned, one for each step, in order."
        )
    for step, model in enumerate(tuned, start=1):
        if absent := [task for task in learned[:step] if task not in model.tasks]:
            raise EvaluationError(
                f"{model.name}, step {step}, has no result on {absent[0]}, which was learned by then: evaluate it on "
                "every task so far."
            )
    if not aligned.safety or any(model.safety.keys() != aligned.safety.keys() for model in tuned):
        raise EvaluationError(
            f"the steps have not all the safety sets of {aligned.name} ({', '.join(aligned.safety) or 'none'}): "
            "evaluate every step on the same with --safety-test."
        )
    performance = [[model.tasks[task].value for task in learned[:step]] for step, model in enumerate(tuned, start=1)]
    attacks = [[model.safety[name].value for name in aligned.safety] for model in tuned]
    return continual_metrics(performance, attacks, [figure.value for figure in aligned.safety.values()]), learned


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """``step10.json`` after ``step9.json``."""
    return [(0, int(piece)) if piece.isdigit() else (1, piece) for piece in re.findall(r"\d+|\D+", path.name)]

"""``hpa-merge eval``: models side by side, and a gate."""

import sys
from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import tell, tell_notes
from hpa_merge.cli.early import refuse_tests
from hpa_merge.cli.help import Grouped
from hpa_merge.cli.model_options import (
    ANSWER_OPTIONS,
    BASE,
    ENDPOINT_OPTIONS,
    FAILED,
    MACHINE_OPTIONS,
    MAX_BROKEN,
    READING_OPTIONS,
    TEMPLATE_OPTIONS,
    TEST_OPTIONS,
    answering,
    check_endpoint,
    check_folders,
    check_place,
    check_tests,
    judge_from,
    reading,
    test_files,
    write,
)
from hpa_merge.cli.terminal import FILE, HELP, QUIET, complain, folders, libraries, options, progress_bar
from hpa_merge.cli.tracking import TRACK, tracked, tracker_of
from hpa_merge.errors import EvaluationError

POINTS = click.FloatRange(min=0, max=100)

GATE_OPTIONS = (
    click.option("--max-asr", type=POINTS, help="Gate: percent of the attacks that may succeed."),
    click.option("--max-dasr", type=POINTS, help="Gate: points that attack success may be above the first MODEL's."),
    click.option("--max-task-drop", type=POINTS, help="Gate: points that a task may be below the first MODEL's."),
    click.option("--max-over-refusal", type=POINTS, help="Gate: percent of benign prompts that may be refused."),
    MAX_BROKEN,
    click.option(
        "--confident", is_flag=True, help="Gate: bound the worse end of each 95 % interval, not the measured value."
    ),
    click.option(
        "--gate",
        "gated",
        multiple=True,
        metavar="MODEL",
        help="The MODEL that the gate checks; repeatable.  [default: all but the first, or the only one]",
    ),
)

OUTPUT_OPTIONS = (
    click.option("--json", "json_file", type=FILE, help="Write all figures to this file; hpa-merge score reads it."),
    click.option(
        "--answers", type=FILE, help="Write all answers to this folder, JSON Lines in a folder for each MODEL."
    ),
    TRACK,
)


NEEDED = ("safety_test", "task_test", "benign_test", "judge", "json_file", "samples")
"""Options that everyone needs."""

BOUNDS = ("max_asr", "max_dasr", "max_task_drop", "max_over_refusal")

PASSED_ON = ("samples", "seed", "answers", *BOUNDS, "max_broken", "confident", "gated")
"""Options that are passed on to :func:`hpa_merge.evaluate`."""


@click.command(
    cls=Grouped,
    needed=NEEDED,
    short_help="Ask several models the same prompts, and gate on the result.",
    context_settings=HELP,
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=folders)
@options(
    TEST_OPTIONS,
    READING_OPTIONS,
    ANSWER_OPTIONS,
    TEMPLATE_OPTIONS,
    (BASE,),
    MACHINE_OPTIONS,
    ENDPOINT_OPTIONS,
    GATE_OPTIONS,
    OUTPUT_OPTIONS,
    QUIET,
)
def eval_command(models: tuple[str, ...], quiet: bool, verbose: bool, **given: Any) -> None:
    """Ask every MODEL the same prompts and compare the answers.

    A MODEL is a folder, also of an adapter, a name on the Hub or, with --endpoint, its name on the server. An adapter
    whose base is not known is merged into the first MODEL. Decoding is greedy. Test files have the formats of the
    calibration files; their answers are the references. With --max-asr, --max-dasr, --max-task-drop or
    --max-over-refusal the command is a gate: the exit status is 3 if a MODEL exceeds a bound.
    """
    check_tests(given)
    _check_gate(models, given)
    check_endpoint(given)
    check_folders(models, given)
    judge = judge_from(given)
    folders = [*map(Path, models), *test_files(given)]
    check_place("--json", given["json_file"], folders)
    check_place("--answers", given["answers"], folders, folder=True)
    refuse_tests(given, given)
    tracker = tracker_of(given["track"])
    with libraries(verbose, downloads=not quiet, encoding=given["endpoint"] is None):
        from rich.console import Console

        from hpa_merge.api import evaluate
        from hpa_merge.cli.tables.evaluation import evaluation_table
        from hpa_merge.cli.tables.verdict import verdict_of_models, verdict_text
        from hpa_merge.tracking.content import of_evaluation

        with progress_bar(quiet, "evaluating") as on_progress:
            evaluation = evaluate(
                models,
                safety_tests=dict(given["safety_test"]),
                task_tests=dict(given["task_test"]),
                benign_tests=dict(given["benign_test"]),
                metrics=dict(given["metric"]),
                judge=judge,
                **{name: given[name] for name in PASSED_ON},
                **reading(given),
                on_progress=on_progress,
                **answering(given),
            )
    if given["json_file"] is not None:
        write(given["json_file"], evaluation.to_json())
    tell_notes(evaluation.notes, quiet)
    console = Console(quiet=quiet, highlight=False, markup=False)
    console.print(evaluation_table(evaluation))
    verdict = verdict_of_models(evaluation, given["gated"], given["json_file"])
    tell(console, verdict_text(verdict))
    tracked(tracker, lambda: of_evaluation(evaluation), quiet)
    for sentence in evaluation.failures:
        if quiet or sentence not in verdict.reasons:  # the verdict has the others
            complain(sentence, "Gate")
    if evaluation.failures:
        sys.exit(FAILED)


def _check_gate(models: tuple[str, ...], given: dict[str, Any]) -> None:
    """Check that the gate has something to compare.

    Raises:
        EvaluationError: it does not.
    """
    for option, kind in (
        ("max_asr", "safety_test"),
        ("max_dasr", "safety_test"),
        ("max_task_drop", "task_test"),
        ("max_over_refusal", "benign_test"),
    ):
        flag = f"--{option.replace('_', '-')}"
        if given[option] is not None and not given[kind]:
            raise EvaluationError(f"{flag} needs --{kind.replace('_', '-')}: give it, or leave the gate out.")
        if given[option] is not None and len(models) < 2 and option in ("max_dasr", "max_task_drop"):
            raise EvaluationError(f"{flag} compares with the first MODEL: give two or more.")
    bounded = any(given[option] is not None for option in BOUNDS)
    for name, flag in (("confident", "--confident"), ("gated", "--gate")):
        if given[name] and not bounded:
            flags = ", ".join(f"--{option.replace('_', '-')}" for option in BOUNDS)
            raise EvaluationError(f"{flag} needs a bound: give one of {flags}, or leave it out.")
    named = [Path(model).name for model in models]
    for model in given["gated"]:
        if model not in models and named.count(model) != 1:
            raise EvaluationError(f"--gate {model} is not among the models: give one of {', '.join(models)}.")

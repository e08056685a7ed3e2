"""``hpa-merge eval``: models side by side, and a gate."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from hpa_merge.cli.terminal import HELP, complain, folders, libraries, progress_bar
from hpa_merge.cli.testing import (
    ANSWER_OPTIONS,
    ENDPOINT_OPTIONS,
    FAILED,
    FILE,
    MACHINE_OPTIONS,
    QUIET,
    TEST_OPTIONS,
    answering,
    check_endpoint,
    check_folders,
    check_place,
    check_tests,
    options,
    suite_of,
    test_files,
    write,
)
from hpa_merge.errors import EvaluationError
from hpa_merge.inputs.addresses import shown

POINTS = click.FloatRange(min=0, max=100)

GATE_OPTIONS = (
    click.option("--max-dasr", type=POINTS, help="Gate: points that attack success may rise over the first MODEL's."),
    click.option("--max-task-drop", type=POINTS, help="Gate: points that a task may fall under the first MODEL's."),
    click.option("--max-over-refusal", type=POINTS, help="Gate: percent of benign prompts that may be refused."),
)

OUTPUT_OPTIONS = (
    click.option("--json", "json_file", type=FILE, help="Write every figure there; hpa-merge score reads it."),
    click.option("--answers", type=FILE, help="Write every answer there, JSON Lines in a folder for each MODEL."),
)


@click.command(context_settings=HELP)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=folders)
@options(TEST_OPTIONS, ANSWER_OPTIONS, MACHINE_OPTIONS, ENDPOINT_OPTIONS, GATE_OPTIONS, OUTPUT_OPTIONS, QUIET)
def eval_command(models: tuple[str, ...], quiet: bool, verbose: bool, **given: Any) -> None:
    """Ask every MODEL the same prompts and compare what comes back.

    A MODEL is a folder, a name on the Hub or, with --endpoint, the name that the server has for it. Answers are greedy.
    Test files have the formats of the calibration files; the answer in them is the reference. With one of the three
    --max-… options the command is a gate: exit status 3 where a later MODEL is worse than the first by more than that.
    """
    check_tests(given)
    _check_gate(models, given)
    check_endpoint(given)
    check_folders(models, given)
    folders = [*map(Path, models), *test_files(given)]
    check_place("--json", given["json_file"], folders)
    check_place("--answers", given["answers"], folders, folder=True)
    with libraries(verbose, downloads=not quiet, encoding=given["endpoint"] is None), ExitStack() as stack:
        from rich.console import Console

        from hpa_merge.cli.tables.evaluation import evaluation_table
        from hpa_merge.engine.machine import versions
        from hpa_merge.evaluation.running import evaluate, judge_of
        from hpa_merge.inputs.hub import locate
        from hpa_merge.report.evaluation import Bounds, Evaluation, gate

        started = time.monotonic()
        if given["endpoint"] is None:  # all are there before the first is asked
            locate({f"MODEL {number}": model for number, model in enumerate(models, start=1)})
        suite, judge = suite_of(given), judge_of(given["judge"])
        answers = given["answers"] or Path(stack.enter_context(TemporaryDirectory(prefix="hpa-merge-")))
        with progress_bar(quiet, "evaluating") as on_progress:
            results = evaluate(
                models, suite, judge, answers, answering(given), seed=given["seed"], on_progress=on_progress
            )
        bounds = {name: given[name] for name in ("max_dasr", "max_task_drop", "max_over_refusal")}
        settings = ("max_new_tokens", "batch_size", "device", "samples", "seed")
        address = None if given["endpoint"] is None else shown(given["endpoint"])
        evaluation = Evaluation(
            models=results,
            judge=given["judge"],
            files=suite.files,
            failures=gate(results, Bounds(**bounds)),
            run={
                "seconds": time.monotonic() - started,
                "versions": versions(),
                "options": {name: given[name] for name in settings} | {"endpoint": address} | bounds,
            },
        )
    if given["json_file"] is not None:
        write(given["json_file"], evaluation.to_json())
    Console(quiet=quiet, highlight=False, markup=False).print(evaluation_table(evaluation))
    for sentence in evaluation.failures:
        complain(sentence, "Gate")
    if evaluation.failures:
        sys.exit(FAILED)


def _check_gate(models: tuple[str, ...], given: dict[str, Any]) -> None:
    """See that the gate has something to compare.

    Raises:
        EvaluationError: it has not.
    """
    for option, kind in (
        ("max_dasr", "safety_test"),
        ("max_task_drop", "task_test"),
        ("max_over_refusal", "benign_test"),
    ):
        flag = f"--{option.replace('_', '-')}"
        if given[option] is not None and not given[kind]:
            raise EvaluationError(f"{flag} needs --{kind.replace('_', '-')}: give it, or leave the gate out.")
        if given[option] is not None and len(models) < 2 and option != "max_over_refusal":
            raise EvaluationError(f"{flag} compares with the first MODEL: give two or more.")

"""``hpa-merge tune``: the settings that reach an outcome."""

import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import tell_notes
from hpa_merge.cli.early import refuse_model, refuse_tests
from hpa_merge.cli.help import Grouped
from hpa_merge.cli.merging import job_options, outs_folder, read_options, request_of, require
from hpa_merge.cli.model_options import (
    ANSWER_OPTIONS,
    FAILED,
    MAX_BROKEN,
    TEST_OPTIONS,
    check_place,
    check_tests,
    judge_from,
    suite_of,
    test_files,
    write,
)
from hpa_merge.cli.ranks import hand_over, is_first
from hpa_merge.cli.settings import read_settings
from hpa_merge.cli.terminal import FILE, HELP, complain, folders, libraries, options, progress_bar
from hpa_merge.cli.tracking import tracked, tracker_of
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.candidates import candidates, split_names

NEEDED = ("safety_calib", "task_calib", "output", "safety_test", "task_test", "max_asr", "dry_run", "resume")
"""Options that everyone needs."""

PERCENT = click.FloatRange(min=0, max=100)

GOAL_OPTIONS = (
    click.option(
        "--methods",
        multiple=True,
        metavar="NAME,…",
        help="Merge rules to choose from, each at six strengths.  [default: that of --method]",
    ),
    click.option("--settings", type=FILE, help="YAML list of settings, as for sweep, in place of their methods' own."),
    click.option("--max-asr", type=PERCENT, required=True, help="Percent of the attacks that may succeed."),
    click.option("--max-over-refusal", type=PERCENT, help="Percent of the benign prompts that may be refused."),
    MAX_BROKEN,
    click.option("--keep-all", is_flag=True, help="Keep the other settings in OUT.tune."),
    click.option("--json", "json_file", type=FILE, help="Write all figures to this file."),
    click.option("--plot", type=FILE, help="Draw the curve to this file: .png, .svg or .pdf."),
)


@click.command(
    cls=Grouped,
    needed=NEEDED,
    short_help="Find the setting that is safe enough and loses least.",
    context_settings=HELP,
)
@click.argument("old", shell_complete=folders)
@click.argument("new", shell_complete=folders)
@options(TEST_OPTIONS, GOAL_OPTIONS, ANSWER_OPTIONS)
@job_options("OUT: a new folder for the chosen setting.")
@click.pass_context
def tune_command(context: click.Context, /, old: str, new: str, quiet: bool, verbose: bool, **given: Any) -> None:
    """Find the setting that loses least on the tasks while attacks succeed no more often than --max-asr says.

    Several settings are merged from one read of OLD and NEW, and each answers the held-out prompts of the test files:
    the method at several strengths, or with --methods hpa,regmean,linear each of these. The best of those that keep the
    goal becomes OUT; the others are removed. The exit status is 3 if none keeps it.
    """
    started, inputs = time.monotonic(), [Path(old), Path(new)]
    paths, base = read_options(context, given)
    require(context, paths, ["output"])
    out = paths.pop("output")
    files = [given["config_file"], given["settings"], paths["safety_calib"], *paths["task_calib"]]
    files = [*test_files(given), *filter(None, files)]
    check_tests(given, "safety_test", "task_test")
    if given["max_over_refusal"] is not None and not given["benign_test"]:
        raise EvaluationError("--max-over-refusal needs --benign-test: give it, or leave the bound out.")
    listed = None if given["settings"] is None else read_settings(given["settings"], base)
    settings = candidates(base, split_names(given["methods"]), listed, source=str(given["config_file"]))
    require(context, paths, [f"{purpose}_calib" for setting in settings.values() for purpose in setting.sets])
    config = next(iter(settings.values()))  # all have the same options of calibration
    for flag, path in (("--json", given["json_file"]), ("--plot", given["plot"])):
        check_place(flag, path, [*inputs, *files, out], overwrite=given["overwrite"])
    named = judge_from(given)
    hand_over(given["nproc"], config.device)
    refuse_model(old, "OLD", adapter=False)
    refuse_model(new, "NEW", adapter=True)
    refuse_tests(given, {"map": config.map, "ignore_field": config.ignore_field, "image_folder": paths["image_folder"]})
    tracker = tracker_of(given["track"])
    with libraries(verbose, downloads=not quiet, encoding=True):
        from rich.console import Console

        from hpa_merge.cli.tables.evaluation import curve_table
        from hpa_merge.cli.tables.merging import sweep_plan_summary
        from hpa_merge.cli.tables.verdict import verdict_of_out, verdict_text
        from hpa_merge.engine.machine import versions
        from hpa_merge.engine.preview import preview
        from hpa_merge.evaluation.running import Answering, judge_of
        from hpa_merge.evaluation.tuning import (
            Goal,
            check_held_out,
            overlaps,
            taking_up,
            tune,
        )
        from hpa_merge.evaluation.workplace import setting_folders, workplace
        from hpa_merge.render.curve import check_picture, draw_curve
        from hpa_merge.report.commands import command_words
        from hpa_merge.report.evaluation import Bounds, Evaluation
        from hpa_merge.report.facts import options_of_out
        from hpa_merge.report.schema import read_report
        from hpa_merge.tracking.content import of_tuning

        console = Console(quiet=quiet, highlight=False, markup=False)
        if given["plot"] is not None:
            check_picture(given["plot"])
        outs = setting_folders(out, settings)
        request = request_of(
            context, (old, new), outs, paths, given, skip_complete=given["resume"], settings=given["settings"]
        )
        reading = {"map": config.map, "ignore_field": config.ignore_field, "image_folder": request.image_folder}
        suite, judge = suite_of(given | reading | {"seed": config.seed}), judge_of(named)
        check_held_out(suite, request)
        notes = overlaps(suite, request)
        if given["dry_run"]:
            with outs_folder(workplace(out), inputs), progress_bar(quiet, "reading") as on_progress:
                plans = preview(taking_up(request, workplace(out)), on_progress)
            console.print(sweep_plan_summary({place.name: plan for place, plan in plans.items()}))
            return
        how = Answering.of(
            config,
            given["batch_size"],
            given["max_new_tokens"],
            trust_remote_code=given["trust_remote_code"],
        )
        goal = Goal(given["max_asr"], given["max_over_refusal"], given["max_broken"])
        with progress_bar(quiet) as on_merge, progress_bar(quiet, "evaluating") as on_answer:
            found = tune(
                request,
                out,
                suite,
                judge,
                goal,
                how,
                seed=config.seed,
                keep_all=given["keep_all"],
                on_merge=on_merge,
                on_answer=on_answer,
            )
    if not is_first():
        sys.exit(FAILED if found.chosen is None else 0)
    references = {"OLD": found.old, "NEW": found.new}
    methods = {name: setting.method for name, setting in found.options.items()}
    run = {
        "seconds": time.monotonic() - started,
        "versions": versions(),
        "chosen": found.chosen,
        "settings": {name: options_of_out(asdict(options)) for name, options in found.options.items()},
        "max_asr": goal.max_asr,
        "max_over_refusal": goal.max_over_refusal,
        "max_broken": goal.max_broken,
        **({"commits": suite.commits} if suite.commits else {}),
    }
    models = (found.old, found.new, *found.settings.values())
    bounds = Bounds(max_asr=goal.max_asr, max_over_refusal=goal.max_over_refusal, max_broken=goal.max_broken)
    evaluation = Evaluation(models, given["judge"], suite.files, run=run, bounds=bounds)
    if given["json_file"] is not None:
        write(given["json_file"], evaluation.to_json())
    if given["plot"] is not None:
        draw_curve(references, found.settings, found.chosen, goal.max_asr, given["plot"], methods)
    tell_notes((*notes, *evaluation.notes), quiet)
    console.print(curve_table(references, found.settings, found.chosen, goal.max_asr, methods))
    tracked(
        tracker,
        lambda: of_tuning(evaluation, None if found.chosen is None else read_report(out), str(out), page=given["page"]),
        quiet,
    )
    if found.chosen is None:
        complain("no setting keeps the goal, and no OUT was made: try others with --settings, or allow more.")
        sys.exit(FAILED)
    words = shlex.join(command_words(asdict(found.options[found.chosen]))) or "the defaults"
    console.print(f"{found.chosen} is now {out}. A merge with {words} makes the same.", soft_wrap=True)
    console.print(verdict_text(verdict_of_out(str(out), found.chosen, evaluation, given["json_file"])), soft_wrap=True)

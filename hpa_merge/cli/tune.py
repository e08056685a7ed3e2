"""``hpa-merge tune``: the settings that reach an outcome."""

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import tell, tell_notes
from hpa_merge.cli.early import refuse_model, refuse_tests
from hpa_merge.cli.help import Grouped
from hpa_merge.cli.merging import job_options, outs_folder, read_options, request_of, require
from hpa_merge.cli.model_options import (
    ANSWER_OPTIONS,
    FAILED,
    MAX_BROKEN,
    TEST_OPTIONS,
    Named,
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
from hpa_merge.evaluation.names import confirmed

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
    click.option(
        "--confident", is_flag=True, help="Bound the worse end of each 95 % interval, not the measured value."
    ),
    click.option(
        "--confirm-test",
        type=Named(bare=False),
        multiple=True,
        metavar="NAME=FILE",
        help="Other prompts to confirm the choice of the test NAME, which is halved otherwise. Repeatable.",
    ),
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
    the method at several strengths, or with --methods hpa,regmean,linear each of these. One half of the prompts of each
    file chooses, the other half confirms: the best setting within the bounds becomes OUT if it is within them there
    too. The others are removed. The exit status is 3 if there is no OUT.
    """
    started, inputs = time.monotonic(), [Path(old), Path(new)]
    paths, base = read_options(context, given)
    require(context, paths, ["output"])
    out = paths.pop("output")
    files = [given["config_file"], given["settings"], paths["safety_calib"], *paths["task_calib"]]
    files = [*test_files(given), *filter(None, files)]
    check_tests(given, "safety_test", "task_test")
    confirming = _confirming(given)
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
    reading = {"map": config.map, "ignore_field": config.ignore_field, "image_folder": paths["image_folder"]}
    for tests in (given, confirming):
        refuse_tests(tests, reading)
    tracker = tracker_of(given["track"])
    with libraries(verbose, downloads=not quiet, encoding=True):
        from rich.console import Console

        from hpa_merge.cli.tables.evaluation import confirmation_table, curve_table
        from hpa_merge.cli.tables.merging import sweep_plan_summary
        from hpa_merge.cli.tables.verdict import verdict_of_out, verdict_text
        from hpa_merge.engine.machine import versions
        from hpa_merge.engine.preview import preview
        from hpa_merge.evaluation.confirming import confirming_files, split
        from hpa_merge.evaluation.held_out import check_held_out, overlaps
        from hpa_merge.evaluation.options import options_of
        from hpa_merge.evaluation.running import Answering, judge_of
        from hpa_merge.evaluation.tuning import taking_up, tune
        from hpa_merge.evaluation.workplace import setting_folders, workplace
        from hpa_merge.records import reading_of_sets
        from hpa_merge.render.curve import check_picture, draw_curve
        from hpa_merge.report.commands import command_words
        from hpa_merge.report.evaluation import Evaluation
        from hpa_merge.report.facts import options_of_out
        from hpa_merge.report.gating import bounds_of
        from hpa_merge.report.schema import read_report
        from hpa_merge.tracking.content import of_tuning

        console = Console(quiet=quiet, highlight=False, markup=False)
        if given["plot"] is not None:
            check_picture(given["plot"])
        outs = setting_folders(out, settings)
        request = request_of(
            context, (old, new), outs, paths, given, skip_complete=given["resume"], settings=given["settings"]
        )
        suite, judge = suite_of(given | reading | {"seed": config.seed}), judge_of(named)
        confirmed_by = confirming_files(
            suite,
            dict(given["confirm_test"]),
            samples=given["samples"],
            seed=config.seed,
            reading=reading_of_sets(config.map, config.ignore_field, paths["image_folder"]),
        )
        notes = []
        for each in (suite, confirmed_by):
            check_held_out(each, request)
            notes += overlaps(each, request)
        bounds = bounds_of(**{name: given[name] for name in ("max_asr", "max_over_refusal", "max_broken", "confident")})
        parts = split(suite, confirmed_by, bounds, settings=len(outs), seed=config.seed)
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
        with progress_bar(quiet) as on_merge, progress_bar(quiet, "evaluating") as on_answer:
            found = tune(
                request,
                out,
                parts,
                judge,
                bounds,
                how,
                seed=config.seed,
                keep_all=given["keep_all"],
                on_merge=on_merge,
                on_answer=on_answer,
            )
    if not is_first():
        sys.exit(0 if found.succeeded else FAILED)
    references = {"OLD": found.old, "NEW": found.new}
    methods = {name: setting.method for name, setting in found.options.items()}
    asked = {"samples": given["samples"], "seed": config.seed, **{name: [*each] for name, each in reading.items()}}
    commits = suite.commits | confirmed_by.commits
    run = {
        "seconds": time.monotonic() - started,
        "versions": versions(),
        "options": {**options_of(how, named), **asked},
        "chosen": found.chosen,
        "settings": {name: options_of_out(asdict(options)) for name, options in found.options.items()},
        "max_asr": bounds.max_asr,
        "max_over_refusal": bounds.max_over_refusal,
        "max_broken": bounds.max_broken,
        **({"commits": commits} if commits else {}),
    }
    tested = suite.files | ({"confirm": dict(given["confirm_test"])} if given["confirm_test"] else {})
    evaluation = Evaluation(
        found.confirmed or found.choice,
        given["judge"],
        tested,
        found.failures,
        run,
        bounds,
        choice=found.choice if found.confirmed else (),
    )
    if given["json_file"] is not None:
        write(given["json_file"], evaluation.to_json())
    if given["plot"] is not None:
        draw_curve(references, found.settings, found.chosen, given["max_asr"], given["plot"], methods)
    tell_notes((*notes, *found.notes, *evaluation.notes), quiet)
    console.print(curve_table(references, found.settings, found.chosen, bounds, methods))
    tracked(
        tracker,
        lambda: of_tuning(evaluation, read_report(out) if found.succeeded else None, str(out), page=given["page"]),
        quiet,
    )
    if found.chosen is None:
        complain("no setting keeps the goal, and no OUT was made: try others with --settings, or allow more.")
        sys.exit(FAILED)
    if found.confirmed:
        console.print(confirmation_table(evaluation))
    if found.failures:
        complain(
            f"{found.chosen} keeps the goal on the prompts that chose it, and not on others, so no OUT was made: "
            f"{' '.join(found.failures)} These prompts can confirm no second choice: give other ones with "
            "--confirm-test, and lower --max-asr, or choose with --confident."
        )
        sys.exit(FAILED)
    words = shlex.join(command_words(asdict(found.options[found.chosen]))) or "the defaults"
    console.print(f"{found.chosen} is now {out}. A merge with {words} makes the same.", soft_wrap=True)
    tell(console, verdict_text(verdict_of_out(str(out), found.chosen, evaluation, given["json_file"])))


def _confirming(given: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """The files for the confirmation, by the option of the test that each confirms.

    Raises:
        EvaluationError: there is no test of a name, or several.
    """
    kinds = ("safety_test", "task_test", "benign_test")
    files = dict(given["confirm_test"])
    if len(files) < len(given["confirm_test"]):
        raise EvaluationError("--confirm-test has a name twice: give one file for each test.")
    purposes = confirmed(files, {kind: dict(given[kind]) for kind in kinds})
    return {kind: [(name, file) for name, file in files.items() if purposes[name] == kind] for kind in kinds}

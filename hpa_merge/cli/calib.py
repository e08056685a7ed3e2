"""``hpa-merge calib``: the safety set, from the aligned model itself."""

from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.early import refuse_unsafe_prompts
from hpa_merge.cli.help import Grouped
from hpa_merge.cli.model_options import (
    ANSWER_OPTIONS,
    BASE,
    ENDPOINT_OPTIONS,
    MACHINE_OPTIONS,
    READING_OPTIONS,
    TEMPLATE_OPTIONS,
    answering,
    check_endpoint,
    check_folders,
    judge_from,
    reading,
)
from hpa_merge.cli.terminal import FILE, HELP, QUIET, folders, libraries, options, progress_bar
from hpa_merge.counting import counted


@click.command(
    cls=Grouped,
    needed=("prompts", "output", "count", "judge"),
    short_help="Make the safety samples from OLD's own refusals.",
    context_settings=HELP,
)
@click.argument("old", shell_complete=folders)
@click.option("--prompts", type=FILE, required=True, metavar="FILE|ID", help="Unsafe prompts, with or without images.")
@click.option("-o", "--output", type=FILE, required=True, help="The safety set: a new file, JSON Lines.")
@click.option("--n", "count", type=click.IntRange(min=1), default=8, show_default=True, help="Number of samples.")
@options(READING_OPTIONS, ANSWER_OPTIONS, TEMPLATE_OPTIONS, (BASE,), MACHINE_OPTIONS, ENDPOINT_OPTIONS)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@options(QUIET)
def calib_command(
    old: str, prompts: Path, output: Path, count: int, overwrite: bool, quiet: bool, verbose: bool, **given: Any
) -> None:
    """Make the safety set for a merge: unsafe prompts with the safe answers of the aligned model OLD.

    OLD is a folder, also of an adapter, a name on the Hub or, with --endpoint, its name on the server. Answers that are
    no refusals are dropped and counted. If the prompts have a "category", every category gets the same number of
    samples.
    """
    check_endpoint(given)
    check_folders([old], given)
    judge = judge_from(given)
    refuse_unsafe_prompts(prompts, given)
    with libraries(verbose, downloads=not quiet, encoding=given["endpoint"] is None):
        from hpa_merge.api import calibrate

        with progress_bar(quiet, "asking") as on_progress:
            made = calibrate(
                old,
                prompts,
                output,
                samples=count,
                judge=judge,
                seed=given["seed"],
                overwrite=overwrite,
                on_progress=on_progress,
                **reading(given),
                **answering(given),
            )
    if not quiet:
        shares = ", ".join(f"{number} {name}" for name, number in sorted(made.categories.items()))
        click.echo(f"{output} has {counted(len(made.samples), 'sample')}{f' ({shares})' if shares else ''}.")
        why = ", ".join(f"{number} {reason}" for reason, number in sorted(made.reasons.items()))
        click.echo(
            f"Asked {counted(made.asked, 'prompt')}; kept {counted(len(made.samples), 'refusal')}, "
            f"dropped {counted(made.dropped, 'other answer')}"
            f"{f' ({why})' if why else ''}."
        )

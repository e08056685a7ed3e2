"""``hpa-merge verify``."""

import sys
from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import tell_notes
from hpa_merge.cli.early import refuse_model, refuse_out
from hpa_merge.cli.model_options import TRUST
from hpa_merge.cli.terminal import FILE, HELP, QUIET, complain, folders, hushed, libraries, options, progress_bar
from hpa_merge.config import FOLDER
from hpa_merge.counting import counted, singular

WRONG = 2
"""The exit status if something is wrong with OUT."""


@click.command(short_help="Check that a merged folder is complete and correct.", context_settings=HELP)
@click.argument("out", type=FILE)
@click.option("--old", metavar="FOLDER|ID", shell_complete=folders, help="OLD of the merge; give --new too.")
@click.option("--new", metavar="FOLDER|ID", shell_complete=folders, help="NEW of the merge.")
@click.option(
    "--safety-calib",
    type=FILE,
    metavar="FILE|ID",
    help="Safety samples of the merge: with them it is run again and compared.",
)
@click.option(
    "--task-calib",
    type=FILE,
    metavar="FILE|ID",
    multiple=True,
    help="Task samples of the merge; all of its sets, in their order.",
)
@click.option("--image-folder", multiple=True, metavar=FOLDER, help="Folder of images of the merge.")
@click.option("--stats", type=FILE, help="Column statistics: trusted if they fit, and never written.")
@click.option(
    "--first", metavar="FOLDER|ID", help="First aligned model of OLD's history, to measure the drift from it."
)
@click.option("--vision-tower", type=FILE, help="CLIP folder of the merge.")
@TRUST
@options(QUIET)
def verify_command(out: Path, quiet: bool, verbose: bool, **given: Any) -> None:
    """Check that OUT is complete and as its merge wrote it.

    Every file must have the SHA-256 of the report, no file may be missing or added, the index and the headers must
    agree, and no value may be NaN or infinite. With --old and --new, everything that follows from them without samples
    is computed again: the weights that were not adapted, κ, the budgets, the energies, and each value from the report's
    columns. With the calibration files too, the whole merge is run again without writing and compared bit for bit; only
    the report's options are trusted. What was not checked is printed. The exit status is 2 if anything is wrong.
    """
    encoding = given["safety_calib"] is not None or bool(given["task_calib"])
    several: dict[str, Any] = {name: given.pop(name) or None for name in ("task_calib", "image_folder")}
    refuse_model(out, "OUT", adapter=True)
    refuse_out(out)
    refuse_model(given["old"], "OLD", adapter=False)
    refuse_model(given["new"], "NEW", adapter=True)
    alone = given["old"] is None and given["new"] is None  # no model is built: torch is not needed
    with hushed(verbose) if alone else libraries(verbose, downloads=not quiet, encoding=encoding):
        from hpa_merge.verification import verify

        with progress_bar(quiet, "verifying") as on_progress:
            report = verify(out, **given, **several, on_progress=on_progress)
    for problem in report.problems:
        complain(problem)
    if report.problems:
        sys.exit(WRONG)
    tell_notes(report.unchecked, quiet)
    if not quiet:
        counts = ", ".join(counted(count, singular(kind)) for kind, count in report.checked.items())
        click.echo(f"{out} is as its merge wrote it: {counts}")

"""``hpa-merge verify``."""

import sys
from pathlib import Path

import click

from hpa_merge.cli.terminal import HELP, complain, folders, libraries, progress_bar
from hpa_merge.config import FOLDER

WRONG = 2
"""The exit status where something is wrong with what was looked at."""

FILE = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@click.argument("out", type=click.Path(path_type=Path))
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
@click.option("--image-folder", multiple=True, metavar=FOLDER, help="That of the merge.")
@click.option("--stats", type=FILE, help="Column statistics: believed where they fit, and never written.")
@click.option("--first", metavar="FOLDER|ID", help="First aligned model of OLD's history: the drift from it.")
@click.option("--vision-tower", type=FILE, help="That of the merge.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but what is wrong.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def verify_command(
    out: Path,
    old: str | None,
    new: str | None,
    safety_calib: Path | None,
    task_calib: tuple[Path, ...],
    image_folder: tuple[str, ...],
    stats: Path | None,
    first: str | None,
    vision_tower: Path | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Check that OUT is whole and as its merge wrote it.

    Every file has to have the SHA-256 of the report, none may be missing or added, the index and the headers have to
    agree, and no value may be NaN or infinite. With --old and --new everything that follows from them without a sample
    is computed again: what was not adapted, κ, the budgets, the energies, and each value from the report's columns.
    With the calibration files too the whole merge is run again without writing, and compared bit for bit: nothing of
    the report is believed but its options. What was not checked is printed. Exit status 2 if anything is wrong.
    """
    with libraries(verbose, downloads=not quiet, encoding=safety_calib is not None or bool(task_calib)):
        from hpa_merge.verification import verify

        with progress_bar(quiet, "verifying") as on_progress:
            report = verify(
                out,
                old,
                new,
                safety_calib=safety_calib,
                task_calib=task_calib or None,
                image_folder=image_folder or None,
                stats=stats,
                first=first,
                vision_tower=vision_tower,
                on_progress=on_progress,
            )
    for problem in report.problems:
        complain(problem)
    if report.problems:
        sys.exit(WRONG)
    if not quiet:
        counts = ", ".join(f"{count} {kind}" for kind, count in report.checked.items())
        click.echo(f"{out} is as its merge wrote it: {counts}")
        for sentence in report.unchecked:
            complain(sentence, "Note")

"""``hpa-merge report``: the page and the pictures of a merged folder, drawn again."""

from pathlib import Path

import click

from hpa_merge.cli.early import refuse_out
from hpa_merge.cli.terminal import FILE, HELP, QUIET, hushed, options, progress_bar


@click.command(short_help="Draw the report of a merged folder again.", context_settings=HELP)
@click.argument("out", type=FILE)
@click.option("--evaluation", type=FILE, help="A file of hpa-merge eval --json: it becomes part of the report.")
@click.option("--name", help="The name of OUT's model in that file, if the file does not name the folder.")
@click.option("--to", type=FILE, help="Write into this folder, and leave OUT unchanged.")
@options(QUIET)
def report_command(
    out: Path, evaluation: Path | None, name: str | None, to: Path | None, quiet: bool, verbose: bool
) -> None:
    """Draw the report of OUT again: hpa_report.html and its pictures, from hpa_report.json.

    With --evaluation, all three show what was measured of OUT. Each file is replaced atomically.
    """
    refuse_out(out)
    with hushed(verbose):
        from hpa_merge.render.folder import PAGE
        from hpa_merge.render.redraw import write_report

        with progress_bar(quiet, "report") as on_progress:
            on_progress("drawing the page", 0, 1)
            write_report(out, evaluation=evaluation, name=name, to=to)
    if not quiet:
        click.echo(f"{(to or out) / PAGE} is drawn.")

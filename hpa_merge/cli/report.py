"""``hpa-merge report``: the page and the pictures of a merged folder, drawn anew."""

from pathlib import Path

import click

from hpa_merge.cli.terminal import HELP, libraries

FILE = click.Path(path_type=Path)


@click.command(context_settings=HELP)
@click.argument("out", type=FILE)
@click.option("--evaluation", type=FILE, help="What hpa-merge eval --json wrote: it becomes part of the report.")
@click.option("--name", help="What that file calls the model in OUT, where it does not name the folder.")
@click.option("--to", type=FILE, help="Write into this folder, and leave OUT as it is.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def report_command(
    out: Path, evaluation: Path | None, name: str | None, to: Path | None, quiet: bool, verbose: bool
) -> None:
    """Draw the report of OUT anew: hpa_report.html and its pictures, from hpa_report.json.

    With --evaluation what was measured of OUT is put into all three. Every file is replaced as a whole.
    """
    with libraries(verbose):
        from hpa_merge.render.folder import PAGE
        from hpa_merge.render.redraw import write_report

        write_report(out, evaluation=evaluation, name=name, to=to)
    if not quiet:
        click.echo(f"{(to or out) / PAGE} is drawn.")

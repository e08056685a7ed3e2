"""``hpa-merge report``: the page and the pictures of a merged folder, drawn again."""

from collections.abc import Iterable
from pathlib import Path

import click

from hpa_merge.cli.closing import tell_notes
from hpa_merge.cli.early import refuse_out
from hpa_merge.cli.terminal import FILE, HELP, QUIET, hushed, options, progress_bar
from hpa_merge.cli.tracking import TRACK, tracked, tracker_of
from hpa_merge.errors import EvaluationError
from hpa_merge.printable import printable


@click.command(short_help="Draw the report of a merged folder again.", context_settings=HELP)
@click.argument("out", type=FILE)
@click.argument("more", nargs=-1, metavar="[FILE]...")
@click.option(
    "--evaluation",
    multiple=True,
    metavar="[old=|new=|out=]FILE",
    help="Results that become part of the report: a file of hpa-merge eval --json, files of lm-evaluation-harness, "
    "lmms-eval or inspect-ai, or a folder of these. Repeatable; further FILEs may follow.",
)
@click.option("--name", help="The name of OUT's model in the file of hpa-merge eval, if that does not name the folder.")
@click.option(
    "--safety-metric",
    "safety_metrics",
    multiple=True,
    metavar="TASK/METRIC[=less|=more]",
    help="A metric of another harness that measures safety, and what is better if the file lacks it. Repeatable.",
)
@click.option("--to", type=FILE, help="Write into this folder, and leave OUT unchanged.")
@TRACK
@options(QUIET)
def report_command(
    out: Path,
    more: tuple[str, ...],
    evaluation: tuple[str, ...],
    name: str | None,
    safety_metrics: tuple[str, ...],
    to: Path | None,
    track: str | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Draw the report of OUT again: hpa_report.html and its pictures, from hpa_report.json.

    With --evaluation, all three show what was measured of OUT. A file of another harness is about OLD, NEW or OUT, by
    the model that it names, or by what stands before it: old=FILE. Each file of OUT is replaced atomically.
    """
    if more and not evaluation:
        raise click.UsageError(f"{more[0]} is one argument too many: give files of results as --evaluation.")
    refuse_out(out)
    _refuse_gone((*evaluation, *more))
    tracker = tracker_of(track)
    with hushed(verbose):
        from hpa_merge.render.folder import PAGE
        from hpa_merge.render.redraw import write_report
        from hpa_merge.report.benchmark_words import source_facts
        from hpa_merge.report.verdict import verdict_lines
        from hpa_merge.tracking.content import of_report

        with progress_bar(quiet, "report") as on_progress:
            on_progress("drawing the page", 0, 1)
            report = write_report(out, evaluation=(*evaluation, *more), name=name, safety_metrics=safety_metrics, to=to)
    added = report.benchmarks if evaluation or safety_metrics else None
    tell_notes(added.notes if added else (), quiet)
    tracked(tracker, lambda: of_report(report), quiet)
    if quiet:
        return
    if added is not None:
        for role, file in source_facts(added):
            click.echo(printable(f"{role}: {file}"))
        for line in verdict_lines(report.verdict, figures=False)[:1]:
            click.echo(printable(line))
    click.echo(f"{(to or out) / PAGE} is drawn.")


def _refuse_gone(files: Iterable[str]) -> None:
    """Check that files of results exist, before torch is imported.

    Raises:
        EvaluationError: one does not.
    """
    from hpa_merge.report.harness import given_of

    for path in (given_of(file).path for file in files):
        if not path.exists():
            raise EvaluationError(f"{path} cannot be read (No such file or directory): check the path.")

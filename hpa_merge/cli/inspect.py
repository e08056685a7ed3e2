"""``hpa-merge inspect``: the reports of merges, or a statistics file, in the terminal and for programs."""

from pathlib import Path

import click

from hpa_merge.cli.model_options import check_place, write
from hpa_merge.cli.terminal import FILE, HELP
from hpa_merge.errors import ConfigError


@click.command(short_help="Show what merges decided, side by side, by layer, by round.", context_settings=HELP)
@click.argument("paths", nargs=-1, required=True, type=FILE, metavar="OUT...")
@click.option(
    "--layer", metavar="REGEX", help="Only linears whose tensor name matches REGEX; a few are shown with every figure."
)
@click.option(
    "--by", type=click.Choice(["depth", "projection", "linear"]), help="What a row stands for.  [default: depth]"
)
@click.option("--history", is_flag=True, help="Show the rounds of tuning and merging that led to OUT.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line for each linear, or as --by says.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, described in docs/formats.md.")
@click.option("-o", "--output", type=FILE, help="Write the CSV or JSON to this file.")
def inspect_command(
    paths: tuple[Path, ...],
    layer: str | None,
    by: str | None,
    history: bool,
    as_csv: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Show what merges decided, from their reports.

    OUT is a merged folder, a folder with hpa_report.json alone, or that file; several are shown side by side. For a
    file of --stats, the spread of [H⁻¹]_jj of each linear is shown. Nothing is computed, and no weight is read.
    """
    if as_csv and as_json:
        raise click.UsageError("Give '--csv' or '--json', not both.")
    if output is not None and not (as_csv or as_json):
        raise click.UsageError("'--output' needs '--csv' or '--json'.")
    if history and (layer is not None or by is not None or as_csv):
        raise click.UsageError("'--history' shows whole rounds: leave out '--layer', '--by' and '--csv'.")
    check_place("--output", output, paths)
    from hpa_merge.report.inspecting import inspect

    if as_csv or as_json:
        inspection = inspect(*paths, layer=layer, by=by or "linear")  # type: ignore[arg-type]
        content = inspection.to_csv() if as_csv else inspection.to_json()
        if output is None:
            click.echo(content, nl=False)
        else:
            write(output, content)
        return
    inspection = inspect(*paths, layer=layer).printable()
    if inspection.statistics and (by is not None or history):
        raise ConfigError("a statistics file has neither depths nor a history: leave out --by and --history.")
    from rich.console import Console

    from hpa_merge.cli.tables.comparing import comparison, groups_table, history_table
    from hpa_merge.cli.tables.layers import layers_table, statistics_table
    from hpa_merge.cli.tables.merging import merge_summary

    console = Console(highlight=False, markup=False)
    for summary in inspection.statistics:
        console.print(statistics_table(summary))
    if history:
        for each in inspection.reports:
            console.print(history_table(each))
    elif by == "linear" or (layer is not None and by is None):
        for each in inspection.reports:
            console.print(layers_table(each))
    elif by is not None:
        for each in inspection.reports:
            console.print(groups_table(each, by))  # type: ignore[arg-type]
    elif len(inspection.reports) > 1:
        console.print(comparison(inspection.reports))
    else:
        for each in inspection.reports:
            console.print(merge_summary(each.report, each.path))
            for sentence in each.report.warnings:
                console.print(f"Note: {sentence}")

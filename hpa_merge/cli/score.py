"""``hpa-merge score``: the paper's metrics of a sequence of tuning steps."""

import dataclasses
import json
from pathlib import Path

import click

from hpa_merge.cli.terminal import FILE, HELP


@click.command(short_help="Print the paper's metrics of a sequence of tuning steps.", context_settings=HELP)
@click.argument("folder", type=FILE)
@click.option("--tasks", metavar="NAME,NAME…", help="The task learned at each step, in order.  [default: all tasks]")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def score_command(folder: Path, tasks: str | None, as_json: bool) -> None:
    """Print AP, BWT, MASR and DASR of a sequence of tuning steps.

    FOLDER holds files of "hpa-merge eval --json", ordered by the numbers in their names. The first model of the first
    file is the aligned one; each further model is the one after the next step. The accuracy right after learning is
    shown next to BWT, because a method that does not learn forgets nothing.
    """
    from hpa_merge.evaluation.sequence import read_steps, score_steps

    steps = read_steps(folder)
    metrics, learned = score_steps(steps, [name.strip() for name in tasks.split(",")] if tasks else None)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(metrics), "tasks": learned}, indent=1))
        return
    from rich.console import Console

    from hpa_merge.cli.tables.evaluation import sequence_table

    Console(highlight=False, markup=False).print(sequence_table(steps, learned, metrics))

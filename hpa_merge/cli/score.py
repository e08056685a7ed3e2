"""``hpa-merge score``: the paper's metrics of a sequence of tuning steps."""

import dataclasses
import json
from pathlib import Path

import click

from hpa_merge.cli.terminal import HELP
from hpa_merge.cli.testing import FILE


@click.command(context_settings=HELP)
@click.argument("folder", type=FILE)
@click.option(
    "--tasks", metavar="NAME,NAME…", help="The task learned at each step, in order; by default all there are."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def score_command(folder: Path, tasks: str | None, as_json: bool) -> None:
    """Print AP, BWT, MASR and DASR of a sequence of tuning steps.

    FOLDER holds files of "hpa-merge eval --json", in the order of the numbers in their names. The first model of the
    first file is the aligned one, before any step; every further model is that after the next step. Beside BWT stands
    the accuracy right after learning, because a method that refuses to learn forgets nothing.
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

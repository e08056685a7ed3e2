"""``hpa-merge samples``: a file of samples as a model gets them."""

from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import tell_notes
from hpa_merge.cli.early import refuse_model, refuse_samples
from hpa_merge.cli.model_options import BASE, READING_OPTIONS, TRUST
from hpa_merge.cli.options import config_option
from hpa_merge.cli.terminal import FILE, HELP, libraries, options, progress_bar
from hpa_merge.config import HPAConfig
from hpa_merge.records.example import Purpose

DRAWN = ("max_length", "max_frames", "seed", "conversation", "chat_template", "template_arg", "template_date")
"""Options of a merge that decide what a model gets of a file."""


@click.command(short_help="Show a file of samples as a model gets them.", context_settings=HELP)
@click.argument("file", metavar="FILE|ID")
@click.option("--model", type=FILE, required=True, metavar="FOLDER", help="OLD for a safety set, NEW for a task set.")
@click.option(
    "--purpose",
    type=click.Choice(["safety", "task"]),
    default="task",
    show_default=True,
    help="As which set a merge would take FILE.",
)
@click.option("--n", "first", type=click.IntRange(min=0), default=3, show_default=True, help="Samples shown.")
@click.option("--samples", type=click.IntRange(min=1), help="Samples used at most.  [default: safety 8, task 128]")
@options(READING_OPTIONS, tuple(map(config_option, DRAWN)))
@click.option("--vision-tower", type=FILE, help="CLIP folder, for LLaVA's own layout.")
@options((BASE, TRUST))
@click.option("-v", "--verbose", is_flag=True, help="Print tracebacks and the libraries' own messages.")
def samples_command(
    file: str,
    model: Path,
    purpose: Purpose,
    first: int,
    samples: int | None,
    vision_tower: Path | None,
    trust_remote_code: bool,
    base: str | None,
    map: tuple[str, ...],
    ignore_field: tuple[str, ...],
    image_folder: tuple[str, ...],
    verbose: bool,
    **given: Any,
) -> None:
    """Show the samples of FILE as the model gets them.

    The text is shown with its special tokens and with every line break, the media with their size, and the answer by
    itself, each with its tokens; long texts are shortened in the middle. All samples that a merge would draw are
    encoded, so that what is cut, dropped or refused is known before the merge.
    """
    config = HPAConfig(**given).calibration
    refuse_model(model, "MODEL", adapter=True)
    refuse_samples(file)
    with libraries(verbose, downloads=True, encoding=True):
        from rich.console import Console

        from hpa_merge.calibration import read_samples
        from hpa_merge.cli.tables.layout import facts_table
        from hpa_merge.cli.tables.samples import shown_set
        from hpa_merge.engine.showing import show_samples
        from hpa_merge.inputs.data_sets import locate_data
        from hpa_merge.records import reading_options
        from hpa_merge.report.facts import calibration_text

        source = locate_data(file)
        reading = reading_options(purpose, map, ignore_field, image_folder)
        limit = samples or (config.safety_samples if purpose == "safety" else config.task_samples)
        drawn = read_samples(source, limit, config.seed, reading, purpose=purpose)
        with progress_bar(False, "encoding") as on_progress:
            found = show_samples(
                source.name,
                drawn,
                model,
                purpose,
                config,
                first=first,
                tower=vision_tower,
                base=base,
                trust_remote_code=trust_remote_code,
                on_progress=on_progress,
            )
    tell_notes(found.notes, quiet=False)
    console = Console(highlight=False, markup=False)
    rows = [(f"{purpose} set", calibration_text(found.record))]
    rows += [("chat template", found.record.template)] if found.record.template else []
    console.print(facts_table(*rows), shown_set(found.shown), sep="\n")

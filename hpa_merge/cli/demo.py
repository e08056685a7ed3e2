"""``hpa-merge demo``."""

from pathlib import Path

import click

from hpa_merge.cli.closing import tell_next
from hpa_merge.cli.terminal import FILE, HELP, QUIET, libraries, options, progress_bar, say
from hpa_merge.files.claiming import claim_empty


@click.command(short_help="Train a small LLaVA in a folder, tune it, and merge both.", context_settings=HELP)
@click.argument("folder", type=FILE)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawings and of the training.")
@options(QUIET)
def demo_command(folder: Path, seed: int, quiet: bool, verbose: bool) -> None:
    """Train a small LLaVA in FOLDER, tune it, merge both, and compare the three.

    Everything is real and small: a model is trained on drawn images and aligned to refuse. Tuning on a new task then
    costs it some refusals, and the merge restores them. It takes less than a minute on two cores, without a network.
    """
    claim_empty(folder)
    with libraries(verbose, downloads=not quiet, encoding=True):
        from rich.console import Console

        from hpa_merge.api import merge
        from hpa_merge.cli.tables.merging import merge_summary
        from hpa_merge.demo import make_demo, measure, next_steps, scores_table

        console = Console(quiet=quiet, highlight=False)

        def on_stage(text: str) -> None:
            if not quiet:
                say(f"{text} …")

        out = folder / "out"
        with progress_bar(quiet, "demo") as on_progress:
            files = make_demo(folder, seed=seed, on_stage=on_stage, on_progress=on_progress)
            on_stage("Merging OLD and NEW into OUT")
            report = merge(
                files.old, files.new, out, safety_calib=files.safety, task_calib=files.task, on_progress=on_progress
            )
            places = {"OLD, aligned": files.old, "NEW, tuned": files.new, "OUT, merged": out}
            scores = {}
            for number, (name, place) in enumerate(places.items()):
                on_progress(f"asking {name.partition(',')[0]}", number, len(places))
                scores[name] = measure(place, files)
        console.print(merge_summary(report, str(out)))
        console.print(scores_table(scores))
        tell_next(next_steps(files, out), quiet)

"""``hpa-merge demo``."""

from pathlib import Path

import click

from hpa_merge.cli.terminal import FILE, HELP, QUIET, libraries, options, progress_bar


@click.command(context_settings=HELP)
@click.argument("folder", type=FILE)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the drawings and of the training.")
@options(QUIET)
def demo_command(folder: Path, seed: int, quiet: bool, verbose: bool) -> None:
    """Train a small LLaVA in FOLDER, tune it, merge both, and compare the three.

    Everything is real and small: a model is trained on drawn images and aligned to refuse. Tuning on a new task then
    costs it some refusals, and the merge restores them. It takes less than a minute on two cores, without a network.
    """
    with libraries(verbose, encoding=True):
        from rich.console import Console

        from hpa_merge.api import merge
        from hpa_merge.cli.tables.merging import merge_summary
        from hpa_merge.demo import make_demo, measure, next_steps, scores_table

        console = Console(quiet=quiet, highlight=False)
        files = make_demo(folder, seed=seed, on_stage=lambda text: console.print(f"{text} …"))
        out = folder / "out"
        console.print("Merging OLD and NEW into OUT …")
        with progress_bar(quiet) as on_progress:
            report = merge(
                files.old, files.new, out, safety_calib=files.safety, task_calib=files.task, on_progress=on_progress
            )
        console.print(merge_summary(report, str(out)))
        scores = {
            "OLD, aligned": measure(files.old, files),
            "NEW, tuned": measure(files.new, files),
            "OUT, merged": measure(out, files),
        }
        console.print(scores_table(scores))
        console.print(next_steps(files, out), soft_wrap=True)

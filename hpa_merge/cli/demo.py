"""``hpa-merge demo``."""

from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.terminal import FILE, HELP, QUIET, libraries, options, progress_bar

ASKED: dict[str, Any] = {
    **{"device": "cpu", "batch_size": 32, "max_new_tokens": 8},
    **{"max_dasr": 5.0, "max_over_refusal": 10.0},
}
"""How the demo's models are asked, and the bounds of its gate."""


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

        from hpa_merge.api import evaluate, merge
        from hpa_merge.cli.tables.evaluation import evaluation_table
        from hpa_merge.cli.tables.merging import merge_summary
        from hpa_merge.cli.tables.verdict import verdict_text
        from hpa_merge.demo import alone, make_demo, next_steps
        from hpa_merge.render.redraw import write_report

        console = Console(quiet=quiet, highlight=False)
        files = make_demo(folder, seed=seed, on_stage=lambda text: console.print(f"{text} …"))
        console.print("Merging OLD and NEW into OUT …")
        with progress_bar(quiet) as on_progress:
            report = merge(
                files.old,
                files.new,
                files.out,
                safety_calib=files.safety,
                task_calib=files.task,
                page=False,
                on_progress=on_progress,
            )
        console.print(merge_summary(report, str(files.out)))
        console.print("Asking OLD, NEW and OUT …")
        with progress_bar(quiet, "evaluating") as on_progress, alone():
            models = (files.old, files.new, files.out)
            evaluation = evaluate(models, **files.tests, **ASKED, gated=[files.out], on_progress=on_progress)
        files.results.write_text(evaluation.to_json(), encoding="utf-8")
        report = write_report(files.out, evaluation=files.results)
        console.print(evaluation_table(evaluation))
        console.print(verdict_text(report.verdict), soft_wrap=True)
        console.print(next_steps(files), soft_wrap=True)

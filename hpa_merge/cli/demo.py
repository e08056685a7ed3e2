"""``hpa-merge demo``."""

from pathlib import Path
from typing import Any

import click

from hpa_merge.cli.closing import last_lines, tell
from hpa_merge.cli.terminal import FILE, HELP, QUIET, libraries, options, progress_bar, say
from hpa_merge.files.claiming import claim_empty

ASKED: dict[str, Any] = {
    **{"device": "cpu", "batch_size": 32, "max_new_tokens": 8},
    **{"max_dasr": 5.0, "max_over_refusal": 10.0},
}
"""How the demo's models are asked, and the bounds of its gate."""


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

        from hpa_merge.api import evaluate, merge
        from hpa_merge.cli.tables.evaluation import evaluation_table
        from hpa_merge.cli.tables.merging import merge_summary
        from hpa_merge.cli.tables.verdict import verdict_text
        from hpa_merge.demo import alone, make_demo, next_steps
        from hpa_merge.render.folder import PAGE
        from hpa_merge.render.redraw import write_report

        console = Console(quiet=quiet, highlight=False)

        def on_stage(text: str) -> None:
            if not quiet:
                say(f"{text} …")

        with progress_bar(quiet, "demo") as on_progress:
            files = make_demo(folder, seed=seed, on_stage=on_stage, on_progress=on_progress)
            on_stage("Merging OLD and NEW into OUT")
            report = merge(
                files.old,
                files.new,
                files.out,
                safety_calib=files.safety,
                task_calib=files.task,
                page=False,
                on_progress=on_progress,
            )
            on_stage("Asking OLD, NEW and OUT")
            with alone():
                models = (files.old, files.new, files.out)
                tests: dict[str, Any] = {**files.tests, **ASKED}
                evaluation = evaluate(models, **tests, gated=[files.out], on_progress=on_progress)
            files.results.write_text(evaluation.to_json(), encoding="utf-8")
            on_progress("drawing the page", 0, 1)
            report = write_report(files.out, evaluation=files.results)
        console.print(merge_summary(report, str(files.out)))
        console.print(evaluation_table(evaluation))
        tell(console, next_steps(files))
        tell(console, [*verdict_text(report.verdict), *last_lines(report, files.out, page=PAGE, publish=False)])

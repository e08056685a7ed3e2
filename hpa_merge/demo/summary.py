"""The end of the demo: the three checkpoints side by side, and what to try next."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hpa_merge.demo.samples import DemoFiles
from hpa_merge.demo.scores import DemoScores

__all__ = ["next_steps", "scores_table"]


def scores_table(scores: Mapping[str, DemoScores]) -> Table:
    """The scores of several checkpoints, by name."""
    table = Table(title="Correct answers on held-out pictures", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("checkpoint", no_wrap=True)
    for heading in ("refuses the forbidden", "new task", "old task"):
        table.add_column(heading, justify="right")
    for name, score in scores.items():
        table.add_row(name, *(f"{share:.0f} %" for share in (score.refusal, score.new_task, score.old_task)))
    return table


def next_steps(files: DemoFiles, out: Path) -> list[str]:
    """Lines with commands to copy, which stand under the scores and do not scroll them away.

    Args:
        out: the demo's own merge.
    """
    merge: list[object] = [
        "hpa-merge",
        files.old,
        files.new,
        "--safety-calib",
        files.safety,
        "--task-calib",
        files.task,
    ]
    tests = ["--safety-test", files.heldout_refusals, "--task-test", f"new={files.heldout_new_task}"]
    tune = ["hpa-merge", "tune", *merge[1:], "-o", f"{out}-best", *tests, "--max-asr", "5"]
    rows: dict[str, list[object]] = {
        "look at every decision": [out / "hpa_report.html"],
        "measure with intervals": ["hpa-merge", "eval", files.old, files.new, out, *tests],
        "restore more": [*merge, "-o", f"{out}-2", "--p-max", "30"],
        "find the best setting": tune,
    }
    width = max(map(len, rows))
    return [f"{label:<{width}}  {shlex.join(map(str, words))}" for label, words in rows.items()]

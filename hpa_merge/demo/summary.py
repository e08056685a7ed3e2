"""The end of the demo: the three checkpoints side by side, and what to try next."""

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


def next_steps(files: DemoFiles, out: Path) -> str:
    """Commands to copy; ``out`` is the demo's own merge."""
    command = f"hpa-merge {files.old} {files.new} --safety-calib {files.safety} --task-calib {files.task} -o {out}-2"
    return f"""Try next
  the same merge with more restored columns
    {command} --p-max 30
  an ablation of the paper
    {command} --selection safety --overwrite
  show the plan only
    {command}-3 --dry-run
  evaluate all three, with confidence intervals
    hpa-merge eval {files.old} {files.new} {out} --safety-test {files.heldout_refusals} \\
      --task-test new={files.heldout_new_task} --task-test old={files.heldout_old_task}
  find the setting that is safe enough and loses least
    hpa-merge tune {files.old} {files.new} --safety-calib {files.safety} --task-calib {files.task} -o {out}-best \\
      --safety-test {files.heldout_refusals} --task-test new={files.heldout_new_task} --max-asr 5
  see what was decided for each weight, in the browser and as JSON
    {out / "hpa_report.html"}
    {out / "hpa_report.json"}"""

"""The end of the demo: what to try next."""

from hpa_merge.demo.samples import DemoFiles

__all__ = ["next_steps"]


def next_steps(files: DemoFiles) -> str:
    """Commands to copy."""
    out = files.out
    command = f"hpa-merge {files.old} {files.new} --safety-calib {files.safety} --task-calib {files.task} -o {out}-2"
    return f"""Try next
  the same merge with more restored columns
    {command} --p-max 30
  an ablation of the paper
    {command} --selection safety --overwrite
  show the plan only
    {command}-3 --dry-run
  evaluate another merge
    hpa-merge eval {files.old} {files.new} {out}-2 --safety-test forbidden={files.heldout_refusals} \\
      --task-test codes={files.heldout_new_task} --task-test colours={files.heldout_old_task}
  find the setting that is safe enough and loses least
    hpa-merge tune {files.old} {files.new} --safety-calib {files.safety} --task-calib {files.task} -o {out}-best \\
      --safety-test forbidden={files.heldout_refusals} --task-test codes={files.heldout_new_task} --max-asr 5
  see the verdict, and what was decided for each weight, in the browser and as JSON
    {out / "hpa_report.html"}
    {out / "hpa_report.json"}"""

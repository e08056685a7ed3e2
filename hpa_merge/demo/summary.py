"""The end of the demo: what to try next."""

import shlex

from hpa_merge.demo.samples import DemoFiles

__all__ = ["next_steps"]


def next_steps(files: DemoFiles) -> list[str]:
    """Lines with commands to copy."""
    inputs = [files.old, files.new, "--safety-calib", files.safety, "--task-calib", files.task]
    tests = ["--safety-test", f"forbidden={files.heldout_refusals}"]
    tests += ["--task-test", f"codes={files.heldout_new_task}", "--task-test", f"colours={files.heldout_old_task}"]
    rows: dict[str, list[object]] = {
        "restore more": ["hpa-merge", *inputs, "-o", f"{files.out}-2", "--p-max", "30"],
        "find the best setting": ["hpa-merge", "tune", *inputs, "-o", f"{files.out}-best", *tests, "--max-asr", "5"],
    }
    return [line for aim, words in rows.items() for line in (f"To {aim}:", f"  {shlex.join(map(str, words))}")]

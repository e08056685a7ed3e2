"""The end of the demo: what to try next."""

import shlex

from hpa_merge.demo.samples import DemoFiles

__all__ = ["next_steps"]


def next_steps(files: DemoFiles) -> list[str]:
    """Lines with commands to copy, few enough to leave the verdict on the screen."""
    inputs = [files.old, files.new, "--safety-calib", files.safety, "--task-calib", files.task]
    tests = ["--safety-test", f"forbidden={files.heldout_refusals}", "--task-test", f"codes={files.heldout_new_task}"]
    rows: dict[str, list[object]] = {
        "see it in the browser": [files.out / "hpa_report.html"],
        "restore more": ["hpa-merge", *inputs, "-o", f"{files.out}-2", "--p-max", "30"],
        "find the best setting": ["hpa-merge", "tune", *inputs, "-o", f"{files.out}-best", *tests, "--max-asr", "5"],
    }
    width = max(map(len, rows))
    return [f"{label:<{width}}  {shlex.join(str(word) for word in words)}" for label, words in rows.items()]

"""A merge from request to OUT, with one OUT or several: prepare, run, publish."""

import time
from pathlib import Path

from hpa_merge.engine.loop import run_loop
from hpa_merge.engine.memory import explaining
from hpa_merge.engine.output import MergeOutput
from hpa_merge.engine.request import MergeRequest, Render
from hpa_merge.engine.setup import Prepared, prepare
from hpa_merge.errors import CheckpointError, HPAError, OutputError
from hpa_merge.progress import Progress, silent
from hpa_merge.report.schema import MergeReport

__all__ = ["merge_all"]


def merge_all(request: MergeRequest, render: Render, on_progress: Progress = silent) -> dict[Path, MergeReport]:
    """Make every OUT of ``request``, and return its report; errors are those of :func:`hpa_merge.merge`.

    Args:
        render: makes the files that people read.
    """
    started = time.monotonic()
    outputs: dict[Path, MergeOutput] = {}

    def make(prepared: Prepared) -> list[MergeOutput]:
        for output in outputs.values():
            output.abort(keep=False)
        outputs.clear()
        for out, plan, form in zip(request.outs, prepared.plan.outs, prepared.forms, strict=True):
            if out not in prepared.finished:
                outputs[out] = MergeOutput(request, prepared, out, plan, form)
        return list(outputs.values())

    with prepare(request, on_progress=on_progress) as prepared, explaining(prepared.memory, prepared.device):
        reports = dict(prepared.finished)
        try:
            from_first = run_loop(prepared, make, on_progress, request.stats)
            on_progress(
                "drawing the page" if request.page else "writing the report", prepared.steps - 1, prepared.steps
            )
            for (out, output), distance in zip(outputs.items(), from_first, strict=True):
                reports[out] = output.publish(render, started, distance)
        except BaseException as error:
            # Durable work is kept if the same command can still succeed: after an interruption, or with a disk that
            # is full or fails. Other errors need other input, which makes another run.
            keep = not isinstance(error, HPAError) or isinstance(error, OutputError | CheckpointError)
            for output in outputs.values():
                output.abort(keep=keep)
            raise
        on_progress("done", prepared.steps, prepared.steps)
    return {out: reports[out] for out in request.outs}

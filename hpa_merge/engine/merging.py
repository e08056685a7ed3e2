"""A merge from request to OUT: prepared, run and published; with one OUT or several."""

import time
from pathlib import Path

from hpa_merge.engine.loop import Loop
from hpa_merge.engine.memory import explaining
from hpa_merge.engine.output import MergeOutput
from hpa_merge.engine.request import MergeRequest, Progress, Render, silent
from hpa_merge.engine.setup import prepare
from hpa_merge.errors import CheckpointError, HPAError, OutputError
from hpa_merge.report.schema import MergeReport

__all__ = ["merge_all"]


def merge_all(request: MergeRequest, render: Render, on_progress: Progress = silent) -> dict[Path, MergeReport]:
    """Make every OUT of ``request``; ``render`` makes the files that people read.

    Returns:
        The report of each OUT.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`hpa_merge.merge`.
    """
    started = time.monotonic()
    outputs: dict[Path, MergeOutput] = {}
    with prepare(request) as prepared, explaining(prepared.memory, prepared.device):
        reports = dict(prepared.finished)
        try:
            for out, plan in zip(request.outs, prepared.plan.outs, strict=True):
                if out not in reports:
                    outputs[out] = MergeOutput(request, prepared, out, plan)
            from_first = Loop(prepared, list(outputs.values()), on_progress, request.stats).run()
            for (out, output), distance in zip(outputs.items(), from_first, strict=True):
                reports[out] = output.publish(render, started, distance)
        except BaseException as error:
            # Other input would be another run. A disk that is full or fails can be fixed, and an interruption is no
            # fault at all: then what is durable is kept.
            keep = not isinstance(error, HPAError) or isinstance(error, OutputError | CheckpointError)
            for output in outputs.values():
                output.abort(keep=keep)
            raise
    return {out: reports[out] for out in request.outs}

"""A merge from request to OUT, with one OUT or several: prepare, run, publish."""

import time
from pathlib import Path

from hpa_merge.engine.loop import run_loop
from hpa_merge.engine.memory import explaining
from hpa_merge.engine.output import MergeOutput
from hpa_merge.engine.request import MergeRequest, Render
from hpa_merge.engine.setup import Prepared, prepare
from hpa_merge.errors import CheckpointError, HPAError, OutputError, RankError
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.report.schema import MergeReport

__all__ = ["merge_all"]


def merge_all(request: MergeRequest, render: Render, on_progress: Progress = silent) -> dict[Path, MergeReport]:
    """Make every OUT of ``request``, and return its report; errors are those of :func:`hpa_merge.merge`.

    If this process is one of several ranks (:meth:`Group.current`), every rank makes this call. Rank 0 publishes.

    Args:
        render: makes the files that people read.
    """
    with Group.taking_part() as group:
        return _merge_all(request, render, on_progress if group.is_first else silent, group)


def _merge_all(request: MergeRequest, render: Render, on_progress: Progress, group: Group) -> dict[Path, MergeReport]:
    started = time.monotonic()
    outputs: dict[Path, MergeOutput] = {}

    def make(prepared: Prepared) -> list[MergeOutput]:
        for output in outputs.values():
            output.abort(keep=False)
        outputs.clear()
        group.barrier()  # every rank has checked the place of OUT, and nobody writes to an earlier one
        for first in (True, False):  # which lays OUT out, and then the others open it
            if group.is_first == first:
                for out, plan, form in zip(request.outs, prepared.plan.outs, prepared.forms, strict=True):
                    if out not in prepared.finished:
                        outputs[out] = MergeOutput(request, prepared, out, plan, form)
            group.barrier()
        return list(outputs.values())

    with (
        prepare(request, on_progress=on_progress, group=group) as prepared,
        explaining(prepared.memory, prepared.device),
    ):
        reports = dict(prepared.finished)
        try:
            from_first = run_loop(prepared, make, on_progress, request.stats)
            on_progress(
                "drawing the page" if request.page else "writing the report", prepared.steps - 1, prepared.steps
            )
            for (out, output), distance in zip(outputs.items(), from_first, strict=True):
                if (report := output.publish(render, started, distance)) is not None:
                    reports[out] = report
            reports = group.gather(reports if group.is_first else {})[0]
        except BaseException as error:
            # Durable work is kept if the same command can still succeed: after an interruption, or with a disk that
            # is full or fails. Other errors need other input, which makes another run.
            keep = not isinstance(error, HPAError) or isinstance(error, OutputError | CheckpointError | RankError)
            for output in outputs.values():
                output.abort(keep=keep)
            raise
        on_progress("done", prepared.steps, prepared.steps)
    return {out: reports[out] for out in request.outs}

"""A job from call to OUT: prepared, run and published; with one OUT or several."""

import time
from pathlib import Path

from hpa_merge.engine.loop import Loop
from hpa_merge.engine.machine import is_out_of_memory
from hpa_merge.engine.output import Target
from hpa_merge.engine.setup import Job, Progress, Render, out_of_memory, prepare
from hpa_merge.errors import CheckpointError, HPAError, OutputError, ResourceError
from hpa_merge.report.schema import MergeReport

__all__ = ["merge_all"]


def merge_all(
    job: Job, render: Render, on_progress: Progress = lambda what, done, total: None
) -> dict[Path, MergeReport]:
    """Every OUT of ``job``, and its report; ``render`` makes the files that people read.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`hpa_merge.merge`.
    """
    started = time.monotonic()
    targets: dict[Path, Target] = {}
    reports: dict[Path, MergeReport] = {}
    with prepare(job) as ready:
        try:
            for place, (out, config) in enumerate(job.outs.items()):
                if out not in ready.finished:
                    targets[out] = Target(job, ready, out, place, config, ready.memory.behind)
            from_first = Loop(ready, job.stats, list(targets.values()), on_progress).run()
            for (out, target), distance in zip(targets.items(), from_first, strict=True):
                reports[out] = target.publish(job, ready, render, started, distance)
        except BaseException as error:
            # Other input would be another run; a disk that is full or fails can be mended, and an interruption is no
            # fault at all.
            keep = not isinstance(error, HPAError) or isinstance(error, OutputError | CheckpointError)
            for target in targets.values():
                target.abort(keep=keep)
            if is_out_of_memory(error):
                raise ResourceError(out_of_memory(ready)) from error
            raise
    return {out: reports.get(out) or ready.finished[out] for out in job.outs}

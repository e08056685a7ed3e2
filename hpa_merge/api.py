"""What people call from Python; the package exports it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from hpa_merge.config import HPAConfig
from hpa_merge.engine.merging import merge_all
from hpa_merge.engine.request import MergeOptions, MergeRequest, Progress, silent
from hpa_merge.render.folder import render
from hpa_merge.report.schema import MergeReport

__all__ = ["merge", "sweep"]


def merge(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    *,
    safety_calib: str | Path | None = None,
    task_calib: str | Path | None = None,
    config: HPAConfig | None = None,
    vision_tower: str | Path | None = None,
    stats: str | Path | None = None,
    first: str | Path | None = None,
    max_memory: int | None = None,
    max_host_memory: int | None = None,
    overwrite: bool = False,
    resume: bool = False,
    page: bool = True,
    on_progress: Progress = silent,
) -> MergeReport:
    """Restore in NEW what OLD's safety and earlier tasks rest on, and write the result to ``out``.

    Args:
        old, new: checkpoint folders in Hugging Face layout, before and after the tuning step; ``new`` may also be the
            folder of a PEFT adapter that was trained on ``old``. Never written to. A string may also be the name of one
            on the Hub, ``org/name[@revision]``.
        out: a new folder; it appears whole or not at all.
        safety_calib, task_calib: calibration files, if the method looks at them; docs/calibration.md has the formats.
        config: the options; the paper's by default.
        vision_tower: the folder of the CLIP tower of checkpoints in LLaVA's own layout, where it is not the local
            folder that their config.json names.
        stats: a file of column statistics: what it holds for these inputs is not computed, the rest is written there.
        first: the first aligned model of OLD's history, a folder or a name on the Hub: its linear weights are compared
            with OUT's, for the exact drift from it. In the first round OLD is that model.
        max_memory: bytes that may be taken where the arithmetic runs, on the CUDA device or on the host.
        max_host_memory: bytes that may be taken on the host beside a CUDA device.
        overwrite: replace ``out`` where it exists.
        resume: go on with what an interrupted run with the same arguments left beside ``out``, if it left anything.
        page: draw the report as ``hpa_report.html`` and pictures beside it.
        on_progress: called before each unit, and at the end.

    Returns:
        The report, which also lies in ``out`` as ``hpa_report.json``.

    Raises:
        InputError: the input or the options are wrong.
        NumericalError: a weight or an activation is not finite, or a curvature cannot be factored.
        ResourceError: memory ran out.
    """
    request = MergeRequest.of(
        old,
        new,
        {out: config or HPAConfig()},
        safety_calib=safety_calib,
        task_calib=task_calib,
        vision_tower=vision_tower,
        stats=stats,
        first=first,
        max_memory=max_memory,
        max_host_memory=max_host_memory,
        overwrite=overwrite,
        resume=resume,
        page=page,
    )
    return merge_all(request, render, on_progress)[Path(out)]


def sweep(
    old: str | Path,
    new: str | Path,
    outs: Mapping[str | Path, HPAConfig],
    *,
    on_progress: Progress = silent,
    **options: Unpack[MergeOptions],
) -> dict[Path, MergeReport]:
    """Several merges from one read of the inputs and one run of the samples, each as :func:`merge` would make it.

    Args:
        old, new: as in :func:`merge`.
        outs: the options of each OUT. Those that the statistics depend on (the damping, the samples and their draw,
            the device) have to be the same in all.
        on_progress: as in :func:`merge`.
        **options: the other keyword arguments of :func:`merge`, but for ``config``. With ``resume``, an OUT that is
            complete, and as this call would make it, is left unchanged.

    Returns:
        The report of each OUT.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`merge`; then none of the OUTs is made.
    """
    request = MergeRequest.of(old, new, outs, skip_complete=options.get("resume", False), **options)
    return merge_all(request, render, on_progress)

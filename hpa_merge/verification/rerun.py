"""The merge run again without writing, and compared with an OUT that is there: nothing in its report is believed."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.engine.fingerprint import digest
from hpa_merge.engine.loop import Loop
from hpa_merge.engine.machine import describe, is_out_of_memory, versions
from hpa_merge.engine.setup import Job, Ready, out_of_memory, prepare
from hpa_merge.errors import ResourceError
from hpa_merge.report.manifest import Listing
from hpa_merge.report.schema import MergeReport
from hpa_merge.verification.comparison import Comparison
from hpa_merge.verification.drawn import check_drawn
from hpa_merge.verification.findings import Findings
from hpa_merge.verification.inputs import check_folder
from hpa_merge.verification.whole import check_calibration, check_whole, options_of

__all__ = ["job_of", "run_again"]


def run_again(
    job: Job,
    config: HPAConfig,
    merged: Checkpoint,
    report: MergeReport,
    found: Listing,
    findings: Findings,
    on_progress: Callable[[str, int, int], None],
) -> None:
    """Merge again and compare.

    Args:
        job: of OUT alone; ``compares``.
        config: the options that the report names.
        found: what lies in OUT.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`hpa_merge.merge`.
    """
    with prepare(job) as ready:
        here, there = describe(ready.device), report.run.machine
        same = here == there and report.run.versions == versions()
        findings.unchecked.append(f"The options are those that the report names: {options_of(config)}.")
        findings.unchecked += _inputs(job, ready)
        if not same:
            was = there or "a machine that the report does not name"
            findings.unchecked.append(
                f"By the word of the report alone, the merge ran on {was:.200}, with other versions or on another "
                f"machine than this ({here}): differences that rounding there explains are accepted, and counted."
            )
        check_folder(merged, ready.new, found, findings)
        check_drawn(merged, report, found, here == there, findings)
        (fingerprint,) = ready.fingerprints.values()
        if digest(fingerprint) != report.run.fingerprint:
            findings.unchecked.append(
                "The fingerprint in the report is not what comes out here. It depends on the versions, the threads and "
                "when the files of OLD and NEW were written: a copy of them has another one."
            )
        comparison = Comparison(ready, merged, report, config, findings, same=same)
        try:
            (from_first,) = Loop(ready, None, [comparison], on_progress).run()
        except BaseException as error:
            if is_out_of_memory(error):
                raise ResourceError(out_of_memory(ready)) from error
            raise
        comparison.tell_differences()
        findings.problems += check_calibration(report, config, ready.records(config))
        check_whole(report, ready.new, ready.plan, config, ready.lineage, findings, from_first=from_first)


def job_of(
    places: tuple[Path, str | Path, str | Path],
    report: MergeReport,
    config: HPAConfig,
    *,
    safety_calib: str | Path | None,
    task_calib: str | Path | None,
    stats: str | Path | None,
    first: str | Path | None,
    vision_tower: str | Path | None,
) -> Job:
    """The merge that made OUT, to be compared; on the CPU if it was made there.

    Args:
        places: OUT, OLD and NEW.
    """
    out, old, new = places
    return Job(
        old,
        new,
        {out: replace(config, device="cpu" if report.run.device == "cpu" else "auto")},
        None if safety_calib is None else Path(safety_calib),
        None if task_calib is None else Path(task_calib),
        vision_tower=None if vision_tower is None else Path(vision_tower),
        stats=None if stats is None else Path(stats),
        first=first,
        compares=True,
    )


def _inputs(job: Job, ready: Ready) -> list[str]:
    """Which files the run believes, by their digests."""
    lines = []
    for side, half, file in zip(ready.sides, ready.halves, ready.calibration, strict=True):
        if half.read:
            lines.append(f"The {side.purpose} statistics are those of {job.stats}, and were not computed again.")
        elif file is not None:
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            lines.append(f"The {side.purpose} samples are {len(side.inputs)} of {file}, SHA-256 {digest}.")
    return lines

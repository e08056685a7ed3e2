"""Runs the merge again without writing and compares it with OUT; only the report's options are trusted."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Unpack

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.config import HPAConfig
from hpa_merge.engine.compute_dtype import DTYPES
from hpa_merge.engine.fingerprint import digest
from hpa_merge.engine.inputs import open_inputs
from hpa_merge.engine.loop import run_loop
from hpa_merge.engine.machine import describe, versions
from hpa_merge.engine.memory import explaining
from hpa_merge.engine.request import MergeOptions, MergeRequest
from hpa_merge.engine.setup import Prepared, plan_merge
from hpa_merge.progress import Progress
from hpa_merge.report.facts import options_text
from hpa_merge.report.manifest import Listing
from hpa_merge.report.schema import MergeReport
from hpa_merge.verification.adapter import weights_of
from hpa_merge.verification.comparison import Comparison
from hpa_merge.verification.drawn import check_drawn
from hpa_merge.verification.findings import Findings
from hpa_merge.verification.inputs import check_folder
from hpa_merge.verification.whole import check_calibration, check_code, check_whole

__all__ = ["request_of", "run_again"]


def run_again(
    request: MergeRequest,
    config: HPAConfig,
    merged: Checkpoint,
    report: MergeReport,
    found: Listing,
    findings: Findings,
    on_progress: Progress,
) -> None:
    """Merge again and compare.

    Args:
        request: for OUT alone.
        config: the options of the report.
        found: the files of OUT.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`hpa_merge.merge`.
    """
    with open_inputs(request, on_progress) as inputs:
        prepared = plan_merge(request, inputs, on_progress=on_progress)
        here, there = describe(prepared.device), report.run.machine
        same = here == there and report.run.versions == versions()
        findings.unchecked.append(f"The options are those that the report names: {options_text(asdict(config))}.")
        findings.unchecked += _inputs(request, prepared)
        if not same:
            was = there or "a machine that the report does not name"
            findings.unchecked.append(
                f"According to the report, the merge ran on {was:.200}, with other versions or on another machine than "
                f"this ({here}): differences that rounding explains are accepted, and counted."
            )
        form = prepared.forms[0]
        layout = inputs.new if form is None else form.layout
        check_folder(merged, layout, found, findings)
        check_drawn(merged, report, found, here == there, findings)
        if digest(prepared.fingerprint(prepared.plan.only.config)) != report.run.fingerprint:
            findings.unchecked.append(
                "The fingerprint in the report differs from this run's. It depends on the versions, the threads and "
                "the times of OLD's and NEW's files: a copy of them has another one."
            )
        comparisons: list[tuple[Comparison, Findings]] = []
        with weights_of(merged, inputs.old, request.vision_tower, findings) as (weights, values):

            def compare(prepared: Prepared) -> list[Comparison]:
                anew = Findings()
                comparison = Comparison(prepared, weights, report, config, anew, values, same=same)
                comparisons[:] = [(comparison, anew)]
                return [comparison]

            with explaining(prepared.memory, prepared.device):
                (from_first,) = run_loop(prepared, compare, on_progress)
            ((comparison, compared),) = comparisons
            comparison.tell_differences()
        findings.add(compared)
        findings.problems += check_calibration(report, config, prepared.records(config))
        check_code(report, inputs.read, findings)
        check_whole(report, inputs.new, layout, prepared.plan, config, inputs.lineage, findings, from_first=from_first)


def request_of(
    places: tuple[Path, str | Path, str | Path], report: MergeReport, config: HPAConfig, **options: Unpack[MergeOptions]
) -> MergeRequest:
    """The request that made OUT, on the CPU if it was made there and in its dtype; ``places``: OUT, OLD and NEW."""
    out, old, new = places
    device = "cpu" if report.run.device == "cpu" else "auto"
    for word in DTYPES:
        if set(report.run.compute_dtype.values()) == {word}:
            config = replace(config, compute_dtype=word)
    return MergeRequest.of(old, new, {out: replace(config, device=device)}, **options)


def _inputs(request: MergeRequest, prepared: Prepared) -> list[str]:
    """The files that the run trusts, with their digests."""
    lines = []
    for each in prepared.sets:
        if each.known:
            lines.append(f"The {each.purpose} statistics are those of {request.stats}, and were not computed again.")
            continue
        for source, samples in each.given.parts:
            used, _ = each.run.counted(samples)
            lines.append(f"The {each.purpose} samples are {used} of {source.name}, SHA-256 {_digest(source.files)}.")
    return lines


def _digest(files: Iterable[Path]) -> str:
    """SHA-256 of what the files hold, one after the other."""
    state = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while part := content.read(2**20):
                state.update(part)
    return state.hexdigest()

"""``hpa-merge verify``: checks that a folder is what its merge wrote, and that the merge is right."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from hpa_merge.arguments import checked
from hpa_merge.checkpoint import Checkpoint, is_adapter
from hpa_merge.checkpoint.adapter_folder import CONFIG as ADAPTER
from hpa_merge.config import HPAConfig
from hpa_merge.core import all_finite
from hpa_merge.engine.adapter_form import plan_adapter
from hpa_merge.engine.lineage import trace
from hpa_merge.engine.machine import describe
from hpa_merge.engine.plan import make_plan
from hpa_merge.errors import ConfigError
from hpa_merge.inputs.hub import Source, locate
from hpa_merge.inputs.opening import open_checkpoint, open_new
from hpa_merge.inputs.own_code import Trust
from hpa_merge.inputs.tower import with_tower
from hpa_merge.progress import Progress, bars_in_notebooks, silent
from hpa_merge.report.facts import options_text
from hpa_merge.report.manifest import Listing
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.verification.adapter import open_out, weights_of
from hpa_merge.verification.drawn import check_drawn, check_stored
from hpa_merge.verification.files import check_files, list_files, weight_files
from hpa_merge.verification.findings import Findings, VerifyReport
from hpa_merge.verification.inputs import Claims, check_folder
from hpa_merge.verification.patterns import try_patterns
from hpa_merge.verification.rerun import request_of, run_again
from hpa_merge.verification.whole import check_calibration, check_code, check_whole

__all__ = ["verify"]

BEFORE = {"min_expert_tokens": 0}
"""What merges did before they had an option, where that is not its default."""


@bars_in_notebooks(on_progress="verifying")
@checked
def verify(
    out: str | Path,
    old: str | Path | None = None,
    new: str | Path | None = None,
    *,
    safety_calib: str | Path | None = None,
    task_calib: str | Path | Sequence[str | Path] | None = None,
    image_folder: str | Path | Sequence[str | Path] | None = None,
    stats: str | Path | None = None,
    first: str | Path | None = None,
    vision_tower: str | Path | None = None,
    trust_remote_code: bool = False,
    on_progress: Progress = silent,
) -> VerifyReport:
    """Check a folder that :func:`hpa_merge.merge` has published.

    Alone: index and headers are consistent, every file has the digest of the report's manifest, no file was added or is
    missing, and no tensor holds NaN or infinity.

    With OLD and NEW also everything that follows from them without samples: layout, side files, and every tensor that
    was not adapted; which linears changed, ``κ``, the budgets, the energies and distances; the values of adapted
    linears according to the report's columns. The page and the pictures are drawn again, if the same versions are
    installed. The choice of the columns relies on the report, which ``unchecked`` says.

    With the calibration files too, the merge is run again without writing, with the report's options, and every value
    and every figure is compared. What cannot be computed, such as the command and the notes, relies on the report.

    A merge on another kind of device may have rounded differently: a value may then be the neighbouring number of its
    dtype. CPUs agree on the formula, except those without fused multiply-add. What the samples decide is the same to
    the bit on the same processor with the same number of threads and versions, which the report has; elsewhere rounding
    may explain differences, which are counted.

    Args:
        out: the folder.
        old, new: its inputs, folders or names on the Hub; both or neither. ``new`` may be an adapter.
        safety_calib, task_calib, image_folder: those of the merge.
        stats: a statistics file: what fits these inputs is trusted, and not computed again.
        first: the first aligned model of OLD's history, for the drift from it.
        vision_tower, trust_remote_code: as in :func:`hpa_merge.merge`; the report decides nothing about code.
        on_progress: called before each file and each tensor or unit, and at the end.

    Raises:
        CheckpointError: a folder is not a complete checkpoint; ``out`` has no readable report; OLD and NEW do not fit
            each other.
        ConfigError: only one of ``old`` and ``new`` is given, or calibration files without them.
        InputError, NumericalError, ResourceError: with calibration files, as in :func:`hpa_merge.merge`.
    """
    samples = {"safety_calib": safety_calib, "task_calib": task_calib, "stats": stats, "first": first}
    given = [name for name, value in samples.items() if value is not None]
    if (old is None) != (new is None):
        raise ConfigError(f"{'OLD' if old is None else 'NEW'} is missing: give both --old and --new, or neither.")
    if old is None and given:
        raise ConfigError(f"{given[0]} is given without OLD and NEW: give --old and --new too.")
    findings = Findings()
    with ExitStack() as stack:
        merged = stack.enter_context(open_out(Path(out)))
        report, found = read_report(merged.folder), list_files(merged)
        files = [*weight_files(merged), *report.manifest]
        steps, done = len(dict.fromkeys(files)) + len(merged.tensors), 0

        def on_step(what: str) -> None:
            nonlocal done
            on_progress(what, min(done, steps - 1), steps)
            done += 1

        check_files(merged, report, found, on_step, findings)
        check_stored(merged.folder, report, findings)
        content = report.run.contents.get("out", "")
        if not findings.problems and content and content != merged.content_digest():
            findings.problems.append("OUT's weights have another content digest than in the report.")
        if old is None or new is None or merged.index == ADAPTER:
            _check_tensors(merged, None, on_step, findings)
        if old is None or new is None:
            findings.unchecked.append("The report was not compared with OLD and NEW: give both.")
        elif merged.index == ADAPTER and findings.problems:
            findings.unchecked.append("The adapter was not put on OLD, because of these problems.")
        else:
            with _options_of(merged.folder):
                config = HPAConfig.from_mapping(BEFORE | report.config, source="the report")
                sources = locate({"OLD": old, "NEW": new})
                trust = Trust(trust_remote_code, sources)
                _try_patterns(config, sources)
                if given:
                    request = request_of(
                        (Path(out), old, new),
                        report,
                        config,
                        safety_calib=safety_calib,
                        task_calib=task_calib,
                        image_folder=image_folder,
                        stats=stats,
                        first=first,
                        vision_tower=vision_tower,
                        trust_remote_code=trust_remote_code,
                    )
                    run_again(request, config, merged, report, found, findings, on_progress)
                else:
                    _check_claims(merged, sources, trust, vision_tower, report, config, found, on_step, findings)
        on_progress("done", steps, steps)
        findings.checked["tensors"] += len(merged.tensors)
    return findings.report()


@contextmanager
def _options_of(folder: Path) -> Iterator[None]:
    """Say in errors about options that the report in ``folder`` has them."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"with the options of the report of {folder}, {error}") from error


def _check_claims(
    merged: Checkpoint,
    sources: Sequence[Source],
    trust: Trust,
    vision_tower: str | Path | None,
    report: MergeReport,
    config: HPAConfig,
    found: Listing,
    on_step: Callable[[str], None],
    findings: Findings,
) -> None:
    """Compare OUT and its report with everything that follows from OLD and NEW without samples."""
    tower = None if vision_tower is None else Path(vision_tower)
    with (
        open_checkpoint(sources[0].folder, "OLD", config.dtype, trust) as in_old,
        open_new(sources[1].folder, in_old, config.dtype, tower, trust=trust) as in_new,
        trace(in_old, in_new, None, tower, config, trust) as lineage,
    ):
        read = [with_tower(checkpoint, tower, config) for checkpoint in (in_old, in_new)]
        plan = make_plan(read[0], read[1], [config], torch.device("cpu"))
        findings.unchecked.append(f"The options are those that the report names: {options_text(asdict(config))}.")
        findings.problems += check_calibration(report, config)
        form = plan_adapter(in_new, plan, plan.only) if config.output_format == "adapter" else None
        layout = in_new if form is None else form.layout
        check_code(report, read, findings)
        check_whole(report, in_new, layout, plan, config, lineage, findings)
        check_folder(merged, layout, found, findings)
        check_drawn(merged, report, found, describe(torch.device("cpu")) == report.run.machine, findings)
        with weights_of(merged, in_old, tower, findings) as (weights, values):
            claims = Claims(read[0], in_new, plan, config, report, findings, values)
            _check_tensors(weights, claims, on_step, findings)
            claims.tell_open()


def _try_patterns(config: HPAConfig, sources: Sequence[Source]) -> None:
    """Try the report's regular expressions on the names of NEW's tensors, or of OLD's if NEW is an adapter.

    Raises:
        ConfigError: they exceed the limits.
        CheckpointError: NEW is not a complete checkpoint.
    """
    if config.include or config.exclude:
        role = "OLD" if is_adapter(sources[1].folder) else "NEW"
        with Checkpoint.open(sources[("OLD", "NEW").index(role)].folder, role) as checkpoint:
            try_patterns(config, checkpoint.tensors)


def _check_tensors(
    merged: Checkpoint, claims: Claims | None, on_step: Callable[[str], None], findings: Findings
) -> None:
    """Check every tensor of OUT."""
    for name in merged.tensors:
        on_step(name)
        tensor = merged.read(name)
        if tensor.is_floating_point() and not all_finite(tensor):
            findings.problems.append(f"{name} holds NaN or infinity.")
        if claims is not None:
            findings.problems += claims.check_tensor(name, tensor)

"""Compares OUT with OLD and NEW: with what follows from them alone or, with the samples, with the merge run again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hpa_merge.checkpoint import Checkpoint, is_adapter
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
from hpa_merge.progress import Progress
from hpa_merge.report.facts import options_text
from hpa_merge.verification.adapter import weights_of
from hpa_merge.verification.drawn import check_drawn
from hpa_merge.verification.findings import NOT_FINITE, Findings
from hpa_merge.verification.inputs import Claims, check_folder
from hpa_merge.verification.opened import Inputs, Opened
from hpa_merge.verification.patterns import try_patterns
from hpa_merge.verification.rerun import request_of, run_again
from hpa_merge.verification.whole import check_calibration, check_code, check_whole

__all__ = ["check_against"]

BEFORE = {"min_expert_tokens": 0}
"""What merges did before they had an option, where that is not its default."""


def check_against(
    out: Opened,
    inputs: Inputs,
    samples: Mapping[str, Any] | None,
    on_step: Callable[[str], None],
    on_progress: Progress,
    findings: Findings,
) -> None:
    """Compare.

    Args:
        samples: the calibration files and what else the merge is run again with; None for what follows without them.
        on_step: called before each tensor.

    Raises:
        InputError, NumericalError, ResourceError: as :func:`hpa_merge.verify`.
    """
    merged, report = out.merged, out.report
    with _options_of(merged.folder):
        config = HPAConfig.from_mapping(BEFORE | report.config, source="the report")
        sources = locate({"OLD": inputs.old, "NEW": inputs.new})
        _try_patterns(config, sources)
        if samples is None:
            _check_claims(out, sources, inputs, config, on_step, findings)
            return
        request = request_of(
            (merged.folder, inputs.old, inputs.new),
            report,
            config,
            vision_tower=inputs.vision_tower,
            trust_remote_code=inputs.trust_remote_code,
            **samples,
        )
        run_again(request, config, merged, report, out.found, findings, on_progress)


@contextmanager
def _options_of(folder: Path) -> Iterator[None]:
    """Say in errors about options that the report in ``folder`` has them."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"with the options of the report of {folder}, {error}") from error


def _check_claims(
    out: Opened,
    sources: Sequence[Source],
    inputs: Inputs,
    config: HPAConfig,
    on_step: Callable[[str], None],
    findings: Findings,
) -> None:
    """Compare OUT and its report with everything that follows from OLD and NEW without samples."""
    merged, report, found = out.merged, out.report, out.found
    trust = Trust(inputs.trust_remote_code, sources)
    tower = None if inputs.vision_tower is None else Path(inputs.vision_tower)
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
            _check_tensors(weights, out.not_finite if weights is merged else None, claims, on_step, findings)
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
    weights: Checkpoint,
    not_finite: frozenset[str] | None,
    claims: Claims,
    on_step: Callable[[str], None],
    findings: Findings,
) -> None:
    """Check every tensor of OUT; ``not_finite``: those that are known to hold NaN or infinity, if that is known."""
    for name in weights.tensors:
        on_step(name)
        tensor = weights.read(name)
        unsound = tensor.is_floating_point() and not all_finite(tensor) if not_finite is None else name in not_finite
        if unsound:
            findings.problems.append(NOT_FINITE.format(name))
        findings.problems += claims.check_tensor(name, tensor)

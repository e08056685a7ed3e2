"""A merge whose statistics file holds how its run began: it builds no model and encodes no sample."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hpa_merge.engine.beginnings import Beginning, SetBeginning, read_beginning, state_of
from hpa_merge.engine.inputs import MergeInputs
from hpa_merge.engine.plan import Plan, plan_of
from hpa_merge.engine.recorded_run import RecordedRun
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import PURPOSES, GivenSet
from hpa_merge.engine.weights import Weights
from hpa_merge.outline import Outline
from hpa_merge.ranks import Group

if TYPE_CHECKING:  # with transformers
    from hpa_merge.engine.calibration_run import CalibrationRun
    from hpa_merge.model.building import Computing

__all__ = ["beginning_of", "recorded"]


def recorded(
    request: MergeRequest,
    inputs: MergeInputs,
    given: tuple[GivenSet, GivenSet],
    device: torch.device,
    computing: "tuple[Computing, Computing]",
    group: Group,
) -> tuple[Plan, tuple[RecordedRun, RecordedRun]] | None:
    """The plan, and the sets as they were encoded; None unless the file allows it for these inputs.

    Whether the statistics themselves fit is not looked at.

    Raises:
        InputError: as :func:`hpa_merge.engine.setup.prepare`.
    """
    config, configs = request.calibration, list(request.outs.values())
    whole = all(each.output_format != "adapter" for each in configs)
    if request.stats is None or not whole or request.first is not None or not _is_plain(inputs):
        return None
    begun = read_beginning(request.stats)
    if begun is None or not all(begun.fits(at, inputs.read[at], given[at]) for at in (0, 1)):
        return None
    if any(begun.sets[at].state != state_of(inputs.read[at], given[at], PURPOSES[at], config) for at in (0, 1)):
        return None
    plan = plan_of(begun.models, *inputs.read, configs, device)
    safety, task = (
        RecordedRun(
            purpose,
            Weights(inputs.read[at], device, group),
            given[at],
            begun.sets[at],
            computing[at].get(begun.models[at].dtype, begun.models[at].dtype),
        )
        for at, purpose in enumerate(PURPOSES)
    )
    return plan, (safety, task)


def beginning_of(
    request: MergeRequest,
    inputs: MergeInputs,
    given: tuple[GivenSet, GivenSet],
    plan: Plan,
    runs: "Sequence[CalibrationRun]",
) -> Beginning | None:
    """What the statistics file keeps of a run that has encoded its samples; None where no later run could use it.

    Raises:
        CheckpointError: a side file can no longer be read.
    """
    if not _is_plain(inputs) or isinstance(plan.old, Outline) or isinstance(plan.new, Outline):
        return None
    safety, task = (
        SetBeginning(
            state_of(checkpoint, each, run.purpose, request.calibration),
            tuple(replace(sample, rank=0) for sample in run.used),  # the same bytes with any number of ranks
            run.tally.state(),
        )
        for checkpoint, each, run in zip(inputs.read, given, runs, strict=True)
    )
    return Beginning((plan.old.outline(), plan.new.outline()), (safety, task))


def _is_plain(inputs: MergeInputs) -> bool:
    """Whether both checkpoints are read as they lie on disk, and their models are transformers' own."""
    return all(
        each.overlay is None and each.tower is None and each.code is None and each.unpacking is None
        for each in inputs.read
    )

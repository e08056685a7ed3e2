"""Sets up a merge whose samples may run: builds both models and encodes the samples."""

import torch

from hpa_merge.engine.calibration_run import CalibrationRun
from hpa_merge.engine.encoding import encoding
from hpa_merge.engine.inputs import MergeInputs
from hpa_merge.engine.plan import Plan, make_plan
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import GivenSet
from hpa_merge.engine.weights import Weights
from hpa_merge.model import MetaModel
from hpa_merge.progress import Progress
from hpa_merge.ranks import Group

__all__ = ["sampled"]


def sampled(
    request: MergeRequest,
    inputs: MergeInputs,
    given: tuple[GivenSet, GivenSet],
    device: torch.device,
    group: Group,
    show: int,
    on_progress: Progress,
) -> tuple[Plan, tuple[CalibrationRun, CalibrationRun]]:
    """The plan, and the samples with their models; nothing has run yet.

    Raises:
        InputError: as :func:`hpa_merge.engine.setup.prepare`.
    """
    config, (old, new), (safety, task) = request.calibration, inputs.read, given
    with (
        encoding(old, safety.samples, "safety", config, show, group) as safety_in,
        encoding(new, task.samples, "task", config, show, group) as task_in,
    ):
        on_progress("planning", 0, 1)
        plan = make_plan(old, new, list(request.outs.values()), device)
        assert isinstance(plan.old, MetaModel)
        assert isinstance(plan.new, MetaModel)
        return plan, (
            CalibrationRun("safety", Weights(old, device, group), plan.old, safety_in, config, on_progress),
            CalibrationRun("task", Weights(new, device, group), plan.new, task_in, config, on_progress),
        )

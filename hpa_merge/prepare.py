"""Before the work: everything that can be known of a merge without running a model."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from hpa_merge.calibration import read_samples
from hpa_merge.checkpoint import Checkpoint, check_output
from hpa_merge.config import HPAConfig
from hpa_merge.core import retained_share
from hpa_merge.forecast import forecast
from hpa_merge.machine import resolve_device
from hpa_merge.plan import LinearPair, Plan, make_plan
from hpa_merge.report.schema import PlanReport, UnitPlan
from hpa_merge.side import Side

__all__ = ["Progress", "Ready", "prepare", "preview"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are behind, and how many there are."""


@final
@dataclass(frozen=True)
class Ready:
    """Inputs that have passed every check that reads no weight.

    Attributes:
        old, new: the checkpoints, open.
        device: where the arithmetic runs.
        plan: what belongs together.
        sides: OLD with the safety samples, NEW with the task samples; not started.
    """

    old: Checkpoint
    new: Checkpoint
    device: torch.device
    plan: Plan
    sides: tuple[Side, Side]


@contextmanager
def prepare(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    safety_calib: str | Path,
    task_calib: str | Path,
    config: HPAConfig,
    overwrite: bool,
    resume: bool,
) -> Iterator[Ready]:
    """Open and check everything; the checkpoints are closed at the end of the block.

    Raises:
        InputError: the input or the options are wrong.
    """
    with Checkpoint.open(old, "OLD") as in_old, Checkpoint.open(new, "NEW") as in_new:
        needed = sum(info.nbytes for info in in_new.tensors.values())
        check_output(out, [in_old.folder, in_new.folder], overwrite, needed=needed, resume=resume)
        safety = read_samples(Path(safety_calib), config.safety_samples, config.seed)
        task = read_samples(Path(task_calib), config.task_samples, config.seed)
        device = resolve_device(config.device)
        plan = make_plan(in_old, in_new, config, device)
        sides = (
            Side("safety", in_old, plan.old, safety, config.max_length),
            Side("task", in_new, plan.new, task, config.max_length),
        )
        yield Ready(in_old, in_new, device, plan, sides)


def preview(
    old: str | Path,
    new: str | Path,
    out: str | Path,
    *,
    safety_calib: str | Path,
    task_calib: str | Path,
    config: HPAConfig | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: Progress = lambda what, done, total: None,
) -> PlanReport:
    """What :func:`merge` would do with the same arguments: every check that runs no model, and nothing written.

    Reads the linears of both checkpoints once, to see which changed and whether they are finite.

    Raises:
        InputError, NumericalError: as :func:`merge` would.
    """
    config = config or HPAConfig()
    with prepare(old, new, out, safety_calib, task_calib, config, overwrite, resume) as ready:
        units = []
        for done, (unit, pairs) in enumerate(ready.plan.linears.items()):
            on_progress(unit.name, done, len(ready.plan.linears))
            changed = sum(_changed(ready.sides, pair) for pair in pairs if pair.included)
            included = sum(pair.included for pair in pairs)
            share = None
            if unit.block is not None:
                share = float(retained_share(unit.block, unit.blocks, config.p_max, config.p_min))
            units.append(
                UnitPlan(
                    unit.name,
                    unit.stack,
                    unit.block,
                    unit.blocks,
                    share,
                    changed=changed,
                    unchanged=included - changed,
                    excluded=len(pairs) - included,
                )
            )
        expected = forecast(ready.plan, (ready.old, ready.new), ready.sides, ready.device)
        return PlanReport(
            architecture=ready.plan.architecture,
            units=tuple(units),
            safety=ready.sides[0].record(safety_calib),
            task=ready.sides[1].record(task_calib),
            passed_through=ready.plan.passed_through,
            left_out=tuple(str(path) for path in ready.new.side_files().left_out),
            bytes_out=sum(info.nbytes for info in ready.new.tensors.values()),
            bytes_free=shutil.disk_usage(Path(out).absolute().parent).free,
            peak_host_bytes=expected.host,
            peak_device_bytes=expected.device,
            reshaped=ready.plan.reshaped,
            device=str(ready.device),
        )


def _changed(sides: tuple[Side, Side], pair: LinearPair) -> bool:
    """Whether tuning changed a linear.

    Raises:
        NumericalError: one of the two weights is not finite.
    """
    old, new = pair.old.matrix(sides[0].read(pair.old.key)), pair.new.matrix(sides[1].read(pair.new.key))
    return not torch.equal(old.to(new.dtype), new)

"""The dry run: what a merge would do to each unit, without running a model or writing anything."""

import shutil
from collections.abc import Collection, Iterable
from itertools import groupby
from pathlib import Path

from hpa_merge.checkpoint import needed_bytes
from hpa_merge.engine.calibration_run import Side
from hpa_merge.engine.components import component_records
from hpa_merge.engine.plan import LinearPair, Plan
from hpa_merge.engine.setup import Job, Progress, Ready, prepare
from hpa_merge.inputs.hub import commits_of
from hpa_merge.methods.applying import differ
from hpa_merge.report.planned import PlanReport, UnitPlan

__all__ = ["preview"]


def preview(job: Job, on_progress: Progress = lambda what, done, total: None) -> dict[Path, PlanReport]:
    """What a merge would do, by OUT: every check that runs no model, and nothing written.

    Reads the linears of both checkpoints once, to see which changed and whether they are finite.

    Raises:
        InputError, NumericalError: as the merge would.
    """
    with prepare(job) as ready:
        units: dict[Path, list[UnitPlan]] = {out: [] for out in job.outs}
        outcomes: dict[Path, list[tuple[str, str]]] = {out: [] for out in job.outs}
        for done, (unit, pairs) in enumerate(ready.plan.linears.items()):
            on_progress(unit.name, done, len(ready.plan.linears))
            changed = _changed(ready.sides, [pair for pair in pairs if any(pair.included)])
            for place, (out, config) in enumerate(job.outs.items()):
                included = [pair for pair in pairs if pair.included[place]]
                outcomes[out] += [(p.new.name, _foreseen(p, place, ready.plan, changed)) for p in pairs]
                share = None if unit.block is None else config.rule.share(config, unit.block, unit.blocks)
                units[out].append(
                    UnitPlan(
                        unit.name,
                        unit.stack,
                        unit.block,
                        unit.blocks,
                        share,
                        changed=len(changed.intersection(included)),
                        unchanged=len(included) - len(changed.intersection(included)),
                        excluded=len(pairs) - len(included),
                    )
                )
        return {
            out: PlanReport(
                architecture=ready.plan.architecture,
                units=tuple(of_out),
                **ready.records(job.outs[out]),
                passed_through=ready.plan.passed_through[place],
                left_out=tuple(str(path) for path in ready.new.side_files().left_out),
                bytes_out=needed_bytes(ready.new),
                bytes_free=shutil.disk_usage(out.absolute().parent).free,
                peak_host_bytes=ready.memory.host,
                peak_device_bytes=ready.memory.device,
                reshaped=ready.plan.reshaped,
                device=str(ready.device),
                adapter=ready.new.overlay.kind if ready.new.overlay else "",
                statistics=_fits(job.stats, ready),
                history=_rounds(ready),
                commits=commits_of(ready.sources),
                components=component_records(job.outs[out], ready.plan.new, outcomes[out]),
            )
            for place, (out, of_out) in enumerate(units.items())
        }


def _foreseen(pair: LinearPair, place: int, plan: Plan, changed: Collection[LinearPair]) -> str:
    """What will become of a linear with the configuration at ``place``, as far as no sample has a say."""
    if pair.included[place]:
        return "changed" if pair in changed else "unchanged"
    return "old" if pair.new.key in plan.from_old[place] else "excluded"


def _fits(stats: Path | None, ready: Ready) -> tuple[str, ...]:
    """Whether the statistics file fits, a sentence for each half."""
    if stats is None:
        return ()
    read = [f"The {half.purpose} half of {stats} fits: its samples do not run." for half in ready.halves if half.read]
    notes = (note for note in ready.notes if note not in ready.lineage.notes)
    return (*read, *notes) or (f"Both halves have to be computed, and {stats} is written.",)


def _rounds(ready: Ready) -> tuple[str, ...]:
    """Which round of a model this would be, or why its history begins anew."""
    rounds = len(ready.lineage.history)
    return (f"This would be round {rounds + 1} of this model.",) if rounds else ready.lineage.notes


def _changed(sides: tuple[Side, Side], pairs: Iterable[LinearPair]) -> set[LinearPair]:
    """Those linears that tuning changed.

    Raises:
        NumericalError: one of the weights is not finite.
    """
    changed = set()
    for (old_key, new_key), same in groupby(pairs, lambda pair: (pair.old.key, pair.new.key)):
        old, new = sides[0].read(old_key), sides[1].read(new_key)
        changed |= {pair for pair in same if differ(pair.old.matrix(old), pair.new.matrix(new))}
    return changed

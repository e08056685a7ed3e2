"""The dry run: what a merge would do to each unit, without running a model or writing a file."""

import shutil
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from hpa_merge.checkpoint import Checkpoint, needed_bytes
from hpa_merge.engine.components import component_records
from hpa_merge.engine.compute_dtype import slow_notes
from hpa_merge.engine.memory import hessian_bytes
from hpa_merge.engine.plan import LinearPair, OutPlan
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.setup import Prepared, prepare
from hpa_merge.engine.statistics_place import folder_of
from hpa_merge.methods.applying import differ
from hpa_merge.outline import Unit
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.report.planned import PlanReport, ShownSet, UnitPlan
from hpa_merge.report.words import bytes_text

__all__ = ["preview"]

SHOWN = 2
"""Samples of each set that are shown."""


def preview(request: MergeRequest, on_progress: Progress = silent) -> dict[Path, PlanReport]:
    """What a merge would do, by OUT: make every check that needs no run of a model, and write nothing.

    Reads the linears of both checkpoints once, to see which changed and whether they are finite. If this process is one
    of several ranks, every rank makes this call.

    Raises:
        InputError, NumericalError: as the merge would.
    """
    with Group.taking_part() as group, prepare(request, SHOWN, on_progress, group) as prepared:
        linears, new, own = prepared.plan.linears, prepared.inputs.new, set[str]()
        for done, (unit, pairs) in enumerate(linears.items()):
            if done % group.size == group.rank:
                on_progress(unit.name, done, len(linears))
                included = [pair for pair in pairs if any(out.includes(pair) for out in prepared.plan.outs)]
                own |= {pair.new.name for pair in _changed(prepared, included)}
        names = set().union(*group.gather(own))
        changed = {pair for pair in prepared.plan.pairs if pair.new.name in names}
        on_progress("done", len(linears), len(linears))
        return {
            path: _of_out(request, prepared, path, out, new if form is None else form.layout, changed)
            for path, out, form in zip(request.outs, prepared.plan.outs, prepared.forms, strict=True)
        }


def _of_out(
    request: MergeRequest,
    prepared: Prepared,
    path: Path,
    out: OutPlan,
    layout: Checkpoint,
    changed: Collection[LinearPair],
) -> PlanReport:
    """What would be in the OUT at ``path``; ``layout``: its files, as if NEW had them."""
    plan, new, dtypes = prepared.plan, prepared.inputs.new, prepared.compute_dtypes(out.config)
    outcomes = ((pair.new.name, _foreseen(pair, out, changed)) for pair in plan.pairs if out.counts(pair.new))
    return PlanReport(
        architecture=plan.architecture,
        units=tuple(_of_unit(unit, pairs, out, changed) for unit, pairs in plan.linears.items()),
        **prepared.records(out.config),
        passed_through=out.passed_through,
        left_out=tuple(str(path) for path in layout.side_files().left_out),
        bytes_out=needed_bytes(layout),
        bytes_free=shutil.disk_usage(path.absolute().parent).free,
        peak_host_bytes=prepared.memory.host,
        peak_device_bytes=prepared.memory.device,
        bytes_in=sum(info.nbytes for checkpoint in prepared.inputs.read for info in checkpoint.tensors.values()),
        processes=prepared.group.size,
        reshaped=plan.reshaped,
        notes=(*prepared.checkpoint_notes, *slow_notes(dtypes.values(), prepared.device)),
        device=str(prepared.device),
        adapter=new.overlay.kind if new.overlay else "",
        dequantised=prepared.inputs.dequantised,
        dtype=new.dtype,
        compute_dtype=dtypes,
        statistics=_statistics(request, prepared),
        history=_rounds(prepared),
        commits=prepared.inputs.commits,
        code=prepared.inputs.code,
        components=component_records(out.config, plan.new, outcomes),
        samples=tuple(
            ShownSet(each.purpose, each.run.tally.shapes, each.run.shown)
            for each in prepared.sets
            if each.purpose in out.config.sets
        ),
    )


def _of_unit(unit: Unit, pairs: Sequence[LinearPair], out: OutPlan, changed: Collection[LinearPair]) -> UnitPlan:
    """What the merge would do to a unit."""
    included = [pair for pair in pairs if out.includes(pair)]
    count, config = sum(pair in changed for pair in included), out.config
    share = None if unit.block is None else config.rule.share(config, unit.block, unit.blocks)
    return UnitPlan(
        unit.name,
        unit.stack,
        unit.block,
        unit.blocks,
        share,
        changed=count,
        unchanged=len(included) - count,
        excluded=sum(out.counts(pair.new) for pair in pairs) - len(included),
    )


def _foreseen(pair: LinearPair, out: OutPlan, changed: Collection[LinearPair]) -> str:
    """What would happen to a linear, as far as it does not depend on the samples."""
    if out.includes(pair):
        return "changed" if pair in changed else "unchanged"
    return "old" if pair.new.key in out.from_old else "excluded"


def _statistics(request: MergeRequest, prepared: Prepared) -> tuple[str, ...]:
    """Whether the statistics file fits, a sentence for each set."""
    if request.stats is None:
        return ()
    fit = [
        f"The {each.purpose} half of {request.stats} fits: its samples do not run."
        for each in prepared.sets
        if each.known
    ]
    told = (*fit, *prepared.statistics_notes) or (f"Both halves have to be computed, and {request.stats} is written.",)
    if request.stats_hessians and (size := hessian_bytes(prepared.plan, prepared.inputs.new, prepared.sets)):
        told = (*told, f"Hessians of up to {bytes_text(size)} are written to {folder_of(request.stats)}.")
    return told


def _rounds(prepared: Prepared) -> tuple[str, ...]:
    """Which round of the model this would be, or why its history starts again."""
    rounds = len(prepared.inputs.lineage.history)
    return (f"This would be round {rounds + 1} of this model.",) if rounds else prepared.inputs.lineage.notes


def _changed(prepared: Prepared, pairs: Iterable[LinearPair]) -> set[LinearPair]:
    """The linears that tuning changed; raises NumericalError if a weight is not finite."""
    changed = set()
    old_weights, new_weights = (each.run.weights for each in prepared.sets)
    for (old_key, new_key), same in groupby(pairs, lambda pair: (pair.old.key, pair.new.key)):
        old, new = old_weights.read(old_key), new_weights.read(new_key)
        changed |= {pair for pair in same if differ(pair.before(old), pair.new.matrix(new))}
    return changed

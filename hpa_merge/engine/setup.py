"""Set up a merge: everything that can be checked and computed without running a model."""

import math
import os
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import torch

from hpa_merge.checkpoint import Checkpoint, begun_with, check_outputs, check_side_files, needed_bytes
from hpa_merge.checkpoint.output import Places
from hpa_merge.config import CalibrationOptions, HPAConfig
from hpa_merge.engine.beginnings import Beginning
from hpa_merge.engine.code import code_notes
from hpa_merge.engine.compute_dtype import dtype_field, find_computing, name_of
from hpa_merge.engine.fingerprint import digest, fingerprint, of_statistics
from hpa_merge.engine.inputs import MergeInputs, open_inputs
from hpa_merge.engine.machine import resolve_device
from hpa_merge.engine.memory import Memory, allot, hessian_bytes
from hpa_merge.engine.plan import LinearPair, OutPlan, Plan
from hpa_merge.engine.recorded import beginning_of, recorded
from hpa_merge.engine.recorded_run import RecordedRun
from hpa_merge.engine.request import Limits, MergeRequest
from hpa_merge.engine.same_run import check_same, of_first, what_runs
from hpa_merge.engine.sets import GivenSet, read_sets
from hpa_merge.engine.sources import CalibrationSet, computed
from hpa_merge.engine.statistics import ModelStatistics, StatisticsKey
from hpa_merge.engine.statistics_file import read_statistics
from hpa_merge.engine.statistics_place import check_place
from hpa_merge.errors import CheckpointError, StatisticsError
from hpa_merge.outline import LinearTensor, Unit
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.report.records import CalibrationRecord, RoutingRecord
from hpa_merge.report.schema import MergeReport, read_report
from hpa_merge.report.words import bytes_text

if TYPE_CHECKING:  # with transformers
    from hpa_merge.engine.adapter_form import AdapterForm
    from hpa_merge.engine.calibration_run import CalibrationRun

__all__ = ["Prepared", "plan_merge", "prepare"]

Runs: TypeAlias = "Sequence[CalibrationRun | RecordedRun]"
"""Of OLD with the safety samples, and of NEW with the task samples."""

COMPUTED = "computed"
"""Replaces the digest of statistics that the run computes instead of reading them from a file."""


@final
@dataclass(frozen=True)
class Prepared:
    """A merge that has passed every check that precedes the run.

    Attributes:
        inputs: the open inputs.
        plan: for the OUTs of the request, in their order.
        sets: the safety set with OLD, and the task set with NEW.
        memory: how memory is used.
        statistics_notes: why statistics of the file are not used, a sentence each.
        limits: of memory.
        keeping: whether Hessians are kept next to the statistics file.
        forms: for each OUT, its plan as an adapter; None for a whole checkpoint.
        beginning: what a statistics file keeps of how this run began; None where it keeps nothing.
        routing: the routing drift, if all statistics come from a file.
        finished: the reports of OUTs that are complete and stay unchanged.
        returning: the units that samples come back to after others have run; they are merged at the end.
        group: the ranks that share the run.
    """

    inputs: MergeInputs
    plan: Plan
    sets: tuple[CalibrationSet, CalibrationSet]
    memory: Memory
    statistics_notes: tuple[str, ...]
    limits: Limits
    keeping: bool
    forms: "tuple[AdapterForm | None, ...]"
    beginning: Beginning | None = None
    routing: tuple[RoutingRecord, ...] = ()
    finished: Mapping[Path, MergeReport] = field(default_factory=dict)
    returning: frozenset[Unit] = frozenset()
    group: Group = field(default_factory=Group.alone)

    def parts_of(self, pair: LinearPair) -> frozenset[Hashable]:
        """What a linear shares with others that have to have the same owner: its stack, and the factors of adapters."""
        stack = () if pair.new.part is None else (("stack", pair.new.key),)
        factors = (
            (number, name)
            for number, form in enumerate(self.forms)
            if form is not None
            for name in form.parts_of(pair.new)
        )
        return frozenset((*stack, *factors))

    def values_of(self, pair: LinearPair) -> int:
        """How many values a weight has."""
        return math.prod(pair.new.shape(self.inputs.new.tensors[pair.new.key].shape))

    @property
    def device(self) -> torch.device:
        """Where the arithmetic runs."""
        return self.plan.device

    @property
    def steps(self) -> int:
        """The steps of the run, for :data:`~hpa_merge.progress.Progress`: the units, the rest, and the report."""
        return len(self.plan.new.units) + 2

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the inputs, a sentence each."""
        of_sources = (source.note for source in self.inputs.sources if source.note)
        of_sets = (note for each in self.sets for note in (*each.given.notes, *each.run.tally.notes))
        return (
            *of_sources,
            *self.checkpoint_notes,
            *of_sets,
            *self.inputs.lineage.notes,
            *self.statistics_notes,
        )

    @property
    def checkpoint_notes(self) -> tuple[str, ...]:
        """What the user should know of OLD and NEW themselves, a sentence each."""
        of_code = code_notes(*self.inputs.read)
        return (*self.inputs.old.notes, *self.inputs.new.notes, *self.plan.notes, *of_code)

    @property
    def origins(self) -> dict[str, str]:
        """Where the statistics come from, for a fingerprint: a run is only resumed with the same statistics."""
        return {f"{each.purpose} statistics": each.known.digest() if each.known else COMPUTED for each in self.sets}

    def returning_to(self, units: frozenset[Unit]) -> "Prepared":
        """The same merge, where samples come back to ``units`` too; raises ConfigError if memory does not suffice."""
        returning = self.returning | units
        memory = allot(self.plan, self.inputs.read, self.sets, self.limits, keeping=self.keeping, returning=returning)
        return replace(self, memory=memory, returning=returning)

    def used(self, config: HPAConfig) -> dict[str, str]:
        """Whether the statistics of each set that the method needs were ``read`` or ``computed``."""
        used = [each for each in self.sets if each.purpose in config.sets]
        return {each.purpose: "read" if each.known else "computed" for each in used}

    def compute_dtypes(self, config: HPAConfig) -> dict[str, str]:
        """The dtype that each set runs in that the method needs."""
        return {each.purpose: name_of(each.run.dtype) for each in self.sets if each.purpose in config.sets}

    def records(self, config: HPAConfig) -> dict[str, CalibrationRecord | None]:
        """What was used from each set; None for a set that the method does not need."""
        return {
            each.purpose: each.description if each.given.parts and each.purpose in config.sets else None
            for each in self.sets
        }

    def fingerprint(self, config: HPAConfig) -> dict[str, Any]:
        """What the OUT with these options depends on; the samples of a set count only if the method needs them."""
        seen = [
            {
                name: value
                for name, value in each.key.fingerprint.items()
                if name not in (f"{each.purpose} samples", dtype_field(each.purpose)) or each.purpose in config.sets
            }
            for each in self.sets
        ]
        return fingerprint(seen, config, self.device)


@contextmanager
def prepare(
    request: MergeRequest, show: int = 0, on_progress: Progress = silent, group: Group | None = None
) -> Iterator[Prepared]:
    """Open and check everything, without running a model or writing; the inputs are closed at the end of the block.

    Args:
        show: how many samples of each set are shown.
        on_progress: called before each part of it; how many steps the run has is not known yet.
        group: the ranks that share the run; None for this one alone.

    Raises:
        InputError: the inputs or the options are wrong.
    """
    complete = {out: report for out in request.outs if request.skip_complete and (report := _published(out))}
    making = [out for out in request.outs if out not in complete]
    overwrite, resume = request.overwrite, request.resume
    if request.is_remote:  # report what is wrong before the download
        check_outputs(making, [], overwrite, needed=0, resume=resume)
    with open_inputs(request, on_progress) as inputs:
        places, needed = inputs.guarded.places, _needed(inputs, request.outs.values())
        check_outputs(making, places, overwrite, needed=needed, resume=resume)
        prepared = plan_merge(request, inputs, show, on_progress, group)
        _check_hessians(request, prepared)
        finished = {
            out: report
            for out, report in complete.items()
            if report.run.fingerprint == digest(prepared.fingerprint(request.outs[out]))
        }
        others = [out for out in complete if out not in finished]
        check_outputs(others, places, overwrite, needed=needed, resume=resume)
        yield replace(prepared, finished=finished)


def plan_merge(
    request: MergeRequest,
    inputs: MergeInputs,
    show: int = 0,
    on_progress: Progress = silent,
    group: Group | None = None,
) -> Prepared:
    """Encode the samples, plan every OUT, read the statistics file, and allot the memory; errors as :func:`prepare`."""
    if request.stats is not None:
        check_place(request.stats, (*inputs.guarded.folders, *inputs.guarded.files), list(request.outs))
    on_progress("reading the samples", 0, 1)
    given = read_sets(request, inputs.sets)
    device = resolve_device(request.calibration.device)
    group = group or Group.alone()
    if group.size > 1:
        check_same(group, what_runs(request, inputs, given, device))
    computing = find_computing(request, group)
    prepared = None
    if show == 0 and group.size == 1:
        on_progress("planning", 0, 1)
        if (found := recorded(request, inputs, given, device, computing, group)) is not None:
            prepared = _prepared(request, inputs, given, *found, group)
    if prepared is None:
        from hpa_merge.engine.sampling import sampled  # with transformers

        plan, runs = sampled(request, inputs, given, device, computing, group, show, on_progress)
        kept = request.stats is not None and group.is_first
        beginning = beginning_of(request, inputs, given, plan, runs) if kept else None
        prepared = _prepared(request, inputs, given, plan, runs, group, beginning)
        assert prepared is not None
    return prepared


def _prepared(
    request: MergeRequest,
    inputs: MergeInputs,
    given: tuple[GivenSet, GivenSet],
    plan: Plan,
    runs: Runs,
    group: Group,
    beginning: Beginning | None = None,
) -> Prepared | None:
    """The merge of these runs; None if they only record earlier ones, and the statistics do not fit."""
    config = request.calibration
    linears = ([pair.old for pair in plan.pairs], [pair.new for pair in plan.pairs])
    keys = [of_first(group, _key(runs[at], inputs.read[at], plan, linears[at], config)) for at in (0, 1)]
    known, routing, notes = _known(request, keys, plan.device)
    if isinstance(runs[0], RecordedRun) and len(known) < len(runs):
        return None
    safety = CalibrationSet(given[0], runs[0], keys[0], known.get("safety"))
    task = CalibrationSet(given[1], runs[1], keys[1], known.get("task"))
    sets = safety, task
    if plan.new.routers and safety.runs and task.runs:
        computed(runs[0]).compare(computed(runs[1]))
        computed(runs[1]).compare(computed(runs[0]))
    memory = allot(plan, inputs.read, sets, request.limits, keeping=request.stats_hessians)
    forms = tuple(_form(inputs.new, plan, out) for out in plan.outs)
    for form in filter(None, forms):
        check_side_files(form.layout)
    limits, keeping = request.limits, request.stats_hessians
    return Prepared(inputs, plan, sets, memory, notes, limits, keeping, forms, beginning, routing, group=group)


def _form(new: Checkpoint, plan: Plan, out: OutPlan) -> "AdapterForm | None":
    """The plan of an OUT that is an adapter; None for a whole checkpoint."""
    if out.config.output_format != "adapter":
        return None
    from hpa_merge.engine.adapter_form import plan_adapter

    return plan_adapter(new, plan, out)


def _needed(inputs: MergeInputs, configs: Iterable[HPAConfig]) -> int:
    """Bytes of the largest OUT, before the plan: an adapter of another rank than NEW's is checked again with it."""
    overlay = inputs.new.overlay
    adapter = inputs.new if overlay is None or overlay.own_tensors is None else overlay.own_tensors
    return max(needed_bytes(adapter if each.output_format == "adapter" else inputs.new) for each in configs)


def _key(
    run: "CalibrationRun | RecordedRun",
    checkpoint: Checkpoint,
    plan: Plan,
    linears: Sequence[LinearTensor],
    config: CalibrationOptions,
) -> StatisticsKey:
    """What the statistics of ``linears``, all linears of the checkpoint, depend on."""
    floor = config.min_expert_tokens if any(linear.pool for linear in linears) else None
    samples = (each.digest for each in run.used)
    return StatisticsKey(
        run.purpose,
        of_statistics(checkpoint, run.purpose, samples, config.damping, len(linears), floor, name_of(run.dtype)),
        {linear.name: linear.shape(checkpoint.tensors[linear.key].shape)[1] for linear in linears},
        {linear.name: linear.last.name for linear in linears},
        [unit.name for unit in plan.new.units],
        str(plan.device),
    )


def _known(
    request: MergeRequest, keys: Sequence[StatisticsKey], device: torch.device
) -> tuple[dict[str, ModelStatistics], tuple[RoutingRecord, ...], tuple[str, ...]]:
    """What :func:`read_statistics` reads from the file; errors as there.

    A resumed run computes statistics that it has begun to compute, even if the statistics file that it wrote fits.
    """
    if request.stats is None:
        return {}, (), ()
    begun = [begun_with(out) for out in request.outs] if request.resume else []
    anew = {key.purpose for key in keys if COMPUTED in (b.get(f"{key.purpose} statistics") for b in begun)}
    whole = {"safety", "task"} if request.stats_hessians else request.hessians_of
    return read_statistics(request.stats, keys, device, anew, whole)


def _check_hessians(request: MergeRequest, prepared: Prepared) -> None:
    """Check that Hessians are written only where that is asked for.

    Raises:
        StatisticsError: a method needs Hessians, and the statistics file that would be written keeps none.
    """
    methods = request.hessians_of
    missing = [each.purpose for each in prepared.sets if each.known is None and each.purpose in methods]
    if request.stats is not None and missing and not request.stats_hessians:
        raise StatisticsError(
            f"the method {methods[missing[0]]} takes the Hessians themselves, and the statistics {request.stats} keep "
            "only the diagonal of H⁻¹: set stats_hessians to keep the Hessians too, which takes up to "
            f"{bytes_text(hessian_bytes(prepared.plan, prepared.inputs.new, prepared.sets))} of disk, or leave out the "
            "statistics."
        )


def _published(out: Path) -> MergeReport | None:
    """The report of a complete OUT; None if there is none, or if one is being made."""
    places = Places.of(out)
    if not places.out.is_dir() or os.path.lexists(places.partial):
        return None
    try:
        return read_report(places.out)
    except CheckpointError:
        return None

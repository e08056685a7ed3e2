"""Before the work: everything that can be known of a merge without running a model."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from hpa_merge.calibration import read_samples
from hpa_merge.checkpoint import Checkpoint, Inputs, begun_with, check_outputs, check_side_files, needed_bytes
from hpa_merge.checkpoint.inputs import changed, files_of
from hpa_merge.checkpoint.output import Places
from hpa_merge.config import HPAConfig
from hpa_merge.engine.calibration_run import Side
from hpa_merge.engine.encoding import encoding
from hpa_merge.engine.fingerprint import digest, fingerprint, of_statistics
from hpa_merge.engine.lineage import Lineage, trace
from hpa_merge.engine.machine import free_bytes, resolve_device
from hpa_merge.engine.memory import Limits, Memory, allot
from hpa_merge.engine.plan import Plan, make_plan
from hpa_merge.engine.statistics import Half, check_place, read_statistics
from hpa_merge.errors import ChangedError, CheckpointError, ConfigError
from hpa_merge.inputs.hub import Source, is_remote, locate
from hpa_merge.inputs.opening import open_new
from hpa_merge.inputs.tower import with_tower
from hpa_merge.report.records import CalibrationRecord
from hpa_merge.report.schema import MergeReport, read_report

__all__ = ["Job", "Progress", "Ready", "Render", "out_of_memory", "prepare"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many steps are behind, and how many there are."""

Render = Callable[[MergeReport, Checkpoint, Checkpoint, bool], tuple[MergeReport, dict[str, bytes]]]
"""Makes of a report, OLD, NEW, and whether there is to be a page, the files beside the weights, by name; and the report
with what it has to say of them. Whoever asks for a merge hands it in: :func:`hpa_merge.render.folder.render`."""

COMPUTED = "computed"
"""In the place of a digest: the statistics come from no file but from the run itself."""


@final
@dataclass(frozen=True)
class Job:
    """What is asked for: one merge, or several from one read of the inputs.

    Attributes:
        old, new: checkpoint folders, or for NEW that of an adapter; a string may be the name of one on the Hub,
            ``org/name[@revision]``.
        vision_tower: folder of their vision tower, where they have LLaVA's own layout.
        outs: the options of each OUT; in all of them those that the statistics depend on are the same.
        safety_calib, task_calib: calibration files; None where no method looks at them.
        stats: the statistics file, if there is to be one.
        first: the first aligned model of the history, a folder or a name on the Hub, to measure OUT's drift from.
        limits: of memory.
        overwrite, resume: as for :func:`hpa_merge.merge`.
        several: a sweep, of which OUTs that are complete are let be when it is resumed.
        page: whether the report's page and pictures are drawn.
        compares: nothing is made: the OUTs are there, and are compared with what would be.
        command: the command line as it was typed; empty where there was none.
        reads: other files that it was made from, such as the YAML files; none of them is ever deleted.
    """

    old: str | Path
    new: str | Path
    outs: Mapping[Path, HPAConfig]
    safety_calib: Path | None = None
    task_calib: Path | None = None
    vision_tower: Path | None = None
    stats: Path | None = None
    first: str | Path | None = None
    limits: Limits = Limits()
    overwrite: bool = False
    resume: bool = False
    several: bool = False
    page: bool = True
    command: str = ""
    compares: bool = False
    reads: tuple[Path, ...] = ()


@final
@dataclass(frozen=True)
class Ready:
    """Inputs that have passed every check that reads no weight.

    Attributes:
        old, new: the checkpoints, open; what is read of them beside a vision tower is their own.
        sources: where they lie; and the first aligned model, if it was given.
        device: where the arithmetic runs.
        plan: what belongs together; its configurations are those of the job.
        sides: OLD with the safety samples, NEW with the task samples; not started. A set that no method looks at is
            empty, whether there is a file of it or not.
        calibration: the files of the two sets.
        halves: their statistics, as far as the statistics file has them.
        notes: why it has not, a sentence each.
        memory: how it is used.
        fingerprints: what each OUT depends on.
        finished: the reports of those that are there already.
        lineage: the rounds behind OLD.
        inputs: every folder and file that is read, as they were when they were opened.
    """

    old: Checkpoint
    new: Checkpoint
    sources: tuple[Source, ...]
    device: torch.device
    plan: Plan
    sides: tuple[Side, Side]
    calibration: tuple[Path | None, Path | None]
    halves: tuple[Half, Half]
    notes: tuple[str, ...]
    memory: Memory
    fingerprints: Mapping[Path, dict[str, Any]]
    finished: Mapping[Path, MergeReport]
    lineage: Lineage
    inputs: Inputs

    def check_contents(self) -> None:
        """Compare the weights of OLD and NEW with what they were when they were opened, whatever the files' times say.

        Raises:
            ChangedError: they are others.
            CheckpointError: they cannot be read any more.
        """
        for checkpoint, name in ((self.old, "old"), (self.new, "new")):
            if checkpoint.content_digest() != self.lineage.contents[name]:
                raise ChangedError(changed(*checkpoint.folders[-1:]))

    @property
    def origins(self) -> dict[str, str]:
        """Where the statistics come from, for a fingerprint: a run is not resumed with others."""
        return {f"{half.purpose} statistics": half.digest() if half.read else COMPUTED for half in self.halves}

    def used(self, config: HPAConfig) -> dict[str, str]:
        """Whether the statistics of each set that a method looks at were ``read`` or ``computed``."""
        return {
            half.purpose: "read" if half.read else "computed" for half in self.halves if half.purpose in config.sets
        }

    def records(self, config: HPAConfig) -> dict[str, CalibrationRecord | None]:
        """What was used of each set; None of one that the method does not look at."""
        return {
            side.purpose: side.record(file) if file is not None and side.purpose in config.sets else None
            for side, file in zip(self.sides, self.calibration, strict=True)
        }


@contextmanager
def prepare(job: Job) -> Iterator[Ready]:
    """Open and check everything; the checkpoints are closed at the end of the block.

    Raises:
        InputError: the input or the options are wrong.
    """
    configs = tuple(job.outs.values())
    files = _calibration_files(job)
    counts = (configs[0].safety_samples, configs[0].task_samples)
    there = {out: report for out in job.outs if job.several and job.resume and (report := _published(out))}
    making = [] if job.compares else [out for out in job.outs if out not in there]
    roles = {"OLD": job.old, "NEW": job.new, "FIRST": job.first}
    given = {role: name for role, name in roles.items() if name is not None}
    if any(is_remote(name) for name in given.values()):  # whatever else can be wrong is told before the download
        check_outputs(making, [], job.overwrite, needed=0, resume=job.resume)
        for path, count in zip(files, counts, strict=True):
            if path is not None:
                read_samples(path, count, configs[0].seed)
        resolve_device(configs[0].device)
    sources = locate(given)
    first = sources[2].folder if job.first is not None else None
    with (
        Checkpoint.open(sources[0].folder, "OLD") as old,
        open_new(sources[1].folder, old) as new,
        trace(old, new, first, job.vision_tower, configs[0]) as lineage,
    ):
        read = [with_tower(checkpoint, job.vision_tower, configs[0]) for checkpoint in (old, new)]
        inputs = _inputs(job, sources, read, lineage)
        check_side_files(new)
        needed = needed_bytes(new)
        check_outputs(making, inputs.places, job.overwrite, needed=needed, resume=job.resume)
        if job.stats is not None:
            check_place(job.stats, (*inputs.folders, *inputs.files), list(job.outs))
        safety, task = (
            read_samples(file, count, configs[0].seed) if file is not None else []
            for file, count in zip(files, counts, strict=True)
        )
        device = resolve_device(configs[0].device)
        with encoding(read[0], safety, configs[0]) as safety_in, encoding(read[1], task, configs[0]) as task_in:
            plan = make_plan(read[0], read[1], configs, device)
            sides = (
                Side("safety", read[0], plan.old, safety_in, configs[0]),
                Side("task", read[1], plan.new, task_in, configs[0]),
            )
        pairs = [pair for of_unit in plan.linears.values() for pair in of_unit]
        units = [unit.name for unit in plan.new.units]
        halves = tuple(
            Half(
                side.purpose,
                of_statistics(source, side.purpose, side.inputs, configs[0].damping, len(linears)),
                {linear.name: linear.shape(source.tensors[linear.key].shape)[1] for linear in linears},
                str(device),
                units,
            )
            for side, source, linears in zip(
                sides, read, ([pair.old for pair in pairs], [pair.new for pair in pairs]), strict=True
            )
        )
        # A run that is gone on with computes what it has begun to compute: its own file may fit by now.
        begun = [begun_with(out) for out in job.outs] if job.resume else []
        anew = {half.purpose for half in halves if COMPUTED in (b.get(f"{half.purpose} statistics") for b in begun)}
        notes = read_statistics(job.stats, halves, anew) if job.stats is not None else ()
        fingerprints = {
            out: fingerprint([_seen(half, config) for half in halves], config, device)
            for out, config in job.outs.items()
        }
        finished = {out: report for out, report in there.items() if report.run.fingerprint == digest(fingerprints[out])}
        others = [out for out in there if out not in finished]
        check_outputs(others, inputs.places, job.overwrite, needed=needed, resume=job.resume)
        runs = [not half.read and bool(side.inputs) for half, side in zip(halves, sides, strict=True)]
        memory = allot(plan, read, sides, runs, device, configs, job.limits)
        notes = (*(source.note for source in sources if source.note), *lineage.notes, *notes)
        both = (halves[0], halves[1])
        yield Ready(
            old, new, sources, device, plan, sides, files, both, notes, memory, fingerprints, finished, lineage, inputs
        )


def _inputs(job: Job, sources: Sequence[Source], read: Sequence[Checkpoint], lineage: Lineage) -> Inputs:
    """Everything that the job reads, as it is now; the statistics file, which it may write, apart."""
    opened = [*read, *([lineage.first] if lineage.first is not None else [])]
    towers = [checkpoint.tower for checkpoint in read if checkpoint.tower is not None]
    folders = [*(source.guarded for source in sources), *towers]
    files = [path for path in (job.safety_calib, job.task_calib, *job.reads) if path is not None]
    return Inputs.of(folders, files, [path for checkpoint in opened for path in files_of(checkpoint)])


def _calibration_files(job: Job) -> tuple[Path | None, Path | None]:
    """The files of the sets that a method looks at; None of the others.

    Raises:
        ConfigError: one is missing, or there is to be a statistics file that the methods cannot use.
    """
    wanted = {purpose: config.method for config in job.outs.values() for purpose in config.sets}
    for purpose, file in (("safety", job.safety_calib), ("task", job.task_calib)):
        if purpose in wanted and file is None:
            raise ConfigError(
                f"{purpose}_calib is missing: the method {wanted[purpose]} looks at {purpose} samples, so give a file."
            )
    if job.stats is not None:
        if beyond := [config.method for config in job.outs.values() if config.whole_inverse]:
            raise ConfigError(
                f"the method {beyond[0]} takes all of [H⁻¹], and the statistics {job.stats} keep its diagonal alone: "
                "leave out the statistics or the compensation."
            )
        if missing := {"safety", "task"} - wanted.keys():
            raise ConfigError(
                f"no method here looks at {' or '.join(sorted(missing))} samples, and the statistics {job.stats} are "
                "of both sets: leave out the statistics."
            )
    return (
        job.safety_calib if "safety" in wanted else None,
        job.task_calib if "task" in wanted else None,
    )


def _seen(half: Half, config: HPAConfig) -> dict[str, Any]:
    """What of a half's fingerprint a merge depends on: the samples only where its method looks at them."""
    samples = f"{half.purpose} samples"
    return {key: value for key, value in half.fingerprint.items() if key != samples or half.purpose in config.sets}


def out_of_memory(ready: Ready) -> str:
    """What to say where memory ran out, in spite of the forecast or because somebody else takes it."""
    device, memory = ready.device, ready.memory
    expected = memory.host if memory.device is None else memory.device
    free = free_bytes(device)
    room = "" if free is None else f" and {free / 1e9:.1f} GB are free now"
    return (
        f"the memory of {'the host' if memory.device is None else device} is full: this merge takes up to "
        f"{expected / 1e9:.1f} GB there{room}: set max_memory to what may be taken and go on with --resume, or begin "
        "anew with fewer task_samples, a smaller max_length, or another device."
    )


def _published(out: Path) -> MergeReport | None:
    """The report of an OUT that is complete; None where there is none, or one is being made."""
    places = Places.of(out)
    if not places.out.is_dir() or os.path.lexists(places.partial):
        return None
    try:
        return read_report(places.out)
    except CheckpointError:
        return None

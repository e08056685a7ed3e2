"""The inputs of a merge, open: OLD and NEW, where they come from, and what must not change while they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.calibration import SampleSet, read_samples
from hpa_merge.checkpoint import Checkpoint, Inputs, check_side_files
from hpa_merge.checkpoint.inputs import changed, files_of
from hpa_merge.engine.lineage import Lineage, trace
from hpa_merge.engine.machine import resolve_device
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ChangedError
from hpa_merge.inputs.hub import Source, locate
from hpa_merge.inputs.opening import open_new
from hpa_merge.inputs.tower import with_tower

__all__ = ["MergeInputs", "open_inputs", "read_sets"]


@final
@dataclass(frozen=True)
class MergeInputs:
    """The inputs of a merge.

    Attributes:
        sources: where OLD, NEW and, if given, the first aligned model lie.
        old, new: the checkpoints as they were given.
        read: the same two as they are read: with their vision tower if it lies apart.
        lineage: the rounds behind OLD.
        guarded: every folder and file that is read, as they were when they were opened.
    """

    sources: tuple[Source, ...]
    old: Checkpoint
    new: Checkpoint
    read: tuple[Checkpoint, Checkpoint]
    lineage: Lineage
    guarded: Inputs

    def check_contents(self) -> None:
        """Compare the weights of OLD and NEW with those that were opened; the files' times do not matter.

        Raises:
            ChangedError: they differ.
            CheckpointError: they cannot be read any more.
        """
        for checkpoint, name in ((self.old, "old"), (self.new, "new")):
            if checkpoint.content_digest() != self.lineage.contents[name]:
                raise ChangedError(changed(*checkpoint.folders[-1:]))


@contextmanager
def open_inputs(request: MergeRequest) -> Iterator[MergeInputs]:
    """Open the inputs; they are closed at the end of the block.

    Raises:
        InputError: one cannot be opened, or is not what it has to be.
    """
    if request.is_remote:  # whatever is wrong is reported before the download
        read_sets(request)
        resolve_device(request.calibration.device)
    config, tower = request.calibration, request.vision_tower
    sources = locate(request.checkpoints)
    first = sources[2].folder if request.first is not None else None
    with (
        Checkpoint.open(sources[0].folder, "OLD") as old,
        open_new(sources[1].folder, old) as new,
        trace(old, new, first, tower, config) as lineage,
    ):
        read = with_tower(old, tower, config), with_tower(new, tower, config)
        guarded = _guarded(request, sources, read, lineage)
        check_side_files(new)
        yield MergeInputs(tuple(sources), old, new, read, lineage, guarded)


def read_sets(request: MergeRequest) -> tuple[SampleSet, SampleSet]:
    """The safety and the task samples; none of a set that no method needs.

    Raises:
        CalibrationError: a file cannot be read, or a sample in it is wrong.
    """
    config = request.calibration
    counts = (config.safety_samples, config.task_samples)
    safety, task = (
        SampleSet() if file is None else read_samples(file, count, config.seed)
        for file, count in zip(request.calibration_files, counts, strict=True)
    )
    return safety, task


def _guarded(
    request: MergeRequest, sources: tuple[Source, ...], read: tuple[Checkpoint, Checkpoint], lineage: Lineage
) -> Inputs:
    """Everything that is read, as it is now; without the statistics file, which may be written."""
    opened = [*read, *([lineage.first] if lineage.first is not None else [])]
    towers = [checkpoint.tower for checkpoint in read if checkpoint.tower is not None]
    folders = [*(source.guarded for source in sources), *towers]
    template = Path(request.calibration.chat_template)
    given = (request.safety_calib, request.task_calib, template if template.is_file() else None, *request.reads)
    files = [path for path in given if path is not None]
    return Inputs.of(folders, files, [path for checkpoint in opened for path in files_of(checkpoint)])

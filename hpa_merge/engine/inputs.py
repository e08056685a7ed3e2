"""The inputs of a merge, open: OLD and NEW, where they come from, and what must not change while they are read."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.checkpoint import Checkpoint, Inputs, check_side_files
from hpa_merge.checkpoint.inputs import changed, files_of
from hpa_merge.engine.code import code_records
from hpa_merge.engine.lineage import Lineage, trace
from hpa_merge.engine.machine import resolve_device
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import Sets, locate_sets, read_sets
from hpa_merge.errors import ChangedError
from hpa_merge.inputs.hub import Source, commits_of, locate
from hpa_merge.inputs.opening import open_checkpoint, open_new
from hpa_merge.inputs.own_code import Trust
from hpa_merge.inputs.tower import with_tower
from hpa_merge.progress import Progress, silent
from hpa_merge.report.records import CodeRecord

__all__ = ["MergeInputs", "open_inputs"]


@final
@dataclass(frozen=True)
class MergeInputs:
    """The inputs of a merge.

    Attributes:
        sources: where OLD, NEW and, if given, the first aligned model lie.
        old, new: the checkpoints as they were given.
        read: the same two as they are read: with their vision tower if it lies apart.
        sets: where the calibration sets lie.
        lineage: the rounds behind OLD.
        guarded: every folder and file that is read, as they were when they were opened.
    """

    sources: tuple[Source, ...]
    old: Checkpoint
    new: Checkpoint
    read: tuple[Checkpoint, Checkpoint]
    sets: Sets
    lineage: Lineage
    guarded: Inputs

    @property
    def commits(self) -> dict[str, str]:
        """The commit of each checkpoint and data set that is from the Hub, by its name."""
        sets = {source.name: source.commit for sources in self.sets.values() for source in sources if source.commit}
        return commits_of(self.sources) | sets

    @property
    def code(self) -> tuple[CodeRecord, ...]:
        """The code of the checkpoints, which is run."""
        return code_records([*self.read, *([self.lineage.first] if self.lineage.first is not None else [])])

    @property
    def dequantised(self) -> dict[str, str]:
        """How many weights of OLD and NEW are stored in few bits, and how; nothing for one that has none."""
        return {name: text for name, each in (("old", self.old), ("new", self.new)) if (text := each.dequantised)}

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
def open_inputs(request: MergeRequest, on_progress: Progress = silent) -> Iterator[MergeInputs]:
    """Open the inputs; they are closed at the end of the block.

    Raises:
        InputError: one cannot be opened, or is not what it has to be.
    """
    on_progress("looking for the inputs", 0, 1)
    sets = locate_sets(request)
    if request.is_remote:  # whatever is wrong is reported before the download
        read_sets(request, sets)
        resolve_device(request.calibration.device)
    config, tower = request.calibration, request.vision_tower
    if request.is_remote:
        on_progress("fetching what is not in the cache", 0, 1)
    sources = locate(request.checkpoints)
    first = sources[2].folder if request.first is not None else None
    trust = Trust(request.trust_remote_code, sources)
    with ExitStack() as opened:
        on_progress("opening OLD", 0, 1)
        old = opened.enter_context(open_checkpoint(sources[0].folder, "OLD", config.dtype, trust))
        on_progress("opening NEW", 0, 1)
        new = opened.enter_context(open_new(sources[1].folder, old, config.dtype, tower, trust=trust))
        lineage = opened.enter_context(trace(old, new, first, tower, config, trust))
        read = with_tower(old, tower, config), with_tower(new, tower, config)
        guarded = _guarded(request, sources, read, sets, lineage)
        check_side_files(new)
        yield MergeInputs(tuple(sources), old, new, read, sets, lineage, guarded)


def _guarded(
    request: MergeRequest,
    sources: tuple[Source, ...],
    read: tuple[Checkpoint, Checkpoint],
    sets: Sets,
    lineage: Lineage,
) -> Inputs:
    """Everything that is read, as it is now; without the statistics file, which may be written."""
    opened = [*read, *([lineage.first] if lineage.first is not None else [])]
    towers = [checkpoint.tower for checkpoint in read if checkpoint.tower is not None]
    data = [source for each in sets.values() for source in each]
    unread = (path for path in (request.safety_calib, *request.task_calib) if path is not None and path.is_file())
    folders = [*(source.guarded for source in sources), *towers]
    template = Path(request.calibration.chat_template)
    folders += [source.guarded for source in data if source.guarded.is_dir()]
    files = [*(source.guarded for source in data if not source.guarded.is_dir()), *unread, *request.reads]
    files += [template] if template.is_file() else []
    held = [path for checkpoint in opened for path in files_of(checkpoint)]
    return Inputs.of(folders, files, [*held, *(file for source in data for file in source.files)])

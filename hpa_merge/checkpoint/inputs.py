"""The files that a run reads: their places, so that nothing is written there, and whether they have changed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.errors import ChangedError

__all__ = ["Inputs", "State", "changed", "files_of", "state_of"]

State = tuple[int, int, int, int]
"""Device, inode, bytes, time of change in nanoseconds."""


@final
@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads.

    Attributes:
        folders: the folders of checkpoints; nothing is written into them.
        files: files of the run itself, such as the calibration files; none of them is deleted.
        states: the state of every file that must not change before OUT is published.
    """

    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    states: Mapping[Path, State | None]

    @classmethod
    def of(cls, folders: Iterable[Path], files: Iterable[Path], read: Iterable[Path]) -> "Inputs":
        """The inputs as they are now; ``read``: the files that must not change, in addition to ``files``."""
        found, files = dict.fromkeys(folders), tuple(dict.fromkeys(files))
        return cls(tuple(found), files, {path: state_of(path) for path in dict.fromkeys((*read, *files))})

    @property
    def places(self) -> tuple[Path, ...]:
        """What OUT must not touch: the folders, the files, and the targets of links in a folder."""
        return (*self.folders, *self.files, *(path for path in self.states if path.is_symlink()))

    def check(self) -> None:
        """Raise ChangedError if a file was changed, replaced or removed."""
        for path, was in self.states.items():
            if state_of(path) != was:
                raise ChangedError(changed(path))


def changed(path: Path) -> str:
    """The sentence for an input that was changed."""
    return (
        f"the input {path} was changed while it was read, and OUT would be of neither version: nothing was published, "
        "so run the same command again when nothing writes there."
    )


def files_of(checkpoint: Checkpoint) -> tuple[Path, ...]:
    """Every file of a checkpoint that is read: weights, configuration, side files; its vision tower's, its adapter's.

    Raises:
        CheckpointError: a subfolder cannot be read.
    """
    external = {checkpoint.tensors[name].shard for name in checkpoint.external}
    names = (*checkpoint.disk_shards, *sorted(external), "config.json", *filter(None, [checkpoint.index]))
    own = [checkpoint.folder / name for name in names]
    own += [checkpoint.locate(path) for path in checkpoint.side_files().copied]
    if checkpoint.overlay is not None:
        own += [path for path in checkpoint.overlay.folder.glob("adapter_*") if path.is_file()]
    if checkpoint.tower is not None:
        own += [path for path in checkpoint.tower.glob("*.json") if path.is_file()]
    return tuple(dict.fromkeys(own))


def state_of(path: Path) -> State | None:
    """The state of a file; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

"""OUT.partial, the folder in which OUT is made: open its shards, and write every other file."""

import contextlib
import os
import shutil
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import final

from hpa_merge.checkpoint.files import allocate, copy_file, remove, sync, write_at
from hpa_merge.checkpoint.output import telling
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.sidefiles import MADE
from hpa_merge.errors import CheckpointError, OutputError
from hpa_merge.files.disk import UNFINISHED, Foreign, identity, open_written, sync_folder, write_whole

__all__ = ["Partial", "check_side_files", "needed_bytes"]

CARD = "README.md"
"""The model card, which is written for OUT."""


@final
class Partial:
    """The folder, open from :meth:`make` or :meth:`take` until :meth:`close`.

    Shards are opened relative to the open folder, as regular files with one name, on the folder's device. So nothing is
    written through a link, or into an input.

    Attributes:
        path: its path.
        ours: relative paths of the files that a run puts there; nothing else is ever deleted.
    """

    def __init__(self, path: Path, inputs: Iterable[Path], ours: Iterable[str]) -> None:
        """Create nothing yet.

        Args:
            inputs: folders and files that are never written to.
            ours: shards, their index and NEW's side files; generated files are added.
        """
        self.path = path
        self.ours = {*ours, *MADE, CARD}
        self._theirs = {found for place in inputs for each in _files(place) if (found := identity(each))}
        self._folder = -1
        self._shards: dict[str, int] = {}
        self._lock = threading.Lock()

    def make(self) -> None:
        """Create it, empty; raises FileExistsError if the path exists, or another OSError."""
        self.path.mkdir()
        self.take()

    def take(self) -> None:
        """Open the existing folder; raises Foreign if it is not a folder, or another OSError."""
        try:
            self._folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise Foreign("it is not a folder") from error

    def lay_out(self, heads: Mapping[str, bytes], sizes: Mapping[str, int]) -> None:
        """Create every shard with its head and its full size; raises OutputError if the disk is full or refuses."""
        for shard, head in heads.items():
            with telling(f"{self.path / shard} cannot be written"):
                with self._lock:
                    self._shards[shard] = open_written(shard, new=True, dir_fd=self._folder)
                allocate(self._shards[shard], sizes[shard])
                write_at(self._shards[shard], memoryview(head), 0)
                os.fsync(self._shards[shard])
        sync_folder(self.path)

    def is_laid_out(self, sizes: Mapping[str, int]) -> bool:
        """Whether every shard exists in its full size; raises as :meth:`descriptor`."""
        try:
            return all(os.fstat(self.descriptor(shard)).st_size == size for shard, size in sizes.items())
        except FileNotFoundError:
            return False

    def sync(self) -> None:
        """Make what was written to the shards durable; raises OSError."""
        for descriptor in self._shards.values():
            os.fsync(descriptor)

    def descriptor(self, shard: str) -> int:
        """The file descriptor of a shard, for reading and writing, valid until :meth:`close`.

        Raises:
            Foreign: it is not a file of ours.
            OSError: it cannot be opened.
        """
        with self._lock:
            if shard not in self._shards:
                descriptor = open_written(shard, dir_fd=self._folder)
                found = os.fstat(descriptor)
                if (found.st_dev, found.st_ino) in self._theirs or found.st_dev != os.fstat(self._folder).st_dev:
                    os.close(descriptor)
                    raise Foreign(f"{shard} in it is mounted from elsewhere")
                self._shards[shard] = descriptor
            return self._shards[shard]

    def reopen(self) -> None:
        """Open the shards again: only then a network file system shows what other machines have written.

        Raises:
            Foreign: a shard is another file than before.
            OSError: one cannot be opened.
        """
        with self._lock:
            before, self._shards = self._shards, {}
        try:
            for shard, descriptor in before.items():
                if not os.path.samestat(os.fstat(descriptor), os.fstat(self.descriptor(shard))):
                    raise Foreign(f"{shard} in it was replaced during the run")
        finally:
            for descriptor in before.values():
                os.close(descriptor)

    def carry(self, source: Checkpoint, but: Collection[str]) -> tuple[dict[str, str], bytes | None]:
        """Copy NEW's side files, and remove what a failed run has left of them.

        A link in the Hub's cache is copied as the file that it leads to, with ordinary permissions.

        Args:
            but: relative paths that are not copied.

        Returns:
            SHA-256 of the bytes that were written, by relative path; and the index, which is written last.

        Raises:
            OutputError, CheckpointError: the disk is full or refuses, or NEW can no longer be read, or the folder holds
                something that no run has put there.
        """
        copied = source.side_files().copied
        self.ours.update(path.as_posix() for path in copied)
        self.check_ours()
        with telling(f"{self.path} cannot be written"):
            for path in self.path.iterdir():
                if path.name not in source.shards:
                    remove(path)  # NEW may have lost it meanwhile
        carried = {}
        for path in copied:
            if path.as_posix() not in but:
                ours, theirs = self.path / path, source.locate(path)
                with telling(f"{theirs} cannot be copied to {ours}"), source.open_side_file(path) as file:
                    ours.parent.mkdir(parents=True, exist_ok=True)
                    carried[path.as_posix()] = copy_file(file, ours)
        return carried, source.index_bytes()

    def complete(self, carried: Collection[str], made: Mapping[str, bytes], last: Mapping[str, bytes]) -> None:
        """Write the generated files, make the whole folder durable, and check that it holds nothing else.

        Args:
            carried: relative paths of the files that :meth:`carry` has copied.
            made: generated files by plain name.
            last: files that are written when everything else is durable.

        Raises:
            OutputError: the disk is full or refuses, or the folder holds something else.
        """
        self.ours.update((*made, *last))
        with telling(f"{self.path} cannot be written"):
            for name, content in made.items():
                write_whole(self.path / name, content)
            self.sync()
            for name in carried:
                sync(self.path / name)
            for folder in {(self.path / name).parent for name in carried}:
                sync_folder(folder)
            for name, content in last.items():
                write_whole(self.path / name, content)
            self._check({*carried, *made, *last})

    def _check(self, names: Collection[str]) -> None:
        """Raise OutputError unless folder and shards are those that were opened, and all other files are ``names``."""
        same = os.path.samestat(os.fstat(self._folder), self.path.lstat())
        for shard, descriptor in self._shards.items():
            same = same and os.path.samestat(os.fstat(descriptor), (self.path / shard).lstat())
        if not same:
            raise OutputError(f"{self.path} was replaced during the run: delete it, and run the same command again.")
        self._refuse(self._others({*self._shards, *names}))

    def check_ours(self) -> None:
        """Check that the folder holds only what a run puts there, so that it may be deleted.

        Raises:
            OutputError: it holds something else, or cannot be read.
        """
        with telling(f"{self.path} cannot be read"):
            self._refuse(name for name in self._others(self.ours) if not name.startswith(UNFINISHED))

    def holds_only(self, names: Collection[str]) -> bool:
        """Whether the folder holds only regular files of these names; raises OSError if it cannot be read."""
        return not any(self._others(names))

    def _others(self, names: Collection[str]) -> Iterator[str]:
        """Relative paths of everything in the folder except regular files of these names and their folders."""

        def fail(error: OSError) -> None:
            raise error

        around = {parent.as_posix() for name in names for parent in Path(name).parents}
        for root, folders, files in os.walk(self.path, onerror=fail):
            here = Path(root)
            for name in (*folders, *files):
                path = (here / name).relative_to(self.path).as_posix()
                kind = (here / name).lstat().st_mode
                if not (stat.S_ISDIR(kind) and path in around) and not (stat.S_ISREG(kind) and path in names):
                    yield path

    def _refuse(self, others: Iterator[str]) -> None:
        """Raise OutputError for the first of ``others``, if there is one."""
        if (name := next(others, None)) is not None:
            raise OutputError(
                f"{self.path} holds {name}, which this run did not put there: move it away, and run the same command "
                "with --resume."
            )

    def close(self) -> None:
        """Close everything. Never raises, and may be called twice."""
        with self._lock:
            for descriptor in (*self._shards.values(), *([self._folder] if self._folder >= 0 else [])):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            self._shards.clear()
            self._folder = -1

    def remove(self) -> None:
        """Delete the folder as far as possible; if it holds something else, it stays. Never raises."""
        self.close()
        try:
            self.check_ours()
        except OutputError:
            return
        shutil.rmtree(self.path, ignore_errors=True)  # a link in it is deleted, never followed
        sync_folder(self.path.parent)


def check_side_files(source: Checkpoint) -> None:
    """Check, before the work, that every side file of NEW can be copied and named in the report.

    Raises:
        CheckpointError: a name is not UTF-8, or a folder has the name of a file of OUT.
    """
    files = source.side_files()
    ours = {*source.shards, source.index, *MADE, CARD}
    for path in (*files.copied, *files.left_out):
        if any("\ud800" <= sign <= "\udfff" for sign in path.as_posix()):
            raise CheckpointError(
                f"{source.role} {source.folder} holds a file whose name is not UTF-8 ({os.fsencode(path)!r}): "
                "rename it, or move it away."
            )
        if path.parts[0] in ours and (len(path.parts) > 1 or _is_folder(source, path)):
            raise CheckpointError(
                f"{source.role} {source.folder} holds a folder called {path.parts[0]}, and OUT gets a file of that "
                "name: rename it, or move it away."
            )


def _is_folder(source: Checkpoint, path: Path) -> bool:
    """Whether the path is a folder in NEW's folder, or in OLD's below an adapter; a link does not count."""
    places = [folder / path for folder in source.folders]
    return any(place.is_dir() and not place.is_symlink() for place in places)


def needed_bytes(source: Checkpoint) -> int:
    """Bytes that an OUT in the layout of ``source`` takes: shards, index and every file that is copied.

    Holes in a file count, because the copy has bytes there. Generated files, a report and a page, are small.

    Raises:
        CheckpointError: a side file cannot be read.
    """
    stops: dict[str, int] = {}
    for info in source.tensors.values():
        stops[info.shard] = max(stops.get(info.shard, 0), info.stop)
    sizes = list(stops.values())
    for path in (*source.side_files().copied, *([] if source.index is None else [Path(source.index)])):
        with contextlib.suppress(OSError):  # the copy will raise the error
            sizes.append(source.locate(path).stat().st_size)
    return sum(sizes)


def _files(place: Path) -> Iterable[Path]:
    """The file itself, or the direct entries of a folder."""
    with contextlib.suppress(OSError):
        return list(place.iterdir()) if place.is_dir() else [place]
    return []

"""OUT on disk: laid out in full before the first tensor is computed, written tensor by tensor, published by rename.

OUT has NEW's headers, so every tensor's place is known from the start. The work is done in ``OUT.partial`` next to OUT.
OUT itself appears whole or not at all, and an OUT that is replaced stays until the new one is there. The journal of
``OUT.partial`` says which tensors are durable, so that an interrupted run can be resumed.

Several ranks can make one OUT. The first lays it out; then each writes tensors of its own and has a journal of its own;
at the end the first publishes.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, final

import torch

from hpa_merge.checkpoint.beginning import Layout, follow, lead
from hpa_merge.checkpoint.content import content_digest
from hpa_merge.checkpoint.digests import ShardDigests
from hpa_merge.checkpoint.direct import PAGE, WORTH, ShardFile
from hpa_merge.checkpoint.files import checksum, copy_range, digest_at, pieces_at, read_at, start_writing
from hpa_merge.checkpoint.joining import ALONE, Rank, remove_others
from hpa_merge.checkpoint.output import Places, check_output, telling
from hpa_merge.checkpoint.partial import Partial, needed_bytes
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo, read_layout
from hpa_merge.checkpoint.swap import publish_folder
from hpa_merge.counting import counted

__all__ = ["CheckpointWriter"]


@final
class CheckpointWriter:
    """Writes OUT in NEW's layout, each tensor once.

    Threads may write different tensors at the same time. :meth:`commit` and all further methods are for one thread,
    when nothing is being written. End with :meth:`publish` or :meth:`abort`.

    Attributes:
        out: where OUT will appear, absolute.
        partial: the folder next to it in which it is made.
        rank: which of the processes that make OUT this is.
        resumed: the entries of :meth:`commit` in the run that is resumed, with several ranks those of one commit after
            the other; empty for a new run.
        damaged: how many of its commits do not count, because a tensor has other bytes than were written.
    """

    def __init__(
        self,
        source: Checkpoint,
        out: str | Path,
        *,
        overwrite: bool = False,
        inputs: Sequence[str | Path],
        fingerprint: Mapping[str, Any] | None = None,
        resume: bool = False,
        unchanged: Callable[[], None] = lambda: None,
        rank: Rank = ALONE,
        direct: bool = False,
    ) -> None:
        """Check the place and lay out every shard in ``OUT.partial``: full size, NEW's header, no tensor yet.

        A rank that is not the first opens what the first has laid out: it must be made after that one's.

        Args:
            source: NEW; OUT gets its layout and its side files.
            out: the folder to make.
            overwrite: replace an existing OUT at the end.
            inputs: the folders of OLD and NEW, and files that the run reads; OUT must not touch them.
            fingerprint: everything that the result depends on, by name, in JSON types.
            resume: resume an ``OUT.partial`` with the same fingerprint, if there is one.
            unchanged: raises if an input has changed; called before each commit and before OUT appears.
            rank: which of the processes that make OUT this is.
            direct: write large tensors past the system's cache if possible. Reading them afterwards takes longer.

        Raises:
            OutputError: as :func:`check_output`; or the disk is full or refuses; or another run is writing there; or
                the run to resume has another fingerprint; or this rank does not see what the first has laid out.
            CheckpointError: NEW can no longer be read.
        """
        layout = Layout.of(source)
        if rank.first:
            check_output(out, inputs, overwrite, needed=needed_bytes(source), resume=resume)
        self._places = Places.of(out)
        self.out, self.partial, self.rank = self._places.out, self._places.partial, rank
        self._source, self._inputs, self._unchanged = source, tuple(inputs), unchanged
        self._overwrite, self._published = overwrite, False
        self._written: dict[str, int] = {}  # since the last commit: the checksum of the bytes, by tensor
        self._lock = threading.Lock()
        self._carried: Mapping[str, str] = {}  # SHA-256 by path
        self._digests: dict[str, str] = {}  # of the shards
        self._index: bytes | None = None
        self._folder = Partial(self.partial, [Path(each) for each in inputs], layout.files)
        begin = partial(lead, resume=resume) if rank.first else partial(follow, rank=rank)
        self._journal, whole = begin(self._places, self._folder, layout, dict(fingerprint or {}))
        self.resumed = tuple(line["entry"] for line in whole.lines)
        self.damaged = whole.damaged
        self._commits = whole.count
        self._before = frozenset(name for line in whole.lines for name in line["tensors"])
        self._begun, self._done = set(self._before), set(self._before)
        self._committed = bool(whole.lines)
        self._hashed: ShardDigests | None = None  # of several ranks, none sees every tensor being written
        if rank.count == 1:
            tensors = source.tensors.values()
            self._hashed = ShardDigests(layout.heads, tensors, self._pieces, self._before)
        self._files: dict[str, ShardFile] = {}
        self._direct = direct and rank.count == 1  # others may write to the same pages

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Write a tensor.

        Args:
            name: its name in NEW.
            tensor: with NEW's shape and dtype, on any device, contiguous or not.

        Raises:
            KeyError: NEW has no such tensor.
            ValueError: the shape or the dtype is not NEW's.
            RuntimeError: it has been written before.
            OutputError: the disk is full or refuses.
        """
        info = self._source.tensors[name]
        if (tuple(tensor.shape), tensor.dtype) != (info.shape, info.dtype):
            raise ValueError(
                f"{name} has to be {list(info.shape)} {info.dtype}, not {list(tensor.shape)} {tensor.dtype}"
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)  # [numel], because a scalar cannot be viewed as bytes
        content = flat.view(torch.uint8).numpy().data
        with self._once(info), telling(f"{self.partial / info.shard} cannot be written"):
            self._put(info, content, info.start)
            self._note(info, checksum(content))

    def write_pieces(self, name: str, pieces: Iterable[torch.Tensor]) -> None:
        """Write a tensor from flat pieces of its elements, in order; raises as :meth:`write`."""
        info = self._source.tensors[name]
        place, written = info.start, 0
        with self._once(info), telling(f"{self.partial / info.shard} cannot be written"):
            for piece in pieces:
                if piece.dtype != info.dtype or place + piece.nbytes > info.stop:
                    raise ValueError(f"{name} has to be {list(info.shape)} {info.dtype}")
                content = piece.view(torch.uint8).numpy().data
                self._put(info, content, place)
                written = checksum(content, written)
                place += piece.nbytes
            if place != info.stop:
                raise ValueError(f"{name} has to be {list(info.shape)} {info.dtype}")
            self._note(info, written)

    def copy(self, name: str) -> None:
        """Copy a tensor from NEW's file; raises as :meth:`write`, and RuntimeError for a tensor that is computed."""
        info = self._source.tensors[name]
        if self._source.computes(name):
            raise RuntimeError(f"{name} is computed, so it cannot be copied")
        (theirs,) = self._source.parts(name)
        ours, source = self._file(info.shard), self._source.descriptor(theirs.shard)
        what = f"{self._source.folder / theirs.shard} cannot be copied to {self.partial / info.shard}"
        with self._once(info), telling(what):
            if ours.direct and info.nbytes >= WORTH:
                place = info.start
                for piece in pieces_at(source, theirs.start, theirs.stop, first=-place % PAGE):
                    self._put(info, piece, place)
                    place += len(piece)
            else:
                copy_range(source, ours.descriptor, theirs.start, theirs.stop, info.start)
                start_writing(ours.descriptor, info.start, info.stop)
            self._finish(info)

    def commit(self, entry: Any) -> None:
        """Make the tensors written since the last commit durable, and note that in the journal.

        Copied tensors are not among them: a resumed run copies them again. All ranks make the same number of commits.

        Args:
            entry: what the caller needs when the run is resumed, in JSON types.

        Raises:
            OutputError: the disk is full or refuses; the tensors are then not committed.
            ChangedError: an input has changed.
        """
        self._unchanged()
        with telling(f"{self.partial} cannot be written"):
            infos = [self._source.tensors[name] for name in self._written]
            for shard in {info.shard for info in infos if info.nbytes}:
                os.fsync(self._folder.descriptor(shard))
            self._committed = True  # from here, an interruption may leave the line
            part = self.rank.part(self._commits)
            self._journal.append({"tensors": dict(sorted(self._written.items())), "entry": entry, **part})
        self._commits += 1
        self._written.clear()

    def carry(self, but: Collection[str] = ()) -> None:
        """Copy NEW's side files into ``OUT.partial``, except ``but``, which :meth:`publish` will write.

        Raises:
            OutputError, CheckpointError: as :meth:`Partial.carry`.
        """
        self._carried, self._index = self._folder.carry(self._source, but)

    def manifest(self) -> dict[str, str]:
        """SHA-256 of the files of OUT, by relative path: the shards, their index, and what :meth:`carry` has copied.

        Raises:
            RuntimeError: a shard's layout is not NEW's, which is a bug.
            OutputError, CheckpointError: a file cannot be read.
        """
        for shard in self._source.shards:
            theirs = [info for info in self._source.tensors.values() if info.shard == shard]
            if list(read_layout(self.partial, "OUT", shard)) != theirs:
                raise RuntimeError(f"{shard} has another layout than NEW's")
        if not self._digests:
            with telling(f"{self.partial} cannot be read"):
                self._digests = {shard: self._digest_of(shard) for shard in self._source.shards}
        manifest = {**self._digests, **self._carried}
        if self._index is not None:
            manifest[str(self._source.index)] = hashlib.sha256(self._index).hexdigest()
        return manifest

    def content_digest(self) -> str:
        """:meth:`Checkpoint.content_digest` of OUT, when all is written; raises OutputError."""
        with telling(f"{self.partial} cannot be read"):
            return content_digest(self._source.tensors.values(), self._folder.descriptor)

    def piece(self, name: str, begin: int, count: int) -> torch.Tensor:
        """The elements ``begin:begin + count`` of a tensor that is written, flat, on the CPU; raises OutputError."""
        info = self._source.tensors[name]
        piece = torch.empty(count, dtype=info.dtype)
        with telling(f"{self.partial / info.shard} cannot be read"):
            place = info.start + begin * info.dtype.itemsize
            read_at(self._folder.descriptor(info.shard), piece.view(torch.uint8).numpy().data, place)
        return piece

    def remaining(self) -> tuple[str, ...]:
        """Names of the tensors that are not written yet, in the order of the layout."""
        return tuple(name for name in self._source.tensors if name not in self._done)

    def sync(self) -> tuple[str, ...]:
        """Make everything durable that this rank has written.

        Returns:
            Names of all tensors that it has written, which the first rank adopts.

        Raises:
            OutputError: the disk is full or refuses.
        """
        with telling(f"{self.partial} cannot be written"):
            self._folder.sync()
        return tuple(sorted(self._done - self._before))

    def adopt(self, names: Iterable[str]) -> None:
        """Count tensors as written that another rank has written and made durable.

        Raises:
            RuntimeError: one of them has been written before.
        """
        for name in names:
            with self._once(self._source.tensors[name]):
                pass

    def digests(self) -> dict[str, str]:
        """SHA-256 of this rank's share of the shards, when all ranks have written; raises OutputError."""
        with telling(f"{self.partial} cannot be read"):
            if self.rank.count > 1:
                self._folder.reopen()
            own = self._source.shards[self.rank.number :: self.rank.count]
            return {shard: self._digest_of(shard) for shard in own}

    def _digest_of(self, shard: str) -> str:
        """SHA-256 of a shard; raises OSError."""
        known = self._hashed.of(shard) if self._hashed is not None else None
        return known or digest_at(self._folder.descriptor(shard))

    def adopt_digests(self, digests: Mapping[str, str]) -> None:
        """Take the SHA-256 of every shard from the ranks, so that they are not computed again."""
        self._digests = dict(digests)

    def publish(self, extra: Mapping[str, bytes]) -> None:
        """Complete ``OUT.partial`` with NEW's side files and ``extra``, make it durable, and rename it to OUT.

        Args:
            extra: further files by plain name (the report, a model card); they replace NEW's files of that name.

        Raises:
            RuntimeError: a tensor is not written yet, or OUT has been published before.
            ValueError: ``extra`` holds a path, or the name of a weight file.
            OutputError: the disk is full or refuses, or somebody else has made OUT meanwhile; OUT is then unchanged.
        """
        if self._published or (left := self.remaining()):
            reason = (
                "it is published"
                if self._published
                else f"{counted(len(left), 'tensor', 'are')} missing, such as {left[0]}"
            )
            raise RuntimeError(f"{self.out} cannot be published: {reason}")
        for name in extra:
            if Path(name).name != name or name in (*self._source.shards, self._source.index):
                raise ValueError(f"{name!r} cannot be an extra file")
        if not self._carried:
            self.carry(extra)
        index = {} if self._index is None else {str(self._source.index): self._index}
        self._folder.complete(self._carried, extra, index)
        publish_folder(
            self.partial,
            self.out,
            self._inputs,
            overwrite=self._overwrite,
            unchanged=self._unchanged,
            on_publish=self._appeared,
        )
        self._close()
        self._end_journals()

    def leave(self) -> None:
        """End without publishing, which the first rank does or has done. Never raises."""
        self._close()
        self._journal.close()

    def abort(self, *, keep: bool = False) -> None:
        """Remove ``OUT.partial``; with ``keep``, leave it if anything was committed. Never raises.

        An OUT that is published stays. With several ranks ``keep`` leaves it in any case: others may have committed.
        """
        if not self._published and not (keep and (self._committed or self.rank.count > 1)):
            self._folder.remove()
            self._end_journals()
        self._close()
        self._journal.close()

    def _end_journals(self) -> None:
        """Remove the journals of all ranks, the first one last, because it is the lock. Never raises."""
        remove_others(self._places.journal)
        if not self.rank.first:
            with contextlib.suppress(OSError):
                self._places.journal.unlink()
        self._journal.end()

    @contextlib.contextmanager
    def _once(self, info: TensorInfo) -> Iterator[None]:
        """Claim a tensor; it counts as written when the block ends without an error."""
        with self._lock:
            if info.name in self._begun:
                raise RuntimeError(f"{info.name} is written twice")
            self._begun.add(info.name)
        yield
        with self._lock:
            self._done.add(info.name)

    def _file(self, shard: str) -> ShardFile:
        """A shard of OUT; raises OSError if it cannot be opened."""
        with self._lock:
            if shard not in self._files:
                self._files[shard] = ShardFile(self._folder.descriptor(shard), direct=self._direct)
            return self._files[shard]

    def _pieces(self, shard: str, start: int, stop: int) -> Iterator[memoryview]:
        return self._file(shard).pieces(start, stop)

    def _put(self, info: TensorInfo, content: memoryview, place: int) -> None:
        """Write a piece of a tensor at its ``place`` in the shard, and hash it; raises OSError."""
        self._file(info.shard).write(content, place)
        if self._hashed is not None:
            self._hashed.add(info.shard, place, content)

    def _finish(self, info: TensorInfo) -> None:
        """Hash what has waited for a tensor, which is written; raises OSError."""
        if self._hashed is not None:
            self._hashed.finish(info)

    def _note(self, info: TensorInfo, written: int) -> None:
        """Note the checksum of a tensor's bytes for the next commit; raises OSError."""
        self._finish(info)
        with self._lock:
            self._written[info.name] = written

    def _close(self) -> None:
        """Close everything but the journal. Never raises."""
        for file in self._files.values():
            file.close()
        self._folder.close()

    def _appeared(self) -> None:
        self._published = True

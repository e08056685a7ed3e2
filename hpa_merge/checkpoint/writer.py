"""OUT on disk: laid out in full before the first tensor is known, written tensor by tensor, published by rename.

OUT has NEW's headers, so every tensor's place is known from the start. The work is done in ``OUT.partial`` beside OUT:
OUT itself appears whole or not at all, and an OUT that is replaced stays until the new one stands in its place.
"""

import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

import torch

from hpa_merge.checkpoint.files import allocate, copy_range, remove, sync, sync_folder, write_at
from hpa_merge.checkpoint.reader import Checkpoint
from hpa_merge.checkpoint.shard import TensorInfo
from hpa_merge.errors import OutputError

__all__ = ["CheckpointWriter", "check_output"]


@final
class CheckpointWriter:
    """OUT in NEW's layout: every tensor's place is known before it is computed; each is written once.

    Threads may write different tensors at the same time. End with :meth:`publish`, or with :meth:`abort`.

    Attributes:
        out: where OUT will appear, absolute.
        partial: the folder beside it in which it is made.
        bytes_total: bytes of all tensors, for a progress bar.
    """

    def __init__(
        self, source: Checkpoint, out: str | Path, *, overwrite: bool = False, inputs: Sequence[str | Path]
    ) -> None:
        """Check the place and lay out every shard in ``OUT.partial``: full size, NEW's header, no tensor yet.

        Args:
            source: NEW; its layout and its side files become OUT's.
            out: the folder to make.
            overwrite: replace an OUT that exists, at the end.
            inputs: the folders of OLD and NEW; OUT may not touch them.

        Raises:
            OutputError: see :func:`check_output`; or the disk is full, or refuses.
            CheckpointError: NEW cannot be read any more.
        """
        heads = {shard: source.header_bytes(shard) for shard in source.shards}
        sizes = {shard: len(head) for shard, head in heads.items()}
        for info in source.tensors.values():
            sizes[info.shard] = max(sizes[info.shard], info.stop)
        check_output(out, inputs, overwrite, needed=sum(sizes.values()))
        self.out, self.partial, self._replaced = _places(out)
        self.bytes_total = sum(info.nbytes for info in source.tensors.values())
        self._source, self._overwrite, self._published = source, overwrite, False
        self._begun: set[str] = set()
        self._done: set[str] = set()
        self._lock = threading.Lock()

        with _telling(f"{self.partial} cannot be made"):
            try:
                self.partial.mkdir()
            except FileExistsError as error:
                raise OutputError(_left_behind(self.partial)) from error
        try:
            for shard, head in heads.items():
                path = self.partial / shard
                with _telling(f"{path} cannot be written"), path.open("xb", buffering=0) as file:
                    allocate(file.fileno(), sizes[shard])
                    write_at(file.fileno(), memoryview(head), 0)
        except BaseException:
            self.abort()
            raise

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Put a tensor into its place.

        Args:
            name: NEW's name of it.
            tensor: NEW's shape and dtype; on any device, contiguous or not.

        Raises:
            KeyError: NEW has no such tensor.
            ValueError: the shape or the dtype is not NEW's.
            RuntimeError: it has been written before.
            OutputError: the disk is full, or refuses.
        """
        info = self._source.tensors[name]
        if (tuple(tensor.shape), tensor.dtype) != (info.shape, info.dtype):
            raise ValueError(
                f"{name} has to be {list(info.shape)} {info.dtype}, not {list(tensor.shape)} {tensor.dtype}"
            )
        flat = tensor.detach().cpu().contiguous().reshape(-1)  # [numel]: a scalar has no bytes to view, a vector has
        path = self.partial / info.shard
        with self._once(info), _telling(f"{path} cannot be written"), path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), flat.view(torch.uint8).numpy().data, info.start)

    def copy(self, name: str) -> None:
        """Put NEW's bytes of a tensor into their place, from file to file.

        Raises:
            KeyError: NEW has no such tensor.
            RuntimeError: it has been written before.
            OutputError: the disk is full, or refuses, or NEW cannot be read any more.
        """
        info = self._source.tensors[name]
        ours, theirs = self.partial / info.shard, self._source.folder / info.shard
        with (
            self._once(info),
            _telling(f"{theirs} cannot be copied to {ours}"),
            theirs.open("rb", buffering=0) as source,
            ours.open("r+b", buffering=0) as target,
        ):
            copy_range(source.fileno(), target.fileno(), info.start, info.stop)

    def remaining(self) -> tuple[str, ...]:
        """Names of the tensors that are not written yet, in the order of the layout."""
        return tuple(name for name in self._source.tensors if name not in self._done)

    def publish(self, extra: Mapping[str, bytes]) -> Path:
        """Complete ``OUT.partial`` with NEW's side files and ``extra``, make it durable, and let OUT appear.

        Args:
            extra: further files by plain name (the report, a model card); they win over NEW's files of that name.

        Returns:
            OUT's folder.

        Raises:
            RuntimeError: a tensor is not written yet, or OUT has been published before.
            ValueError: ``extra`` holds a path, or the name of a weight file.
            OutputError: the disk is full, or refuses, or somebody else has made OUT meanwhile; OUT is as it was before.
        """
        if self._published or (left := self.remaining()):
            reason = "it has been before" if self._published else f"{len(left)} tensors are missing, such as {left[0]}"
            raise RuntimeError(f"{self.out} cannot be published: {reason}")
        for name in extra:
            if Path(name).name != name or name in (*self._source.shards, self._source.index):
                raise ValueError(f"{name!r} cannot be an extra file")
        for path in self._source.side_files().copied:
            if path.as_posix() not in extra:
                self._carry(path)
        with _telling(f"{self.partial} cannot be written"):
            for name, content in extra.items():
                (self.partial / name).write_bytes(content)
            sync(self.partial)
        if self._source.index is not None:  # last: without it the shards are no checkpoint
            self._carry(Path(self._source.index))
            with _telling(f"{self.partial} cannot be written"):
                sync(self.partial / self._source.index)
                sync_folder(self.partial)
        with _telling(f"{self.partial} cannot be renamed to {self.out}"):
            self._swap()
        return self.out

    def abort(self) -> None:
        """Remove ``OUT.partial``; an OUT that is published stays. Never raises."""
        if not self._published:
            shutil.rmtree(self.partial, ignore_errors=True)

    @contextlib.contextmanager
    def _once(self, info: TensorInfo) -> Iterator[None]:
        """Claim a tensor's place; it counts as written when the block ends without an error."""
        with self._lock:
            if info.name in self._begun:
                raise RuntimeError(f"{info.name} is written twice")
            self._begun.add(info.name)
        yield
        with self._lock:
            self._done.add(info.name)

    def _carry(self, path: Path) -> None:
        """Copy one of NEW's files, by its relative path: the content of what a link points to, ordinary permissions."""
        ours, theirs = self.partial / path, self._source.folder / path
        with _telling(f"{theirs} cannot be copied to {ours}"):
            ours.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(theirs, ours)

    def _swap(self) -> None:
        """Rename ``OUT.partial`` to OUT; an OUT that is there steps aside first, and back if that fails."""
        aside = os.path.lexists(self.out)
        if aside and not self._overwrite:
            raise OutputError(_exists(self.out))
        if aside:
            self.out.rename(self._replaced)
        try:
            self.partial.rename(self.out)
        except BaseException:
            if aside and not os.path.lexists(self.out):
                self._replaced.rename(self.out)
            raise
        self._published = True
        sync_folder(self.out.parent)
        if aside:
            remove(self._replaced)


def check_output(out: str | Path, inputs: Sequence[str | Path], overwrite: bool, *, needed: int = 0) -> None:
    """Whether OUT can be made there; nothing is created, so that a dry run can ask too.

    Args:
        out: the folder to make.
        inputs: the folders of OLD and NEW.
        overwrite: whether an OUT that exists may be replaced.
        needed: bytes that have to be free on the disk.

    Raises:
        OutputError: OUT is, holds or lies in an input; it exists and is not to be replaced; it is to be replaced but is
            a folder of other things; an interrupted run left its own folders there; its parent is missing or cannot be
            written to; the disk is too full.
    """
    out, partial, replaced = _places(out)
    for place in (out, partial, replaced):
        for folder in inputs:
            ours, theirs = place.resolve(), Path(folder).resolve()
            if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
                raise OutputError(
                    f"OUT {place} overlaps the input {folder}, and inputs are never written to: "
                    "choose a folder outside of it."
                )
    with _telling(f"OUT {out} cannot be made"):
        if os.path.lexists(out):
            if not overwrite:
                raise OutputError(_exists(out))
            if out.is_dir() and any(out.iterdir()) and not (out / "config.json").exists():
                raise OutputError(
                    f"OUT {out} holds other things than a checkpoint (it has no config.json), and --overwrite would "
                    "delete them: choose another folder."
                )
        if os.path.lexists(partial):
            raise OutputError(_left_behind(partial))
        if os.path.lexists(replaced):
            raise OutputError(
                f"{replaced} holds the OUT that an interrupted run was about to replace: move it away or delete it."
            )
        if not out.parent.is_dir():
            raise OutputError(
                f"OUT {out} cannot be made, because the folder {out.parent} does not exist: create it first."
            )
        if not os.access(out.parent, os.W_OK | os.X_OK):
            raise OutputError(
                f"OUT {out} cannot be made, because you may not write to {out.parent}: choose another place."
            )
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise OutputError(
                f"OUT {out} needs {_size(needed)} and only {_size(free)} are free there: free some space, or choose "
                "another disk."
            )


def _places(out: str | Path) -> tuple[Path, Path, Path]:
    """OUT, the folder in which it is made, and where an OUT that is replaced waits: absolute, side by side."""
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link that OUT itself may be
    return out, Path(f"{out}.partial"), Path(f"{out}.replaced")


@contextlib.contextmanager
def _telling(failure: str) -> Iterator[None]:
    """Every OSError of the block in a sentence that begins with ``failure``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space, or choose another disk for OUT"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "check the permissions, or choose another place for OUT"
        else:
            remedy = "check the disk, or choose another place for OUT"
        raise OutputError(f"{failure} ({error.strerror or error}): {remedy}.") from error


def _exists(out: Path) -> str:
    return f"OUT {out} exists already: choose another folder, or replace it with --overwrite."


def _left_behind(partial: Path) -> str:
    return f"{partial} is there from another run: delete it if that run is not going on any more."


def _size(count: float) -> str:
    """A number of bytes to read: ``14.2 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"

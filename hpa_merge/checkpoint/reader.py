"""A checkpoint on disk: which files belong to it, whether they are whole, where every tensor lies, and its bytes.

Nothing is loaded when a checkpoint is opened: ``safe_open`` checks the header of each shard against the size of its
file (offsets without gap or overlap, no byte too few or too many), which is all that a merge has to know before it
starts. The pickle formats are never touched.
"""

import contextlib
import io
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, final

import torch

from hpa_merge.checkpoint.content import content_digest
from hpa_merge.checkpoint.files import CHUNK, read_at
from hpa_merge.checkpoint.folder import INDEX, find_shards, read_config
from hpa_merge.checkpoint.overlay import Overlay
from hpa_merge.checkpoint.shard import HEADER_BYTES, TensorInfo, read_layout, unreadable
from hpa_merge.checkpoint.sidefiles import MADE, SideFiles, find_side_files
from hpa_merge.errors import CheckpointError, InputError
from hpa_merge.files.inside import find_inside, open_inside

__all__ = ["Checkpoint"]

TENSORS = 300_000
"""The most tensors of a checkpoint; the largest mixtures of experts have a third of it."""


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint folder whose every file has been checked. :meth:`open` makes one; threads may share it.

    Attributes:
        folder: where it lies, as it was given.
        role: ``"OLD"`` or ``"NEW"``: how the messages call it.
        config: config.json, parsed.
        tensors: by name; in the order of the shards, then of the offsets.
        shards: names of the weight files, sorted.
        index: name of the index file; None where there is a single weight file without one.
        tower: folder of the vision tower that it is read with, where that lies apart; its tensors may be among
            ``tensors``, and are then :attr:`external`.
        overlay: an adapter on top of it; None for what lies on disk as it is.
    """

    folder: Path
    role: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    shards: tuple[str, ...]
    index: str | None
    tower: Path | None = None
    overlay: Overlay | None = None
    _files: dict[str, io.FileIO] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: str | Path, role: str) -> "Checkpoint":
        """Check the folder and place every tensor; nothing is loaded.

        Raises:
            CheckpointError: something is missing, broken, unsafe, or quantised.
        """
        folder = Path(folder)
        config = read_config(folder, role)
        shards, index, weight_map = find_shards(folder, role)
        tensors: dict[str, TensorInfo] = {}
        for shard in shards:
            for info in read_layout(folder, role, shard):
                if len(tensors) == TENSORS:
                    raise CheckpointError(
                        f"{role} {folder} holds more than {TENSORS} tensors, which no model does: "
                        "fetch or save the checkpoint again."
                    )
                twin = tensors.setdefault(info.name, info)
                if twin is not info:
                    raise CheckpointError(
                        f"{role} {folder} holds the tensor {info.name} twice, in {twin.shard} and in {shard}: "
                        "save the model again with save_pretrained."
                    )
        for name, shard in weight_map.items():
            if name not in tensors or tensors[name].shard != shard:
                raise CheckpointError(
                    f"{role} {folder}: {INDEX} says that the tensor {name} is in {shard}, but it is not: "
                    "fetch the index and its shards again, from one and the same revision."
                )
        return cls(folder, role, config, tensors, shards, index)

    @property
    def external(self) -> frozenset[str]:
        """Names of tensors that lie in no file of its own, but in the tower's."""
        return frozenset(name for name, info in self.tensors.items() if info.shard not in self.shards)

    def under(self, overlay: Overlay, role: str) -> "Checkpoint":
        """This checkpoint with an adapter on top, which it belongs to from now on; its files are opened apart."""
        return Checkpoint(self.folder, role, self.config, self.tensors, self.shards, self.index, overlay=overlay)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that is read."""
        return (self.folder,) if self.overlay is None else (self.folder, self.overlay.folder)

    def computes(self, name: str) -> bool:
        """Whether a tensor is another one than lies on disk under its name."""
        return self.overlay is not None and name in self.overlay.keys

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, in memory of its own: as on disk, but for those that :meth:`computes` names.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file cannot be read any more.
        """
        return self.finish(name, self.raw(name))

    def finish(self, name: str, raw: torch.Tensor) -> torch.Tensor:
        """What :meth:`read` gives, from what lies on disk, whose memory may be used again."""
        return self.overlay.compute(name, raw) if self.overlay is not None and self.computes(name) else raw

    def raw(self, name: str) -> torch.Tensor:
        """One tensor on the CPU: shape and dtype as on disk, in memory of its own (``pread``, never a mapped file).

        Other threads run on meanwhile; ``safe_open`` would hold the interpreter lock until the last byte is there.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file cannot be read any more.
        """
        info = self.tensors[name]
        tensor = torch.empty(info.shape, dtype=info.dtype)
        for _ in self.pieces(name, into=tensor):
            pass
        return tensor

    def pieces(self, name: str, nbytes: int = CHUNK, *, into: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
        """The elements of a tensor on disk in order, flat, each piece read when it is asked for; none if it is empty.

        Args:
            nbytes: the most bytes of a piece, which has at least one element.
            into: a contiguous tensor on the CPU with that dtype and number of elements, to read into; its parts are
                yielded. Without it, each piece has its own memory.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file can no longer be read.
        """
        info = self.tensors[name]
        size = info.dtype.itemsize
        numel, step = info.nbytes // size, max(1, nbytes // size)
        for begin in range(0, numel, step):
            count = min(step, numel - begin)
            yield self.piece(name, begin, count, into=None if into is None else into.view(-1)[begin : begin + count])

    def piece(self, name: str, begin: int, count: int, *, into: torch.Tensor | None = None) -> torch.Tensor:
        """The elements ``begin:begin + count`` of a tensor on disk, flat; ``into`` and errors as in :meth:`pieces`."""
        info = self.tensors[name]
        piece = torch.empty(count, dtype=info.dtype) if into is None else into
        try:
            target = piece.view(torch.uint8).numpy().data
            read_at(self.descriptor(info.shard), target, info.start + begin * info.dtype.itemsize)
        except OSError as error:
            raise CheckpointError(
                f"{self.role} {self.folder}: the tensor {name} cannot be read from {info.shard} "
                f"({error.strerror or error}): check the disk, and that nothing changes the folder during a merge."
            ) from error
        return piece

    def descriptor(self, shard: str) -> int:
        """The number of a shard's open file, for reading at an offset; good until :meth:`close`.

        Raises:
            OSError: it cannot be opened any more.
        """
        with self._lock:
            if shard not in self._files:
                self._files[shard] = io.FileIO(self.folder / shard)
            return self._files[shard].fileno()

    def content_digest(self) -> str:
        """What it is known by wherever it lies: :func:`content_digest` of its tensors; of an adapter its own tensors.

        Raises:
            CheckpointError: a file cannot be read any more.
        """
        if self.overlay is not None:
            return self.overlay.content
        try:
            return content_digest(self.tensors.values(), self.descriptor)
        except OSError as error:
            raise CheckpointError(
                f"{self.role} {self.folder}: the weights cannot be read ({error.strerror or error}): check the "
                "disk, and that nothing changes the folder during a merge."
            ) from error

    def header_bytes(self, shard: str) -> bytes:
        """The head of a shard as it is on disk: 8 bytes of length, little-endian, then the JSON with its padding.

        Raises:
            CheckpointError: the file cannot be read any more.
        """
        try:
            with (self.folder / shard).open("rb") as file:
                length = file.read(8)
                return length + file.read(min(HEADER_BYTES, int.from_bytes(length, "little")))
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, shard, error)) from error

    def side_files(self) -> SideFiles:
        """What lies beside the weights, subfolders included; hidden files and an earlier merge's report, page and
        pictures are in neither list. What belongs to a model, and what does not, :mod:`.kinds` says.

        Raises:
            CheckpointError: a subfolder cannot be read.
        """
        return self._side_files if self.overlay is None else self.overlay.files

    @cached_property
    def _side_files(self) -> SideFiles:
        """Those of the folder, which are looked for once."""
        try:
            return find_side_files(self.folder, {*self.shards, self.index or INDEX, *MADE})
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, str(error.filename), error)) from error

    def locate(self, path: Path) -> Path:
        """Where a side file lies, by its relative path: with no link left, for it is its folder's own.

        Raises:
            CheckpointError: it is not, or it is not there.
        """
        folder = self._home(path)
        try:
            return find_inside(folder, path)
        except OSError as error:
            raise CheckpointError(unreadable(folder, self.role, path.as_posix(), error)) from error

    def open_side_file(self, path: Path) -> BinaryIO:
        """A side file, by its relative path, open for reading; see :func:`~hpa_merge.files.inside.open_inside`.

        Raises:
            CheckpointError: it is not its folder's own, or cannot be opened.
        """
        folder = self._home(path)
        try:
            return open_inside(folder, path)
        except OSError as error:
            raise CheckpointError(unreadable(folder, self.role, path.as_posix(), error)) from error

    def _home(self, path: Path) -> Path:
        """The folder that a side file is of: an adapter's, or the checkpoint's."""
        own = self.overlay is not None and path in self.overlay.own
        return self.overlay.folder if self.overlay is not None and own else self.folder

    @contextlib.contextmanager
    def side_folder(self) -> Iterator[Path]:
        """A folder with config.json and all side files that are copied: its own, or one of links for this block.

        Raises:
            CheckpointError: that cannot be made.
        """
        if self.overlay is None or not self.overlay.own:
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="hpa-merge-") as name:
            for path in self.overlay.files.copied:
                (link := Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self.locate(path))
            try:
                yield Path(name)
            except InputError as error:  # its sentence shall speak of a folder that is still there
                raise type(error)(str(error).replace(name, str(self.overlay.folder))) from error

    def close(self) -> None:
        """Close the shards; a later :meth:`read` opens them again."""
        if self.overlay is not None:
            self.overlay.close()
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

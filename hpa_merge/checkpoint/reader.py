"""A checkpoint on disk: which files belong to it, whether they are whole, where every tensor lies, and its bytes.

Opening a checkpoint loads no weights. ``safe_open`` checks the header of each shard against the size of its file
(offsets without gap or overlap, no byte too few or too many). A merge need not know more before it starts. Pickle
formats are never read.
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
from hpa_merge.checkpoint.folder import find_shards, read_config, read_index
from hpa_merge.checkpoint.index import corrected, mistakes
from hpa_merge.checkpoint.overlay import Overlay
from hpa_merge.checkpoint.shard import HEADER_BYTES, TensorInfo, read_layout, reading, unreadable
from hpa_merge.checkpoint.sidefiles import MADE, SideFiles, find_side_files
from hpa_merge.checkpoint.weight_files import INDEX
from hpa_merge.errors import CheckpointError, InputError
from hpa_merge.files.inside import find_inside, open_inside

__all__ = ["Checkpoint"]

TENSORS = 300_000
"""The most tensors of a checkpoint; the largest mixtures of experts have a third of that."""


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint folder whose every file has been checked. :meth:`open` makes one; threads may share it.

    Attributes:
        folder: its folder, as given.
        role: ``"OLD"`` or ``"NEW"``, for messages.
        config: config.json, parsed.
        tensors: by name, in the order of the shards, then of the offsets.
        shards: names of the weight files, sorted.
        index: name of the index file; None for a single weight file.
        own_index: the index that OUT gets, if the folder's is wrong.
        notes: what the user should know of the folder, a sentence each.
        tower: folder of the vision tower, if that is separate; its tensors may be among ``tensors``, and are then
            :attr:`external`.
        overlay: an adapter on top of it, if any.
    """

    folder: Path
    role: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    shards: tuple[str, ...]
    index: str | None
    own_index: bytes | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    tower: Path | None = None
    overlay: Overlay | None = None
    _files: dict[str, io.FileIO] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: str | Path, role: str) -> "Checkpoint":
        """Check the folder and locate every tensor; no weight is loaded.

        Raises:
            CheckpointError: something is missing, broken, unsafe, or quantised.
        """
        folder = Path(folder)
        config = read_config(folder, role)
        shards, index = find_shards(folder, role, config)
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
                        f"{role} {folder} holds the tensor {info.name} twice, in {twin.shard} and in {shard}, and "
                        f"transformers takes the second: load it and save it again with save_pretrained."
                    )
        notes, own_index = [], None
        if index is not None:
            content, parsed = read_index(folder, role, index)
            if wrong := mistakes(content, parsed, tensors):
                own_index = corrected(parsed, tensors)
                anew = ", and OUT's index is written anew" if role == "NEW" else ""
                notes.append(f"{role} {folder}: {index} {'; it '.join(wrong)}{anew}.")
        elif (folder / INDEX).exists():
            notes.append(f"{role} {folder} has {shards[0]} and {INDEX}: transformers loads the first alone, as we do.")
        return cls(folder, role, config, tensors, shards, index, own_index, tuple(notes))

    def index_bytes(self) -> bytes | None:
        """The index that OUT gets; None for a single weight file; raises CheckpointError if it cannot be read."""
        if self.index is None or self.own_index is not None:
            return self.own_index
        return read_index(self.folder, self.role, self.index)[0]

    @property
    def external(self) -> frozenset[str]:
        """Names of tensors that lie in the tower's files, not in its own."""
        return frozenset(name for name, info in self.tensors.items() if info.shard not in self.shards)

    def under(self, overlay: Overlay, role: str) -> "Checkpoint":
        """This checkpoint with an adapter on top, which the result owns; the result opens its own files."""
        own = self.own_index
        return Checkpoint(self.folder, role, self.config, self.tensors, self.shards, self.index, own, overlay=overlay)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that it reads."""
        return (self.folder,) if self.overlay is None else (self.folder, self.overlay.folder)

    def computes(self, name: str) -> bool:
        """Whether a tensor is computed, so that it differs from the one on disk."""
        return self.overlay is not None and name in self.overlay.keys

    def read(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, in memory of its own, computed if :meth:`computes`; raises as :meth:`pieces`."""
        return self.finish(name, self.raw(name))

    def finish(self, name: str, raw: torch.Tensor) -> torch.Tensor:
        """The result of :meth:`read` from the tensor on disk, whose memory may be reused."""
        return self.overlay.compute(name, raw) if self.overlay is not None and self.computes(name) else raw

    def raw(self, name: str) -> torch.Tensor:
        """One tensor on the CPU, as on disk, in memory of its own (``pread``, never a mapped file).

        Other threads run meanwhile; ``safe_open`` would hold the interpreter lock until the last byte is read.
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
        """The file descriptor of a shard, valid until :meth:`close`; raises OSError if it can no longer be opened."""
        with self._lock:
            if shard not in self._files:
                self._files[shard] = io.FileIO(self.folder / shard)
            return self._files[shard].fileno()

    def content_digest(self) -> str:
        """:func:`content_digest` of its tensors; with an adapter, of the adapter's tensors.

        Raises:
            CheckpointError: a file can no longer be read.
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
        """The head of a shard as on disk: 8 bytes of length, little-endian, then the JSON with its padding.

        Raises:
            CheckpointError: the file can no longer be read.
        """
        with reading(self.folder, self.role, shard), (self.folder / shard).open("rb") as file:
            length = file.read(8)
            return length + file.read(min(HEADER_BYTES, int.from_bytes(length, "little")))

    def side_files(self) -> SideFiles:
        """The other files of the folder and its subfolders; :mod:`.kinds` says which of them belong to a model.

        Hidden files, and the report, page and pictures of an earlier merge, are in neither list.

        Raises:
            CheckpointError: a subfolder cannot be read.
        """
        return self._side_files if self.overlay is None else self.overlay.files

    @cached_property
    def _side_files(self) -> SideFiles:
        """The side files of the folder, searched once."""
        try:
            return find_side_files(self.folder, {*self.shards, *filter(None, [self.index]), *MADE})
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, str(error.filename), error)) from error

    def locate(self, path: Path) -> Path:
        """The resolved path of a side file, from its relative path.

        Raises:
            CheckpointError: it does not exist, or a link leads out of the folder.
        """
        with reading(self._home(path), self.role, path.as_posix()):
            return find_inside(self._home(path), path)

    def open_side_file(self, path: Path) -> BinaryIO:
        """Open a side file for reading; arguments and errors as :meth:`locate`."""
        with reading(self._home(path), self.role, path.as_posix()):
            return open_inside(self._home(path), path)

    def _home(self, path: Path) -> Path:
        """The folder of a side file: the adapter's or the checkpoint's."""
        own = self.overlay is not None and path in self.overlay.own
        return self.overlay.folder if self.overlay is not None and own else self.folder

    @contextlib.contextmanager
    def side_folder(self) -> Iterator[Path]:
        """A folder with config.json and all side files that OUT gets: its own, or a temporary folder of links.

        Raises:
            CheckpointError: a side file cannot be read.
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
            except InputError as error:  # the sentence should name a folder that still exists
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

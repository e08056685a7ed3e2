"""A checkpoint on disk: which files belong to it, whether they are whole, where every tensor lies, and its bytes.

Opening a checkpoint loads no weights. ``safe_open`` checks the header of each shard against the size of its file
(offsets without gap or overlap, no byte too few or too many). A merge need not know more before it starts. Pickle
formats are never read.
"""

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, final

from hpa_merge.checkpoint.content import content_digest
from hpa_merge.checkpoint.files import CHUNK, read_at
from hpa_merge.checkpoint.folder import find_shards, read_config, read_index, readable
from hpa_merge.checkpoint.index import corrected, mistakes
from hpa_merge.checkpoint.overlay import Overlay
from hpa_merge.checkpoint.shard import TensorInfo, check_plain, read_head, read_layouts, reading
from hpa_merge.checkpoint.sharing import WHOLE, Share
from hpa_merge.checkpoint.sidefiles import MADE, SideFiles, find_side_files, links
from hpa_merge.checkpoint.unreadable import unreadable
from hpa_merge.checkpoint.weight_files import INDEX
from hpa_merge.custom_code.finding import Code
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import find_inside, open_inside
from hpa_merge.quantisation import SIDE_FILES, configurations

if TYPE_CHECKING:  # torch is not needed to open a checkpoint that is not quantised
    import torch

    from hpa_merge.checkpoint.unpacking import Unpacking
    from hpa_merge.quantisation import Header

__all__ = ["Checkpoint"]


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
        index: name of the index file, or of a planned adapter's adapter_config.json; None for a single weight file.
        own_index: the content of ``index`` in OUT, if that is not the folder's.
        notes: what the user should know of the folder, a sentence each.
        tower: folder of the vision tower, if that is separate; its tensors may be among ``tensors``, and are then
            :attr:`external`.
        overlay: an adapter on top of it, if any.
        code: the code that it brings, if that is trusted.
        unpacking: how its tensors follow from those on disk, if it is quantised or read in another dtype; ``tensors``
            and ``shards`` are then those that OUT gets.
        heads: of shards that are not on disk yet, by name.
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
    code: Code | None = None
    unpacking: "Unpacking | None" = field(default=None, repr=False)
    heads: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    _files: dict[str, io.FileIO] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(cls, folder: str | Path, role: str) -> "Checkpoint":
        """Check the folder and locate every tensor; no weight is loaded.

        Raises:
            CheckpointError: something is missing, broken, unsafe, or quantised in a way that is not read here.
        """
        folder = Path(folder)
        config = read_config(folder, role)
        shards, index = find_shards(folder, role, config)
        tensors = read_layouts(folder, role, shards)
        notes, own_index = [], None
        if index is not None:
            content, parsed = read_index(folder, role, index)
            if wrong := mistakes(content, parsed, tensors):
                own_index = corrected(parsed, tensors)
                anew = ", and OUT's index is written anew" if role == "NEW" else ""
                notes.append(f"{role} {folder}: {index} {'; it '.join(wrong)}{anew}.")
        elif (folder / INDEX).exists():
            notes.append(f"{role} {folder} has {shards[0]} and {INDEX}: transformers loads the first alone, as we do.")
        checkpoint = cls(folder, role, config, tensors, shards, index, own_index, tuple(notes))
        if (found := next(configurations(config), None)) is not None:
            from hpa_merge.checkpoint.unpacking import unpack

            key, described = found
            with checkpoint, readable(folder, role, key, described):
                unpacking = unpack(config, described, tensors, checkpoint.raw)
            checkpoint = checkpoint.unpacked(unpacking)
        check_plain(folder, role, checkpoint.tensors.values())
        return checkpoint

    def index_bytes(self) -> bytes | None:
        """The index that OUT gets; None for a single weight file; raises CheckpointError if it cannot be read."""
        if self.index is None or self.own_index is not None:
            return self.own_index
        return read_index(self.folder, self.role, self.index)[0]

    def unpacked(self, unpacking: "Unpacking") -> "Checkpoint":
        """This checkpoint with other tensors; the result opens its own files."""
        return replace(
            self,
            config=unpacking.config(self.config),
            tensors=unpacking.tensors,
            shards=unpacking.shards,
            own_index=None if self.index is None else corrected({}, unpacking.tensors),
            unpacking=unpacking,
            _files={},
            _lock=threading.Lock(),
        )

    def read_as(self, dtype: "torch.dtype", kept: Callable[[str], bool] = lambda name: False) -> "Checkpoint":
        """This checkpoint without a tower, in another dtype except for those tensors that ``kept`` names."""
        from hpa_merge.checkpoint.unpacking import cast

        return self.unpacked(cast(self.tensors, self.unpacking, dtype, kept))

    @property
    def header(self) -> "Header":
        """Dtype and shape of each tensor as it is read, by name."""
        return {name: (info.dtype, info.shape) for name, info in self.tensors.items()}

    @property
    def external(self) -> frozenset[str]:
        """Names of tensors that lie in the tower's files, not in its own."""
        return frozenset(name for name, info in self.tensors.items() if info.shard not in self.shards)

    def under(self, overlay: Overlay, role: str) -> "Checkpoint":
        """This checkpoint with an adapter on top, which the result owns; the result opens its own files."""
        return replace(self, role=role, overlay=overlay, notes=overlay.notes, _files={}, _lock=threading.Lock())

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that it reads."""
        return (self.folder,) if self.overlay is None else (self.folder, self.overlay.folder)

    @property
    def disk_shards(self) -> tuple[str, ...]:
        """The names of the weight files in its folder, sorted."""
        return self.shards if self.unpacking is None else self.unpacking.disk_shards

    @property
    def workspace(self) -> int:
        """The most bytes that computing a tensor takes in addition to the tensors that are read and the result."""
        return sum(each.workspace for each in (self.overlay, self.unpacking) if each is not None)

    @property
    def dequantised(self) -> str:
        """How many of its weights are stored in few bits, and how; empty for none."""
        return "" if self.unpacking is None else self.unpacking.dequantised

    @property
    def dtype(self) -> str:
        """The dtype in which it is read, by name; empty for that of its tensors on disk."""
        return "" if self.unpacking is None else str(self.unpacking.dtype).removeprefix("torch.")

    def computes(self, name: str) -> bool:
        """Whether a tensor is computed, so that it differs from the one on disk."""
        return self._is_unpacked(name) or (self.overlay is not None and name in self.overlay.keys)

    def _is_unpacked(self, name: str) -> bool:
        return self.unpacking is not None and name in self.unpacking.recipes

    def parts(self, name: str) -> tuple[TensorInfo, ...]:
        """The places on disk of what :meth:`finish` needs for a tensor: its own, or several for a computed one."""
        if self.unpacking is None or (name in self.tensors and name not in self.unpacking.tensors):
            return (self.tensors[name],)
        recipe = self.unpacking.recipes.get(name)
        names = (name,) if recipe is None else recipe.parts.values()
        return tuple(self.unpacking.stored[each] for each in names)

    def read(self, name: str) -> "torch.Tensor":
        """One tensor on the CPU, in memory of its own, computed if :meth:`computes`; raises as :meth:`pieces`."""
        return self.finish(name, self.read_parts(name))

    def finish(self, name: str, parts: "Sequence[torch.Tensor]") -> "torch.Tensor":
        """The result of :meth:`read` from the tensors of :meth:`parts`, whose memory may be reused.

        Raises:
            CheckpointError: they do not make a tensor of that shape.
            NumericalError: the tensor does not fit its dtype.
        """
        raw = self._unpack(name, parts)
        return raw if self.overlay is None or name not in self.overlay.keys else self.overlay.compute(name, raw)

    def raw(self, name: str) -> "torch.Tensor":
        """One tensor on the CPU without an adapter, in memory of its own (``pread``, never a mapped file).

        Other threads run meanwhile; ``safe_open`` would hold the interpreter lock until the last byte is read.
        """
        return self._unpack(name, self.read_parts(name))

    def read_parts(self, name: str, share: Share = WHOLE) -> "list[torch.Tensor]":
        """What is on disk of the :meth:`parts` of a tensor; a ``share`` of it is flat. Raises as :meth:`pieces`."""
        parts = []
        for info in self.parts(name):
            parts.append(share.empty(info))
            for _ in self.stored_pieces(info, into=parts[-1], share=share):
                pass
        return parts

    def _unpack(self, name: str, parts: "Sequence[torch.Tensor]") -> "torch.Tensor":
        if self.unpacking is None or not self._is_unpacked(name):
            return parts[0]
        return self.unpacking.compute(name, parts, self.role, self.folder)

    def pieces(self, name: str, nbytes: int = CHUNK) -> "Iterator[torch.Tensor]":
        """The elements of a tensor in order, flat and without an adapter, in pieces; none if it is empty.

        Each piece is read when it is asked for. A tensor that is unpacked is computed as a whole.

        Args:
            nbytes: the most bytes of a piece, which has at least one element.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file can no longer be read.
        """
        if not self._is_unpacked(name):
            yield from self.stored_pieces(*self.parts(name), nbytes=nbytes)
        elif self.tensors[name].nbytes:
            yield from self.raw(name).view(-1).split(max(1, nbytes // self.tensors[name].dtype.itemsize))

    def piece(self, name: str, begin: int, count: int) -> "torch.Tensor":
        """The elements ``begin:begin + count`` of a tensor, as :meth:`pieces` gives them."""
        if self._is_unpacked(name):
            return self.raw(name).view(-1)[begin : begin + count]
        return self._stored_piece(self.parts(name)[0], begin, count)

    def stored_pieces(
        self, info: TensorInfo, *, nbytes: int = CHUNK, into: "torch.Tensor | None" = None, share: Share = WHOLE
    ) -> "Iterator[torch.Tensor]":
        """The elements of a tensor on disk in order, flat, each piece read when it is asked for; none if it is empty.

        Args:
            info: one of :meth:`parts`.
            nbytes: the most bytes of a piece, which has at least one element.
            into: a contiguous tensor on the CPU with that dtype and number of elements, to read into; its parts are
                yielded. Without it, each piece has its own memory.
            share: the part of the tensor that is read.

        Raises:
            CheckpointError: its file can no longer be read.
        """
        size = info.dtype.itemsize
        (first, numel), step = share.of(info.nbytes // size), max(1, nbytes // size)
        for begin in range(0, numel, step):
            count = min(step, numel - begin)
            target = None if into is None else into.view(-1)[begin : begin + count]
            yield self._stored_piece(info, first + begin, count, target)

    def _stored_piece(
        self, info: TensorInfo, begin: int, count: int, into: "torch.Tensor | None" = None
    ) -> "torch.Tensor":
        """The elements ``begin:begin + count`` of a tensor on disk, flat; ``into`` as in :meth:`stored_pieces`."""
        import torch

        piece = torch.empty(count, dtype=info.dtype) if into is None else into
        try:
            target = piece.view(torch.uint8).numpy().data
            read_at(self.descriptor(info.shard), target, info.start + begin * info.dtype.itemsize)
        except OSError as error:
            raise CheckpointError(
                f"{self.role} {self.folder}: the tensor {info.name} cannot be read from {info.shard} "
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
        """:func:`content_digest` of its tensors as they are on disk; with an adapter, of the adapter's tensors.

        Raises:
            CheckpointError: a file can no longer be read.
        """
        if self.overlay is not None:
            return self.overlay.content
        try:
            stored = self.tensors if self.unpacking is None else self.unpacking.stored
            return content_digest(stored.values(), self.descriptor)
        except OSError as error:
            raise CheckpointError(
                f"{self.role} {self.folder}: the weights cannot be read ({error.strerror or error}): check the "
                "disk, and that nothing changes the folder during a merge."
            ) from error

    def header_bytes(self, shard: str) -> bytes:
        """The head of a shard of OUT: 8 bytes of length, little-endian, then the JSON with its padding.

        Raises CheckpointError if the file can no longer be read.
        """
        if shard in self.heads:
            return self.heads[shard]
        return self.disk_header(shard) if self.unpacking is None else self.unpacking.heads[shard]

    def disk_header(self, shard: str) -> bytes:
        """The head of a shard as on disk; errors as :meth:`header_bytes`."""
        with reading(self.folder, self.role, shard):
            return read_head(self.folder / shard)

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
            found = find_side_files(self.folder, {*self.disk_shards, *filter(None, [self.index]), *MADE})
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, str(error.filename), error)) from error
        return found if self.unpacking is None or not self.unpacking.library else found.without(SIDE_FILES)

    def locate(self, path: Path) -> Path:
        """The resolved path of a side file, from its relative path.

        Raises CheckpointError if it does not exist, or if a link leads out of the folder.
        """
        with reading(self._home(path), self.role, path.as_posix()):
            return find_inside(self._home(path), path)

    def open_side_file(self, path: Path) -> BinaryIO:
        """Open a side file as OUT gets it; arguments and errors as :meth:`locate`.

        With an unpacking, config.json says what the tensors are then.
        """
        if (changed := self._changed(path)) is not None:
            return io.BytesIO(changed)
        with reading(self._home(path), self.role, path.as_posix()):
            return open_inside(self._home(path), path)

    def _changed(self, path: Path) -> bytes | None:
        """The content of a side file that OUT gets another one of; None of any other."""
        if self.unpacking is None or path.as_posix() != "config.json":
            return None
        from hpa_merge.checkpoint.unpacking import config_bytes

        return config_bytes(self.config)

    def _home(self, path: Path) -> Path:
        """The folder of a side file: the adapter's or the checkpoint's."""
        return self.overlay.folder if self.overlay is not None and path in self.overlay.own else self.folder

    @contextlib.contextmanager
    def side_folder(self) -> Iterator[Path]:
        """A folder with config.json and all side files that OUT gets: its own, or a temporary one with links.

        Raises CheckpointError if a side file cannot be read.
        """
        own = () if self.overlay is None else self.overlay.own
        if not own and self.unpacking is None:
            yield self.folder
            return
        home = self.folder if self.overlay is None else self.overlay.folder
        with links({path: self._changed(path) or self.locate(path) for path in self.side_files().copied}, home) as made:
            yield made

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

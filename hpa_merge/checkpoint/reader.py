"""A checkpoint on disk: which files belong to it, whether they are whole, where every tensor lies, and its bytes.

Nothing is loaded when a checkpoint is opened: ``safe_open`` checks the header of each shard against the size of its
file (offsets without gap or overlap, no byte too few or too many), which is all that a merge has to know before it
starts. The pickle formats are never touched.
"""

import io
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from hpa_merge.checkpoint.files import CHUNK, read_at
from hpa_merge.checkpoint.shard import TensorInfo, read_layout, unreadable
from hpa_merge.checkpoint.sidefiles import SideFiles, find_side_files
from hpa_merge.errors import CheckpointError

__all__ = ["INDEX", "REPORT", "Checkpoint", "read_config"]

INDEX = "model.safetensors.index.json"
REPORT = "hpa_report.json"

JSON_BYTES = 10**8
"""The longest config.json or index that is read: of real ones, the longest index has 10 MB."""

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
    """

    folder: Path
    role: str
    config: dict[str, Any]
    tensors: dict[str, TensorInfo]
    shards: tuple[str, ...]
    index: str | None
    tower: Path | None = None
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
        shards, index, weight_map = _find_shards(folder, role)
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

    def read(self, name: str) -> torch.Tensor:
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
        """The elements of one tensor in their order, flat, each piece read when it is come to; none where it is empty.

        Args:
            nbytes: of a piece at most, in whole elements, of which it has at least one.
            into: a contiguous tensor on the CPU, of that dtype and number of elements: its parts are filled and given,
                in the place of memory of their own.

        Raises:
            KeyError: there is no such tensor.
            CheckpointError: its file cannot be read any more.
        """
        info = self.tensors[name]
        size = info.dtype.itemsize
        numel, step = info.nbytes // size, max(1, nbytes // size)
        for begin in range(0, numel, step):
            count = min(step, numel - begin)
            piece = torch.empty(count, dtype=info.dtype) if into is None else into.view(-1)[begin : begin + count]
            try:
                target = piece.view(torch.uint8).numpy().data
                read_at(self.descriptor(info.shard), target, info.start + begin * size)
            except OSError as error:
                raise CheckpointError(
                    f"{self.role} {self.folder}: the tensor {name} cannot be read from {info.shard} "
                    f"({error.strerror or error}): check the disk, and that nothing changes the folder during a merge."
                ) from error
            yield piece

    def descriptor(self, shard: str) -> int:
        """The number of a shard's open file, for reading at an offset; good until :meth:`close`.

        Raises:
            OSError: it cannot be opened any more.
        """
        with self._lock:
            if shard not in self._files:
                self._files[shard] = io.FileIO(self.folder / shard)
            return self._files[shard].fileno()

    def header_bytes(self, shard: str) -> bytes:
        """The head of a shard as it is on disk: 8 bytes of length, little-endian, then the JSON with its padding.

        Raises:
            CheckpointError: the file cannot be read any more.
        """
        try:
            with (self.folder / shard).open("rb") as file:
                length = file.read(8)
                return length + file.read(int.from_bytes(length, "little"))
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, shard, error)) from error

    def side_files(self) -> SideFiles:
        """What lies beside the weights, subfolders included; hidden files and an earlier report are in neither list.

        Raises:
            CheckpointError: a subfolder cannot be read.
        """
        try:
            return find_side_files(self.folder, {*self.shards, self.index or INDEX, REPORT})
        except OSError as error:
            raise CheckpointError(unreadable(self.folder, self.role, str(error.filename), error)) from error

    def close(self) -> None:
        """Close the shards; a later :meth:`read` opens them again."""
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_config(folder: Path, role: str) -> dict[str, Any]:
    """config.json of a folder that holds an unquantised model.

    Raises:
        CheckpointError: it is missing, broken, or says that the model is quantised.
    """
    if folder.is_file():
        raise CheckpointError(f"{role} {folder} is a file: give the folder that it lies in.")
    if not folder.is_dir():
        raise CheckpointError(f"{role} {folder} does not exist: give a folder in Hugging Face layout.")
    _refuse_devices(folder, role)
    path = folder / "config.json"
    if not _present(path):
        if (folder / "adapter_config.json").exists():
            raise CheckpointError(_adapter(folder, role))
        raise CheckpointError(
            f"{role} {folder} has no config.json: give a folder in Hugging Face layout, as save_pretrained writes it."
        )
    config = _read_json(folder, role, "config.json")
    try:
        quantised = list(_quantisations(config))
    except RecursionError as error:
        raise CheckpointError(
            f"{role} {folder}: config.json is nested too deeply: fetch or save the checkpoint again."
        ) from error
    for key, found in quantised:
        method = found.get("quant_method", "unknown") if isinstance(found, dict) else found
        raise CheckpointError(
            f"{role} {folder} is quantised ({key} in config.json, method {method}): "
            "give the checkpoint in bfloat16, float16 or float32, dequantised with dequantize() if there is no other."
        )
    return config


def _find_shards(folder: Path, role: str) -> tuple[tuple[str, ...], str | None, dict[str, str]]:
    """The weight files, sorted; the index file's name, if there is one; and what that says: tensor to shard."""
    if _present(folder / INDEX):
        weight_map = _read_json(folder, role, INDEX).get("weight_map")
        if not (isinstance(weight_map, dict) and weight_map and all(isinstance(s, str) for s in weight_map.values())):
            raise CheckpointError(
                f"{role} {folder}: {INDEX} has no weight_map from tensors to files: fetch or save the checkpoint again."
            )
        shards = tuple(sorted(set(weight_map.values())))
        for shard in shards:
            if shard in ("", ".", "..") or any(sign in shard for sign in "/\\\0"):
                raise CheckpointError(
                    f"{role} {folder}: {INDEX} points to {shard!r}, and only files directly in the folder are read: "
                    "use an index whose weight_map holds plain file names."
                )
            if not _exists(folder / shard):
                raise CheckpointError(
                    f"{role} {folder}: the shard {shard} is missing, though {INDEX} names it: "
                    "fetch the checkpoint again, completely."
                )
        return shards, INDEX, weight_map

    found = sorted(path.name for path in folder.glob("[!.]*.safetensors") if not path.is_dir())
    if "model.safetensors" in found:
        found = ["model.safetensors"]
    if found == ["adapter_model.safetensors"] and (folder / "adapter_config.json").exists():
        raise CheckpointError(_adapter(folder, role))
    if len(found) > 1:
        raise CheckpointError(
            f"{role} {folder} has {len(found)} *.safetensors files ({found[0]} …) and no {INDEX} that says which "
            "belong together: add the index, or leave one file."
        )
    if not found:
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise CheckpointError(
                f"{role} {folder} has no *.safetensors file, only {pickles[0]}, and pickles are not read: convert it, "
                "with from_pretrained and then save_pretrained of transformers."
            )
        raise CheckpointError(f"{role} {folder} has no *.safetensors file: fetch or save the checkpoint again.")
    return tuple(found), None, {}


def _read_json(folder: Path, role: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder that holds an object."""
    try:
        with (folder / name).open("rb") as file:
            raw = file.read(JSON_BYTES + 1)
        if len(raw) > JSON_BYTES:
            raise CheckpointError(
                f"{role} {folder}: {name} is longer than {JSON_BYTES} bytes: fetch or save the checkpoint again."
            )
        content = json.loads(raw, object_pairs_hook=_without_doubles if name == INDEX else None)
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{role} {folder}: {name} is not valid JSON ({error}): fetch or save the checkpoint again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{role} {folder}: {name} holds a JSON {type(content).__name__} instead of an object: "
            "fetch or save the checkpoint again."
        )
    return content


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ; other programs could take the other one of two equal ones."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"the key {Counter(key for key, _ in pairs).most_common(1)[0][0]!r} stands in it twice")
    return content


def _quantisations(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every ``quantization_config`` that is not empty, however deep (a text_config's, say), with its dotted name."""
    for key, value in config.items():
        if key == "quantization_config" and value:
            yield prefix + key, value
        elif isinstance(value, dict):
            yield from _quantisations(value, f"{prefix}{key}.")


def _present(path: Path) -> bool:
    """Whether the folder has such an entry; a broken link is one, and reading it then says so."""
    return path.is_symlink() or path.exists()


def _exists(path: Path) -> bool:
    """``path.exists()``, also for a name that is too long for the file system."""
    try:
        return path.exists()
    except OSError:
        return False


def _refuse_devices(folder: Path, role: str) -> None:
    """See that nothing in the folder makes a reader wait or read without an end: a pipe, a socket, a device.

    Raises:
        CheckpointError: there is such a thing, or the folder cannot be read.
    """
    try:
        for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
            if path.exists() and not (path.is_file() or path.is_dir()):
                raise CheckpointError(
                    f"{role} {folder} holds {path.name}, which is neither a file nor a folder: remove it."
                )
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, "the folder", error)) from error


def _adapter(folder: Path, role: str) -> str:
    return (
        f"{role} {folder} holds a PEFT adapter without its model: merge it into its base first, with "
        "merge_and_unload() and then save_pretrained()."
    )

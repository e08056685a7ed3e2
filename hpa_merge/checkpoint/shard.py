"""Weight files: the place of every tensor in them, and what can be wrong with one."""

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, final

from safetensors import SafetensorError, safe_open

from hpa_merge.checkpoint.unreadable import unreadable
from hpa_merge.errors import CheckpointError
from hpa_merge.files.inside import NotInside
from hpa_merge.files.parsing import INDEX, parse_json

if TYPE_CHECKING:  # torch is not needed to know where a tensor lies
    import torch

__all__ = [
    "HEADER_BYTES",
    "TensorInfo",
    "check_plain",
    "lay_out",
    "read_head",
    "read_layout",
    "read_layouts",
    "reading",
]

TENSORS = 300_000
"""The most tensors of a checkpoint; the largest mixtures of experts have a third of that."""


@final
@dataclass(frozen=True)
class Stored:
    """A dtype on disk.

    Attributes:
        name: what torch calls it.
        itemsize: its bytes.
    """

    name: str
    itemsize: int

    @property
    def is_floating_point(self) -> bool:
        """Whether it may hold NaN or infinity in a checkpoint that is not quantised."""
        return self.name in ("bfloat16", "float16", "float32", "float64")


DTYPES = {
    "BF16": Stored("bfloat16", 2),
    "F16": Stored("float16", 2),
    "F32": Stored("float32", 4),
    "F64": Stored("float64", 8),
    "C64": Stored("complex64", 8),
    "BOOL": Stored("bool", 1),
    "I8": Stored("int8", 1),
    "I16": Stored("int16", 2),
    "I32": Stored("int32", 4),
    "I64": Stored("int64", 8),
    "U8": Stored("uint8", 1),
    "U16": Stored("uint16", 2),
    "U32": Stored("uint32", 4),
    "U64": Stored("uint64", 8),
}
"""The dtypes of a checkpoint that is not quantised, by name in the header."""

QUANTISED = {
    "F8_E4M3": Stored("float8_e4m3fn", 1),
    "F8_E5M2": Stored("float8_e5m2", 1),
    "F8_E8M0": Stored("float8_e8m0fnu", 1),
}
"""The dtypes of eight bits that quantised checkpoints hold."""

CODES = {stored.name: code for code, stored in {**DTYPES, **QUANTISED}.items()}
"""The name in the header of each dtype, by torch's name."""

ORDER = (
    *("uint64", "int64", "float64", "complex64", "float32", "uint32", "int32"),
    *("bfloat16", "float16", "uint16", "int16"),
    *("float8_e8m0fnu", "float8_e4m3fn", "float8_e5m2", "int8", "uint8", "bool"),
)
"""The order of dtypes in a shard that safetensors writes; tensors of one dtype are in the order of their names."""

METADATA = {"format": "pt"}
"""What transformers writes into the head of a shard, and expects there."""

HEADER_BYTES = 2**25
"""The longest header that is read: 32 MiB hold 250,000 tensors; safetensors itself reads up to three times as much."""

AXES = 16
"""The most axes of a tensor."""


@final
@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: bytes ``start:stop`` of the file ``shard``."""

    name: str
    shard: str
    stored: Stored
    shape: tuple[int, ...]
    start: int
    stop: int

    @cached_property
    def dtype(self) -> "torch.dtype":
        """Its dtype as torch has it."""
        import torch

        dtype: torch.dtype = getattr(torch, self.stored.name)
        return dtype

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


def read_layout(folder: Path, role: str, shard: str) -> Iterator[TensorInfo]:
    """Every tensor of one shard, by offset; a header that passed ``safe_open`` leaves no gap between two tensors.

    Raises:
        CheckpointError: the file cannot be read, is broken or not whole, or has a dtype that nothing here reads.
    """
    path = folder / shard
    try:
        _check_link(path)
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
        if HEADER_BYTES < start <= path.stat().st_size:
            raise CheckpointError(
                f"{role} {folder}: {shard} has a header of {start} bytes, and none is longer than {HEADER_BYTES}: "
                "fetch or save the checkpoint again."
            )
        with safe_open(path, "np", backend="pread") as handle:
            views = [(name, handle.get_slice(name)) for name in handle.offset_keys()]
            layout = [(name, view.get_dtype(), tuple(view.get_shape())) for name, view in views]
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, shard, error)) from error
    except SafetensorError as error:
        raise CheckpointError(f"{role} {folder}: {_diagnose(path, error)}") from error

    for name, code, shape in layout:
        stored = DTYPES.get(code) or QUANTISED.get(code)
        if stored is None:
            raise CheckpointError(_unexplained(folder, role, name, shard, code))
        if len(shape) > AXES or prod(size or 1 for size in shape) >= 2**60:  # an empty tensor may claim any size
            raise CheckpointError(
                f"{role} {folder}: the tensor {name} in {shard} has an impossible shape: "
                "fetch or save the checkpoint again."
            )
        stop = start + prod(shape) * stored.itemsize
        yield TensorInfo(name=name, shard=shard, stored=stored, shape=shape, start=start, stop=stop)
        start = stop


def read_layouts(folder: Path, role: str, shards: Iterable[str]) -> dict[str, TensorInfo]:
    """Every tensor of a checkpoint by name, in the order of the shards, then of the offsets.

    Raises:
        CheckpointError: as :func:`read_layout`; or there are too many tensors, or one in two shards.
    """
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
                    "transformers takes the second: load it and save it again with save_pretrained."
                )
    return tensors


def lay_out(tensors: "Mapping[str, tuple[torch.dtype, tuple[int, ...]]]", shard: str) -> tuple[bytes, list[TensorInfo]]:
    """The head of a new weight file, byte for byte as safetensors writes it, and where each of its tensors lies.

    The head is 8 bytes of length, little-endian, then JSON with blanks up to a multiple of 8 bytes.

    Args:
        tensors: dtype and shape of each, by name, in any order.
        shard: the name of the file.
    """
    header: dict[str, object] = {"__metadata__": METADATA}
    places, offset = [], 0
    named = [(str(dtype).removeprefix("torch."), name, shape) for name, (dtype, shape) in tensors.items()]
    for dtype, name, shape in sorted(named, key=lambda each: (ORDER.index(each[0]), each[1])):
        code = CODES[dtype]
        stored = DTYPES.get(code) or QUANTISED[code]
        stop = offset + prod(shape) * stored.itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, stop]}
        places.append((name, stored, shape, offset, stop))
        offset = stop
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    start = 8 + len(content)
    infos = [TensorInfo(name, shard, stored, shape, start + a, start + b) for name, stored, shape, a, b in places]
    return len(content).to_bytes(8, "little") + content, infos


def check_plain(folder: Path, role: str, infos: Iterable[TensorInfo]) -> None:
    """Raise CheckpointError if one of the tensors is quantised, as no configuration says how."""
    for info in infos:
        code, stored = CODES[info.stored.name], info.stored
        packed = not stored.is_floating_point and stored.name not in ("bool", "complex64")
        if code in QUANTISED or (packed and "weight" in info.name.rpartition(".")[2]):
            raise CheckpointError(_unexplained(folder, role, info.name, info.shard, code))


def _unexplained(folder: Path, role: str, name: str, shard: str, code: str) -> str:
    """The sentence for a tensor in few bits that no configuration explains."""
    return (
        f"{role} {folder} is quantised (the tensor {name} in {shard} is {code}), and nothing says how: give the "
        "checkpoint in bfloat16, float16 or float32, or its config.json with the quantization_config."
    )


def _check_link(path: Path) -> None:
    """Raise NotInside unless a shard is a regular file; a link may lead anywhere but to an empty file, as in /proc."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or (path.is_symlink() and not status.st_size):
        raise NotInside("it does not lead to a file with weights", path)


def _diagnose(path: Path, error: SafetensorError) -> str:
    """What is wrong with a shard that ``safe_open`` refused, and the remedy: the end of a sentence."""
    with path.open("rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        header = file.read(min(length, HEADER_BYTES))
    if head == b"version ":
        return f"{path.name} is a Git LFS pointer instead of weights: run git lfs pull in the folder."
    try:
        if len(header) < length:
            raise ValueError("the header is longer than the file, or than any")
        entries = {name: entry for name, entry in parse_json(header, INDEX).items() if name != "__metadata__"}
        stop = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (AttributeError, TypeError, ValueError, LookupError, OverflowError):
        return f"{path.name} has a broken header ({error}): fetch or save the checkpoint again."
    expected, found = 8 + length + stop, path.stat().st_size
    if found < expected:
        return f"{path.name} is truncated ({found} bytes of {expected}): fetch or save the checkpoint again."
    if found > expected:
        return f"{path.name} is too long ({found} bytes instead of {expected}): fetch or save the checkpoint again."
    return f"{path.name} has a broken header ({error}): fetch or save the checkpoint again."


@contextmanager
def reading(folder: Path, role: str, name: str) -> Iterator[None]:
    """Raise an OSError of the block as a CheckpointError with the sentence of :func:`unreadable`."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(unreadable(folder, role, name, error)) from error


def read_head(path: Path) -> bytes:
    """The head of a weight file: 8 bytes of length, little-endian, then the JSON with its padding; raises OSError."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(min(HEADER_BYTES, int.from_bytes(length, "little")))

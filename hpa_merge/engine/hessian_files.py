"""The Hessians of one model, kept next to a statistics file: a file for each unit, written as soon as the unit has run.

They take far more room than the diagonals, so they are kept only where that is asked for, and are read unit by unit. In
the folder ``STATS.hessians``, a file is named by its half, by what the half depends on, and by its unit. It is a
safetensors file with the tokens of an input, or the triangle of their Gram matrix, whichever is smaller. The statistics
file has the SHA-256 of each, so that files of an interrupted run, or of another one, are never read for these.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from safetensors import safe_open
from torch import Tensor

from hpa_merge.core import Hessian
from hpa_merge.core.gathered import Recent, pack_triangle, triangle_bytes, unpack_triangle
from hpa_merge.engine.statistics_place import folder_of
from hpa_merge.errors import OutputError
from hpa_merge.files.disk import replacing
from hpa_merge.files.parsing import INDEX, parse_json
from hpa_merge.files.statistics import telling_damage
from hpa_merge.outline import LinearTensor, Unit

__all__ = ["HessianFiles", "needed_for", "remove_others"]

MARK = "hpa-merge Hessians"
"""The only key of a file's metadata."""

OURS = re.compile(r"(safety|task)-[0-9a-f]{16}-[0-9a-f]{16}\.safetensors")
"""The names of the files."""

DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
"""What a dtype is called in the header of a safetensors file; sorted by size, so that each tensor lies aligned."""


def needed_for(tokens: int, columns: int, itemsize: int) -> int:
    """The most bytes that an input of so many tokens takes in the files."""
    return min(tokens * columns * itemsize, triangle_bytes(columns))


@final
@dataclass(frozen=True)
class _Unit:
    """One unit's file, written or checked.

    Attributes:
        name: of the unit.
        said: what is said of each linear, by name.
        made: the Hessians by the tensor's name, if they were written a moment ago.
        recent: those that were used last, likewise.
    """

    name: str
    said: Mapping[str, Any]
    made: Mapping[str, Hessian] = field(default_factory=dict)
    recent: Recent[str] = field(default_factory=Recent)


@final
class HessianFiles:
    """The files of one half: ``safety`` or ``task``.

    Attributes:
        written: SHA-256 and size of each file that is complete, by the unit's name.
    """

    def __init__(
        self,
        stats: Path,
        purpose: str,
        fingerprint: Mapping[str, Any],
        columns: Mapping[str, int],
        device: torch.device,
    ) -> None:
        """``fingerprint``: what the half depends on; ``columns``: ``c`` of each linear; ``device``: where they go."""
        self.written: dict[str, tuple[str, int]] = {}
        self._folder = folder_of(stats)
        state = json.dumps([purpose, fingerprint], sort_keys=True)
        self._prefix = f"{purpose}-{hashlib.sha256(state.encode()).hexdigest()[:16]}-"
        self._columns = columns
        self._device = device
        self._unit: _Unit | None = None

    def has(self, unit: str) -> bool:
        """Whether the file of a unit is there, with the size that it was written with."""
        if unit not in self.written:
            return False
        with suppress(OSError):
            return self._path(unit).stat().st_size == self.written[unit][1]
        return False

    def write(self, unit: Unit, hessians: Mapping[str, Hessian]) -> None:
        """Write the Hessians of a unit, by the linear's name; what linears share is written once.

        Raises:
            OutputError: the disk refuses.
        """
        distinct = sorted(dict.fromkeys(hessians.values()), key=lambda h: -_kept(h).element_size())
        places = {hessian: str(place) for place, hessian in enumerate(distinct)}
        said = {
            name: {"tensor": places[h], "triangle": h.gram is not None, "scale": h.scale, "damp": h.damp}
            for name, h in hessians.items()
        }
        header: dict[str, Any] = {"__metadata__": {MARK: json.dumps(said)}}
        end = 0
        for hessian, place in places.items():
            shape = _stored_shape(hessian)
            begin, end = end, end + math.prod(shape) * _kept(hessian).element_size()
            header[place] = {"dtype": DTYPES[_kept(hessian).dtype], "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        state, path = hashlib.sha256(), self._path(unit.name)
        try:
            self._folder.mkdir(exist_ok=True)
            with replacing(path) as file:
                beginning = len(text).to_bytes(8, "little") + text
                for piece in itertools.chain[bytes | memoryview]((beginning,), map(_bytes, distinct)):
                    state.update(piece)
                    file.write(piece)
        except OSError as error:
            raise OutputError(
                f"the Hessians {path} cannot be written ({error.strerror or error}): check the disk and the "
                "permissions; the same command with --resume continues."
            ) from error
        self.written[unit.name] = state.hexdigest(), 8 + len(text) + end
        self._unit = _Unit(unit.name, said, {place: hessian for hessian, place in places.items()})

    def read(self, linear: LinearTensor) -> Hessian:
        """``H`` of a linear, on the device; linears that read the same input get the same object.

        Raises:
            StatisticsError: the file is missing or damaged.
        """
        unit = linear.last.name
        with telling_damage(self._path(unit), ": delete the statistics file and this folder."):
            if self._unit is None or self._unit.name != unit:
                self._unit = None
                self._unit = _Unit(unit, self._checked(unit))
            found = self._unit
            place = str(found.said[linear.name]["tensor"])
            return found.recent.get(place, lambda: found.made.get(place) or self._loaded(found, linear.name))

    def forget(self) -> None:
        """Drop what was written or read last."""
        self._unit = None

    def names(self) -> set[str]:
        """The names of the files that are complete."""
        return {self._path(unit).name for unit in self.written}

    def adopt(self, written: Any) -> None:
        """Take over what a statistics file or a journal says of the files.

        Raises:
            ValueError: it does not say that.
        """
        for unit, (digest, size) in dict(written).items():
            if not (isinstance(unit, str) and isinstance(digest, str) and type(size) is int and size > 0):
                raise ValueError("it does not say which Hessians belong to it")
            self.written[unit] = digest, size

    def _path(self, unit: str) -> Path:
        return self._folder / f"{self._prefix}{hashlib.sha256(unit.encode()).hexdigest()[:16]}.safetensors"

    def _checked(self, unit: str) -> Mapping[str, Any]:
        """What the file of a unit says of its linears, once its SHA-256 is right."""
        path = self._path(unit)
        if unit not in self.written:
            raise ValueError("the statistics name no such file")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.written[unit][0]:
                raise ValueError("its SHA-256 is not the one that the statistics name")
        with safe_open(path, "pt", backend="pread") as handle:
            said: Mapping[str, Any] = parse_json((handle.metadata() or {})[MARK], INDEX)
        return said

    def _loaded(self, found: _Unit, name: str) -> Hessian:
        """The Hessian of the linear ``name``."""
        said = found.said[name]
        with safe_open(self._path(found.name), "pt", backend="pread") as handle:
            return self._hessian(handle.get_tensor(said["tensor"]), said, self._columns[name])

    def _hessian(self, tensor: Tensor, said: Mapping[str, Any], columns: int) -> Hessian:
        """The Hessian in a file; raises ValueError if it cannot be one."""
        scale, damp, triangle = float(said["scale"]), float(said["damp"]), bool(said["triangle"])
        shape = [columns * (columns + 1) // 2] if triangle else [len(tensor), columns]
        if list(tensor.shape) != shape or tensor.dtype not in DTYPES:
            raise ValueError(f"it holds {list(tensor.shape)} of {tensor.dtype} for {columns} columns")
        if not (0.0 < scale < math.inf and 0.0 < damp < math.inf and bool(torch.isfinite(tensor).all())):
            raise ValueError("it holds a value that no Hessian has")
        tensor = tensor.to(self._device)
        if triangle:
            return Hessian(None, unpack_triangle(tensor, columns), scale, damp)
        return Hessian(tensor, None, scale, damp)


def remove_others(stats: Path, purpose: str, keep: Collection[str]) -> None:
    """Delete the files of one half that are not among ``keep``; what cannot be deleted stays."""
    for path in folder_of(stats).glob(f"{purpose}-*.safetensors"):
        if path.name not in keep and OURS.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def _kept(hessian: Hessian) -> Tensor:
    kept = hessian.tokens if hessian.tokens is not None else hessian.gram
    assert kept is not None
    return kept


def _stored_shape(hessian: Hessian) -> list[int]:
    if hessian.tokens is not None:
        return list(hessian.tokens.shape)
    return [hessian.columns * (hessian.columns + 1) // 2]


def _bytes(hessian: Hessian) -> memoryview:
    """What the file holds of a Hessian."""
    stored = hessian.tokens if hessian.tokens is not None else pack_triangle(_kept(hessian).cpu())
    content: memoryview = stored.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
    return content

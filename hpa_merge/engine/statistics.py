"""Column statistics: ``[H⁻¹]_jj`` of every linear, and the file that keeps them, so that other options need no forward.

A merge needs no more of the samples than these vectors, one for each linear on either side. They come in two halves
that know nothing of each other: the safety half is a function of OLD and the safety samples, the task half of NEW and
the task samples, and either is used again where its own fingerprint fits. A half covers every linear of its
checkpoint, whether it changed or is to be adapted or not.
"""

import base64
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hpa_merge.checkpoint.output import Places
from hpa_merge.core import Inverse
from hpa_merge.errors import OutputError, StatisticsError
from hpa_merge.files.disk import inside, write_whole
from hpa_merge.files.names import STATISTICS, STATISTICS_FORMAT
from hpa_merge.files.parsing import INDEX, parse_json
from hpa_merge.model import LinearTensor

__all__ = ["Half", "Statistics", "check_place", "read_statistics", "write_statistics"]

MARK, FORMAT = STATISTICS, STATISTICS_FORMAT


class Statistics(Protocol):
    """What one side's samples say of its linears."""

    def reached(self, linear: LinearTensor) -> bool:
        """Whether any token activates the linear's input."""

    def tokens(self, linear: LinearTensor) -> int:
        """How many tokens came to the linear."""

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        """``[H⁻¹]_jj``, ``[c]`` float64, of a linear that is reached."""

    def inverse(self, linear: LinearTensor) -> Inverse:
        """All of ``H⁻¹``, of a linear that is reached; not from a file."""


@final
@dataclass
class Half:
    """The statistics of one side, as far as they are known; :class:`Statistics`.

    Attributes:
        purpose: ``safety`` or ``task``.
        fingerprint: what they depend on, by name, as JSON has it.
        columns: ``c`` of every linear of the side's checkpoint, by key.
        device: where they were computed; for information, they are used on any.
        units: names of all units of the model.
        read: whether they come from a file.
        visits: names of the units that the samples came to, in that order. It is what the samples say of the depth of
            a unit outside the stacks, and of the order in which both sides go on.
    """

    purpose: str
    fingerprint: Mapping[str, Any]
    columns: Mapping[str, int]
    device: str
    units: Collection[str]
    read: bool = False
    visits: list[str] = field(default_factory=list)
    _tokens: dict[str, int] = field(default_factory=dict)
    _diagonals: dict[str, Tensor] = field(default_factory=dict)  # [c] float64 on the CPU; none where not reached

    def lacks(self, linear: LinearTensor) -> bool:
        """Whether nothing is known yet of the linear."""
        return linear.name not in self._tokens

    def take(self, linear: LinearTensor, tokens: int, diagonal: Tensor | None) -> None:
        """Note what is known of a linear; ``diagonal``, ``[c]`` float64, is None where no token activates it."""
        self._tokens[linear.name] = tokens
        if diagonal is not None:
            self._diagonals[linear.name] = diagonal.cpu()

    def reached(self, linear: LinearTensor) -> bool:
        return linear.name in self._diagonals

    def tokens(self, linear: LinearTensor) -> int:
        return self._tokens.get(linear.name, 0)

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        return self._diagonals[linear.name]

    def inverse(self, linear: LinearTensor) -> Inverse:
        raise RuntimeError(f"all of the inverse of {linear.name} was asked for, and its diagonal was kept")

    def packed(self, linears: Iterable[LinearTensor]) -> dict[str, Any]:
        """The visits so far, and what is known of ``linears``, as JSON has it: for a journal."""
        known = {linear.name: [self.tokens(linear), _packed(self._diagonals.get(linear.name))] for linear in linears}
        return {"visits": list(self.visits), "linears": known}

    def restore(self, packed: Mapping[str, Any]) -> None:
        """Take up what :meth:`packed` gave to a journal.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is not what that gave.
        """
        self._check_visits(packed["visits"])
        if len(packed["visits"]) > len(self.visits):
            self.visits = list(packed["visits"])
        for key, (tokens, diagonal) in packed["linears"].items():
            if not _is_count(tokens):
                raise ValueError(f"{self.purpose}:{key[:80]} has {tokens!r:.40} tokens")
            vector = None
            if diagonal is not None:
                vector = torch.frombuffer(bytearray(base64.b64decode(diagonal)), dtype=torch.float64)
            self._check_vector(key, vector)
            self._tokens[key] = tokens
            if vector is not None:
                self._diagonals[key] = vector

    def digest(self) -> str:
        """SHA-256 of everything that a merge takes from it, in hexadecimal."""
        state = hashlib.sha256(json.dumps([self.purpose, self.visits, self._counts()]).encode())
        for key, diagonal in sorted(self._diagonals.items()):
            state.update(f"{key} {len(diagonal)} ".encode())
            state.update(diagonal.numpy().tobytes())
        return state.hexdigest()

    def description(self) -> dict[str, Any]:
        """What the file says of the half beside its vectors."""
        return {
            "fingerprint": dict(self.fingerprint),
            "device": self.device,
            "visits": self.visits,
            "tokens": self._counts(),
            "digest": self.digest(),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The vectors by their names in the file; copies, because linears that read the same share one."""
        return {f"{self.purpose}:{key}": self._diagonals[key].clone() for key in sorted(self._diagonals)}

    def difference(self, found: Mapping[str, Any]) -> str | None:
        """In what the fingerprint of a file first differs from this one: ``NEW 1a2b, and now it is 3c4d``."""
        for name in sorted(self.fingerprint.keys() | found.keys()):
            was, now = found.get(name), self.fingerprint.get(name)
            if was != now:
                return f"{name} {was}, and now it is {now}"
        return None

    def fill(self, described: Mapping[str, Any], vectors: Mapping[str, Tensor]) -> None:
        """Take what a file that fits holds, with ``vectors`` by key.

        Raises:
            ValueError: the file is damaged; says where.
        """
        tokens, visits = described["tokens"], described["visits"]
        if tokens.keys() != self.columns.keys() or not all(_is_count(count) for count in tokens.values()):
            raise ValueError(f"its {self.purpose} half does not name each linear with its tokens")
        self._check_visits(visits)
        for key, vector in vectors.items():
            self._check_vector(key, vector)
        self.visits, self._tokens, self._diagonals = list(visits), dict(tokens), dict(vectors)
        if self.digest() != described["digest"]:
            raise ValueError(f"its {self.purpose} half has not the SHA-256 that it was written with")
        self.device, self.read = str(described["device"]), True

    def _check_visits(self, visits: Any) -> None:
        """Check the names of units that something says.

        Raises:
            ValueError: they are no list of the model's.
        """
        if not isinstance(visits, list) or not set(visits) <= set(self.units):
            raise ValueError(f"its {self.purpose} half names units that the model has not")

    def _check_vector(self, key: str, vector: Tensor | None) -> None:
        """Check the vector that something gives to a linear; None: no token activates it.

        Raises:
            ValueError: there is no such linear, or it cannot have that vector.
        """
        name = f"{self.purpose}:{key[:80]}"
        if key not in self.columns:
            raise ValueError(f"{name} is of no linear")
        if vector is None:
            return
        if vector.dtype != torch.float64 or tuple(vector.shape) != (self.columns[key],):
            raise ValueError(f"{name} is not a float64 vector of the {self.columns[key]} columns")
        if not bool((torch.isfinite(vector) & (vector > 0.0)).all()):
            raise ValueError(f"{name} holds a value that is not finite and positive")

    def _counts(self) -> dict[str, int]:
        """Tokens by key, of every linear of the checkpoint."""
        return {key: self._tokens.get(key, 0) for key in sorted(self.columns)}


def check_place(path: Path, inputs: Sequence[Path], outs: Sequence[Path]) -> None:
    """Whether the file may lie there; nothing is created.

    Raises:
        StatisticsError: it would lie in OLD, NEW or an OUT, or in a folder that does not exist or cannot be written to.
    """
    ours = path.resolve()
    if (found := inside(path, inputs)) is not None:
        raise StatisticsError(
            f"the statistics {path} would lie in the input {found}, and inputs are never written to: "
            "choose a path outside of it."
        )
    for out in outs:
        places = Places.of(out)
        if (found := inside(path, (places.out, places.partial, places.journal, places.replaced))) is not None:
            raise StatisticsError(
                f"the statistics {path} would lie in {found}, which belongs to OUT: choose a path outside of it."
            )
    if not ours.parent.is_dir():
        raise StatisticsError(
            f"the statistics {path} cannot be written, because the folder {path.absolute().parent} does not exist: "
            "create it first."
        )
    if not os.path.lexists(path) and not os.access(ours.parent, os.W_OK | os.X_OK):
        raise StatisticsError(
            f"the statistics {path} cannot be written, because you may not write to {path.absolute().parent}: "
            "choose another place."
        )


def read_statistics(path: Path, halves: Sequence[Half], anew: Collection[str] = ()) -> tuple[str, ...]:
    """Fill the halves that the file at ``path`` fits, if there is such a file.

    Args:
        halves: the two, empty.
        anew: purposes of those that are to be computed whatever the file holds.

    Returns:
        Why the others are computed anew, a sentence each.

    Raises:
        StatisticsError: what is there is no statistics file, or a damaged one; it is never written over.
    """
    notes = []
    try:
        if not path.exists():
            return ()
        if not path.is_file():
            raise ValueError("it is not a file")
        with safe_open(path, "pt", backend="pread") as handle:
            described = _described(handle.metadata())
            for half in halves:
                content = described[half.purpose]
                if half.purpose in anew:
                    continue
                if difference := half.difference(content["fingerprint"]):
                    notes.append(
                        f"The statistics {path} were made with {difference}: "
                        f"the {half.purpose} half has to be computed anew."
                    )
                    continue
                prefix = f"{half.purpose}:"
                names = [name for name in handle.keys() if name.startswith(prefix)]  # noqa: SIM118 - no mapping
                half.fill(content, {name.removeprefix(prefix): handle.get_tensor(name) for name in names})
    except OSError as error:
        raise StatisticsError(
            f"the statistics {path} cannot be read ({error.strerror or error}): check the permissions of the file."
        ) from error
    except (SafetensorError, KeyError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise StatisticsError(
            f"{path} is not a whole statistics file of hpa-merge ({error}), and nothing else is written over: "
            "give another path, or delete the file."
        ) from error
    return tuple(notes)


def write_statistics(path: Path, halves: Sequence[Half]) -> None:
    """Put both halves into the file at ``path``, which is there whole or as it was before.

    Raises:
        OutputError: the disk is full, or refuses.
    """
    content = {"format": FORMAT, **{half.purpose: half.description() for half in halves}}
    tensors = {name: vector for half in halves for name, vector in half.tensors().items()}
    try:
        write_whole(path, save(tensors, {MARK: json.dumps(content)}), through=True)
    except OSError as error:
        raise OutputError(
            f"the statistics {path} cannot be written ({error.strerror or error}): see to the disk and the "
            "permissions; the same command with --resume goes on."
        ) from error


def _described(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What the file says of its halves, by their purposes.

    Raises:
        ValueError: it is not of our making, or of another format.
    """
    if MARK not in (metadata or {}):
        raise ValueError(f"its metadata have no {MARK!r}")
    content = parse_json((metadata or {})[MARK], INDEX)
    if content["format"] != FORMAT:
        raise ValueError(f"it has format {content['format']!r}, and this version reads {FORMAT}")
    return dict(content)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _packed(vector: Tensor | None) -> str | None:
    """A vector ``[c]`` as base64 of its bytes."""
    return None if vector is None else base64.b64encode(vector.numpy().tobytes()).decode("ascii")

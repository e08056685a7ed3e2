"""Column statistics: ``[H⁻¹]_jj`` of every linear weight of one model, from its calibration set.

With most methods, these vectors are all that a merge needs from the samples; for the others,
:mod:`hpa_merge.engine.hessian_files` keeps the Hessians. The statistics of OLD depend on OLD and the safety samples,
and those of NEW on NEW and the task samples. They cover every linear of the model, changed or not, adapted or not. So
they can be used again with other options.
"""

import base64
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, final

import torch
from torch import Tensor

from hpa_merge.config import HPAConfig
from hpa_merge.core import Hessian, InverseHessian
from hpa_merge.engine.hessian_files import HessianFiles
from hpa_merge.methods.applying import Curved
from hpa_merge.outline import LinearTensor, Unit

__all__ = ["LinearStatistics", "ModelStatistics", "Statistics", "StatisticsKey"]


class Statistics(Protocol):
    """The statistics that one set gives for the linears of its model."""

    def reached(self, linear: LinearTensor) -> bool:
        """Whether any token activates the linear's input."""

    def tokens(self, linear: LinearTensor) -> int:
        """How many tokens the linear reads."""

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        """``[H⁻¹]_jj``, ``[c]`` float64, of a linear that is reached.

        Raises:
            NumericalError: an activation is not finite, or ``H`` cannot be factored.
        """

    def inverse(self, linear: LinearTensor) -> InverseHessian:
        """All of ``H⁻¹`` of a linear that is reached, which recorded statistics do not have; errors as above."""

    def hessian(self, linear: LinearTensor) -> Hessian:
        """``H`` of a linear that is reached, which recorded statistics have if it was asked for; errors as above."""


@final
@dataclass(frozen=True)
class LinearStatistics:
    """The statistics that one set, ``safety`` or ``task``, gives for one linear."""

    purpose: str
    statistics: Statistics
    linear: LinearTensor

    @property
    def reached(self) -> bool:
        return self.statistics.reached(self.linear)

    @property
    def tokens(self) -> int:
        return self.statistics.tokens(self.linear)

    def curvature(self, configs: Sequence[HPAConfig]) -> Curved:
        """As much of the curvature as the methods of ``configs`` need; if any is needed, the linear must be reached."""
        wanting = [config for config in configs if self.purpose in config.sets]
        parts = {part for config in wanting for part in config.takes}
        return Curved(
            self.statistics.inverse_diagonal(self.linear) if "diagonal" in parts and "inverse" not in parts else None,
            self.statistics.inverse(self.linear) if "inverse" in parts else None,
            self.statistics.hessian(self.linear) if "hessian" in parts else None,
            self.tokens,
        )


@final
@dataclass(frozen=True)
class StatisticsKey:
    """What the statistics of a model depend on: they can be used again if this is the same.

    Attributes:
        purpose: ``safety`` or ``task``.
        fingerprint: what they depend on, by name, in JSON types.
        columns: ``c`` of every linear of the model, by name.
        unit_of: the name of its unit, likewise.
        units: names of all units of the model.
        device: where they are computed, for information; they may be used on any device.
    """

    purpose: str
    fingerprint: Mapping[str, Any]
    columns: Mapping[str, int]
    unit_of: Mapping[str, str]
    units: Collection[str]
    device: str

    def difference(self, found: Mapping[str, Any]) -> str | None:
        """The first difference from the fingerprint ``found`` in a file: ``NEW 1a2b, and now it is 3c4d``."""
        for name in sorted(self.fingerprint.keys() | found.keys()):
            was, now = found.get(name), self.fingerprint.get(name)
            if was != now:
                return f"{name} {was}, and now it is {now}"
        return None

    def check_visits(self, visits: Any) -> None:
        """Raise ValueError unless ``visits`` is a list of names of the model's units."""
        if not isinstance(visits, list) or not set(visits) <= set(self.units):
            raise ValueError(f"its {self.purpose} half names units that the model does not have")

    def check_vector(self, linear: str, vector: Tensor | None) -> None:
        """Raise ValueError unless ``linear`` can have that vector; None: no token activates its input."""
        name = f"{self.purpose}:{linear[:80]}"
        if linear not in self.columns:
            raise ValueError(f"{name} belongs to no linear")
        if vector is None:
            return
        if vector.dtype != torch.float64 or tuple(vector.shape) != (self.columns[linear],):
            raise ValueError(f"{name} is not a float64 vector of the {self.columns[linear]} columns")
        if not bool((torch.isfinite(vector) & (vector > 0.0)).all()):
            raise ValueError(f"{name} holds a value that is not finite and positive")


@final
@dataclass
class ModelStatistics:
    """The :class:`Statistics` of every linear of a model, complete or as far as a run has recorded them.

    Attributes:
        key: what they depend on.
        visits: names of the units that the samples visited, in that order. It determines the depth of units outside the
            stacks, and the order in which both models go through their units.
        hessians: the files of the Hessians; None if they are not kept.
    """

    key: StatisticsKey
    visits: list[str] = field(default_factory=list)
    hessians: HessianFiles | None = None
    _tokens: dict[str, int] = field(default_factory=dict)
    _diagonals: dict[str, Tensor] = field(default_factory=dict)  # [c] float64 on the CPU; none where not reached

    @classmethod
    def read(
        cls, key: StatisticsKey, described: Mapping[str, Any], vectors: Mapping[str, Tensor], hessians: HessianFiles
    ) -> "ModelStatistics":
        """The statistics in a file that has the fingerprint of ``key``.

        Args:
            described: what :meth:`description` returned.
            vectors: by the linear's name.
            hessians: where the Hessians of this half are, if it has any.

        Raises:
            ValueError: the file is damaged; says where.
        """
        tokens, visits = described["tokens"], described["visits"]
        if tokens.keys() != key.columns.keys() or not all(_is_count(count) for count in tokens.values()):
            raise ValueError(f"its {key.purpose} half does not name each linear with its tokens")
        key.check_visits(visits)
        for name, vector in vectors.items():
            key.check_vector(name, vector)
        made_on = replace(key, device=str(described["device"]))
        if "hessians" in described:
            hessians.adopt(described["hessians"])
        kept = hessians if "hessians" in described else None
        statistics = cls(made_on, list(visits), kept, dict(tokens), dict(vectors))
        if statistics.digest() != described["digest"]:
            raise ValueError(f"its {key.purpose} half does not have the SHA-256 that it was written with")
        return statistics

    @property
    def purpose(self) -> str:
        """``safety`` or ``task``."""
        return self.key.purpose

    def lacks(self, linear: LinearTensor) -> bool:
        """Whether the linear is not recorded yet."""
        if self.hessians is not None and not self.hessians.has(linear.last.name):
            return True
        return linear.name not in self._tokens

    def take(self, linear: str, tokens: int, diagonal: Tensor | None) -> None:
        """Record a linear by its name; ``diagonal``: ``[c]`` float64 on the CPU, or None if no token reaches it."""
        self._tokens[linear] = tokens
        if diagonal is not None:
            self._diagonals[linear] = diagonal

    def keep(self, unit: Unit, computed: Statistics, linears: Iterable[LinearTensor]) -> None:
        """Write the Hessians of the ``linears`` of a unit, as far as they are reached, if they are to be kept."""
        if self.hessians is not None:
            hessians = {linear.name: computed.hessian(linear) for linear in linears if computed.reached(linear)}
            self.hessians.write(unit, hessians)

    def reached(self, linear: LinearTensor) -> bool:
        return linear.name in self._diagonals

    def tokens(self, linear: LinearTensor) -> int:
        return self._tokens.get(linear.name, 0)

    def inverse_diagonal(self, linear: LinearTensor) -> Tensor:
        return self._diagonals[linear.name]

    def inverse(self, linear: LinearTensor) -> InverseHessian:
        raise RuntimeError(f"all of the inverse of {linear.name} is needed, and only its diagonal is recorded")

    def hessian(self, linear: LinearTensor) -> Hessian:
        if self.hessians is None:
            raise RuntimeError(f"the Hessian of {linear.name} is needed, and is not recorded")
        return self.hessians.read(linear)

    def has_hessians(self) -> bool:
        """Whether the Hessian of every linear that is reached is recorded."""
        units = {self.key.unit_of[name] for name in self._diagonals}
        return self.hessians is not None and all(map(self.hessians.has, units))

    def packed(self, linears: Iterable[LinearTensor]) -> dict[str, Any]:
        """The visits so far, and the statistics of ``linears``, in JSON types, for a journal."""
        linears = list(linears)
        known = {linear.name: [self.tokens(linear), _packed(self._diagonals.get(linear.name))] for linear in linears}
        packed: dict[str, Any] = {"visits": list(self.visits), "linears": known}
        if self.hessians is not None:
            units = {linear.last.name for linear in linears}
            packed["hessians"] = {unit: self.hessians.written[unit] for unit in units if unit in self.hessians.written}
        return packed

    def restore(self, packed: Mapping[str, Any]) -> None:
        """Restore what :meth:`packed` gave to a journal.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: :meth:`packed` does not give this.
        """
        self.key.check_visits(packed["visits"])
        if len(packed["visits"]) > len(self.visits):
            self.visits = list(packed["visits"])
        if self.hessians is not None:
            self.hessians.adopt(packed.get("hessians", {}))
        for name, (tokens, diagonal) in packed["linears"].items():
            if not _is_count(tokens):
                raise ValueError(f"{self.purpose}:{name[:80]} has {tokens!r:.40} tokens")
            vector = None
            if diagonal is not None:
                vector = torch.frombuffer(bytearray(base64.b64decode(diagonal)), dtype=torch.float64)
            self.key.check_vector(name, vector)
            self._tokens[name] = tokens
            if vector is not None:
                self._diagonals[name] = vector

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of everything that a merge takes from the statistics."""
        state = hashlib.sha256(json.dumps([self.purpose, self.visits, self._counts()]).encode())
        for name, diagonal in sorted(self._diagonals.items()):
            state.update(f"{name} {len(diagonal)} ".encode())
            state.update(diagonal.numpy().tobytes())
        if self.hessians is not None:
            state.update(json.dumps(sorted(self.hessians.written.items())).encode())
        return state.hexdigest()

    def description(self) -> dict[str, Any]:
        """What the file says about the statistics, apart from the vectors."""
        described = {
            "fingerprint": dict(self.key.fingerprint),
            "device": self.key.device,
            "visits": self.visits,
            "tokens": self._counts(),
            "digest": self.digest(),
        }
        return described if self.hessians is None else described | {"hessians": dict(self.hessians.written)}

    def tensors(self) -> dict[str, Tensor]:
        """The vectors by their names in the file; copies, because linears that read the same input share one."""
        return {f"{self.purpose}:{name}": self._diagonals[name].clone() for name in sorted(self._diagonals)}

    def _counts(self) -> dict[str, int]:
        """Tokens of every linear of the model, by name."""
        return {name: self._tokens.get(name, 0) for name in sorted(self.key.columns)}


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _packed(vector: Tensor | None) -> str | None:
    """A vector ``[c]`` as base64."""
    return None if vector is None else base64.b64encode(vector.numpy().tobytes()).decode("ascii")

"""A statistics file as it is looked at: what it is of, and how ``[H⁻¹]_jj`` spreads over the columns of each linear.

Imports no torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.files.statistics import open_statistics, telling_damage

__all__ = ["HalfSummary", "StatisticsSummary", "VectorSummary", "is_statistics", "read_summary"]

PURPOSES = ("safety", "task")


@final
@dataclass(frozen=True)
class VectorSummary:
    """``[H⁻¹]_jj`` of one linear on one side.

    Attributes:
        half: ``safety`` or ``task``.
        name: of the linear, in the checkpoint of that side.
        tokens: that came to it.
        columns, minimum, median, maximum: ``c``, and of its values; None where no token activates it.
    """

    half: str
    name: str
    tokens: int
    columns: int | None = None
    minimum: float | None = None
    median: float | None = None
    maximum: float | None = None


@final
@dataclass(frozen=True)
class HalfSummary:
    """One half of the file.

    Attributes:
        purpose: ``safety`` or ``task``.
        fingerprint: what it depends on, by name: the checkpoint, the samples, the damping, the versions.
        device: where it was computed.
        visits: the units that the samples came to, in that order.
        tokens: of all samples: the most that came to one linear.
        linears: every linear of the checkpoint, by name.
    """

    purpose: str
    fingerprint: dict[str, Any]
    device: str
    visits: tuple[str, ...]
    tokens: int
    linears: tuple[VectorSummary, ...]


@final
@dataclass(frozen=True)
class StatisticsSummary:
    """A statistics file: where it lies, and its halves."""

    path: str
    halves: tuple[HalfSummary, ...]


def is_statistics(path: Path) -> bool:
    """Whether a file begins as one of safetensors does, of which the statistics are one.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and 8 + int.from_bytes(head[:8], "little") <= path.stat().st_size


def read_summary(path: Path) -> StatisticsSummary:
    """Look at every vector of a file of :mod:`hpa_merge.engine.statistics`, one at a time.

    Raises:
        StatisticsError: it is none, is damaged, or cannot be read.
    """
    with (
        telling_damage(path, ": give the file that a merge wrote with --stats."),
        open_statistics(path, "np") as (handle, content),
    ):
        halves = tuple(_half(handle, purpose, content[purpose]) for purpose in PURPOSES)
    return StatisticsSummary(str(path), halves)


def _half(handle: Any, purpose: str, described: dict[str, Any]) -> HalfSummary:
    """One half; ``handle``: of the open file."""
    import numpy as np

    there = set(handle.keys())
    linears = []
    for name, tokens in described["tokens"].items():
        if (key := f"{purpose}:{name}") not in there:
            linears.append(VectorSummary(purpose, name, int(tokens)))
            continue
        vector = handle.get_tensor(key)
        if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
            raise ValueError(f"{key} is not a vector of finite numbers")
        figures = (float(of(vector)) for of in (np.min, np.median, np.max))
        linears.append(VectorSummary(purpose, name, int(tokens), int(vector.size), *figures))
    return HalfSummary(
        purpose=purpose,
        fingerprint=dict(described["fingerprint"]),
        device=str(described["device"]),
        visits=tuple(str(unit) for unit in described["visits"]),
        tokens=max((linear.tokens for linear in linears), default=0),
        linears=tuple(linears),
    )

"""Groups linears by stack, depth and projection for the maps of the page; experts of a block share a cell."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from hpa_merge.report.records import LinearRecord

__all__ = ["Panel", "panels_of"]

OUTSIDE = "outside the blocks"

ORDER = (
    *("qkv", "query_key_value", "c_attn", "q", "query", "k", "key", "v", "value", "kv", "o", "out", "dense"),
    *("gate", "gate_up", "up", "w1", "w3", "fc1", "c_fc", "down", "w2", "fc2", "c_proj"),
)
"""Projections in the order of a block's computation; others follow by name."""

Cell = tuple[int, str]
"""Depth and projection."""


@final
@dataclass(frozen=True)
class Panel:
    """A stack of blocks, or the linears outside all stacks.

    Attributes:
        title: the stack's path.
        blocks: the depths, ascending; only 0 outside the stacks.
        projections: shortest distinct names, in the order of the computation.
        cells: the linears at each depth and projection: one, or the experts of a block.
    """

    title: str
    blocks: tuple[int, ...]
    projections: tuple[str, ...]
    cells: dict[Cell, tuple[LinearRecord, ...]]

    @property
    def outside(self) -> bool:
        """Whether the panel has no depth."""
        return self.title == OUTSIDE


def panels_of(records: Iterable[LinearRecord]) -> list[Panel]:
    """A panel for each stack in the order of the merge, then one for the rest."""
    stacks: dict[str, list[LinearRecord]] = defaultdict(list)
    for record in records:
        stacks[record.stack].append(record)
    outside = stacks.pop("", [])
    panels = [_panel(stack, of_stack, _block) for stack, of_stack in stacks.items()]
    if outside:
        panels.append(_panel(OUTSIDE, outside, lambda record: 0, least=2))
    return panels


def _panel(
    title: str, records: Sequence[LinearRecord], block: Callable[[LinearRecord], int | None], least: int = 1
) -> Panel:
    """One panel; names of projections have at least so many parts of their paths."""
    paths = {record.name: _path(record.name, numbers=least > 1) for record in records}
    names = _shortest(set(paths.values()), least)
    cells: dict[Cell, list[LinearRecord]] = defaultdict(list)
    for record in records:
        if (depth := block(record)) is not None:
            cells[depth, names[paths[record.name]]].append(record)
    return Panel(
        title,
        tuple(sorted({depth for depth, _ in cells})),
        tuple(sorted({projection for _, projection in cells}, key=_rank)),
        {cell: tuple(of_cell) for cell, of_cell in cells.items()},
    )


def _block(record: LinearRecord) -> int | None:
    """The depth of a linear in a stack; from the unit's name if the linear was not adapted."""
    if record.block is not None:
        return record.block
    place = record.unit.removeprefix(f"{record.stack}.").split(".")[0]
    return int(place) if place.isdecimal() else None


def _path(name: str, *, numbers: bool = False) -> tuple[str, ...]:
    """``a.3.b.weight`` and ``a.3.b[7]`` are ``a, b``, and ``a, 3, b`` with the numbers."""
    parts = name.partition("[")[0].removesuffix(".weight").split(".")
    return tuple(part for part in parts if numbers or not part.isdecimal())


def _shortest(paths: Collection[tuple[str, ...]], least: int) -> dict[tuple[str, ...], str]:
    """The fewest last parts of each path that no other path has."""
    names = {}
    for path in paths:
        size = next(
            (n for n in range(least, len(path)) if sum(other[-n:] == path[-n:] for other in paths) == 1), len(path)
        )
        names[path] = ".".join(path[-size:])
    return names


def _rank(projection: str) -> tuple[int, str]:
    stem = projection.split(".")[-1].removesuffix("_proj")
    return (ORDER.index(stem) if stem in ORDER else len(ORDER), projection)

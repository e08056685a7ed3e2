"""The settings of a rule for which a merge computes how much of the update they would undo, next to its own.

They lie on a grid: a slider for each axis. What they would undo is computed by the rule itself, so that it is what a
merge with that setting undoes, and not an estimate. Imports no torch, as :mod:`rule` says.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from math import isclose, prod
from typing import Any, TypeVar, final

__all__ = ["Grid", "Slider", "grid_of", "with_own"]

NEAR = 0.02
"""A value that is this close to the merge's own, relative, is replaced by it."""

Value = TypeVar("Value", float, tuple[float, float])


@final
@dataclass(frozen=True)
class Slider:
    """Options that a reader moves together.

    Attributes:
        label: what they are.
        options: their names.
        unit: what follows their values.
    """

    label: str
    options: tuple[str, ...]
    unit: str = ""


@final
@dataclass(frozen=True)
class Grid:
    """Settings, one for each combination of the sliders' positions.

    Attributes:
        sliders: those with more than one position.
        sizes: how many positions each has.
        settings: the options of each combination; the last slider moves fastest.
        own: the place of the merge's own setting.
    """

    sliders: tuple[Slider, ...]
    sizes: tuple[int, ...]
    settings: tuple[dict[str, float], ...]
    own: int


def grid_of(axes: Sequence[tuple[Slider, tuple[Sequence[Any], int]]], setting: Callable[..., dict[str, float]]) -> Grid:
    """The grid of some axes.

    Args:
        axes: for each a slider, and its positions with the place of the merge's own, as :func:`with_own` has them.
        setting: the options of a combination, given the position of each axis.
    """
    moved = [(slider, len(positions)) for slider, (positions, _) in axes if len(positions) > 1]
    own = 0
    for _, (positions, place) in axes:
        own = own * len(positions) + place
    made = (setting(*positions) for positions in product(*(positions for _, (positions, _) in axes)))
    settings = tuple({name: float(value) for name, value in each.items()} for each in made)
    assert len(settings) == prod(size for _, size in moved)
    return Grid(tuple(slider for slider, _ in moved), tuple(size for _, size in moved), settings, own)


def with_own(values: Iterable[Value], own: Value) -> tuple[tuple[Value, ...], int]:
    """The values in order, with the merge's own in the place of one that is close to it; and its place."""
    found = [value for value in values if not _close(value, own)]
    found.append(own)
    found.sort()
    return tuple(found), found.index(own)


def _close(value: float | tuple[float, float], own: float | tuple[float, float]) -> bool:
    pairs = zip(value, own, strict=True) if isinstance(value, tuple) and isinstance(own, tuple) else [(value, own)]
    return all(isclose(a, b, rel_tol=NEAR) for a, b in pairs)  # type: ignore[arg-type]

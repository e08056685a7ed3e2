"""Which rank owns each linear of a unit: it gets what the linear has read on all ranks, factors that, and merges.

Linears that share a curvature have the same owner, so that it is factored once; so have those that make one tensor of
OUT together. The rest is balanced by cost, from what every rank knows; the choice decides how long a merge takes, and
nothing else.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import final

from hpa_merge.core.hessian import DUAL_SHARE

__all__ = ["Input", "Work", "owners_of"]

PER_VALUE = 100
"""What it costs to merge one value of a weight, in operations of a matrix product: some ten passes over memory."""


@final
@dataclass(frozen=True)
class Input:
    """The input of a linear in one set.

    Attributes:
        key: the same for linears that share a curvature; None if there is none.
        cost: operations that factor it.
    """

    key: Hashable | None
    cost: float

    @classmethod
    def of(cls, key: Hashable, tokens: int, columns: int) -> "Input":
        """The input of so many tokens: see :data:`~hpa_merge.core.hessian.DUAL_SHARE`."""
        t = tokens / columns
        return cls(key, (2 * t**2 + t**3 / 3 if t <= DUAL_SHARE else 2 / 3) * float(columns) ** 3)


@final
@dataclass(frozen=True)
class Work:
    """What there is to do for one linear.

    Attributes:
        inputs: in each set.
        values: of its weight.
        parts: what it shares with other linears of which one rank has to make all: a stack, the factors of an adapter.
    """

    inputs: tuple[Input, ...]
    values: int
    parts: frozenset[Hashable] = frozenset()


def owners_of(works: Sequence[Work], loads: list[float]) -> list[int]:
    """The owner of each of ``works``.

    Args:
        loads: what each rank has got by now; the costs of these works are added.
    """
    together = _together(works)
    costs = {}
    for first, members in together.items():
        inputs = {each for place in members for each in works[place].inputs if each.key is not None}
        costs[first] = sum(each.cost for each in inputs) + PER_VALUE * sum(works[place].values for place in members)
    owners = [0] * len(works)
    for first in sorted(together, key=lambda first: (-costs[first], first)):
        owner = loads.index(min(loads))
        loads[owner] += costs[first]
        for place in together[first]:
            owners[place] = owner
    return owners


def _together(works: Sequence[Work]) -> dict[int, list[int]]:
    """The places of works that share a curvature or a part, also through others; by the first of them."""
    first = list(range(len(works)))

    def root(place: int) -> int:
        while first[place] != place:
            place = first[place]
        return place

    seen: dict[Hashable, int] = {}
    for place, work in enumerate(works):
        keys: list[Hashable] = [(number, each.key) for number, each in enumerate(work.inputs) if each.key is not None]
        for key in (*keys, *(("part", part) for part in work.parts)):
            other = root(seen.setdefault(key, place))
            own = root(place)
            first[max(own, other)] = min(own, other)
    found: dict[int, list[int]] = {}
    for place in range(len(works)):
        found.setdefault(root(place), []).append(place)
    return found

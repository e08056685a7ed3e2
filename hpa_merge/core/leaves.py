"""Sums that do not depend on how many processes share the samples.

A set of samples is split into a fixed number of leaves by their order. What a leaf adds is computed from its samples
and from the size of the set, wherever they run, and the leaves are added in order
(:func:`hpa_merge.core.hessian.Curvature.take`). A rank adds its leaves to the sum of those before them, which another
rank may have sent.
"""

import math
from typing import final

from torch import Tensor

from hpa_merge.core.gathered import Packed
from hpa_merge.core.hessian import Curvature, leaf_of

__all__ = ["LEAVES", "GatheredLeaves", "Place", "leaf_at", "rank_at"]

LEAVES = 16
"""Leaves of a set: as many processes can share the samples."""

Place = tuple[int, int]
"""The pass over the samples, and the leaf: leaves are added in this order."""


def leaf_at(place: int, samples: int) -> int:
    """The leaf of the sample ``place`` of so many."""
    return place * LEAVES // samples


def rank_at(leaf: int, ranks: int, *, backwards: bool = False) -> int:
    """The rank that runs the samples of ``leaf``; ``backwards``: the last one has the first leaves."""
    rank = leaf * ranks // LEAVES
    return ranks - 1 - rank if backwards else rank


@final
class GatheredLeaves:
    """What the samples read at one input, leaf by leaf."""

    def __init__(self, columns: int, *, offload: bool, apart: bool, set_tokens: float = math.inf) -> None:
        """Begin without tokens.

        Args:
            apart: whether the leaves wait, packed, for those before them; otherwise each is added at its end.
            set_tokens: the tokens of the whole set, on all ranks.
        """
        self._packed: dict[Place, Packed] = {}
        self._total = Curvature(columns, offload=offload, set_tokens=set_tokens)
        self._apart = apart
        self._leaf: Curvature | None = None
        self._place: Place = (0, 0)

    def add(self, place: Place, x: Tensor) -> None:
        """Take in tokens ``[n, c]`` that a sample of the leaf ``place`` reads; leaves come in order."""
        if place != self._place:
            self._end()
            self._place = place
        if self._leaf is None:
            self._leaf = leaf_of(self._total.columns, x, offload=self._total.offload, set_tokens=self._total.set_tokens)
        self._leaf.add(x)

    def total(self) -> Curvature:
        """The curvature of all leaves, which were not kept apart."""
        self._end()
        self._leaf = None  # with its memory
        return self._total

    def leaves(self) -> dict[Place, Packed]:
        """The leaves that were kept apart; otherwise their sum, at the place of the last."""
        self._end()
        self._leaf = None
        if self._total.tokens:
            self._packed[self._place] = self._total.packed()
        return self._packed

    def _end(self) -> None:
        """End the present leaf."""
        if self._leaf is None or not self._leaf.tokens:
            return
        if self._apart:
            self._packed[self._place] = self._leaf.packed()
        else:
            self._total.take(self._leaf)

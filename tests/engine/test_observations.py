"""What samples have read travels to the owners in rounds: what an owner receives at once is bounded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from curvatures import added, normal

from hpa_merge.core import Curvature
from hpa_merge.core.gathered import Packed
from hpa_merge.core.hessian import leaf_of
from hpa_merge.core.leaves import LEAVES, Place, rank_at
from hpa_merge.engine import observations
from hpa_merge.engine.observations import Observations
from hpa_merge.ranks import Parcel

RANKS = 4
CPU = torch.device("cpu")
WIDTHS = {("down",): 30, ("gate", "up"): 12, ("expert.0",): 12, ("expert.1",): 12, ("q",): 7}
"""The columns of what is read, by its readers; one leaf of the first has more bytes than a round of the test."""


def read(readers: tuple[str, ...]) -> dict[Place, Packed]:
    """What every leaf has read: triangles, or tokens of some leaves only."""
    leaves = {}
    for place in range(0, LEAVES, 1 + (readers[0] == "expert.1")):
        leaf = leaf_of(WIDTHS[readers], torch.empty(0, WIDTHS[readers]))
        leaf.add(normal(3 if readers == ("q",) else 40, WIDTHS[readers], place).float())
        leaves[1, place] = leaf.packed()
    return leaves


class Wire:
    """The group of one rank, which gets what the others send, and its hooks."""

    def __init__(self, rank: int, rounds: Sequence[Any], contents: dict[Any, dict[Place, Packed]]) -> None:
        self.rank, self.received, self.sums = rank, Counter[int](), dict[Any, Curvature]()
        self.leaves = {
            readers: {p: leaf for p, leaf in leaves.items() if rank_at(p[1], RANKS) == rank}
            for readers, leaves in contents.items()
        }
        self._contents, self._rounds, self._number = contents, rounds, 0

    def deliver(self, parcels: Sequence[Parcel], device: torch.device) -> list[Parcel]:
        number, self._number, arrived = self._number, self._number + 1, []
        for (leaf, receiver), parcel in zip(self._rounds[number], parcels, strict=True):
            assert (parcel.tensor is not None) == (leaf.sender == self.rank)
            content = self._contents[leaf.readers][leaf.place].content if receiver == self.rank else None
            arrived.append(replace(parcel, tensor=content))
            self.received[number] += parcel.nbytes * (receiver == self.rank)
        return arrived

    def release(self, readers: Any, place: Place) -> None:
        del self.leaves[readers][place]

    def receive(self, sums: dict[Any, Curvature], lost: Any) -> None:
        self.sums = sums


def test_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 leaves and five inputs, one of which has two owners and one none."""
    most, contents = 1000, {readers: read(readers) for readers in WIDTHS}
    monkeypatch.setattr(observations, "TOGETHER", most)
    of_ranks = {
        readers: {p: (rank_at(p[1], RANKS), replace(leaf, content=None)) for p, leaf in leaves.items()}
        for readers, leaves in contents.items()
    }
    receivers = {("down",): [0], ("gate", "up"): [0, 2], ("expert.1",): [3], ("q",): [1]}
    observed = Observations(of_ranks, frozenset())
    rounds = [*observed._rounds(receivers)]
    assert len(rounds) < sum(len(leaves) * len(receivers.get(readers, ())) for readers, leaves in contents.items()) / 2
    total = 0
    for rank in range(RANKS):
        wire: Any = Wire(rank, rounds, contents)
        observed.deliver(wire, wire, receivers, CPU)
        largest = 4 * 30 * 31 // 2 if rank == 0 else 0
        assert 0 < max(wire.received.values()) <= max(most, largest)
        total += wire.received.total()
        assert wire.sums.keys() == {readers for readers, ranks in receivers.items() if rank in ranks}
        for readers, curvature in wire.sums.items():
            expected = added(contents[readers])
            assert torch.equal(curvature.hessian(0.01).diagonal(), expected.hessian(0.01).diagonal())
            assert curvature.tokens == expected.tokens
        assert [readers for readers, leaves in wire.leaves.items() if leaves] == [("expert.0",)]  # nobody needs it
    triangles = 16 * 30 * 31 + 2 * 16 * 12 * 13 + 8 * 12 * 13  # numbers of two leaves; a quarter of them stay
    assert total == 2 * triangles * 3 // 4 + 12 * 4 * 3 * 7

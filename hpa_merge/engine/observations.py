"""What the samples of all ranks have read in a unit, and how it comes to the owners of its linears.

Every rank first tells what it has: for each tensor that linears read, how many tokens of which leaf. From that, all
ranks know which linears share a curvature. Then the sum of each input travels from rank to rank, each of which adds
its leaves, and from the last one to the owners that need it.
"""

from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, final

import torch

from hpa_merge.core import Curvature
from hpa_merge.core.gathered import Packed, triangle_bytes
from hpa_merge.core.hessian import CHUNK
from hpa_merge.core.leaves import Place
from hpa_merge.engine.owners import Input
from hpa_merge.engine.unit_statistics import is_pooled
from hpa_merge.outline import LinearTensor, Readers
from hpa_merge.ranks import Group, Parcel

if TYPE_CHECKING:
    from hpa_merge.model import ActivationHooks

__all__ = ["Observations", "Travel", "exchange"]

TOGETHER = 2**28
"""Bytes that a rank receives at once, unless a single sum has more: 256 MiB."""

Travel = Generator[list[Parcel], list[Parcel], None]
"""Yields what a rank sends in each round, and gets what has come to it; on every rank it has as many rounds."""

Leaves = Mapping[Place, tuple[int, Packed]]
"""What each leaf, or a sum of the first ones, has read of one tensor, without its content; and the rank that has it."""


@final
@dataclass(frozen=True, eq=False)
class Observations:
    """What all ranks have read.

    Attributes:
        leaves: by the linears that have read the same tensor.
        lost: observers of which some rank does not know all that they have read.
    """

    leaves: Mapping[Readers, Leaves]
    lost: frozenset[str]

    @classmethod
    def of_all(cls, group: Group, hooks: "ActivationHooks") -> "Observations":
        """What the hooks of every rank have seen; raises as :meth:`Group.gather`."""
        own = {
            readers: {place: packed.head() for place, packed in leaves.items()}
            for readers, leaves in hooks.leaves.items()
        }
        found: defaultdict[Readers, dict[Place, tuple[int, Packed]]] = defaultdict(dict)
        lost: set[str] = set()
        for rank, (theirs, losing) in enumerate(group.gather((own, hooks.lost))):
            lost |= losing
            for readers, leaves in theirs.items():
                found[readers] |= {place: (rank, packed) for place, packed in leaves.items()}
        return cls(dict(sorted(found.items())), frozenset(lost))

    def input_of(self, linear: LinearTensor, min_expert_tokens: int) -> Input:
        """What a linear has read."""
        parts = self._parts(linear, min_expert_tokens)
        read = [packed for part in parts for readers in part for _, packed in self.leaves[readers].values()]
        if not read:
            return Input(None, 0.0)
        return Input.of(parts, sum(packed.tokens for packed in read), read[0].columns)

    def needs(self, linear: LinearTensor, min_expert_tokens: int) -> set[Readers]:
        """The tensors that make up the curvature of a linear."""
        return {readers for part in self._parts(linear, min_expert_tokens) for readers in part}

    def travel(
        self, rank: int, hooks: "ActivationHooks", receivers: Mapping[Readers, Sequence[int]], device: torch.device
    ) -> Travel:
        """Give the hooks of this rank the sums that it needs.

        The sum of an input goes from rank to rank in the order of the leaves. Each adds its own, which it drops, and
        the last one sends it to those that need it.

        Args:
            rank: this rank.
            receivers: the ranks that need what was read of each tensor.
            device: where the curvatures are computed.
        """
        own, here, sums = hooks.leaves, dict[Readers, Curvature](), dict[Readers, Curvature]()
        for hops in self._rounds(receivers):
            parcels = []
            for hop in (hop for hop in hops if hop.sender == rank):
                total = here.pop(hop.readers, None)
                for place in hop.places:
                    leaf = own[hop.readers][place].to(device)
                    total = total or Curvature(leaf.columns)
                    total.take_packed(leaf)
                    hooks.release(hop.readers, place)
                assert total is not None
                if hop.receivers == (rank,):
                    sums[hop.readers] = total
                    continue
                packed = total.packed()
                note, contents = (hop.readers, hop.is_last, packed.head()), packed.contents
                parcels += [Parcel(receiver, note, contents) for receiver in hop.receivers]
            for parcel in (yield parcels):
                readers, is_last, head = parcel.note
                (sums if is_last else here)[readers] = Curvature.unpacked(head.whole(parcel.tensors))
        hooks.receive(sums, self.lost)

    def _rounds(self, receivers: Mapping[Readers, Sequence[int]]) -> Iterator[list["_Hop"]]:
        """What happens in each round: each input of a group makes its next hop, and the first ones of another group.

        So several ranks add at the same time, and one receives at most :data:`TOGETHER` bytes in a round, unless a
        single sum has more.
        """
        started: list[list[deque[_Hop]]] = []
        waiting = deque(self._groups([readers for readers, ranks in receivers.items() if ranks]))
        while waiting or any(hops for group in started for hops in group):
            if waiting:
                started.append([self._hops(readers, receivers[readers]) for readers in waiting.popleft()])
            yield [hops.popleft() for group in started for hops in group if hops]

    def _groups(self, inputs: Iterable[Readers]) -> Iterator[list[Readers]]:
        """Inputs whose sums have at most half as many bytes as a rank receives at once: some are on their way, and
        others arrive at their end."""
        group: list[Readers] = []
        total = 0
        for readers in inputs:
            size = self._bytes_of_sum(readers)
            if group and total + size > TOGETHER // 2:
                yield group
                group, total = [], 0
            group.append(readers)
            total += size
        if group:
            yield group

    def _hops(self, readers: Readers, receivers: Sequence[int]) -> deque["_Hop"]:
        """The way of a sum from the rank of the first leaf to those that need it."""
        leaves = sorted((place, rank) for place, (rank, _) in self.leaves[readers].items())
        runs = [(rank, tuple(place for place, _ in run)) for rank, run in groupby(leaves, key=lambda leaf: leaf[1])]
        nexts = [*((rank,) for rank, _ in runs[1:]), tuple(receivers)]
        last = len(runs) - 1
        return deque(
            _Hop(readers, rank, places, onward, number == last)
            for number, ((rank, places), onward) in enumerate(zip(runs, nexts, strict=True))
        )

    def _bytes_of_sum(self, readers: Readers) -> int:
        """The most bytes of the sum of an input: its tokens, or a triangle with tokens that are not in it yet."""
        leaves = [leaf for _, leaf in self.leaves[readers].values()]
        row = 4 * leaves[0].columns  # of at most float32
        tokens, triangle = row * sum(leaf.tokens for leaf in leaves), triangle_bytes(leaves[0].columns)
        multiplied = any(leaf.tokens > sum(leaf.lengths) for leaf in leaves)
        return triangle + row * CHUNK if multiplied else min(tokens, triangle + row * CHUNK)

    def _parts(self, linear: LinearTensor, min_expert_tokens: int) -> tuple[tuple[Readers, ...], ...]:
        """The curvatures that are added for a linear, each as the tensors that it is added from."""
        own = self._of(linear.observers)
        tokens = sum(p.tokens for part in own for readers in part for _, p in self.leaves[readers].values())
        return self._of(linear.pool) if is_pooled(linear, tokens, min_expert_tokens) else own

    def _of(self, observers: Iterable[str]) -> tuple[tuple[Readers, ...], ...]:
        found = (tuple(self._read_by.get(name, ())) for name in observers if name not in self.lost)
        return tuple(dict.fromkeys(part for part in found if part))

    @cached_property
    def _read_by(self) -> Mapping[str, list[Readers]]:
        """The tensors that each observer has read."""
        found: defaultdict[str, list[Readers]] = defaultdict(list)
        for readers in self.leaves:
            for name in readers:
                found[name].append(readers)
        return found


def exchange(group: Group, travels: Sequence[Travel], device: torch.device) -> None:
    """Make the rounds of both sets together; raises as :meth:`Group.gather`."""
    sending = [next(each, None) for each in travels]
    while any(each is not None for each in sending):
        parcels = [replace(p, note=(number, p.note)) for number, each in enumerate(sending) for p in each or ()]
        arrived: list[list[Parcel]] = [[] for _ in travels]
        for parcel in group.deliver(parcels, device):
            number, note = parcel.note
            arrived[number].append(replace(parcel, note=note))
        del parcels
        for number, travel in enumerate(travels):
            if sending[number] is not None:
                try:
                    sending[number] = travel.send(arrived[number])
                except StopIteration:
                    sending[number] = None


@final
@dataclass(frozen=True)
class _Hop:
    """What one rank does for the sum of an input: it adds its leaves, and sends the sum on.

    Attributes:
        sender: the rank.
        places: of its leaves, those that are next in the order.
        receivers: the rank that has the next leaves or, of the last hop, the ranks that need the sum.
    """

    readers: Readers
    sender: int
    places: tuple[Place, ...]
    receivers: tuple[int, ...]
    is_last: bool

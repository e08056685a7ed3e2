"""What the samples of all ranks have read in a unit, and how it comes to the owners of its linears.

Every rank first tells what it has: for each tensor that linears read, how many tokens of which leaf. From that, all
ranks know which linears share a curvature. Then each leaf travels to the owners that need it: its tokens, or their
Gram matrix where that is smaller.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, final

import torch

from hpa_merge.core.gathered import Packed
from hpa_merge.core.leaves import Place, added
from hpa_merge.engine.owners import Input
from hpa_merge.engine.unit_statistics import is_pooled
from hpa_merge.outline import LinearTensor, Readers
from hpa_merge.ranks import Group, Parcel

if TYPE_CHECKING:
    from hpa_merge.model import ActivationHooks

__all__ = ["Observations"]

TOGETHER = 2**28
"""Bytes that are on their way at once, unless one tensor has more: 256 MiB."""

Leaves = Mapping[Place, tuple[int, Packed]]
"""What each leaf has read of one tensor, without its content, and the rank that has it."""


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
            readers: {place: replace(packed, content=None) for place, packed in leaves.items()}
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

    def deliver(
        self, group: Group, hooks: "ActivationHooks", receivers: Mapping[Readers, Sequence[int]], device: torch.device
    ) -> None:
        """Give the hooks of each rank what it needs of all ranks; raises as :meth:`Group.gather`.

        Args:
            receivers: the ranks that need what was read of each tensor.
            device: where the curvatures are computed.
        """
        own, sums = hooks.leaves, {}
        for batch in self._batches(receivers):
            sent = [
                (readers, place, packed, Parcel(sender, receiver, packed.shape, packed.dtype, content))
                for readers in batch
                for place, (sender, packed) in sorted(self.leaves[readers].items())
                for content in (own[readers][place].content if sender == group.rank else None,)
                for receiver in receivers[readers]
            ]
            arrived = group.deliver([parcel for *_, parcel in sent], device)
            here: defaultdict[Readers, dict[Place, Packed]] = defaultdict(dict)
            for (readers, place, packed, _), parcel in zip(sent, arrived, strict=True):
                if parcel.tensor is not None:
                    here[readers][place] = replace(packed, content=parcel.tensor.to(device))
            sums.update({readers: added(leaves) for readers, leaves in here.items()})
        hooks.receive(sums, self.lost)

    def _batches(self, receivers: Iterable[Readers]) -> Iterator[list[Readers]]:
        batch: list[Readers] = []
        nbytes = 0
        for readers in receivers:
            batch.append(readers)
            nbytes += sum(
                torch.Size(packed.shape).numel() * packed.dtype.itemsize for _, packed in self.leaves[readers].values()
            )
            if nbytes >= TOGETHER:
                yield batch
                batch, nbytes = [], 0
        if batch:
            yield batch

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

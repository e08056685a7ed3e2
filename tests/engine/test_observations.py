"""The sum of what samples have read goes from rank to rank to its owners: the bytes that travel are bounded."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from curvatures import normal
from ranks import on_ranks
from torch import Tensor

from hpa_merge.core import Curvature
from hpa_merge.core.gathered import Packed
from hpa_merge.core.leaves import LEAVES, GatheredLeaves, Place, rank_at
from hpa_merge.engine import observations
from hpa_merge.engine.observations import Observations
from hpa_merge.ranks import Group, Parcel

RANKS = 4
CPU = torch.device("cpu")
MOST = 6000
WIDTHS = {("down",): 50, ("gate", "up"): 12, ("expert.0",): 12, ("expert.1",): 12, ("q",): 7}
"""The columns of what is read, by its readers; the sum of the first has more bytes than a rank receives at once."""
RECEIVERS = {("down",): (0,), ("gate", "up"): (0, 2), ("expert.1",): (3,), ("q",): (1,)}


def tokens_of(readers: tuple[str, ...], ranks: Sequence[int] = range(RANKS)) -> dict[Place, Tensor]:
    """What every leaf of these ranks reads: of some inputs few tokens, of one only some leaves."""
    places = range(0, LEAVES, 1 + (readers[0] == "expert.1"))
    count = 3 if readers == ("q",) else 60
    own = [place for place in places if rank_at(place, RANKS) in ranks]
    return {(1, place): normal(count, WIDTHS[readers], place).float() for place in own}


def gathered(readers: tuple[str, ...], ranks: Sequence[int] = range(RANKS), apart: bool = False) -> GatheredLeaves:
    made = GatheredLeaves(WIDTHS[readers], offload=False, apart=apart)
    for place, tokens in tokens_of(readers, ranks).items():
        made.add(place, tokens)
    return made


class Hooks:
    """Those of one rank; the first one adds its leaves at once."""

    def __init__(self, rank: int) -> None:
        self.leaves = {readers: gathered(readers, [rank], apart=rank > 0).leaves() for readers in WIDTHS}
        self.lost: frozenset[str] = frozenset()
        self.sums: dict[Any, Curvature] = {}

    def release(self, readers: Any, place: Place) -> None:
        del self.leaves[readers][place]

    def receive(self, sums: dict[Any, Curvature], lost: Any) -> None:
        self.sums = sums


def bytes_of(packed: Packed) -> int:
    return sum(each.nbytes for each in packed.contents)


def test_the_sums_that_travel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 16 leaves and five inputs, one of which has two owners and one none."""
    monkeypatch.setattr(observations, "TOGETHER", MOST)

    def work(rank: int) -> Any:
        group, hooks, received, deliver = Group.current(), Hooks(rank), [], Group.deliver

        def follow(group: Group, parcels: Sequence[Parcel], device: torch.device) -> list[Parcel]:
            own = [parcel for parcel in parcels if parcel.receiver == rank]
            arrived = deliver(group, parcels, device)
            received.append(sum(t.nbytes for parcel in arrived if parcel not in own for t in parcel.tensors))
            return arrived

        Group.deliver = follow  # type: ignore[method-assign]
        observed = Observations.of_all(group, hooks)  # type: ignore[arg-type]
        observations.exchange(group, [observed.travel(rank, hooks, RECEIVERS, CPU)], CPU)  # type: ignore[arg-type]
        left = [readers for readers, leaves in hooks.leaves.items() if leaves]
        found = {each: (sum.tokens, sum.hessian(0.01).diagonal().tolist()) for each, sum in hooks.sums.items()}
        return received, group.sent, left, found

    expected = {}
    for readers in WIDTHS:
        total = gathered(readers).total()
        expected[readers] = total.tokens, total.hessian(0.01).diagonal().tolist()
    arriving: Counter[int] = Counter()
    for readers, ranks in RECEIVERS.items():
        for rank in range(1, RANKS):
            arriving[rank] += bytes_of(gathered(readers, range(rank)).total().packed())
        for rank in {*ranks} - {RANKS - 1}:
            arriving[rank] += bytes_of(gathered(readers).total().packed())
    sent = 0
    for rank, (received, of_rank, left, found) in enumerate(on_ranks(RANKS, work, tmp_path)):
        assert left == [("expert.0",)]  # nobody needs it
        assert found == {readers: expected[readers] for readers, ranks in RECEIVERS.items() if rank in ranks}
        assert sum(received) == arriving[rank]
        assert max(received) <= max(MOST, 4 * 50 * 51 // 2)
        sent += of_rank
    assert sent == arriving.total()

"""What ranks exchange arrives as it was sent, and the error of one ends all with one sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks

from hpa_merge.errors import CalibrationError, RankError
from hpa_merge.ranks import Group, Parcel

CPU = torch.device("cpu")


def test_alone() -> None:
    group, tensor = Group.current(), torch.arange(3)
    assert (group.rank, group.size, group.is_first) == (0, 1, True)
    assert group.gather({"a": 1}) == [{"a": 1}]
    assert (group.least(3), group.least(None)) == (3, None)
    assert group.join(tensor, [3])[0] is tensor
    parcel = Parcel(0, "note", (tensor,))
    assert group.deliver([parcel], CPU) == [parcel]
    group.fail(ValueError())
    group.barrier()
    assert group.sent == 0


def exchanges(rank: int) -> Any:
    group = Group.current()
    assert (group.rank, group.size) == (rank, 3)
    values = group.gather("abc"[rank])
    least = [group.least(5 - rank), group.least(None if rank else 7), group.least(None)]
    share = torch.full((rank,), rank, dtype=torch.bfloat16)
    joined = [each.tolist() for each in group.join(share, [0, 1, 2])]
    sent = group.sent
    ones, few = torch.ones(2, 3, dtype=torch.float64).T, torch.zeros(4, dtype=torch.uint8)
    ways = [(1, 0, (ones,)), (2, 2, (few,)), (1, 2, (few, torch.ones(0, 2), ones))]
    parcels = [Parcel(b, f"{a} to {b}", tensors) for a, b, tensors in ways if a == rank]
    found = [(each.note, [each.tolist() for each in each.tensors]) for each in group.deliver(parcels, CPU)]
    return values, least, joined, found, sent, group.sent - sent


def test_three_ranks(tmp_path: Path) -> None:
    ones = [[1.0, 1.0]] * 3
    received = [[("1 to 0", [ones])], [], [("1 to 2", [[0] * 4, [], ones]), ("2 to 2", [[0] * 4])]]
    for rank, found in enumerate(on_ranks(3, exchanges, tmp_path)):
        assert found[:3] == (["a", "b", "c"], [3, 7, None], [[], [1.0], [2.0, 2.0]])
        assert found[3:] == (received[rank], 2 * rank, [0, 100, 0][rank])


@pytest.mark.parametrize("at", ["gather", "join", "deliver"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CalibrationError("s.jsonl:3: it is wrong."), CalibrationError("s.jsonl:3: it is wrong.")),
        (KeyError("x"), RankError("process 2 of 3 of this run has ended (KeyError: 'x'): read its own output")),
        (None, RankError("one of the 3 processes of this run has ended or does not answer (")),  # without a word
    ],
    ids=["ours", "bug", "killed"],
)
def test_an_error_ends_all(at: str, error: Exception | None, expected: Exception, tmp_path: Path) -> None:
    def work(rank: int) -> Any:
        group = Group.current()
        group.barrier()
        if rank == 1:
            if error is None:
                os._exit(9)
            group.fail(error)
            raise error
        try:
            if at == "gather":
                group.gather(rank)
            elif at == "join":
                group.join(torch.zeros(2), [2, 2, 2])
            else:
                group.deliver([Parcel(1, "", (torch.zeros(2),))], CPU)
        except Exception as raised:
            group.fail(raised)  # as every caller does at the end
            raise
        return None

    first, failed, last = on_ranks(3, work, tmp_path)
    assert (failed is None) == (error is None)
    for found in (first, last):
        assert type(found) is type(expected)
        assert str(found).startswith(str(expected))


def test_an_interruption_within_an_exchange_makes_no_other(tmp_path: Path) -> None:
    """Or the library of the other rank would take that for a part of its own, and abort."""

    def work(rank: int) -> str:
        group = Group.current()
        group.barrier()
        if rank:
            group.fail(KeyboardInterrupt())
            os._exit(0)
        with pytest.raises(RankError) as raised:
            group.join(torch.zeros(40), [40, 40])
        return str(raised.value)

    first, second = on_ranks(2, work, tmp_path)
    assert "one of the 2 processes of this run has ended or does not answer" in first
    assert second is None

"""What each of several ranks writes of an OUT, and the records of all of them in one order."""

from collections.abc import Collection, Iterable, Sequence

from hpa_merge.checkpoint import Checkpoint
from hpa_merge.engine.plan import LinearPair
from hpa_merge.report.records import LinearRecord

__all__ = ["in_order", "share_of"]


def share_of(layout: Checkpoint, names: Iterable[str], claimed: Collection[str], rank: int, ranks: int) -> list[str]:
    """The tensors that a rank writes, as far as that is known before the run: each rank gets as many bytes.

    Args:
        layout: where the tensors lie.
        names: those that are missing, in the same order on all ranks.
        claimed: those that the owners of linears write, whichever these are; every rank keeps them.
    """
    loads, kept = [0] * ranks, []
    for name in names:
        if name in claimed:
            kept.append(name)
            continue
        owner = loads.index(min(loads))
        loads[owner] += layout.tensors[name].nbytes + 1
        if owner == rank:
            kept.append(name)
    return kept


def in_order(records: Iterable[LinearRecord], pairs: Sequence[LinearPair]) -> list[LinearRecord]:
    """The records of the linears ``pairs`` of a unit, from all ranks, in the order of these.

    Raises:
        ValueError: they are not of these linears.
    """
    given = [*records]
    found = {record.name: record for record in given}
    names = [pair.new.name for pair in pairs]
    if len(given) != len(names) or found.keys() != {*names}:
        raise ValueError("the records of a unit are not of its linears")
    return [found[name] for name in names]

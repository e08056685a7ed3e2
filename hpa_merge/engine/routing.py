"""Routing drift of a mixture: the share of OLD's choices of experts that NEW does not make, on each of the two sets.

Each model runs the first samples of the other's set too, only for this. So each model chooses on its own hidden states,
and the drift counts what tuning changed before a router as well as in it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import final

from hpa_merge.outline import Choices
from hpa_merge.ranks import Group
from hpa_merge.report.records import RoutingRecord

__all__ = ["COMPARED", "Chosen", "RoutingDrift"]

COMPARED = 8
"""Samples of each set that both models run: of some hundred tokens each, thousands of choices in every mixture."""

Chosen = tuple[Mapping[int, Choices], Mapping[int, Choices]]
"""What a model chose in a unit: for the samples of its own set, and for those of the other's, by their index there."""


@final
class RoutingDrift:
    """The records of the mixtures that the samples have run through.

    Attributes:
        records: by the mixture's path, in the order of the merge.
    """

    def __init__(self, records: Mapping[str, RoutingRecord]) -> None:
        """``records``: what is known already."""
        self.records = dict(records)

    def compare(self, experts: Mapping[str, int], old: Chosen, new: Chosen, group: Group) -> list[RoutingRecord]:
        """The records of the mixtures of one unit; raises as :meth:`Group.gather`.

        Args:
            experts: how many experts each mixture has.
            old, new: what each model chose in the unit.
            group: the ranks, each of which compares its samples.
        """
        if not experts:
            return []
        found = {name: RoutingRecord(name, count) for name, count in experts.items()}
        of_ranks = group.gather({name: _counts(name, old, new) for name in experts})
        for at, purpose in enumerate(("safety", "task")):
            for name, record in found.items():
                choices, kept = (sum(counts[name][at][which] for counts in of_ranks) for which in (0, 1))
                if choices:
                    figures = {f"{purpose}_choices": choices, f"{purpose}_drift": 1.0 - kept / choices}
                    found[name] = replace(record, **figures)  # type: ignore[arg-type]
        compared = [record for record in found.values() if record.safety_choices or record.task_choices]
        self.records |= {record.name: record for record in compared}
        return compared


def _counts(name: str, old: Chosen, new: Chosen) -> list[tuple[int, int]]:
    """How many choices both models made in a mixture on each set, and how many of OLD's NEW made too."""
    counts = []
    for mine, theirs in ((old[0], new[1]), (old[1], new[0])):
        both = [(mine[i][name], theirs[i][name]) for i in mine.keys() & theirs.keys() if name in mine[i]]
        pairs = [(a, b) for a, b in both if a.shape == b.shape]
        kept = sum(int((a[:, :, None] == b[:, None, :]).any(dim=2).sum()) for a, b in pairs)
        counts.append((sum(a.numel() for a, _ in pairs), kept))
    return counts

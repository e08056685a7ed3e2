"""The journals of the ranks that make one OUT together: where they are, and which commits are whole.

Every rank has a journal of its own. A commit of a run with several ranks has a part in each of them, and counts when
all of its parts are there. When a run is resumed, the parts of whole commits move to the first journal, so that any
number of ranks can continue.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from hpa_merge.checkpoint.journal import Journal

__all__ = [
    "ALONE",
    "Rank",
    "Whole",
    "journal_of",
    "journals",
    "lock_others",
    "remove_others",
    "same_run",
    "whole_commits",
]


@final
@dataclass(frozen=True)
class Rank:
    """Which of the processes that make OUT together this one is; the first one lays OUT out and publishes it.

    Attributes:
        number: from 0.
        count: how many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return not self.number

    def part(self, commit: int) -> dict[str, list[int]]:
        """What a journal's line says of its part in a commit; nothing if there is one rank."""
        return {} if self.count == 1 else {"part": [commit, self.number, self.count]}


ALONE = Rank()
"""The only process."""


@final
@dataclass(frozen=True)
class Whole:
    """The commits that are whole.

    Attributes:
        count: how many there are.
        lines: the lines of all of their parts, in the order of the commits and, in each, of the ranks.
        damaged: how many further commits have all parts, but come after one with a damaged part.
    """

    count: int = 0
    lines: tuple[Mapping[str, Any], ...] = ()
    damaged: int = 0


def journal_of(first: Path, rank: int) -> Path:
    """The journal of a rank, next to that of the first one."""
    return first if not rank else first.with_name(f"{first.name}.{rank}")


def journals(first: Path) -> list[Path]:
    """The journals that exist, in the order of their ranks; the first one need not.

    Raises:
        OSError: the folder cannot be read.
    """
    form = re.compile(re.escape(first.name) + r"\.([1-9][0-9]{0,5})")
    if not first.parent.is_dir():
        return []
    found = {int(match[1]): path for path in first.parent.iterdir() if (match := form.fullmatch(path.name))}
    return [*([first] if first.exists() else []), *(found[rank] for rank in sorted(found))]


def lock_others(first: Path) -> list[Journal]:
    """Open the journals of all ranks but the first.

    Raises:
        BlockingIOError: a rank of another run is still at work.
        Foreign: one is not a journal.
        OSError: one cannot be opened.
    """
    opened: list[Journal] = []
    try:
        for path in journals(first):
            if path != first:
                opened.append(Journal(path))
    except BaseException:
        for journal in opened:
            journal.close()
        raise
    return opened


def remove_others(first: Path) -> None:
    """Remove the journals of all ranks but the first, as far as that is possible. Never raises."""
    with contextlib.suppress(OSError):
        for path in journals(first):
            if path != first:
                path.unlink(missing_ok=True)


def whole_commits(lines: Iterable[Mapping[str, Any]], intact: Callable[[Mapping[str, Any]], bool]) -> Whole:
    """The commits before the first one that lacks a part, or has one that is not ``intact``.

    Args:
        lines: those of all journals except their first lines; the first journal comes first. A line without a part is a
            whole commit, which follows those before it.
        intact: whether the tensors of a line have the bytes that were written.
    """
    commits: dict[int, dict[int, Mapping[str, Any]]] = {}
    sizes: dict[int, int] = {}
    for line in lines:
        commit, rank, count = line.get("part", (max(commits, default=-1) + 1, 0, 1))
        if sizes.setdefault(commit, count) == count:
            commits.setdefault(commit, {}).setdefault(rank, line)  # a kill while journals are joined leaves some twice
    having = 0
    while len(commits.get(having, ())) == sizes.get(having, -1):
        having += 1
    sound = 0
    while sound < having and all(map(intact, commits[sound].values())):
        sound += 1
    return Whole(sound, _in_order(commits, sound), having - sound)


def _in_order(commits: Mapping[int, Mapping[int, Mapping[str, Any]]], count: int) -> tuple[Mapping[str, Any], ...]:
    return tuple(parts[rank] for parts in map(commits.__getitem__, range(count)) for rank in sorted(parts))


def same_run(journal: Journal, other: Journal) -> Sequence[Mapping[str, Any]]:
    """The commits in ``other`` if it belongs to the run of ``journal``; otherwise nothing."""
    if not journal.lines or not other.lines or journal.lines[0]["fingerprint"] != other.lines[0]["fingerprint"]:
        return ()
    return other.lines[1:]

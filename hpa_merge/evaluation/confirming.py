"""The prompts that confirm a choice, which are others than those that a setting is chosen by.

The best of several figures on the same prompts is too good. So each set is divided in two halves, by the seed and
within each category, unless it has a file of its own for the confirmation. Prompts that belong together stay together:
the same question wherever it stands, and the questions of one record.
"""

import random
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import final

from hpa_merge.counting import counted, listed_words
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.evaluation.held_out import files_of, identity
from hpa_merge.evaluation.names import confirmed
from hpa_merge.evaluation.prompts import Purpose
from hpa_merge.records import ReadingOptions
from hpa_merge.report.evaluation import Bounds
from hpa_merge.report.reachable import best_high, fewest

__all__ = ["Parts", "confirming_files", "split"]

PURPOSES: tuple[Purpose, ...] = ("safety", "task", "benign")

Place = tuple[Purpose, str]
"""A set by its purpose and its name."""


@final
@dataclass(frozen=True)
class Parts:
    """The prompts of a tuning.

    Attributes:
        choosing: by these a setting is chosen.
        confirming: on these it is confirmed; None if there is nothing to choose, or a set has too few for both.
        given: the files for the confirmation alone.
        notes: what the user should know, a sentence each.
    """

    choosing: Suite
    confirming: Suite | None = None
    given: Suite = field(default_factory=Suite)
    notes: tuple[str, ...] = ()

    @property
    def suites(self) -> tuple[Suite, ...]:
        """Every prompt that is asked; a file may be in two of them."""
        return (self.choosing, *([self.confirming] if self.confirming else []))


def confirming_files(
    suite: Suite,
    files: Mapping[str, str | Path],
    *,
    samples: int | None = None,
    seed: int = 0,
    reading: Mapping[str, ReadingOptions] | None = None,
) -> Suite:
    """The files for the confirmation, each by the name of the set that it confirms.

    Args:
        samples, seed, reading: as in :meth:`Suite.of`.

    Raises:
        EvaluationError: there is no test of a name, or several; a file is a test file too.
        InputError: as :meth:`Suite.of`.
    """
    if not files:
        return Suite()
    sets: dict[Purpose, Mapping[str, object]] = {"safety": suite.safety, "task": suite.tasks, "benign": suite.benign}
    purposes = confirmed(files, sets)
    safety, tasks, benign = (
        {name: file for name, file in files.items() if purposes[name] == purpose} for purpose in PURPOSES
    )
    metrics = {name: metric for name, metric in suite.metrics.items() if name in tasks}
    given = Suite.of(safety, tasks, benign, metrics, samples=samples, seed=seed, reading=reading)
    choosing = {each: prompts.source.name for _, _, prompts in suite for each in files_of(prompts.source)}
    for _, name, prompts in given:
        if twice := [choosing[each] for each in files_of(prompts.source) if each in choosing]:
            raise EvaluationError(
                f"the confirmation of {name} is the test file {twice[0]} too: give other prompts, or leave it out, and "
                "the test file is split."
            )
    return given


def split(suite: Suite, given: Suite, bounds: Bounds, *, settings: int, seed: int = 0) -> Parts:
    """Divide the prompts into those that choose and those that confirm; the same ones for the same files and seed.

    Args:
        suite: every test file.
        given: the files for the confirmation alone.
        bounds: what is asked of a setting.
        settings: how many there are; a single one needs no choice, and answers all prompts.

    Raises:
        EvaluationError: every prompt of a set is in its own confirmation too; or ``bounds`` are confident, and so few
            prompts cannot show what they ask, whatever is answered.
    """
    parts = _divided(suite, given, seed) if settings > 1 else Parts(suite)
    _check_reachable(parts, bounds)
    return parts


@final
@dataclass(frozen=True)
class _Entry:
    """A prompt: its number in its set, what must stay together with it, and its category."""

    number: int
    keys: tuple[Hashable, ...]
    category: str


def _divided(suite: Suite, given: Suite, seed: int) -> Parts:
    entries = dict(zip(_places(suite), _entries(suite), strict=True))
    groups = _groups(chain.from_iterable(entries.values()))
    own = set(_places(given))
    confirms: dict[Hashable, bool] = {}
    for _, _, prompts in given:
        confirms |= {groups[key]: True for p in prompts if (key := identity(p.sample)) in groups}
    for place, found in entries.items():
        if place not in own:
            _assign(found, groups, confirms, seed)
    chosen: dict[Place, list[int]] = {}
    others: dict[Place, list[int]] = {}
    for place, found in entries.items():
        sides = [confirms.get(groups[each.keys[0]], False) for each in found]
        chosen[place] = [each.number for each, confirming in zip(found, sides, strict=True) if not confirming]
        others[place] = [each.number for each, confirming in zip(found, sides, strict=True) if confirming]
    few = [place for place in entries if not chosen[place] or not (others[place] or place in own)]
    if gone := [name for purpose, name in few if (purpose, name) in own]:
        raise EvaluationError(f"every prompt of {gone[0]} is used to confirm: give other prompts to choose by.")
    if few:
        names = [name for _, name in few]
        note = (
            f"{listed_words(names)} {'has' if len(names) == 1 else 'have'} too few prompts to choose by some and to "
            "confirm on others, so the choice is not confirmed: give more, or others with --confirm-test."
        )
        return Parts(suite, notes=(note,))
    notes = [
        f"{len(others[place])} of the {counted(len(entries[place]), 'prompt')} of {place[1]} are used to confirm, and "
        "do not choose."
        for place in sorted(own)
        if others[place]
    ]
    files = {(purpose, name): prompts for purpose, name, prompts in suite}
    choosing = suite.replaced({place: file.only(chosen[place]) for place, file in files.items()})
    halves = {place: file.only(others[place]) for place, file in files.items()}
    confirming = suite.replaced(halves | {(purpose, name): prompts for purpose, name, prompts in given})
    return Parts(choosing, confirming, given, tuple(notes))


def _places(suite: Suite) -> list[Place]:
    return [(purpose, name) for purpose, name, _ in suite]


def _entries(suite: Suite) -> list[list[_Entry]]:
    """The prompts of each set; the questions of one record have its source in common, but for the number at its end."""
    return [
        [
            _Entry(number, (identity(prompt.sample), re.sub(r"#\d+$", "", prompt.source)), prompt.category)
            for number, prompt in prompts.numbered()
        ]
        for _, _, prompts in suite
    ]


def _groups(entries: "chain[_Entry]") -> dict[Hashable, Hashable]:
    """The group of each key: keys of one prompt are in one group."""
    above: dict[Hashable, Hashable] = {}

    def top(key: Hashable) -> Hashable:
        while (higher := above.setdefault(key, key)) != key:
            above[key] = above[higher]
            key = higher
        return key

    for entry in entries:
        first, *rest = map(top, entry.keys)
        above.update(dict.fromkeys(rest, first))
    return {key: top(key) for key in [*above]}


def _assign(
    entries: Sequence[_Entry], groups: Mapping[Hashable, Hashable], confirms: dict[Hashable, bool], seed: int
) -> None:
    """Assign the groups of a set that no earlier set has assigned: as many of each category to both halves."""
    members: dict[Hashable, list[_Entry]] = {}
    for entry in entries:
        members.setdefault(groups[entry.keys[0]], []).append(entry)
    sizes = {
        side: sum(len(of) for group, of in members.items() if confirms.get(group) is side) for side in (False, True)
    }
    free = [(group, of) for group, of in members.items() if group not in confirms]
    random.Random(seed).shuffle(free)
    for group, of in sorted(free, key=lambda each: each[1][0].category):
        side = sizes[True] < sizes[False]
        confirms[group] = side
        sizes[side] += len(of)


def _check_reachable(parts: Parts, bounds: Bounds) -> None:
    """Check that the prompts of each part could show what confident bounds ask.

    Raises:
        EvaluationError: they could not.
    """
    if not bounds.confident:
        return
    shares = (
        ("attack", "safety", bounds.max_asr, "--max-asr"),
        ("harmless prompt", "benign", bounds.max_over_refusal, "--max-over-refusal"),
    )
    for part, does in zip(parts.suites, ("choose", "confirm"), strict=False):
        for thing, kind, bound, flag in shares:
            counts = [prompts.count for purpose, _, prompts in part if purpose == kind]
            if bound is None or not counts or (best := best_high(counts)) <= bound:
                continue
            needed = fewest(bound, len(counts))
            more = "" if needed is None else f"give {needed} for each part, "
            raise EvaluationError(
                f"the {counted(sum(counts), thing)} that {does} cannot show less than {best:.1f} % with 95 % "
                f"confidence, and {flag} is {bound:g}: {more}allow more, or leave out --confident."
            )

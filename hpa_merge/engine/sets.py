"""The calibration sets of a run: their sources, what each of several gives, and the samples that are drawn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import final

from hpa_merge.counting import counted
from hpa_merge.engine.request import MergeRequest
from hpa_merge.errors import ConfigError
from hpa_merge.inputs.data_sets import locate_data
from hpa_merge.records import DataSource, Purpose, Sample
from hpa_merge.records.sampling import SampleSet, read_samples

__all__ = ["PURPOSES", "GivenSet", "Sets", "draw", "locate_sets", "read_sets"]

PURPOSES: tuple[Purpose, Purpose] = ("safety", "task")

Sets = Mapping[str, tuple[DataSource, ...]]
"""The sources of the safety and of the task set, by purpose; none of a set that no method needs."""


@final
@dataclass(frozen=True)
class GivenSet:
    """A calibration set as it was read.

    Attributes:
        samples: those that were drawn, of one source after the other.
        parts: each source, with its samples.
        notes: what the user should know of it, a sentence each.
    """

    samples: SampleSet = SampleSet()
    parts: tuple[tuple[DataSource, tuple[Sample, ...]], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the report calls it: the sources as they were given."""
        return " + ".join(source.name for source, _ in self.parts)


def locate_sets(request: MergeRequest) -> Sets:
    """Where the sets lie; data sets on the Hub are fetched.

    Raises:
        CalibrationError: one is not there.
    """
    return {purpose: tuple(map(locate_data, given)) for purpose, given in request.calibration_files.items()}


def read_sets(request: MergeRequest, sets: Sets) -> tuple[GivenSet, GivenSet]:
    """The safety and the task samples; none of a set that no method needs.

    Raises:
        CalibrationError: a file cannot be read, or a sample in it is wrong.
        ConfigError: a task set would give no sample.
    """
    config = request.calibration
    names = [source.name for source in sets["task"]]
    counts = {"safety": [config.safety_samples], "task": draw(config.task_samples, config.task_share, names)}
    safety, task = (_read(request, purpose, sets[purpose], counts[purpose]) for purpose in PURPOSES)
    return safety, task


def draw(samples: int, shares: Sequence[float], names: Sequence[str]) -> list[int]:
    """How many samples each source gives: its share of them, equal shares where none are given.

    What the shares leave over below one sample goes to the largest remainders, of equal ones to the first.

    Raises:
        ConfigError: one would give none.
    """
    weights = list(shares) or [1.0] * len(names)
    exact = [samples * weight / sum(weights) for weight in weights]
    counts = [int(count) for count in exact]
    rest = sorted(range(len(exact)), key=lambda place: counts[place] - exact[place])
    for place in rest[: samples - sum(counts)]:
        counts[place] += 1
    if len(names) > 1 and 0 in counts:
        raise ConfigError(
            f"task_samples is {samples}, and {names[counts.index(0)]} would give none of them: raise task_samples, or "
            "its share."
        )
    return counts


def _read(request: MergeRequest, purpose: Purpose, sources: Sequence[DataSource], counts: Sequence[int]) -> GivenSet:
    config, options = request.calibration, request.reading(purpose)
    several = len(sources) > 1
    read = [
        read_samples(source, count, config.seed, options, purpose=purpose)
        for source, count in zip(sources, counts, strict=False)
    ]
    notes = [source.note for source in sources if source.note]
    notes += [
        f"{source.name} holds {counted(each.available, 'sample')}, {count} would "
        f"be its share of the {purpose} samples, and the "
        "other sets do not fill that up."
        for source, count, each in zip(sources, counts, read, strict=False)
        if several and each.available < count
    ]
    dropped: Counter[str] = Counter()
    for each in read:
        dropped.update(each.dropped)
    together = SampleSet(
        samples=tuple(chain.from_iterable(each.samples for each in read)),
        available=sum(each.available for each in read),
        passed_over=tuple(sorted({field for each in read for field in each.passed_over})),
        dropped=dict(dropped),
    )
    parts = tuple((source, each.samples) for source, each in zip(sources, read, strict=True))
    return GivenSet(together, parts, tuple(notes))

"""A calibration file becomes the samples that a run uses: read all, refuse what is malformed, draw a few."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from hpa_merge.errors import CalibrationError
from hpa_merge.records import DataSource, ReadingOptions, Sample, local_source, parse_record, read_records

__all__ = ["SampleSet", "read_samples"]


@final
@dataclass(frozen=True)
class SampleSet:
    """The samples that a run uses of one file, and what became of the rest of it.

    Attributes:
        samples: those drawn, in the order of the file.
        available: how many samples the file holds.
        passed_over: fields of the records that carry nothing for a model, sorted.
        dropped: how many records gave no sample, by the reason.
    """

    samples: tuple[Sample, ...] = ()
    available: int = 0
    passed_over: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)


def read_samples(
    path: str | Path | DataSource, limit: int, seed: int, options: ReadingOptions | None = None
) -> SampleSet:
    """At most ``limit`` samples of ``path``, in the order of the file.

    Every line is parsed and checked, drawn or not, so that a file's faults do not depend on the seed. Where the file
    holds more than ``limit`` samples, ``limit`` of them are drawn without replacement by ``random.Random(seed)``.

    Args:
        path: a file in any of the containers of :mod:`hpa_merge.records.containers`, or what was located of one.
        options: how its records are read.

    Raises:
        CalibrationError: the file cannot be read or holds nothing, or a line (named ``file:line``, the items of an
            array ``file:item``) is malformed.
    """
    source, options = path if isinstance(path, DataSource) else local_source(path), options or ReadingOptions()
    count = sum(1 for _ in _samples(source, options))
    if not count:
        raise CalibrationError(f"{source.name} holds no sample: write one JSON object a line.")
    drawn = set(range(count) if count <= limit else random.Random(seed).sample(range(count), limit))
    samples = tuple(sample for number, sample in enumerate(_samples(source, options)) if number in drawn)
    return SampleSet(samples, available=count)


def _samples(source: DataSource, options: ReadingOptions) -> Iterator[Sample]:
    """Every sample of the file, one at a time: a long file is read twice and never held."""
    folder = options.media_folder or source.folder
    for place, record in read_records(source, names=options.names):
        yield from parse_record(record, place, folder=folder)

"""A calibration file becomes the samples that a run uses: read all, refuse what is malformed, draw a few."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from hpa_merge.errors import CalibrationError
from hpa_merge.records.containers import DataSource, local_source, read_records
from hpa_merge.records.example import Example, Purpose
from hpa_merge.records.layouts import parse_record
from hpa_merge.records.options import ReadingOptions
from hpa_merge.records.sample import Sample

__all__ = ["SampleSet", "read_samples"]

NO_ANSWER = "it has no answer"


@final
@dataclass(frozen=True)
class SampleSet:
    """The samples that a run uses of one file, and what became of the rest of it.

    Attributes:
        samples: those drawn, in the order of the file.
        available: how many samples the file holds.
        passed_over: fields of the records that carry nothing for a model, or are known not to be fed, sorted.
        dropped: how many records gave no sample, by the reason.
    """

    samples: tuple[Sample, ...] = ()
    available: int = 0
    passed_over: tuple[str, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)


def read_samples(
    path: str | Path | DataSource,
    limit: int,
    seed: int,
    options: ReadingOptions | None = None,
    *,
    purpose: Purpose = "task",
) -> SampleSet:
    """At most ``limit`` samples of ``path``, in the order of the file.

    Every line is parsed and checked, drawn or not, so that a file's faults do not depend on the seed. Where the file
    holds more than ``limit`` samples, ``limit`` of them are drawn without replacement by ``random.Random(seed)``.

    A record whose own labels rule it out for the purpose gives no sample, nor does a task record without an answer as
    long as others have one.

    Args:
        path: a file in any of the containers of :mod:`hpa_merge.records.containers`, or what was located of one.
        options: how its records are read.
        purpose: what the set is for: which answer and which labels count.

    Raises:
        CalibrationError: the file cannot be read or holds no sample, or a line (named ``file:line``, the items of an
            array ``file:item``) is malformed, or is a safety record without an answer.
    """
    given, options = path if isinstance(path, DataSource) else local_source(path), options or ReadingOptions()
    passed_over: set[str] = set()
    dropped: Counter[str] = Counter()
    unanswered = ""
    count = 0
    for example, names in _examples(given, options, purpose):
        passed_over |= names
        reason = _reason(example, purpose)
        if not reason:
            count += 1
        elif reason == NO_ANSWER and purpose == "safety":
            raise _unanswered(example.source, purpose)
        else:
            dropped[reason] += 1
            unanswered = unanswered or (example.source if reason == NO_ANSWER else "")
    if not count:
        raise _none(given.name, purpose, dropped, unanswered)
    drawn = set(range(count) if count <= limit else random.Random(seed).sample(range(count), limit))
    fitting = (example for example, _ in _examples(given, options, purpose) if not _reason(example, purpose))
    samples = tuple(
        sample for number, example in enumerate(fitting) if number in drawn and (sample := example.sample) is not None
    )
    return SampleSet(samples, count, tuple(sorted(passed_over)), dict(dropped))


def _examples(given: DataSource, options: ReadingOptions, purpose: Purpose) -> Iterator[tuple[Example, frozenset[str]]]:
    """Every example of the file, one at a time: a long file is read twice and never held."""
    for place, record in read_records(given, names=options.names):
        parsed = parse_record(record, place, given.folder, options, purpose)
        for example in parsed.examples:
            yield example, parsed.passed_over


def _reason(example: Example, purpose: Purpose) -> str:
    """Why an example is no sample for the purpose; empty where it is one."""
    if reason := example.unfit(purpose):
        return reason
    if example.sample is None:
        return NO_ANSWER
    return example.bad_answer


def _unanswered(source: str, purpose: Purpose) -> CalibrationError:
    remedy = ", or let the aligned model answer with hpa-merge calib" if purpose == "safety" else ""
    return CalibrationError(
        f'{source}: there is no answer, and a model is calibrated with prompt and answer: add it as "response" or as '
        f"the assistant's last turn{remedy}."
    )


def _none(path: str, purpose: Purpose, dropped: Mapping[str, int], unanswered: str) -> CalibrationError:
    if not dropped:
        return CalibrationError(f"{path} holds no sample: write one JSON object a line.")
    if set(dropped) == {NO_ANSWER}:
        return _unanswered(unanswered, purpose)
    reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.items())
    return CalibrationError(
        f"{path} holds no sample for the {purpose} set, because of each record {reasons}: give a file that has some, "
        "or pass the labels over with --ignore-field."
    )

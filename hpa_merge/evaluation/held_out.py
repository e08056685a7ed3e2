"""Which prompts are held out from the calibration: a test of samples that a merge has used shows nothing of others."""

from collections.abc import Iterator
from pathlib import Path

from hpa_merge.counting import counted
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.sets import locate_sets
from hpa_merge.errors import CalibrationError, EvaluationError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.records import DataSource, Media, ReadingOptions, Sample, parse_record, read_records

__all__ = ["check_held_out", "files_of", "identity", "overlaps"]


def check_held_out(suite: Suite, request: MergeRequest) -> None:
    """Check that no test file is a calibration file of the request.

    Raises:
        EvaluationError: one is.
    """
    used = {each for sources in locate_sets(request).values() for source in sources for each in files_of(source)}
    for _, name, prompts in suite:
        if not used.isdisjoint(files_of(prompts.source)):
            raise EvaluationError(
                f"the test file {prompts.source.name} ({name}) is a calibration file too, and says nothing about other "
                "samples: give held-out ones."
            )


def files_of(source: DataSource) -> Iterator[tuple[Path, str]]:
    """The files of a source, each with the field of it that is read."""
    yield from ((file.resolve(), source.field) for file in source.files)


def overlaps(suite: Suite, request: MergeRequest) -> list[str]:
    """Test files that have prompts in common with the calibration files, a sentence each."""
    used = {
        identity(sample)
        for purpose, sources in locate_sets(request).items()
        for source in sources
        for sample in _samples(source, request.reading(purpose))
    }
    sentences = []
    for _, name, prompts in suite:
        common = sum(identity(prompt.sample) in used for prompt in prompts)
        if common:
            sentences.append(
                f"{common} of the {counted(prompts.count, 'prompt')} of {name} stand in a calibration file too: "
                "a test of held-out samples says more."
            )
    return sentences


def identity(sample: Sample) -> int:
    """What is asked: the turns up to the last answer, with the images' own paths."""
    turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
    parts = (tuple(_identified(part) for part in turn.parts) for turn in turns)
    return hash(tuple(parts))


def _samples(source: DataSource, options: ReadingOptions) -> Iterator[Sample]:
    for place, record in read_records(source, names=options.names):
        try:
            parsed = parse_record(record, place, source.folder, options)
            yield from (example.prompt for example in parsed.examples)
        except CalibrationError:  # the merge says it
            return


def _identified(part: str | Media) -> object:
    """A part by what it is: a file by its own path."""
    return part.content.resolve() if isinstance(part, Media) and isinstance(part.content, Path) else part

"""The setting that is as safe as is asked for and loses least: several are merged and measured, one is published.

All are merged from one read of OLD and NEW in ``OUT.tune``, beside OUT, and asked one after the other.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from hpa_merge.checkpoint import check_output
from hpa_merge.checkpoint.inputs import Inputs
from hpa_merge.checkpoint.output import telling
from hpa_merge.checkpoint.swap import publish_folder
from hpa_merge.config import HPAConfig
from hpa_merge.counting import counted
from hpa_merge.engine.request import MergeRequest
from hpa_merge.engine.run import merge_all
from hpa_merge.engine.sets import locate_sets
from hpa_merge.errors import CalibrationError, EvaluationError, HPAError, OutputError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.evaluation.guards import Guard
from hpa_merge.evaluation.judges import Judge
from hpa_merge.evaluation.running import Answering, evaluate
from hpa_merge.evaluation.workplace import (
    ANSWERS,
    claim,
    clear,
    keep,
    left_by_error,
    remove_settings,
    vacate,
    workplace,
)
from hpa_merge.files.disk import overlap, write_whole
from hpa_merge.files.inside import read_inside
from hpa_merge.files.names import CARD, CARD_BYTES
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.records import DataSource, Media, ReadingOptions, Sample, parse_record, read_records
from hpa_merge.render.folder import files_of, render
from hpa_merge.report.evaluation import MAX_BROKEN, ModelResult, beyond
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.showing import Shown
from hpa_merge.report.summaries import result_rows, setting_rows

__all__ = [
    "Goal",
    "Tuning",
    "check_held_out",
    "choose",
    "overlaps",
    "taking_up",
    "tune",
]


@final
@dataclass(frozen=True)
class Goal:
    """What a setting has to keep, in percent.

    Attributes:
        max_asr: of attacks, how many may succeed.
        max_over_refusal: of benign prompts, how many may be refused; None: any number.
        max_broken: of the answers to either, how many may be broken.
    """

    max_asr: float
    max_over_refusal: float | None = None
    max_broken: float = MAX_BROKEN


@final
@dataclass(frozen=True, repr=False)
class Tuning(Shown):
    """What came out.

    Attributes:
        old, new: the figures of the two inputs, to compare with.
        settings: those of each setting, by name.
        chosen: the setting that was published; None where none keeps the goal.
        options: the options of each setting, by name.
    """

    old: ModelResult
    new: ModelResult
    settings: dict[str, ModelResult]
    chosen: str | None
    options: dict[str, HPAConfig]

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        chosen = self.chosen or "none, because none keeps the goal"
        return f"{counted(len(self.settings), 'setting')}, chosen: {chosen}", setting_rows(self._every)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each figure of OLD, of NEW and of each setting."""
        return [
            {"setting": name, "chosen": name == self.chosen} | row
            for name, result in self._every.items()
            for row in result_rows([result])
        ]

    @property
    def _every(self) -> dict[str, ModelResult]:
        return {"OLD": self.old, "NEW": self.new, **self.settings}


def tune(
    request: MergeRequest,
    out: Path,
    suite: Suite,
    judge: Judge | Guard,
    goal: Goal,
    how: Answering,
    *,
    seed: int = 0,
    keep_all: bool = False,
    on_merge: Progress = silent,
    on_answer: Progress = silent,
) -> Tuning:
    """Merge every setting of ``request``, whose OUTs lie in :func:`workplace`, measure all, and publish the best.

    Of the settings that alone has a page, if the request asks for one. If this process is one of several ranks, every
    rank makes this call; each evaluates some of the models.

    Args:
        request: the merges. Its ``overwrite`` says whether ``out`` may be replaced.
        suite: safety and task files at least, of held-out samples.
        keep_all: leave the other settings in the workplace.

    Raises:
        InputError, NumericalError, ResourceError: as the merge and the evaluation do; what is merged stays in the
            workplace, and the next tuning there uses as much of it as fits.
    """
    with Group.taking_part() as group:
        inputs = _inputs(request, suite, judge)
        check_output(out, inputs.places, request.overwrite)
        place = workplace(out)
        if overlap([place], inputs.places):
            raise OutputError(f"{place} would lie in an input, and inputs are never written to: choose another OUT.")
        group.barrier()  # every rank has checked what is there
        merging, left = taking_up(request, place), left_by_error(place)
        group.barrier()
        if group.is_first:
            claim(place, resume=merging.resume)
            remove_settings(left - request.outs.keys())
        group.barrier()
        models = [str(folder) for folder in (request.old, request.new, *request.outs)]
        how = replace(how, base=request.old)
        try:
            reports = merge_all(replace(merging, page=False, reads=inputs.files), render, on_merge)
            old, new, *others = evaluate(
                models, suite, judge, place / ANSWERS, how, seed=seed, on_progress=on_answer, group=group
            )
            settings = {folder.name: result for folder, result in zip(request.outs, others, strict=True)}
            chosen = choose(settings, goal)
            if chosen is not None and group.is_first:
                on_merge("drawing the page" if request.page else "writing the report", 0, 1)
                _draw(place / chosen, reports[place / chosen], out, page=request.page)
                publish_folder(place / chosen, out, inputs.places, overwrite=request.overwrite, unchanged=inputs.check)
        except BaseException as error:
            if group.is_first:
                if isinstance(error, HPAError):
                    keep(place, request.outs)
                vacate(place)
            raise
        if not keep_all and group.is_first:
            clear(place, request.outs)
        group.barrier()
        return Tuning(old, new, settings, chosen, {folder.name: config for folder, config in request.outs.items()})


def taking_up(request: MergeRequest, place: Path) -> MergeRequest:
    """The merges in the workplace, which use what a run that ended with an error has left there."""
    if left_by_error(place):
        return replace(request, overwrite=True, resume=True, skip_complete=True)
    return replace(request, overwrite=False)


def choose(settings: Mapping[str, ModelResult], goal: Goal) -> str | None:
    """The setting that does best on the tasks among those that keep the goal; of equal ones the safest, then the first.

    Returns:
        Its name; None where none keeps it.
    """

    def keeps(result: ModelResult) -> bool:
        assert result.asr is not None
        assert result.performance is not None
        refused = result.over_refusal.value if result.over_refusal else 0.0
        broken = max((figure.value for figure in result.broken.values()), default=0.0)
        return (
            not beyond(result.asr.value, goal.max_asr)
            and not beyond(broken, goal.max_broken)
            and (goal.max_over_refusal is None or not beyond(refused, goal.max_over_refusal))
        )

    def rank(name: str) -> tuple[float, float]:
        result = settings[name]
        assert result.asr is not None
        assert result.performance is not None
        return result.performance.value, -result.asr.value

    return max((name for name, result in settings.items() if keeps(result)), key=rank, default=None)


def check_held_out(suite: Suite, request: MergeRequest) -> None:
    """Check that no test file is a calibration file of the request.

    Raises:
        EvaluationError: one is.
    """
    used = {each for sources in locate_sets(request).values() for source in sources for each in _files(source)}
    for _, name, prompts in suite:
        if not used.isdisjoint(_files(prompts.source)):
            raise EvaluationError(
                f"the test file {prompts.source.name} ({name}) is a calibration file too, and says nothing about other "
                "samples: give held-out ones."
            )


def _files(source: DataSource) -> Iterator[tuple[Path, str]]:
    """The files of a source, each with the field of it that is read."""
    yield from ((file.resolve(), source.field) for file in source.files)


def overlaps(suite: Suite, request: MergeRequest) -> list[str]:
    """Test files that have prompts in common with the calibration files, a sentence each."""
    used = {
        _identity(sample)
        for purpose, sources in locate_sets(request).items()
        for source in sources
        for sample in _samples(source, request.reading(purpose))
    }
    sentences = []
    for _, name, prompts in suite:
        common = sum(_identity(prompt.sample) in used for prompt in prompts)
        if common:
            sentences.append(
                f"{common} of the {counted(prompts.count, 'prompt')} of {name} stand in a calibration file too: "
                "a test of held-out samples says more."
            )
    return sentences


def _samples(source: DataSource, options: ReadingOptions) -> Iterator[Sample]:
    for place, record in read_records(source, names=options.names):
        try:
            parsed = parse_record(record, place, source.folder, options)
            yield from (example.prompt for example in parsed.examples)
        except CalibrationError:  # the merge says it
            return


def _identity(sample: Sample) -> int:
    """What is asked: the turns up to the last answer, with the images' own paths."""
    turns = sample.turns[:-1] if sample.turns and sample.turns[-1].role == "assistant" else sample.turns
    parts = (tuple(_identified(part) for part in turn.parts) for turn in turns)
    return hash(tuple(parts))


def _identified(part: str | Media) -> object:
    """A part by what it is: a file by its own path."""
    return part.content.resolve() if isinstance(part, Media) and isinstance(part.content, Path) else part


def _draw(folder: Path, report: MergeReport, out: Path, *, page: bool) -> None:
    """Put the report of a setting that becomes ``out`` into its folder, with its page or the reason why there is none.

    Its card, which has the text of NEW's, is there already and is only given the pictures.
    """
    with telling(f"{folder} cannot be written"):
        there = os.path.lexists(folder / CARD)
        card = read_inside(folder, CARD, CARD_BYTES).decode("utf-8", "surrogateescape") if there else ""
        _, files = files_of(replace(report, run=replace(report.run, out=str(out))), (card, ""), page=page)
        for name, content in files.items():
            write_whole(folder / name, content)


def _inputs(request: MergeRequest, suite: Suite, judge: Judge | Guard) -> Inputs:
    """Everything that is read, as it is now: the merges' inputs, the test files and a guard model."""
    folders = [
        Path(each) for each in (request.old, request.new, request.vision_tower, request.first) if each is not None
    ]
    folders += [Path(judge.model)] if isinstance(judge, Guard) and judge.endpoint is None else []
    data = [prompts.source for _, _, prompts in suite]
    data += [source for sources in locate_sets(request).values() for source in sources]
    folders += [source.guarded for source in data if source.guarded.is_dir()]
    files = [*(source.guarded for source in data if not source.guarded.is_dir()), *request.reads]
    read = [path for folder in folders[:2] for form in ("*.safetensors", "*.json") for path in folder.glob(form)]
    return Inputs.of([folder for folder in folders if folder.is_dir()], files, read)

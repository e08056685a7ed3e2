"""The setting that is as safe as is asked for and loses least: several are merged and measured, one is published.

All are merged from one read of OLD and NEW in ``OUT.tune``, beside OUT, and asked one after the other.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
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
from hpa_merge.errors import HPAError, OutputError
from hpa_merge.evaluation.collecting import Suite
from hpa_merge.evaluation.confirming import Parts
from hpa_merge.evaluation.guards import Guard
from hpa_merge.evaluation.judges import Judge
from hpa_merge.evaluation.running import Answering, evaluate
from hpa_merge.evaluation.workplace import (
    ANSWERS,
    CONFIRMING,
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
from hpa_merge.render.folder import files_of, render
from hpa_merge.report.evaluation import Bounds, ModelResult
from hpa_merge.report.gating import gate
from hpa_merge.report.schema import MergeReport
from hpa_merge.report.showing import Shown
from hpa_merge.report.summaries import result_rows, setting_rows

__all__ = [
    "Tuning",
    "choose",
    "taking_up",
    "tune",
]


@final
@dataclass(frozen=True, repr=False)
class Tuning(Shown):
    """What came out.

    Attributes:
        old, new: the figures of the two inputs, on the prompts that a setting is chosen by.
        settings: those of each setting, by name.
        chosen: the setting that was chosen; None where none is within the bounds.
        options: the options of each setting, by name.
        confirmed: the figures of OLD, NEW and the chosen setting on other prompts; empty if there is no choice to
            confirm, or a set has too few prompts for that.
        failures: a sentence for each bound that the chosen setting exceeds there; then there is no OUT.
        notes: what the user should know of the prompts, a sentence each.
    """

    old: ModelResult
    new: ModelResult
    settings: dict[str, ModelResult]
    chosen: str | None
    options: dict[str, HPAConfig]
    confirmed: tuple[ModelResult, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether there is an OUT."""
        return self.chosen is not None and not self.failures

    @property
    def choice(self) -> tuple[ModelResult, ...]:
        """OLD, NEW and every setting, on the prompts that a setting is chosen by."""
        return (self.old, self.new, *self.settings.values())

    def summary(self) -> tuple[str, Sequence[tuple[str, str]]]:
        """As :meth:`hpa_merge.report.showing.Shown.summary`."""
        chosen = self.chosen or "none, because none is within the bounds"
        rows = [*setting_rows(self._every), *setting_rows(self._confirmed)]
        rows += [("not confirmed", sentence) for sentence in self.failures]
        rows += [("note", sentence) for sentence in self.notes]
        return f"{counted(len(self.settings), 'setting')}, chosen: {chosen}", rows

    def rows(self) -> list[dict[str, Any]]:
        """A row for each figure of OLD, of NEW and of each setting; ``confirms`` tells those on the other prompts."""
        return [
            {"setting": name, "chosen": name == self.chosen, "confirms": confirms} | row
            for confirms, results in ((False, self._every), (True, self._confirmed))
            for name, result in results.items()
            for row in result_rows([result])
        ]

    @property
    def _every(self) -> dict[str, ModelResult]:
        return {"OLD": self.old, "NEW": self.new, **self.settings}

    @property
    def _confirmed(self) -> dict[str, ModelResult]:
        names = (f"{name}, confirmed" for name in ("OLD", "NEW", self.chosen))
        return dict(zip(names, self.confirmed, strict=True)) if self.confirmed else {}


def tune(
    request: MergeRequest,
    out: Path,
    parts: Parts,
    judge: Judge | Guard,
    bounds: Bounds,
    how: Answering,
    *,
    seed: int = 0,
    keep_all: bool = False,
    on_merge: Progress = silent,
    on_answer: Progress = silent,
) -> Tuning:
    """Merge every setting of ``request``, whose OUTs lie in :func:`workplace`, measure all, and publish the best.

    The best of those within the bounds is asked the prompts that it was not chosen by, and published if it is within
    the bounds there too. No second one is tried: those prompts would have chosen it. Only the published one has a page,
    if the request asks for one. If this process is one of several ranks, every rank makes this call; each evaluates
    some of the models.

    Args:
        request: the merges. Its ``overwrite`` says whether ``out`` may be replaced.
        parts: safety and task files at least, of held-out samples.
        bounds: what is asked of a setting.
        keep_all: leave the other settings in the workplace.

    Raises:
        InputError, NumericalError, ResourceError: as the merge and the evaluation do; what is merged stays in the
            workplace, and the next tuning there uses as much of it as fits.
    """
    with Group.taking_part() as group:
        inputs = _inputs(request, parts, judge)
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
        how = replace(how, base=request.old)

        def asked(suite: Suite, folders: Iterable[Path], answers: str) -> tuple[ModelResult, ...]:
            models = [str(folder) for folder in (request.old, request.new, *folders)]
            return evaluate(models, suite, judge, place / answers, how, seed=seed, on_progress=on_answer, group=group)

        try:
            reports = merge_all(replace(merging, page=False, reads=inputs.files), render, on_merge)
            old, new, *others = asked(parts.choosing, request.outs, ANSWERS)
            settings = {folder.name: result for folder, result in zip(request.outs, others, strict=True)}
            chosen = choose(settings, bounds)
            confirmed: tuple[ModelResult, ...] = ()
            if chosen is not None and parts.confirming is not None:
                confirmed = asked(parts.confirming, [place / chosen], CONFIRMING)
            failures = gate(confirmed[-1:], bounds) if confirmed else ()
            if chosen is not None and not failures and group.is_first:
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
        if chosen is not None and not failures:  # it lies there now
            settings[chosen] = replace(settings[chosen], model=str(out))
            confirmed = (*confirmed[:-1], *(replace(model, model=str(out)) for model in confirmed[-1:]))
        options = {folder.name: config for folder, config in request.outs.items()}
        return Tuning(old, new, settings, chosen, options, confirmed, failures, parts.notes)


def taking_up(request: MergeRequest, place: Path) -> MergeRequest:
    """The merges in the workplace, which use what a run that ended with an error has left there."""
    if left_by_error(place):
        return replace(request, overwrite=True, resume=True, skip_complete=True)
    return replace(request, overwrite=False)


def choose(settings: Mapping[str, ModelResult], bounds: Bounds) -> str | None:
    """The setting that does best on the tasks among those within the bounds; of equal ones the safest, then the first.

    Returns:
        Its name; None if none is.
    """

    def rank(name: str) -> tuple[float, float]:
        result = settings[name]
        assert result.asr is not None
        assert result.performance is not None
        return result.performance.value, -result.asr.value

    return max((name for name, result in settings.items() if not gate([result], bounds)), key=rank, default=None)


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


def _inputs(request: MergeRequest, parts: Parts, judge: Judge | Guard) -> Inputs:
    """Everything that is read, as it is now: the merges' inputs, the test files and a guard model."""
    folders = [
        Path(each) for each in (request.old, request.new, request.vision_tower, request.first) if each is not None
    ]
    folders += [Path(judge.model)] if isinstance(judge, Guard) and judge.endpoint is None else []
    data = [prompts.source for suite in parts.suites for _, _, prompts in suite]
    data += [source for sources in locate_sets(request).values() for source in sources]
    folders += [source.guarded for source in data if source.guarded.is_dir()]
    files = [*(source.guarded for source in data if not source.guarded.is_dir()), *request.reads]
    read = [path for folder in folders[:2] for form in ("*.safetensors", "*.json") for path in folder.glob(form)]
    return Inputs.of([folder for folder in folders if folder.is_dir()], files, read)

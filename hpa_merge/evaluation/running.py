"""Several models through the same test files, one after the other: loaded, asked, freed, and judged in the end."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypedDict, final

from hpa_merge.arguments import check_counts
from hpa_merge.calibration import TemplateOptions
from hpa_merge.calibration.loading import is_multimodal
from hpa_merge.config import MAX_FRAMES, TEMPLATE_DATE, CalibrationOptions, template_arguments
from hpa_merge.engine.encoding import template_options
from hpa_merge.engine.machine import resolve_device
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.collecting import Suite, assess, check_answers, collect, compared
from hpa_merge.evaluation.guards import DEFAULTS, Guard, GuardJudge
from hpa_merge.evaluation.judges import Answerer, FunctionJudge, Judge, PhraseJudge
from hpa_merge.inputs.hub import locate
from hpa_merge.inputs.models import loadable
from hpa_merge.inputs.own_code import Trust
from hpa_merge.progress import Progress, silent
from hpa_merge.ranks import Group
from hpa_merge.records import Sample, Turn
from hpa_merge.report.evaluation import ModelResult

__all__ = ["Answering", "evaluate", "judge_of", "names_of", "opened", "opened_judge", "short_names"]

VERDICT_TOKENS = 1024
"""What a guard model may say at most: some think before the few words of their verdict."""


class AnsweringOptions(TypedDict, total=False):
    """The fields of :class:`Answering`, as callers give them."""

    device: str
    batch_size: int
    max_new_tokens: int
    endpoint: str | None
    concurrency: int
    timeout: float
    max_frames: int
    chat_template: str | Path
    template_arg: tuple[str, ...]
    template_date: str
    trust_remote_code: bool
    base: str | Path | None


@final
@dataclass(frozen=True)
class Answering:
    """How answers are made.

    Attributes:
        device, batch_size: where a checkpoint runs, and how many prompts at once.
        max_new_tokens: the longest answer.
        endpoint: the address of a server; then models are names that the server has for them.
        concurrency, timeout: requests under way at once, and seconds that one may take.
        max_frames, chat_template, template_arg, template_date: as :class:`hpa_merge.config.CalibrationOptions` has
            them; of models that are loaded here, and not of a guard model.
        trust_remote_code: run the code that models bring which are loaded here, including a guard model's.
        base: the model that adapters were trained on; None for the one that an adapter names, if that is a folder
            here.

    Raises:
        ConfigError: the chat template cannot be read, or an argument is none.
        EvaluationError: a server is given a chat template; a number is not above 0.
    """

    device: str = "auto"
    batch_size: int = 8
    max_new_tokens: int = 128
    endpoint: str | None = None
    concurrency: int = 8
    timeout: float = 120.0
    max_frames: int = MAX_FRAMES
    chat_template: str | Path = ""
    template_arg: tuple[str, ...] = ()
    template_date: str = TEMPLATE_DATE
    trust_remote_code: bool = False
    base: str | Path | None = None

    def __post_init__(self) -> None:
        check_counts(batch_size=self.batch_size, max_new_tokens=self.max_new_tokens, concurrency=self.concurrency)
        if not self.timeout > 0:
            raise EvaluationError(f"timeout is {self.timeout:g}: it has to be a number of seconds above 0.")
        object.__setattr__(self, "chat_template", str(self.chat_template))
        given = self.chat_template or self.template_arg or self.template_date != TEMPLATE_DATE
        if self.endpoint is not None and given:
            raise EvaluationError(
                "a chat template is given, and the endpoint writes prompts with its own: leave out --chat-template, "
                "--template-arg and --template-date, or start the server with them."
            )
        _ = self.template

    @classmethod
    def of(
        cls, config: CalibrationOptions, batch_size: int, max_new_tokens: int, *, trust_remote_code: bool = False
    ) -> Self:
        """Answers of models that are calibrated with ``config``: on the same device, by the same chat template."""
        return cls(
            config.device,
            batch_size,
            max_new_tokens,
            max_frames=config.max_frames,
            chat_template=config.chat_template,
            template_arg=config.template_arg,
            template_date=config.template_date,
            trust_remote_code=trust_remote_code,
        )

    @property
    def template(self) -> TemplateOptions:
        """What the options say of the chat template."""
        return template_options(str(self.chat_template), self.template_arg, self.template_date)


def evaluate(
    models: Sequence[str],
    suite: Suite,
    judge: Judge | Guard,
    answers: Path,
    how: Answering,
    *,
    seed: int = 0,
    on_progress: Progress = silent,
    group: Group | None = None,
) -> tuple[ModelResult, ...]:
    """The figures of each model, and its differences from those before it.

    Args:
        models: checkpoint folders or names on the Hub, or names that the endpoint has for them.
        judge: as :func:`judge_of` gives it.
        answers: a folder; the answers are written to a folder in it for each model.
        seed: of the bootstrap.
        on_progress: called with what is being done, how many prompts are behind, and how many there are; first for the
            answers, then for judging them.
        group: the ranks that share the models, and see the same folder; None for this one alone.

    Raises:
        EvaluationError: a model is given twice, or its answers cannot be written there.
        InputError, ResourceError: a model cannot be loaded or asked, an answer cannot be judged.
    """
    for number, model in enumerate(models):
        if model in models[:number]:
            raise EvaluationError(f"{model} is given twice: give every MODEL once.")
    names = short_names(models)
    folders = [answers / name for name in _folder_names(names)]
    for folder in folders:
        check_answers(suite, folder)
    group = group or Group.alone()
    own = [*zip(names, models, folders, strict=True)][group.rank :: group.size]
    total = suite.count * len(own)

    def telling(name: str, behind: int) -> Progress:
        return lambda what, done, _: on_progress(f"{name}: {what}", behind + done, total)

    for number, (name, model, folder) in enumerate(own):
        tell = telling(name, number * suite.count)
        tell("loading", 0, total)
        with opened(model, suite.example.sample, how, first=models[0]) as answerer:
            collect(answerer, suite, folder, tell)
    assessed = {}
    on_progress("loading the judge", 0, total)
    with opened_judge(judge, suite.example.sample if suite.safety and own else None, how) as opened_one:
        for number, (name, model, folder) in enumerate(own):
            tell = telling(f"judging {name}", number * suite.count)
            assessed[name] = assess(name, model, suite, folder, opened_one, seed, tell)
    found = {name: each for of_rank in group.gather(assessed) for name, each in of_rank.items()}
    on_progress("done", total, total)
    return compared([found[name] for name in names], seed)


@contextmanager
def opened(
    model: str,
    example: Sample,
    how: Answering,
    defaults: Mapping[str, Any] | None = None,
    first: str | None = None,
) -> Iterator[Answerer]:
    """A model that answers, closed or freed at the end of the block.

    Args:
        example: what the prompts are like: with images, if any has some.
        defaults: arguments for a chat template that reads them, where ``how`` has none.
        first: the model that it is compared with; taken as the base of an adapter that does not name a folder.

    Raises:
        CheckpointError, ConfigError, ResourceError: it cannot be loaded.
    """
    if how.endpoint is not None:
        from hpa_merge.evaluation.endpoint import Endpoint

        server = Endpoint(
            how.endpoint,
            model,
            max_new_tokens=how.max_new_tokens,
            concurrency=how.concurrency,
            timeout=how.timeout,
        )
        try:
            yield server
        finally:
            server.close()
        return
    from hpa_merge.evaluation.generate import LocalModel

    device, (source,) = resolve_device(how.device), locate({"MODEL": model})
    sizes = {"batch_size": how.batch_size, "max_new_tokens": how.max_new_tokens}
    template = replace(how.template, defaults=defaults or {})
    trust = Trust(how.trust_remote_code, [source])
    with loadable(source.folder, how.base, None if first == model else first, trust) as found:
        model_here = LocalModel(
            found.weights,
            example,
            device=device,
            template=template,
            max_frames=how.max_frames,
            side=found.side,
            merge_into=found.merge_into,
            code=found.code,
            tensors=found.tensors,
            **sizes,
        )
        try:
            yield model_here
        finally:
            model_here.close()


def judge_of(judge: str | Path | Guard) -> Judge | Guard:
    """The judge that ``phrases``, a checkpoint folder or ``module:function`` names; a guard model is loaded later.

    Raises:
        ConfigError: the arguments of a guard's chat template are none.
        EvaluationError: there is none of that name.
    """
    if isinstance(judge, Guard):
        if judge.endpoint is not None and judge.template:
            raise EvaluationError(
                "a chat template is given for the judge, and its endpoint writes prompts with its own: leave out "
                "--judge-template, or start the server with it."
            )
        if judge.endpoint is None and not (Path(judge.model) / "config.json").is_file():
            raise EvaluationError(
                f"the judge {judge.model} is no checkpoint folder: give that of a guard model, or with "
                "--judge-endpoint the name that a server has for one."
            )
        template_arguments(judge.arguments)
        return judge
    judge = str(judge)
    if judge == PhraseJudge.name:
        return PhraseJudge()
    if (Path(judge) / "config.json").is_file():
        return Guard(judge)
    if re.fullmatch(r"\w+(\.\w+)*:\w+", judge):
        return FunctionJudge(judge)
    raise EvaluationError(
        f"the judge {judge} is no checkpoint folder: give that of a guard model, a function as module:function, or the "
        "word phrases."
    )


@contextmanager
def opened_judge(judge: Judge | Guard, example: Sample | None, how: Answering) -> Iterator[Judge]:
    """A judge that can be asked; a guard model is loaded, and freed at the end of the block.

    Args:
        example: what the prompts are like; None: none is to be judged.
    """
    if not isinstance(judge, Guard):
        yield judge
        return
    if example is None:
        yield PhraseJudge()
        return
    if judge.endpoint is not None:
        from hpa_merge.evaluation.endpoint import Endpoint

        server = Endpoint(
            judge.endpoint,
            judge.model,
            max_new_tokens=VERDICT_TOKENS,
            concurrency=how.concurrency,
            timeout=how.timeout,
            arguments=template_arguments(judge.arguments),
        )
        try:
            yield GuardJudge(judge, server, images=True)
        finally:
            server.close()
        return
    images = is_multimodal(Path(judge.model))
    shown = example if images else Sample(example.source, turns=(Turn("user", (" ",)),))
    local = Answering(
        how.device,
        how.batch_size,
        VERDICT_TOKENS,
        chat_template=judge.template,
        template_arg=judge.arguments,
        trust_remote_code=how.trust_remote_code,
    )
    with opened(judge.model, shown, local, DEFAULTS) as guard:
        yield GuardJudge(judge, guard, images=images)


def short_names(models: Sequence[str]) -> list[str]:
    """What the tables call them: the folders' own names where these differ, else what was given."""
    short = [Path(model).name or model for model in models]
    return [name if short.count(name) == 1 else model for name, model in zip(short, models, strict=True)]


def names_of(asked: Sequence[str], models: Sequence[str]) -> list[str]:
    """What the tables call the models that are asked for by these names, or as they were given.

    Raises:
        EvaluationError: one is not among the models.
    """
    names = {given: name for name, model in zip(short_names(models), models, strict=True) for given in (name, model)}
    for each in asked:
        if each not in names:
            raise EvaluationError(f"the gate is asked of {each}, which is not among the models: {', '.join(models)}.")
    return [names[each] for each in asked]


def _folder_names(names: Sequence[str]) -> list[str]:
    """A folder's name for each, no two alike."""
    plain = [re.sub(r"[^\w.+=,-]+", "-", name).strip(".-") or "model" for name in names]
    return [f"{name}-{number}" if plain.count(name) > 1 else name for number, name in enumerate(plain, start=1)]

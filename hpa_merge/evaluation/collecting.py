"""One model through all test files: first every answer is written down, then the answers are judged and scored.

Two passes, so that a guard model is loaded when the models it judges are gone. In between the answers lie in files, one
for each set, which are what a person reads afterwards.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar, final

from hpa_merge.arguments import check_counts
from hpa_merge.errors import EvaluationError
from hpa_merge.evaluation.broken import fault_of
from hpa_merge.evaluation.intervals import difference_of_sets, mean_of_sets
from hpa_merge.evaluation.judges import Answerer, Judge, judged
from hpa_merge.evaluation.names import check_names
from hpa_merge.evaluation.prompts import Prompt, PromptFile, Purpose
from hpa_merge.evaluation.refusals import is_refusal
from hpa_merge.evaluation.scoring import check_metric, default_metric, score
from hpa_merge.evaluation.thinking import Answer, read_answer
from hpa_merge.evaluation.verdicts import Verdict
from hpa_merge.files.disk import UNFINISHED, replacing
from hpa_merge.files.parsing import RECORD, parse_json
from hpa_merge.files.weight_names import is_checkpoint_folder
from hpa_merge.inputs.data_sets import locate_data
from hpa_merge.progress import Progress, silent
from hpa_merge.records import ReadingOptions
from hpa_merge.report.evaluation import ModelResult

__all__ = ["Assessed", "Suite", "assess", "batches", "check_answers", "collect", "compared", "is_answers"]

Item = TypeVar("Item")


@final
@dataclass(frozen=True)
class Suite:
    """The test files, by name.

    Attributes:
        safety: unsafe prompts, which are to be refused.
        tasks: prompts with references.
        benign: prompts that are to be answered.
        metrics: of each task, what it is scored by.
    """

    safety: Mapping[str, PromptFile] = field(default_factory=dict)
    tasks: Mapping[str, PromptFile] = field(default_factory=dict)
    benign: Mapping[str, PromptFile] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        safety: Mapping[str, str | Path],
        tasks: Mapping[str, str | Path],
        benign: Mapping[str, str | Path],
        metrics: Mapping[str, str],
        *,
        samples: int | None = None,
        seed: int = 0,
        reading: Mapping[str, ReadingOptions] | None = None,
    ) -> Self:
        """The test files of these paths, by name, read and checked.

        Args:
            metrics: of tasks that are not scored by what their file suggests.
            samples: prompts of a file used at most, drawn with ``seed``.
            reading: how the records of the files are read, by what they are for.

        Raises:
            EvaluationError: there is no file, or a metric of no task.
            InputError: a file cannot be read, a record is malformed, or lacks what its metric needs.
        """

        def read(paths: Mapping[str, str | Path], purpose: Purpose) -> dict[str, PromptFile]:
            options = (reading or {}).get(purpose)
            return {
                name: PromptFile(locate_data(path, "test"), purpose, limit=samples, seed=seed, options=options)
                for name, path in paths.items()
            }

        check_counts(samples=samples)
        check_names(safety, tasks, benign, metrics)
        read_tasks = read(tasks, "task")
        scored = {name: metrics.get(name) or default_metric(prompts) for name, prompts in read_tasks.items()}
        for name, prompts in read_tasks.items():
            check_metric(scored[name], prompts)
        return cls(read(safety, "safety"), read_tasks, read(benign, "benign"), scored)

    def __iter__(self) -> Iterator[tuple[Purpose, str, PromptFile]]:
        """Every file with its purpose and its name."""
        yield from (("safety", name, prompts) for name, prompts in self.safety.items())
        yield from (("task", name, prompts) for name, prompts in self.tasks.items())
        yield from (("benign", name, prompts) for name, prompts in self.benign.items())

    def replaced(self, files: Mapping[tuple[Purpose, str], PromptFile]) -> Self:
        """The same sets with other prompts."""

        def of(purpose: Purpose, named: Mapping[str, PromptFile]) -> dict[str, PromptFile]:
            return {name: files[purpose, name] for name in named}

        return replace(
            self, safety=of("safety", self.safety), tasks=of("task", self.tasks), benign=of("benign", self.benign)
        )

    @property
    def count(self) -> int:
        """Of all prompts."""
        return sum(prompts.count for _, _, prompts in self)

    @property
    def files(self) -> dict[str, dict[str, str]]:
        """The paths, by purpose and name."""
        found: dict[str, dict[str, str]] = {"safety": {}, "task": {}, "benign": {}}
        for purpose, name, prompts in self:
            found[purpose][name] = prompts.source.name
        return found

    @property
    def commits(self) -> dict[str, str]:
        """The commit of each data set that is from the Hub, by its name."""
        return {prompts.source.name: prompts.source.commit for _, _, prompts in self if prompts.source.commit}

    @property
    def example(self) -> Prompt:
        """A prompt with an image, if any has one."""
        examples = [prompts.example for _, _, prompts in self]
        return next((example for example in examples if example.sample.images), examples[0])


KINDS: Mapping[Purpose, str] = {"safety": "safety", "task": "tasks", "benign": "benign"}
"""The field of :class:`ModelResult` that has the figures of a purpose."""


@final
@dataclass(frozen=True)
class Assessed:
    """The figures of a model, and the scores they are of.

    Attributes:
        scores: of each prompt, by purpose and set.
    """

    result: ModelResult
    scores: Mapping[Purpose, Mapping[str, Sequence[float]]]


def check_answers(suite: Suite, folder: Path) -> None:
    """Check that answers can be written to a folder, which need not exist.

    Raises:
        EvaluationError: it is a checkpoint, or a file that would be replaced is a test file, or holds no answers.
    """
    try:
        if is_checkpoint_folder(folder):
            raise EvaluationError(f"the answers would be written into the checkpoint {folder}: choose another folder.")
        for purpose, name, _ in suite:
            path = _file(folder, purpose, name)
            if not path.exists():
                continue
            read = any(path.samefile(each) for _, _, prompts in suite for each in prompts.source.files)
            with path.open("rb") as file:
                if read or file.read(len(BEGINNING)) not in (b"", BEGINNING):
                    what = "is a test file" if read else "holds no answers of hpa-merge eval"
                    raise EvaluationError(f"{path} would be replaced, and {what}: choose another folder.")
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be used ({error.strerror}): choose another folder.") from error


def collect(answerer: Answerer, suite: Suite, folder: Path, on_progress: Progress = silent) -> None:
    """Have every prompt answered, and write the answers to ``folder``, a file of JSON Lines for each set.

    Raises:
        InputError, ResourceError: as the answerer does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for purpose, name, prompts in suite:
        with replacing(_file(folder, purpose, name)) as file:
            for several in batches(prompts, answerer.window):
                on_progress(name, done, suite.count)
                answers = answerer.answer([prompt.sample for prompt in several])
                for prompt, answer in zip(several, answers, strict=True):
                    _write(file, _record(prompt, read_answer(answer)))
                done += len(several)
    on_progress("answered", done, suite.count)


def assess(
    name: str,
    model: str,
    suite: Suite,
    folder: Path,
    judge: Judge,
    seed: int = 0,
    on_progress: Progress = silent,
) -> Assessed:
    """Judge and score what :func:`collect` wrote to ``folder``; every record there gets its verdict.

    Args:
        name, model: what the tables call the model, and where it is.
        seed: of the bootstrap.

    Raises:
        InputError: as the judge does.
    """
    scores: dict[Purpose, dict[str, list[float]]] = {"safety": {}, "task": {}, "benign": {}}
    broken: dict[str, list[list[float]]] = {"safety": [], "task": [], "benign": []}
    done = 0
    for purpose, set_name, prompts in suite:
        path = _file(folder, purpose, set_name)
        found: list[float] = []
        faulty: list[float] = []
        with path.open(encoding="utf-8") as answered, replacing(path) as file:
            records = (parse_json(line, RECORD) for line in answered)
            for several in batches(zip(prompts, records, strict=True), judge.window):
                on_progress(set_name, done, suite.count)
                shown, given = [prompt for prompt, _ in several], [_answer(record) for _, record in several]
                if purpose == "safety":
                    said = [_said(verdict) for verdict in judged(judge, shown, given)]
                elif purpose == "benign":
                    said = [_refused(answer) for answer in given]
                else:
                    metric = suite.metrics[set_name]
                    said = [{metric: score(metric, a.final, p)} for p, a in zip(shown, given, strict=True)]
                for (_, record), more in zip(several, said, strict=True):
                    _write(file, record | more)
                    found.append(float(next(iter(more.values()))))
                    faulty.append(float("broken" in more))
                done += len(several)
        scores[purpose][set_name] = found
        broken[purpose].append(faulty)
    figures = {
        purpose: {of: mean_of_sets([found], seed) for of, found in sets.items()} for purpose, sets in scores.items()
    }
    means = {purpose: mean_of_sets([*sets.values()], seed) if sets else None for purpose, sets in scores.items()}
    result = ModelResult(
        name=name,
        model=model,
        safety=figures["safety"],
        tasks=figures["task"],
        benign=figures["benign"],
        metrics=dict(suite.metrics),
        asr=means["safety"],
        performance=means["task"],
        over_refusal=means["benign"],
        broken={purpose: mean_of_sets(broken[purpose], seed) for purpose in ("safety", "benign") if broken[purpose]},
    )
    return Assessed(result, scores)


def compared(assessed: Sequence[Assessed], seed: int = 0) -> tuple[ModelResult, ...]:
    """The figures of models that answered the same prompts, each with its differences from those before it."""
    results = []
    for number, ours in enumerate(assessed):
        differences = []
        for theirs in assessed[:number]:
            than = theirs.result.name
            for purpose, sets in ours.scores.items():
                kind, others = KINDS[purpose], theirs.scores[purpose]
                for name, scores in sets.items():
                    differences.append(difference_of_sets([scores], [others[name]], than, kind, name, seed))
                if sets:
                    pairs = ([*sets.values()], [others[name] for name in sets])
                    differences.append(difference_of_sets(*pairs, than, kind, seed=seed))
        results.append(replace(ours.result, differences=tuple(differences)))
    return tuple(results)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items in their order, ``size`` at a time; the last may be fewer."""
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


BEGINNING = b'{"source": '
"""How every file of answers begins."""


def _record(prompt: Prompt, answer: Answer) -> dict[str, Any]:
    """An answer as it is written down."""
    images = {"images": [image.name for image in prompt.sample.images]} if prompt.sample.images else {}
    references = {"references": list(prompt.references)} if prompt.references else {}
    thoughts = {"thoughts": answer.thoughts} if answer.thoughts else {}
    finished = {} if answer.finished else {"finished": False}
    return {
        "source": prompt.source,
        "prompt": prompt.text,
        **images,
        **references,
        **thoughts,
        **finished,
        "answer": answer.final,
    }


def _answer(record: dict[str, Any]) -> Answer:
    """The answer that was written down."""
    return Answer(record["answer"], record.get("thoughts", ""), record.get("finished", True))


def _said(verdict: Verdict) -> dict[str, Any]:
    """A verdict on an answer to an unsafe prompt as it is written down."""
    refused = {} if verdict.refusal is None else {"refused": verdict.refusal}
    categories = {"categories": list(verdict.categories)} if verdict.categories else {}
    return {"unsafe": verdict.unsafe} | ({"broken": verdict.fault} if verdict.fault else refused | categories)


def _refused(answer: Answer) -> dict[str, Any]:
    """Whether a benign prompt was refused, as it is written down."""
    fault = fault_of(answer)
    return {"refused": False, "broken": fault} if fault else {"refused": is_refusal(answer.final)}


def _write(file: BinaryIO, record: dict[str, Any]) -> None:
    """A line; of a path that is not UTF-8 a question mark stands for what cannot be written."""
    file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def is_answers(name: str) -> bool:
    """Whether a file of that name is what :func:`collect` writes to its folder, or what a kill left of one."""
    return name.startswith(UNFINISHED) or (name.startswith(("safety-", "task-", "benign-")) and name.endswith(".jsonl"))


def _file(folder: Path, purpose: Purpose, name: str) -> Path:
    return folder / f"{purpose}-{name}.jsonl"

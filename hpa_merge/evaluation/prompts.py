"""A test file: prompts, and what their answers are compared with.

The layouts are those of the calibration files, where the last answer of the assistant is the reference. A safety or
benign prompt may stand without an answer. Of a record whose labels say that its prompt is safe, or is not, only what
fits the purpose is used; an answer that a label calls unsafe, or not wanted, is no reference.
"""

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Self, final

from hpa_merge.errors import EvaluationError
from hpa_merge.records import (
    DataSource,
    Example,
    Purpose,
    ReadingOptions,
    Sample,
    local_source,
    parse_record,
    read_records,
)

__all__ = ["Prompt", "PromptFile", "Purpose"]


@final
@dataclass(frozen=True)
class Prompt:
    """One prompt of a test file.

    Attributes:
        sample: the conversation up to where the answer begins.
        references: the answers that are right; none where the file has none.
        choices: of a multiple choice, whose one reference is then the letter.
        category: as the file has it; empty where it has none.
    """

    sample: Sample
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    category: str = ""

    @property
    def source(self) -> str:
        """``file:line``."""
        return self.sample.source

    @property
    def text(self) -> str:
        """What the user says last, without media."""
        return "\n".join(next((turn.texts for turn in reversed(self.sample.turns) if turn.role == "user"), ()))


@final
class PromptFile:
    """The prompts of a file, one at a time as often as they are asked for, and never held together.

    Attributes:
        source: where the records lie.
        count: how many prompts there are.
        example: the first prompt with an image, or else the first: it says what is needed of a checkpoint.
        passed_over: fields of the records that carry nothing for a model, or are known not to be fed, sorted.
        dropped: how many prompts are not for this purpose, by the reason.
    """

    def __init__(
        self,
        source: str | Path | DataSource,
        purpose: Purpose,
        *,
        limit: int | None = None,
        seed: int = 0,
        options: ReadingOptions | None = None,
    ) -> None:
        """Read and check the whole file.

        Args:
            source: where the records lie.
            options: how they are read.
            limit: at most so many prompts, drawn without replacement by ``random.Random(seed)``.

        Raises:
            CalibrationError: the file cannot be read, or a record is malformed.
            EvaluationError: a record is no prompt, or the file holds none.
        """
        self.source = source if isinstance(source, DataSource) else local_source(source, "test")
        self._options = options or ReadingOptions()
        self._purpose = purpose
        self._drawn: frozenset[int] | None = None
        passed_over: set[str] = set()
        dropped: Counter[str] = Counter()
        first: Prompt | None = None
        pictured: Prompt | None = None
        count = 0
        for example, names in self._examples():
            passed_over |= names
            if reason := _reason(example, purpose):
                dropped[reason] += 1
                continue
            prompt = _prompt(example, purpose)
            first = first or prompt
            if pictured is None and prompt.sample.images:
                pictured = prompt
            count += 1
        if first is None:
            raise _none(self.source.name, purpose, dropped)
        self.example = pictured or first
        if limit is not None and limit < count:
            self._drawn, count = frozenset(random.Random(seed).sample(range(count), limit)), limit
        self.count = count
        self.passed_over = tuple(sorted(passed_over))
        self.dropped: Mapping[str, int] = dict(dropped)

    def __iter__(self) -> Iterator[Prompt]:
        yield from (prompt for _, prompt in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Prompt]]:
        """Each prompt with its number among all of the file that fit the purpose."""
        fitting = (example for example, _ in self._examples() if not _reason(example, self._purpose))
        for number, example in enumerate(fitting):
            if self._drawn is None or number in self._drawn:
                yield number, _prompt(example, self._purpose)

    def only(self, numbers: Collection[int]) -> Self:
        """The same file with some of its prompts alone, by the numbers that :meth:`numbered` gives."""
        part = copy(self)
        part._drawn, part.count = frozenset(numbers), len(numbers)
        return part

    def _examples(self) -> Iterator[tuple[Example, frozenset[str]]]:
        for place, record in read_records(self.source, "test", self._options.names):
            parsed = parse_record(record, place, self.source.folder, self._options, self._purpose)
            for example in parsed.examples:
                yield example, parsed.passed_over


def _reason(example: Example, purpose: Purpose) -> str:
    """Why an example is no prompt for the purpose; empty where it is one."""
    return example.unfit(purpose) or (example.bad_answer if purpose == "task" else "")


def _none(name: str, purpose: Purpose, dropped: Mapping[str, int]) -> EvaluationError:
    if not dropped:
        return EvaluationError(f"{name} holds no prompt for a {purpose} test: write one JSON object a line.")
    reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.items())
    return EvaluationError(
        f"{name} holds no prompt for a {purpose} test, because of each record {reasons}: give a file that has some, or "
        "pass the labels over with --ignore-field."
    )


def _prompt(example: Example, purpose: Purpose) -> Prompt:
    """The example as a prompt.

    Raises:
        EvaluationError: it is no prompt, or a task without an answer.
    """
    roles = [turn.role for turn in example.turns]
    if "user" not in roles or roles[-1] not in ("user", "tool"):
        raise EvaluationError(
            f"{example.source}: no prompt: a test needs a question, or a conversation whose last word, or the last "
            "before the answer, is the user's or a tool's."
        )
    if purpose == "task" and not example.references:
        raise EvaluationError(f'{example.source}: the prompt has no answer to compare with: add "answer" or "answers".')
    return Prompt(example.prompt, example.references, example.choices, example.category)

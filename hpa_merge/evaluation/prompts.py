"""A test file: prompts, and what their answers are compared with.

The formats are those of the calibration files, where the last answer of the assistant is the reference. Beside them a
question may stand without an answer, and a record may have

    "choices": ["red", "green"]     multiple choice; "answer" is a letter or the text of a choice
    "answers": ["red", "dark red"]  several references, such as the ten of VQA
    "category": "fraud"             for the balance of a safety set

The choices are written below a "question", a letter each, with the request to answer with a letter; a conversation is
left as it is.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal, final

from hpa_merge.errors import EvaluationError
from hpa_merge.records import DataSource, ReadingOptions, Sample, local_source, parse_record, read_records
from hpa_merge.records.formats import ANSWER_FIELDS, PROMPT_FIELDS

__all__ = ["Prompt", "PromptFile", "Purpose"]

Purpose = Literal["safety", "task", "benign"]
"""What a file is for. Of VLGuard's pairs the safe instructions are no attacks, and the others are not benign."""

CATEGORY_FIELDS = ("category", "harmful_category")
CHOICE_REQUEST = "Answer with the letter of the right choice."

_CONVERSATIONS = ("messages", "conversations", "instr-resp", "input_ids")
_STAND_IN = "-"


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
        """What the user says last, without images."""
        return "\n".join(self.sample.turns[-1].texts)


@final
class PromptFile:
    """The prompts of a file, one at a time as often as they are asked for, and never held together.

    Attributes:
        source: where the records lie.
        count: how many prompts there are.
        example: the first prompt with an image, or else the first: it says what is needed of a checkpoint.
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
        first: Prompt | None = None
        pictured: Prompt | None = None
        count = 0
        for prompt in self:
            first = first or prompt
            if pictured is None and prompt.sample.images:
                pictured = prompt
            count += 1
        if first is None:
            raise EvaluationError(
                f"{self.source.name} holds no prompt for a {purpose} test: write one JSON object a line."
            )
        self.example = pictured or first
        if limit is not None and limit < count:
            self._drawn, count = frozenset(random.Random(seed).sample(range(count), limit)), limit
        self.count = count

    def __iter__(self) -> Iterator[Prompt]:
        number = 0
        folder = self._options.media_folder or self.source.folder
        for place, record in read_records(self.source, "test", self._options.names):
            for prompt in _parse(record, place, folder, self._purpose):
                if self._drawn is None or number in self._drawn:
                    yield prompt
                number += 1


def _parse(record: object, source: str, folder: Path, purpose: Purpose) -> Iterator[Prompt]:
    """The prompts of one JSON value; several, or none for this purpose, of a VLGuard record."""
    fields = {name: value for name, value in record.items() if value is not None} if isinstance(record, dict) else {}
    question = next((name for name in PROMPT_FIELDS if name in fields), None)
    choices = _choices(fields, source)
    answers = _answers(fields, source)
    category = next((str(fields[name]) for name in CATEGORY_FIELDS if name in fields), "")
    unanswered = False
    if question and not any(name in fields for name in _CONVERSATIONS):
        unanswered = not any(name in fields for name in ANSWER_FIELDS)
        if unanswered:
            fields["answer"] = _STAND_IN
        if choices and isinstance(fields[question], str):
            lines = (f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
            fields[question] = "\n".join([fields[question], *lines, CHOICE_REQUEST])
        record = fields
    for number, sample in enumerate(parse_record(record, source, folder)):
        if "instr-resp" in fields and purpose != "task":
            pair = fields["instr-resp"][number]
            if _is_safe(pair) != (purpose == "benign"):
                continue
        sample, said = _split(sample)
        references = answers or (() if unanswered or not said else (said,))
        if choices and references:
            references = (_letter(references[0], choices, source),)
        if purpose == "task" and not references:
            raise EvaluationError(f'{source}: the prompt has no answer to compare with: add "answer" or "answers".')
        yield Prompt(sample, references, choices, category)


def _split(sample: Sample) -> tuple[Sample, str]:
    """The conversation before the assistant's last turn, if that is the end of it, and what is said there."""
    turns, said = sample.turns, ""
    if turns and turns[-1].role == "assistant":
        said = "\n".join(turns[-1].texts).strip()
        turns = turns[:-1]
    if not turns or turns[-1].role != "user":
        raise EvaluationError(
            f"{sample.source}: no prompt: a test needs a question, or a conversation whose last word, or the last "
            "before the answer, is the user's."
        )
    return replace(sample, turns=turns), said


def _is_safe(pair: dict[str, Any]) -> bool:
    """Whether one of VLGuard's pairs is one that a model should answer."""
    return pair.get("instruction") is None and pair.get("safe_instruction") is not None


def _choices(fields: dict[str, Any], source: str) -> tuple[str, ...]:
    choices = _strings(fields.get("choices", []), "choices", source)
    if len(choices) == 1 or len(choices) > len(ascii_uppercase):
        raise EvaluationError(f'{source}: "choices" has {len(choices)} entries: give 2 to {len(ascii_uppercase)}.')
    return choices


def _answers(fields: dict[str, Any], source: str) -> tuple[str, ...]:
    """Several references; of VQA's own annotations, which say more of each, the answers alone."""
    values = fields.get("answers", [])
    if isinstance(values, list):
        values = [value.get("answer") if isinstance(value, dict) else value for value in values]
    return _strings(values, "answers", source)


def _letter(reference: str, choices: Sequence[str], source: str) -> str:
    """The letter of the right choice, which is given as such or by its text."""
    letters = ascii_uppercase[: len(choices)]
    if reference in choices:
        return letters[choices.index(reference)]
    letter = reference.strip().strip("().").upper()
    if len(letter) != 1 or letter not in letters:
        raise EvaluationError(
            f"{source}: the answer {reference!r:.40} is none of the choices: give a letter from A to {letters[-1]}, "
            "or the text of a choice."
        )
    return letter


def _strings(values: object, name: str, source: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise EvaluationError(f'{source}: "{name}" has to be an array of texts.')
    return tuple(values)

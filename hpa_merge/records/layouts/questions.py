"""A question and its answer: Alpaca and all that came after it, question answering, and multiple choice."""

from dataclasses import dataclass
from typing import Any, final

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields, option
from hpa_merge.records.layouts.answers import ANSWERS, take_answer
from hpa_merge.records.layouts.building import build, joined, said_by, take_turns
from hpa_merge.records.layouts.choices import take_choices, take_letter, with_choices
from hpa_merge.records.places import Draft

__all__ = ["PROMPTS", "Question", "read_paragraphs"]

PROMPTS = ("instruction", "prompt", "question", "query", "problem", "user", "inputs")
CONTEXTS = ("context", "passage", "article", "hint", "support")
"""What is read before a question, and after an instruction as Alpaca's ``input`` is; each with a line feed between."""


@final
@dataclass(frozen=True)
class Question:
    """How a layout's question is read; the defaults are those of a record that says what its fields are.

    Attributes:
        prompts: fields that may hold the prompt; the first that is filled does.
        answers: fields that may hold its answer.
        aside: fields of a known meaning that are not fed.
        context: fields that are read with the prompt.
        base: where the index of the right choice counts from; None: the record has to say it.
        yes_no: the answer is a boolean, true for yes.
        safe_prompt: what is known of every prompt of the layout.
        short: the field with the short form of the answer, by which a test judges; a model is calibrated with the long.
    """

    prompts: tuple[str, ...] = PROMPTS
    answers: tuple[str, ...] = ANSWERS
    aside: tuple[str, ...] = ()
    context: tuple[str, ...] = CONTEXTS
    base: int | None = None
    yes_no: bool = False
    safe_prompt: bool | None = None
    short: str = ""

    def __call__(self, fields: Fields) -> list[Example]:
        """The example of a record.

        Raises:
            CalibrationError: something of it cannot be read.
        """
        name = fields.filled(*self.prompts) or next(name for name in self.prompts if name in fields)
        fields.pass_over(*self.aside)
        if isinstance(fields.peek(name), dict) and "stem" in fields.peek(name):  # ARC's and OpenBookQA's own files
            inner = fields.within(fields.take(name), fields.named(name))
            choices, labels = take_choices(inner)
            if not choices:
                raise fields.error(f'{fields.named(name)} has a stem and no choices: add them as "choices" to it.')
            letter = take_letter(fields, choices, labels)
            asked = [Draft("user", [with_choices(inner.text("stem"), choices)])]
            return [self._built(fields, asked, (letter,) if letter else (), choices)]
        if isinstance(fields.peek(name), list | dict):  # TRL's messages in the place of texts
            drafts, references = take_answer(fields, self.answers)
            return [self._built(fields, joined(take_turns(fields, name), drafts), references)]
        _check_comparison(fields, name)
        question = self._question(fields, name)
        choices, labels = take_choices(fields)
        if choices:
            letter = take_letter(fields, choices, labels, self.base)
            asked = [Draft("user", [with_choices(question, choices)])]
            return [self._built(fields, asked, (letter,) if letter else (), choices)]
        drafts, references = self._answer(fields)
        if self.short and drafts and fields.filled(self.short):
            said, several = take_answer(fields, (self.short,))
            references = several or tuple(str(part) for draft in said for part in draft.parts)
        _pass_over_text(fields, [question, *(part for draft in drafts for part in draft.parts)])
        return [self._built(fields, joined(said_by("user", question), drafts), references)]

    def _built(
        self, fields: Fields, drafts: list[Draft], references: tuple[str, ...], choices: tuple[str, ...] = ()
    ) -> Example:
        fields.pass_over("rejected", "rejected_response", "rejected_responses")
        return build(fields, drafts, references=references, choices=choices, safe_prompt=self.safe_prompt)

    def _question(self, fields: Fields, name: str) -> str:
        text = fields.text(name)
        context = [fields.text(each) for each in self.context if fields.filled(each)]
        parts = [text, *context] if name == "instruction" else [*context, text]
        if name != "input" and fields.filled("input"):
            parts.append(fields.text("input"))
        return "\n".join(parts)

    def _answer(self, fields: Fields) -> tuple[list[Draft], tuple[str, ...]]:
        name = fields.filled(*self.answers)
        said = str(fields.peek(name)).casefold() if name is not None else ""
        if self.yes_no and name is not None and said in ("true", "false"):
            fields.take(name)
            return [Draft("assistant", ["yes" if said == "true" else "no"])], ()
        return take_answer(fields, self.answers)


def read_paragraphs(fields: Fields) -> list[Example]:
    """SQuAD's own files: an article's ``paragraphs``, each with its ``context`` and questions, ``qas``.

    Raises:
        CalibrationError: something of it cannot be read.
    """
    fields.pass_over("title")
    examples: list[Example] = []
    for number, item in enumerate(fields.items("paragraphs"), start=1):
        if not isinstance(item, dict):
            raise fields.error(f'paragraph {number} is no object: give "context" and "qas".')
        paragraph = fields.within(item, f"paragraph {number}")
        context = paragraph.text("context")
        for asked in paragraph.items("qas"):
            if not isinstance(asked, dict):
                raise fields.error(f'a question of paragraph {number} is no object: give "question" and "answers".')
            inner = fields.within(asked, f"a question of paragraph {number}")
            question = Draft("user", [f"{context}\n{inner.text('question')}"])
            _, references = take_answer(inner, ())
            inner.pass_over("plausible_answers")
            source = f"{fields.reading.source}#{len(examples) + 1}"
            examples.append(build(inner, [question], references=references, source=source))
    return examples


def _check_comparison(fields: Fields, name: str) -> None:
    """Check that two answers to a prompt are choices, and no comparison of which one is preferred.

    Raises:
        CalibrationError: they may be.
    """
    if name == "question" or not (fields.filled("answer_a") and fields.filled("answer_b")) or fields.filled("answer_c"):
        return
    given = [option(fields.given(each)) for each in (name, "answer_a", "answer_b")]
    raise fields.error(
        f"{fields.named('answer_a')} and {fields.named('answer_b')} may be two choices, or two answers of which one is "
        f"preferred: say that they are choices with --map question={given[0]}, or take one with --map "
        f"chosen={given[1]} --map rejected={given[2]}."
    )


def _pass_over_text(fields: Fields, parts: list[Any]) -> None:
    """Alpaca's ``text`` holds prompt and answer once more, in a template: it is passed over."""
    text = fields.peek("text")
    lines = [line.strip() for part in parts if isinstance(part, str) for line in part.split("\n")]
    if isinstance(text, str) and all(line in text for line in lines):
        fields.pass_over("text")

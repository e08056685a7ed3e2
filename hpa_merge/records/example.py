"""What a layout reads of a record: a prompt, its answers, and what the record says of both."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, final

from hpa_merge.records.sample import Sample, Turn

__all__ = ["Example", "Purpose"]

Purpose = Literal["safety", "task", "benign"]
"""What samples are for: unsafe prompts with refusals, a task, or prompts that a model should answer."""


@final
@dataclass(frozen=True)
class Example:
    """One prompt with its answers; calibration and evaluation use the same.

    Attributes:
        source: ``file:line``, with ``#2`` behind it for the second of a record.
        turns: the conversation up to where the answer begins; empty of a plain text and of token ids.
        answer: the answer as a turn, where the record has it as one.
        references: the answers that are right, each as often as the record has it; none where it has none.
        choices: of a multiple choice, whose one reference is then the letter.
        category: as the record has it; empty where it has none.
        tools: what the conversation offers.
        text, input_ids: of a record that is no conversation.
        safe_prompt: whether the record calls its prompt safe; None where it says nothing.
        good_answer: whether the record calls its answer safe, or wanted; None where it says nothing.
    """

    source: str
    turns: tuple[Turn, ...] = ()
    answer: Turn | None = None
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    category: str = ""
    tools: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    text: str | None = None
    input_ids: tuple[int, ...] = ()
    safe_prompt: bool | None = None
    good_answer: bool | None = None

    @property
    def prompt(self) -> Sample:
        """The conversation up to where the answer begins."""
        return Sample(self.source, turns=self.turns, tools=self.tools)

    @property
    def sample(self) -> Sample | None:
        """Prompt and answer as a model is calibrated with them; None where there is no answer.

        Of several answers it is the one that the record has most often, and of these the first.
        """
        if self.text is not None or self.input_ids:
            return Sample(self.source, text=self.text, input_ids=self.input_ids)
        answer = self.answer
        if answer is None and self.references:
            answer = Turn("assistant", (Counter(self.references).most_common(1)[0][0],))
        return None if answer is None else Sample(self.source, turns=(*self.turns, answer), tools=self.tools)

    @property
    def bad_answer(self) -> str:
        """Why the record's own labels rule its answer out; empty where they do not."""
        return "its answer is labelled unsafe, or not wanted" if self.good_answer is False else ""

    def unfit(self, purpose: Purpose) -> str:
        """Why the record's own labels rule the prompt out for a purpose; empty where they do not."""
        if purpose == "safety":
            return "its prompt is labelled safe" if self.safe_prompt else ""
        return "its prompt is labelled unsafe" if self.safe_prompt is False else ""

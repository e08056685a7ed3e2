"""Preferences: a chosen and a rejected answer; the chosen one is the answer, the other is not fed."""

from dataclasses import replace

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields
from hpa_merge.records.labels import meaning
from hpa_merge.records.layouts.building import build, is_transcript, joined, take_turns
from hpa_merge.records.layouts.questions import PROMPTS
from hpa_merge.records.layouts.tools import take_tools
from hpa_merge.records.places import Draft

__all__ = ["holds_conversations", "read_judged_pair", "read_preference", "read_preferred"]

BETTER = ("better_response_id", "more_helpful_response_id")
SAFER = ("safer_response_id",)


def holds_conversations(fields: Fields) -> bool:
    """Whether ``chosen`` is a whole conversation: messages that begin with the user, or a transcript."""
    value = fields.peek("chosen")
    if isinstance(value, str):
        return is_transcript(value)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    first = str(value[0].get("role") or value[0].get("from") or "").casefold()
    return first not in ("assistant", "gpt", "model", "bot")


def read_preference(fields: Fields) -> list[Example]:
    """``chosen`` and ``rejected`` as whole conversations: TRL's implicit prompt, and HH-RLHF's transcripts.

    Raises:
        CalibrationError: a message cannot be read.
    """
    drafts = take_turns(fields, "chosen")
    fields.pass_over("rejected")
    said = [part for draft in drafts for part in draft.parts if isinstance(part, str)]
    name = fields.filled(*PROMPTS)
    value = fields.peek(name) if name else None
    if name and isinstance(value, str) and any(value.strip() == text.strip() for text in said):
        fields.pass_over(name)  # UltraFeedback has the first turn once more
    return [build(fields, drafts)]


def read_preferred(fields: Fields) -> list[Example]:
    """OpenAI's preferences: ``input`` with messages and tools, ``preferred_output``, ``non_preferred_output``.

    Raises:
        CalibrationError: a message cannot be read.
    """
    asked = fields.within(fields.take("input"), fields.named("input"))
    turns = joined(take_turns(asked, "messages"), take_turns(fields, "preferred_output"))
    asked.pass_over("parallel_tool_calls")
    fields.pass_over("non_preferred_output")
    return [replace(build(fields, turns), tools=take_tools(asked))]


def read_judged_pair(fields: Fields) -> list[Example]:
    """PKU-SafeRLHF: two answers, whether each is safe, and which is the better and which the safer one.

    As safety sample it is the safe one, of two the safer; as task sample the better one.

    Raises:
        CalibrationError: the record does not say which.
    """
    known = fields.known()
    numbers = (0, 1) if "response_0" in known else (1, 2)
    answers = {number: fields.text(f"response_{number}") for number in numbers}
    safe = {n: _label(fields, f"is_response_{n}_safe") for n in numbers}
    better, safer = _number(fields, BETTER, numbers), _number(fields, SAFER, numbers)
    for number in numbers:
        for what in ("severity_level", "harm_category", "source", "sha256", "flagged_categories"):
            fields.pass_over(f"response_{number}_{what}")
    if fields.reading.purpose == "safety":
        good = [number for number in numbers if safe[number]]
        chosen = good[0] if len(good) == 1 else safer
    else:
        chosen = better if better is not None else safer
    if chosen is None:
        raise fields.error(
            'it has two answers and does not say which to use: add "safer_response_id" and "better_response_id".'
        )
    prompt = fields.filled(*PROMPTS)
    if prompt is None:
        raise fields.error('it has two answers and no prompt: add "prompt".')
    example = build(fields, [*take_turns(fields, prompt), Draft("assistant", [answers[chosen]])])
    return [replace(example, good_answer=safe[chosen] if example.good_answer is None else example.good_answer)]


def _label(fields: Fields, name: str) -> bool | None:
    return meaning(fields, name, fields.take(name)) if fields.filled(name) else None


def _number(fields: Fields, names: tuple[str, ...], numbers: tuple[int, int]) -> int | None:
    name = fields.filled(*names)
    if name is None:
        return None
    value = str(fields.take(name)).strip().removesuffix(".0")
    if value not in (str(number) for number in numbers):
        raise fields.error(f"{fields.named(name)} is {value:.40}: give {numbers[0]} or {numbers[1]}.")
    return int(value)

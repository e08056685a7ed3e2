"""Conversations: arrays of messages under any of their names, with what may stand next to them."""

from dataclasses import replace

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields
from hpa_merge.records.layouts.answers import ANSWERS, take_answer
from hpa_merge.records.layouts.building import build, joined, take_turns
from hpa_merge.records.layouts.choices import letter_of, take_choices
from hpa_merge.records.places import Draft

__all__ = ["CHATS", "are_texts", "read_conversation", "read_texts"]

CHATS = ("messages", "conversations", "conversation", "dialog", "dialogue", "turns", "chat", "contents", "texts")
_MESSAGES = ("messages", "contents")


def read_conversation(fields: Fields) -> list[Example]:
    """OpenAI's messages, ShareGPT's and LLaVA's conversations, and what others call the same.

    A conversation that ends with the user may have its answer next to it (``chosen``, ``completion``, …).

    Raises:
        CalibrationError: a message cannot be read.
    """
    name = fields.filled(*CHATS) or next(name for name in CHATS if name in fields)
    value = fields.peek(name)
    texts = value if isinstance(value, list) and all(isinstance(each, str) for each in value) else []
    if len(texts) > 1 or (texts and name == "turns"):
        drafts = _texts(fields, name)
    elif isinstance(value, dict):
        raise fields.error(f"{fields.named(name)} is an object: give an array.")
    else:
        unit = "message" if name in _MESSAGES else "turn"
        items = fields.items(name)
        nested = len(items) == 1 and isinstance(items[0], list)  # one conversation in an array of its own
        drafts = take_turns(fields, name, unit, items[0] if nested else items)
    answered = bool(drafts) and drafts[-1].role == "assistant"
    answer, references = take_answer(fields, () if answered else ANSWERS)
    choices, labels = take_choices(fields)
    fields.pass_over("rejected", "rejected_response", "rejected_responses", "rejected_messages")
    example = build(fields, joined(drafts, answer))
    if references:
        example = replace(example, references=references)
    if choices and example.references:
        letter = letter_of(fields, example.references[0], choices, labels)
        example = replace(example, references=(letter,))
    return [replace(example, choices=choices)]


def are_texts(fields: Fields) -> bool:
    """Whether ``data`` is an array of texts, as UltraChat has it."""
    value = fields.peek("data")
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def read_texts(fields: Fields) -> list[Example]:
    """UltraChat's ``data``: what the user and the assistant say in turn, the user first.

    Raises:
        CalibrationError: a text is empty.
    """
    texts = fields.items("data")
    return [build(fields, [Draft(("user", "assistant")[n % 2], [text]) for n, text in enumerate(texts)])]


def _texts(fields: Fields, name: str) -> list[Draft]:
    """MT-Bench's ``turns``: what the user says.

    Raises:
        CalibrationError: there are several, so that it is unclear who says which.
    """
    items = fields.items(name)
    if len(items) > 1:
        raise fields.error(
            f"{fields.named(name)} is an array of {len(items)} texts that does not say who speaks: write each as "
            '{"role": "user", "content": "…"}.'
        )
    return [Draft("user", [items[0]])]

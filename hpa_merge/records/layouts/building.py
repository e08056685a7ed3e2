"""Drafts of turns become an example: system prompt, history, media, tools, category and labels are added here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpa_merge.records.example import Example
from hpa_merge.records.fields import Fields, is_empty
from hpa_merge.records.labels import read_labels
from hpa_merge.records.layouts.marks import check_ends, number_marks
from hpa_merge.records.layouts.messages import read_message
from hpa_merge.records.layouts.tools import take_tools
from hpa_merge.records.media import take_media
from hpa_merge.records.names import CATEGORY
from hpa_merge.records.places import Draft, finish
from hpa_merge.records.sample import Media, MediaKind

__all__ = ["build", "is_transcript", "joined", "said_by", "take_category", "take_turns", "transcript"]

SYSTEM = ("system", "system_prompt", "system_message", "sys_prompt", "sys", "system_instruction")
HISTORY = ("history",)

_SPEAKER = re.compile(r"(?:^|\n\n)(Human|User|Assistant): ?")
_SPEAKER_OF_A_LINE = re.compile(r"(?:^|\n)(Human|User|Assistant): ?")


def build(
    fields: Fields,
    drafts: Sequence[Draft],
    *,
    source: str = "",
    media: Mapping[MediaKind, list[Media]] | None = None,
    references: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    category: str | None = None,
    safe_prompt: bool | None = None,
) -> Example:
    """The example of a conversation, whose answer is its last turn where that is the assistant's.

    Args:
        fields: of the record, from which everything else that belongs to the conversation is taken.
        source: what messages call the example, where it is not the only one of its record.
        media, category: of the record, where they are taken already, because they serve several examples.
        references: the right answers, where the last turn is not the only one.
        safe_prompt: where the layout says it, and not a label.

    Raises:
        CalibrationError: something of it cannot be read.
    """
    drafts = [*_system(fields, drafts), *_history(fields), *drafts]
    if drafts and drafts[-1].role == "assistant" and _says_nothing(drafts[-1]):
        drafts.pop()  # there is no answer
    if not drafts:
        raise fields.error("it has no turn that says anything: remove the record.")
    number_marks(fields, drafts)
    turns = finish(fields, drafts, take_media(fields) if media is None else media)
    check_ends(fields, turns, references)
    answer = turns[-1] if turns and turns[-1].role == "assistant" else None
    said = "\n".join(answer.texts).strip() if answer else ""
    labelled, good_answer = read_labels(fields, answered=answer is not None or bool(references))
    labelled = _together(labelled, [draft.good for draft in drafts if draft.role == "user"])
    good_answer = _together(good_answer, [draft.good for draft in drafts if draft.role == "assistant"])
    if answer and not drafts[-1].trained:
        good_answer = False
    return Example(
        source or fields.reading.source,
        turns=turns[:-1] if answer else turns,
        answer=answer,
        references=references or ((said,) if said else ()),
        choices=choices,
        category=take_category(fields) if category is None else category,
        tools=take_tools(fields),
        safe_prompt=labelled if safe_prompt is None else safe_prompt,
        good_answer=good_answer,
    )


def take_turns(fields: Fields, name: str, unit: str = "message", items: Sequence[Any] = ()) -> list[Draft]:
    """The turns of a field that is an array of messages, or one message, or a text, which is the user's.

    Args:
        unit: what messages call one of them.
        items: the messages, where they are taken already.

    Raises:
        CalibrationError: a message cannot be read.
    """
    value = fields.peek(name)
    if isinstance(value, Mapping):
        return read_message(fields, fields.take(name), 1, unit)
    if isinstance(value, str) and not items:
        return said_by("user", fields.text(name))
    items = items or fields.items(name)
    return [draft for number, item in enumerate(items, start=1) for draft in read_message(fields, item, number, unit)]


def said_by(role: str, text: str) -> list[Draft]:
    """The turn of a text; the turns of one that is a transcript (``Human: … Assistant: …``)."""
    return transcript(text) if is_transcript(text) else [Draft(role, [text])]


def joined(prompt: Sequence[Draft], answer: Sequence[Draft]) -> list[Draft]:
    """The turns of both; those of a prompt that the answer begins with are said once."""
    repeated = bool(prompt) and list(answer[: len(prompt)]) == list(prompt)
    return [*answer] if repeated else [*prompt, *answer]


def is_transcript(text: str) -> bool:
    """Whether a text is a conversation as Anthropic's HH-RLHF writes it, or with ``User:``, or a line for each turn."""
    return text.lstrip().startswith(("Human:", "User:")) and "\nAssistant:" in text


def transcript(text: str) -> list[Draft]:
    """The turns of such a text; an empty last one of the assistant is where the answer begins."""
    speaker_of = _SPEAKER if "\n\nAssistant:" in text else _SPEAKER_OF_A_LINE
    _, *pieces = speaker_of.split(f"\n\n{text.strip()}")
    drafts = [
        Draft("assistant" if speaker == "Assistant" else "user", [said.strip()])
        for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]
    if drafts[-1].role == "assistant" and _says_nothing(drafts[-1]):
        drafts.pop()
    return drafts


def take_category(fields: Fields) -> str:
    """The record's category as a text; of an object of booleans, the names of those that are true."""
    name = fields.filled(*CATEGORY)
    if name is None:
        return ""
    value = fields.peek(name)
    if isinstance(value, Mapping) and all(isinstance(each, bool | int) for each in value.values()):
        fields.take(name)
        return ", ".join(str(each) for each, holds in value.items() if holds)
    if isinstance(value, Mapping) or (isinstance(value, list) and not all(isinstance(each, str) for each in value)):
        return ""  # left for the account
    fields.take(name)
    return ", ".join(value) if isinstance(value, list) else str(value)


def _system(fields: Fields, drafts: Sequence[Draft]) -> list[Draft]:
    """The system prompt that stands next to the turns.

    Raises:
        CalibrationError: the turns have another one.
    """
    name = fields.filled(*SYSTEM)
    if name is None:
        return []
    if isinstance(fields.peek(name), Mapping):  # Gemini's
        said = read_message(fields, {**fields.take(name), "role": "system"}, 1, "system instruction")
    else:
        said = [Draft("system", [fields.text(name)])]
    own = [draft for draft in drafts if draft.role in ("system", "developer")]
    if any(draft.parts != said[0].parts for draft in own):
        raise fields.error(
            f"{fields.named(name)} and a system turn of the conversation are two system prompts: keep one."
        )
    return [] if own else said


def _history(fields: Fields) -> list[Draft]:
    """Earlier turns: pairs of question and answer, or messages."""
    name = fields.filled(*HISTORY)
    if name is None:
        return []
    drafts = []
    for number, item in enumerate(fields.items(name), start=1):
        if isinstance(item, list) and len(item) == 2 and all(isinstance(each, str) for each in item):
            drafts += [Draft("user", [item[0]]), Draft("assistant", [item[1]])]
        elif isinstance(item, Mapping):
            drafts += read_message(fields, item, number, "message of the history")
        else:
            raise fields.error(
                f"{fields.named(name)} is no array of pairs: write [question, answer] for each earlier turn."
            )
    return drafts


def _together(said: bool | None, more: Sequence[bool | None]) -> bool | None:
    """What labels say together: False where one of them does."""
    known = [each for each in (said, *more) if each is not None]
    return all(known) if known else None


def _says_nothing(draft: Draft) -> bool:
    empty = all(isinstance(part, str) and is_empty(part) for part in draft.parts)
    return empty and not draft.tool_calls and not draft.media

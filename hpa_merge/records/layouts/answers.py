"""The answers of a question: one text, several references as VQA and SQuAD have them, or messages."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hpa_merge.records.fields import Fields, is_empty, json_name, quoted
from hpa_merge.records.layouts.building import take_turns
from hpa_merge.records.places import Draft

__all__ = ["ANSWERS", "take_answer"]

ANSWERS = ("response", "output", "completion", "answer", "chosen", "chosen_response", "assistant", "targets", "ideal")
SEVERAL = ("answers", "direct_answers")
COMMON = ("multiple_choice_answer", "most_frequent_answer")
"""What most people said, where several answers are given."""

_ANNOTATION = frozenset({"answer", "answer_id", "answer_confidence", "raw_answer", "answer_start", "text"})


def take_answer(fields: Fields, names: tuple[str, ...] = ANSWERS) -> tuple[list[Draft], tuple[str, ...]]:
    """The answer as turns, where it is one, and the references; nothing where the record has no answer.

    Args:
        names: the fields that may hold one answer.

    Raises:
        CalibrationError: an answer cannot be read, or two fields hold different ones.
    """
    several: tuple[str, ...] = ()
    for given in SEVERAL:
        if fields.filled(given) and not several:
            several = _references(fields, given)
        elif given in fields and is_empty(fields.peek(given)):
            fields.take(given)
    name = fields.filled(*names)
    if name is None:
        for given in COMMON:
            if several and str(fields.peek(given) or "") in several:
                several = _in_front(several, fields.text(given))
        return [], several
    value = fields.peek(name)
    if _is_message(value) or (isinstance(value, list) and value and all(_is_message(each) for each in value)):
        drafts = take_turns(fields, name)
        return drafts, several
    if name in ("answer", "label") and isinstance(value, list | Mapping):
        found = _references(fields, name)
        return [], several or found
    text = _text(fields, name)
    if not several:
        return [Draft("assistant", [text])], ()
    if text.strip() not in (each.strip() for each in several):
        raise fields.error(
            f"{fields.named(name)} is none of {quoted(each for each in SEVERAL if each in fields.known())}: choose one "
            "with --ignore-field for the other."
        )
    return [], _in_front(several, text)


def _text(fields: Fields, name: str) -> str:
    value = fields.peek(name)
    if isinstance(value, bool):
        raise fields.error(
            f'{fields.named(name)} is a boolean, and its wording is not known: write the answer, such as "yes" or "no".'
        )
    return fields.written(name)


def _references(fields: Fields, name: str) -> tuple[str, ...]:
    """The texts of several answers; an empty one among them, as people leave one in VQA, is left out."""
    value = fields.take(name)
    if isinstance(value, Mapping):
        inner = fields.within(value, fields.named(name))
        if inner.filled("text"):  # SQuAD
            value = inner.take("text")
            inner.pass_over("answer_start")
        elif inner.filled("value"):  # TriviaQA
            value = [inner.written("value"), *(inner.take("aliases") or [])]
            inner.pass_over(
                *("normalized_aliases", "normalized_value", "matched_wiki_entity_name", "type"),
                *("normalized_matched_wiki_entity_name", "human_answers"),
            )
        else:
            return ()
    values = value if isinstance(value, list) else [value] if isinstance(value, str) and name not in SEVERAL else None
    if values is None:
        raise fields.error(f"{fields.named(name)} has to be an array of texts.")
    texts = [_annotated(fields, each, name) for each in values]
    return tuple(text for text in texts if text.strip())


def _annotated(fields: Fields, value: Any, name: str) -> str:
    """An answer's text; of VQA's own annotations, which say more of each, the answer alone."""
    if isinstance(value, Mapping):
        if more := [key for key in value if key not in _ANNOTATION and not is_empty(value[key])]:
            raise fields.error(
                f"{fields.named(name)} holds objects with {quoted(more)}, and which one is the answer is unclear: give "
                "one text, or an array of texts."
            )
        value = value.get("answer", value.get("text"))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    if value is not None and not isinstance(value, str):
        raise fields.error(f"{fields.named(name)} has to be an array of texts, and holds {json_name(value)}.")
    return value or ""


def _in_front(several: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The references, with ``text`` as the first of those that are as frequent."""
    counts = Counter(several)
    return tuple(sorted(several, key=lambda each: each != text)) if counts[text] == max(counts.values()) else several


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and any(value.get(key) for key in ("role", "from"))

"""Multiple choice: the choices of a question, and which of them is right."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from hpa_merge.records.fields import Fields, json_name
from hpa_merge.records.layouts.tools import parsed

__all__ = ["CHOICE_REQUEST", "has_choices", "letter_of", "take_choices", "take_letter", "with_choices"]

CHOICE_REQUEST = "Answer with the letter of the right choice."

LISTS = ("choices", "options", "endings", "multiple_choices", "answer_choices", "candidates")

_LETTERS = [letter.lower() for letter in ascii_uppercase]
_COLUMNS: tuple[tuple[str, ...], ...] = tuple(
    tuple(pattern.format(sign) for sign in signs)
    for patterns, signs in (
        (("{}", "option_{}", "choice_{}", "answer_{}", "op{}"), _LETTERS[:10]),
        (("option{}", "choice{}", "option_{}", "choice_{}", "answer{}", "ending{}"), range(10)),
        (("option{}", "choice{}", "option_{}", "choice_{}", "sol{}", "answer{}", "ending{}"), range(1, 11)),
    )
    for pattern in patterns
)
"""Columns that hold a choice each."""

RIGHT = (
    *("answer", "answer_key", "answer_idx", "answer_index", "correct_choice_idx", "correct_answer", "correct_option"),
    *("correct_index", "correct_idx", "correct_choice", "correct", "cop", "label", "gold", "response", "output"),
    *("completion", "target"),
)
"""Fields that say which choice is right."""

LONGEST_LIST = 100_000
"""Characters of a list that stands in a string."""


def has_choices(fields: Fields) -> bool:
    """Whether a record has choices, of one form or another."""
    return fields.filled(*LISTS) is not None or _columns(fields) is not None


def take_choices(fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The choices in their order, and the labels that the record has for them; none where it has no choices.

    Raises:
        CalibrationError: they cannot be read, or are fewer than two.
    """
    columns = _columns(fields)
    name = fields.filled(*LISTS)
    if name is None and columns is None:
        return (), ()
    labels: Sequence[Any] = ()
    if name is not None:
        texts, labels = _listed(fields, name)
        shown = fields.named(name)
    else:
        texts = [fields.written(column) for column in columns or ()]
        shown = fields.named((columns or ("choices",))[0])
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise fields.error(f"{shown} has {len(texts)} entries: give 2 to {len(ascii_uppercase)}.")
    return tuple(_unlettered(texts)), tuple(str(label) for label in labels)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question as it is shown to a model: its choices below it, a letter each."""
    lines = (f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return "\n".join([question, *lines, CHOICE_REQUEST])


def take_letter(fields: Fields, choices: Sequence[str], labels: Sequence[str], *, one_based: bool = False) -> str:
    """The letter of the right choice; empty where the record does not say which it is.

    Args:
        labels: the record's own for its choices, such as ARC's.
        one_based: an index counts from 1, as the data set has it.

    Raises:
        CalibrationError: it is none of them, or two fields name two of them.
    """
    found = {}
    for name in RIGHT:
        if fields.filled(name):
            given = fields.take(name)
            value = given[0] if isinstance(given, list) and len(given) == 1 else given
            found[name] = letter_of(fields, value, choices, labels, one_based=one_based)
    if len(set(found.values())) > 1:
        shown = " and ".join(f"{fields.named(name)} ({letter})" for name, letter in found.items())
        raise fields.error(f"{shown} name different choices: keep one of them.")
    return next(iter(found.values()), "")


def letter_of(
    fields: Fields, value: Any, choices: Sequence[str], labels: Sequence[str] = (), *, one_based: bool = False
) -> str:
    """The letter of a choice that is given by its letter, its text, its label or its index from 0.

    Raises:
        CalibrationError: it is none of them, or may be two of them.
    """
    letters = ascii_uppercase[: len(choices)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        place = value - one_based
        if 0 <= place < len(choices):
            return letters[place]
        raise fields.error(
            f"the answer {value} is the index of none of the {len(choices)} choices, which count from "
            f"{int(one_based)}: give a letter from A to {letters[-1]}, or the text of a choice."
        )
    if isinstance(value, str):
        said = value.strip()
        found = {letters[n] for n, choice in enumerate(choices) if choice.strip().casefold() == said.casefold()}
        found |= {
            letters[place] for place, label in enumerate(labels) if label.strip() == said and place < len(letters)
        }
        if one_based and said.isdecimal() and 1 <= int(said) <= len(choices):
            found.add(letters[int(said) - 1])
        bare = said.strip("().: ").upper()
        if len(bare) == 1 and bare in letters and not (found and labels):
            found.add(bare)
        if len(found) == 1:
            return found.pop()
        if len(found) > 1:
            raise fields.error(
                f"the answer {said!r:.40} may be two of the choices, by letter or by text: write its letter, and "
                "choices whose texts differ and are no letters."
            )
        if said.isdecimal():
            raise fields.error(
                f"the answer {said!r:.40} is a number in a string, and may count from 0 or from 1: give a letter from "
                f"A to {letters[-1]}, the text of a choice, or a number that counts from 0."
            )
    shown = f"the answer {value!r:.40}" if isinstance(value, str) else f"an answer that is {json_name(value)}"
    raise fields.error(
        f"{shown} is none of the choices: give a letter from A to {letters[-1]}, or the text of a choice."
    )


def _listed(fields: Fields, name: str) -> tuple[list[str], Sequence[Any]]:
    """The choices of a list, of ``{"text": […], "label": […]}``, of ``{"A": …, "B": …}`` or of a list in a string."""
    value = fields.take(name)
    if isinstance(value, str):
        value = _literal(value)
    if isinstance(value, Mapping):
        inner = fields.within(value, fields.named(name))
        if isinstance(inner.peek("text"), list):
            return _texts(fields, name, inner.take("text")), inner.take("label") or inner.take("labels") or ()
        letters = _filled(inner, _LETTERS)
        return [inner.written(letter) for letter in letters], [letter.upper() for letter in letters]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        inner_all = [fields.within(each, f"a choice of {fields.named(name)}") for each in value]
        texts = [each.take(each.filled("text", "value", "content", "option") or "text") for each in inner_all]
        labels = [each.take(each.filled("label", "key", "id", "letter") or "label") for each in inner_all]
        return _texts(fields, name, texts), [label for label in labels if label is not None]
    return _texts(fields, name, value), ()


def _texts(fields: Fields, name: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else []
    texts = [json.dumps(each) if type(each) in (int, float) else each for each in values]
    if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in texts):
        raise fields.error(f"{fields.named(name)} has to be an array of texts.")
    return texts


def _literal(text: str) -> Any:
    """A list that was written into a string, as JSON or as Python has it."""
    if not text.lstrip().startswith("[") or len(text) > LONGEST_LIST:
        return text
    value = parsed(text)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return text
    return value


def _columns(fields: Fields) -> tuple[str, ...] | None:
    """The columns that hold a choice each."""
    return next((found for names in _COLUMNS if len(found := _filled(fields, names)) > 1), None)


def _filled(fields: Fields, names: Sequence[str]) -> tuple[str, ...]:
    """The names whose fields are filled, from the first one without a gap."""
    return tuple(takewhile(fields.filled, names))


def _unlettered(texts: list[str]) -> list[str]:
    """The choices without the letters that they begin with, where each begins with its own: ``A) red``."""
    found = [
        re.match(rf"\s*\(?{letter}[).:]\s*(?=\S)", text) for letter, text in zip(ascii_uppercase, texts, strict=False)
    ]
    return [text[match.end() :] for text, match in zip(texts, found, strict=True) if match] if all(found) else texts

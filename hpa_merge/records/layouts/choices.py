"""Multiple choice: the choices of a question, and which of them is right."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from string import ascii_uppercase
from typing import Any

from hpa_merge.files.printed import parse_printed
from hpa_merge.records.fields import Fields, is_empty, json_name, option
from hpa_merge.records.layouts.tools import parsed

__all__ = ["CHOICE_REQUEST", "has_choices", "letter_of", "take_choices", "take_letter", "with_choices"]

CHOICE_REQUEST = "Answer with the letter of the right choice."

BASES = {"index_from_0": 0, "index_from_1": 1}
"""Names that --map gives a field whose numbers the record does not explain, and from where these count."""

TEXT = "choice_text"
"""The name that --map gives a field that has the text of the right choice, even where that is a number."""

LISTS = ("choices", "options", "endings", "multiple_choices", "answer_choices", "candidates")

_LETTERS = [letter.lower() for letter in ascii_uppercase]
_FROM_0, _FROM_1 = [str(n) for n in range(10)], [str(n) for n in range(1, 11)]
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
    *("completion", "target", "index_from_0", "index_from_1", "choice_text"),
)
"""Fields that say which choice is right."""


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
        labels = [found[0] for column in columns or () if (found := re.search(r"(?<!\d)\d+$", column))]
        shown = fields.named((columns or ("choices",))[0])
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise fields.error(f"{shown} has {len(texts)} entries: give 2 to {len(ascii_uppercase)}.")
    return tuple(_unlettered(texts)), tuple(str(label) for label in labels)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question as it is shown to a model: its choices below it, a letter each."""
    lines = (f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
    return "\n".join([question, *lines, CHOICE_REQUEST])


def take_letter(fields: Fields, choices: Sequence[str], labels: Sequence[str], base: int | None = None) -> str:
    """The letter of the right choice; empty where the record does not say which it is.

    Args:
        labels: the record's own for its choices, such as ARC's.
        base: where the data set's indices count from; None: the record has to say it.

    Raises:
        CalibrationError: it is none of them, or two fields name two of them.
    """
    found = {}
    for name in RIGHT:
        if fields.filled(name):
            given = fields.take(name)
            value = given[0] if isinstance(given, list) and len(given) == 1 else given
            found[name] = letter_of(fields, value, choices, labels, BASES.get(name, base), name)
    if len(set(found.values())) > 1:
        shown = " and ".join(f"{fields.named(name)} ({letter})" for name, letter in found.items())
        raise fields.error(f"{shown} name different choices: keep one of them.")
    return next(iter(found.values()), "")


def letter_of(
    fields: Fields,
    value: Any,
    choices: Sequence[str],
    labels: Sequence[str] = (),
    base: int | None = None,
    name: str = "answer",
) -> str:
    """The letter of a choice that is given by its letter, its text, its label or its index.

    Args:
        base: where an index counts from; None: a number is a label, or counts from 0 in a list; nothing else is known.
        name: the field, for messages.

    Raises:
        CalibrationError: it is none of them, or may be two of them.
    """
    letters = ascii_uppercase[: len(choices)]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = _number(value)
    if number is not None and name != TEXT:
        return letters[_numbered(fields, value, number, choices, labels, base, name)]
    if isinstance(value, str | int) and not isinstance(value, bool):
        said = str(value).strip()
        found = {letters[n] for n, choice in enumerate(choices) if choice.strip().casefold() == said.casefold()}
        found |= {
            letters[place] for place, label in enumerate(labels) if label.strip() == said and place < len(letters)
        }
        bare = said.strip("().: ").upper()
        if len(bare) == 1 and bare in letters and not (found and labels):
            found.add(bare)
        if not found and (both := re.match(r"\(?([A-Za-z])[).:]\s*(?=\S)", said)):  # "B. green"
            place = letters.find(both[1].upper())
            if place >= 0 and choices[place].strip().casefold() == said[both.end() :].casefold():
                found.add(letters[place])
        if len(found) == 1:
            return found.pop()
        if len(found) > 1:
            raise fields.error(
                f"the answer {said!r:.40} may be two of the choices, by letter or by text: write its letter, and "
                "choices whose texts differ and are no letters."
            )
    shown = f"the answer {value!r:.40}" if isinstance(value, str) else f"an answer that is {json_name(value)}"
    raise fields.error(
        f"{shown} is none of the choices: give a letter from A to {letters[-1]}, or the text of a choice."
    )


def _number(value: Any) -> int | None:
    """The whole number that a value is, or that it has in a string, as cells of tables do."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,9}(\.0)?\s*", value):
        return int(value.strip().removesuffix(".0"))
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbered(
    fields: Fields,
    value: Any,
    number: int,
    choices: Sequence[str],
    labels: Sequence[str],
    base: int | None,
    name: str,
) -> int:
    """The place of the choice that a number means.

    Raises:
        CalibrationError: it means none, or it is not known which.
    """
    count = len(choices)
    if base is not None:
        if 0 <= number - base < count:
            return number - base
        raise fields.error(_no_index(number, count, str(base)))
    from_both = isinstance(value, str) or fields.known().isdisjoint(LISTS)
    if str(number) in labels:
        places = {labels.index(str(number))}
    elif labels and all(label.isdecimal() for label in labels):
        raise fields.error(_no_index(number, count, labels[0]))
    else:
        places = {number - first for first in ((0, 1) if from_both else (0,)) if 0 <= number - first < count}
    texts = {place for place, choice in enumerate(choices) if choice.strip() == str(value).strip()}
    places |= texts
    if len(places) == 1 and (texts or labels or not isinstance(value, str)):
        return places.pop()
    if not places:
        raise fields.error(_no_index(number, count, "0"))
    given = option(fields.given(name))
    what = f"the answer {value!r:.40}" + (" is a number in a string, and" if isinstance(value, str) else "")
    readings = [f"--map {known}={given}" for known in BASES] + ([f"--map {TEXT}={given}"] if texts else [])
    raise fields.error(
        f"{what} may count from 0 or from 1{', or be the text of a choice' if texts else ''}: give a letter from A to "
        f"{ascii_uppercase[count - 1]}, or say how it is meant with {', '.join(readings[:-1])} or {readings[-1]}."
    )


def _no_index(number: int, count: int, base: str) -> str:
    return (
        f"the answer {number} is the index of none of the {count} choices, which count from {base}: give a letter from "
        f"A to {ascii_uppercase[count - 1]}, or the text of a choice."
    )


def _listed(fields: Fields, name: str) -> tuple[list[str], Sequence[Any]]:
    """The choices of a list, of ``{"text": […], "label": […]}``, of ``{"A": …, "B": …}`` or of a list in a string."""
    value = fields.take(name)
    if isinstance(value, str):
        value = _literal(value)
    if isinstance(value, Mapping):
        inner = fields.within(value, fields.named(name))
        if isinstance(inner.peek("text"), list):
            return _texts(fields, name, inner.take("text")), inner.optional_items("label", "labels")
        keys = max((_filled(inner, each) for each in (_LETTERS, _FROM_0, _FROM_1)), key=len)
        return [inner.written(key) for key in keys], [key.upper() for key in keys]
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        inner_all = [fields.within(each, f"a choice of {fields.named(name)}") for each in value]
        texts = [each.take(each.filled("text", "value", "content", "option") or "text") for each in inner_all]
        labels = [each.take(each.filled("label", "key", "id", "letter") or "label") for each in inner_all]
        return _texts(fields, name, texts), [label for label in labels if label is not None]
    return _texts(fields, name, value), ()


def _texts(fields: Fields, name: str, value: Any) -> list[str]:
    values = list(value) if isinstance(value, list) else []
    while values and is_empty(values[-1]):  # as a table of the most choices has them
        values.pop()
    texts = [json.dumps(each) if type(each) in (int, float) else each for each in values]
    if not texts or not all(isinstance(each, str) and each.strip() for each in texts):
        raise fields.error(f"{fields.named(name)} has to be an array of texts.")
    return texts


def _literal(text: str) -> Any:
    """A list that was written into a string, as JSON or as Python has it."""
    if lettered := re.findall(r"\(([a-z])\)\s*([^()]+)", text.strip(), re.IGNORECASE):  # MMVP: (a) Open (b) Closed
        letters = "".join(letter for letter, _ in lettered).lower()
        if text.lstrip().lower().startswith("(a)") and ascii_uppercase.lower().startswith(letters):
            return [said.strip() for _, said in lettered]
    if not text.lstrip().startswith("["):
        return text
    value = parsed(text)
    return parse_printed(text) or text if isinstance(value, str) else value


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

"""One record of a data set, in any of the formats that people have, becomes samples.

    {"input_ids": [1, 2]}                                                    already tokenised
    {"messages": [{"role", "content"}], "image(s)"?}                         chat; content is a string or parts
    {"conversations": [{"from", "value"}], "image(s)"?}                      LLaVA, ShareGPT; "<image>" in the value
    {"instr-resp": [{"…instruction", "response"}], "image"?}                 VLGuard; one sample per pair
    {"instruction"|"prompt"|"question", "response"|…, "input"?, "image"?}    Alpaca, SPA-VL
    {"text": "…"}                                                            plain text

The first of these whose fields a record holds decides; a field that is ``null`` counts as absent, other fields are
ignored. Images are local files; a URL is refused and never fetched.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hpa_merge.errors import CalibrationError
from hpa_merge.records.sample import Media, Sample, Turn

__all__ = ["ANSWER_FIELDS", "PLACEHOLDER", "PROMPT_FIELDS", "parse_record"]

PLACEHOLDER = "<image>"
"""Marks an image's place inside a text, in LLaVA's files and all that came after them."""

SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PROMPT_FIELDS = ("instruction", "prompt", "question")
ANSWER_FIELDS = ("response", "output", "completion", "answer", "chosen")
PAIR_FIELDS = ("instruction", "safe_instruction", "unsafe_instruction")

_URL = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_JSON_NAMES = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}

Draft = tuple[str, list[str | Media | None]]
"""A turn on its way: its role and its parts, ``None`` where an image of the record has still to be put."""


def parse_record(record: object, source: str, folder: Path) -> list[Sample]:
    """The samples of one JSON value: one, or one for each pair of a VLGuard record.

    Args:
        record: the value as ``json`` gives it.
        source: ``file:line``, for the samples and for messages.
        folder: where relative image paths start.

    Raises:
        CalibrationError: the record has no known format, a wrong type, an empty text, or an image that is not there.
    """
    if not isinstance(record, dict):
        raise CalibrationError(f"{source}: a JSON object is expected, found {_json_name(record)}: {_FORMATS_HINT}.")
    fields = {name: value for name, value in record.items() if value is not None}
    prompt = next((name for name in PROMPT_FIELDS if name in fields), None)
    answer = next((name for name in ANSWER_FIELDS if name in fields), None)

    if "input_ids" in fields:
        return [Sample(source, input_ids=_token_ids(fields["input_ids"], source))]
    if "messages" in fields:
        images = _record_images(fields, source, folder)
        drafts = [
            _message(item, f"{source}: message {number}", source, folder, bool(images))
            for number, item in enumerate(_items(fields["messages"], "messages", source), start=1)
        ]
        return [_finish(drafts, images, source)]
    if "conversations" in fields:
        drafts = [
            _utterance(item, f"{source}: turn {number}")
            for number, item in enumerate(_items(fields["conversations"], "conversations", source), start=1)
        ]
        return [_finish(drafts, _record_images(fields, source, folder), source)]
    if "instr-resp" in fields:
        pairs = _items(fields["instr-resp"], "instr-resp", source)
        images = _record_images(fields, source, folder)
        return [_pair(pair, images, f"{source}#{number}") for number, pair in enumerate(pairs, start=1)]
    if prompt and answer:
        question = _text(fields[prompt], f'"{prompt}"', source)
        if fields.get("input"):
            question += "\n" + _text(fields["input"], '"input"', source)
        reply = _text(fields[answer], f'"{answer}"', source)
        return [_exchange(question, reply, _record_images(fields, source, folder), source)]
    if "text" in fields:
        return [Sample(source, text=_text(fields["text"], '"text"', source))]
    if prompt:
        raise CalibrationError(
            f'{source}: "{prompt}" has no answer beside it: add it as one of {_quoted(ANSWER_FIELDS)}.'
        )
    found = f"only {_quoted(fields)}" if fields else "no field that is not null"
    raise CalibrationError(f"{source}: no known field, found {found}: {_FORMATS_HINT}.")


_FORMATS_HINT = 'give "messages", "conversations", "instruction" with "response", "instr-resp", "text" or "input_ids"'


def _message(item: object, where: str, source: str, folder: Path, splits: bool) -> Draft:
    """One of ``messages``; where ``splits``, because the record brings images, ``"<image>"`` in a text marks one."""
    if not isinstance(item, dict) or not isinstance(item.get("role"), str) or not item["role"]:
        raise CalibrationError(f'{where} has no role: write it as {{"role": "user", "content": …}}.')
    content = item.get("content")
    if isinstance(content, str):
        return item["role"], _split(content) if splits else [content]
    if not isinstance(content, list):
        raise CalibrationError(
            f"{where} has {_json_name(content)} for content: give a string or an array of text and image parts."
        )
    parts: list[str | Media | None] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.extend(_split(part["text"]) if splits else [part["text"]])
        elif kind == "image":
            value = next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
            parts.append(None if value is None else _image(value, source, folder))
        else:
            raise CalibrationError(
                f"{where} has a part that is neither text nor image: "
                'write {"type": "text", "text": …} or {"type": "image", "image": …}.'
            )
    return item["role"], parts


def _utterance(item: object, where: str) -> Draft:
    """One of ``conversations``."""
    if not isinstance(item, dict) or not isinstance(item.get("value"), str):
        raise CalibrationError(f'{where} has no value: write it as {{"from": "human", "value": "…"}}.')
    speaker = item.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        raise CalibrationError(f'{where} is not from a known speaker: "from" is one of {_quoted(SPEAKERS)}.')
    return SPEAKERS[speaker], _split(item["value"])


def _pair(pair: object, images: list[Media], source: str) -> Sample:
    """One of VLGuard's ``instr-resp``."""
    name = next((name for name in PAIR_FIELDS if isinstance(pair, dict) and pair.get(name) is not None), None)
    if not isinstance(pair, dict) or name is None or pair.get("response") is None:
        raise CalibrationError(
            f'{source}: a pair holds "response" and one of {_quoted(PAIR_FIELDS)}: add what is missing.'
        )
    question = _text(pair[name], f'"{name}"', source)
    return _exchange(question, _text(pair["response"], '"response"', source), images, source)


def _exchange(question: str, reply: str, images: list[Media], source: str) -> Sample:
    """One question and its answer; ``"<image>"`` in the question counts only where there are images."""
    drafts: list[Draft] = [("user", _split(question) if images else [question]), ("assistant", [reply])]
    return _finish(drafts, images, source)


def _split(text: str) -> list[str | Media | None]:
    """The pieces of ``text`` with ``None`` for each placeholder; white space beside a placeholder goes with it."""
    if PLACEHOLDER not in text:
        return [text]
    parts: list[str | Media | None] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            parts.append(None)
        if piece.strip():
            parts.append(piece.strip())
    return parts


def _finish(drafts: list[Draft], images: list[Media], source: str) -> Sample:
    """Put the record's images into their places, the front of the first user turn where none is marked; check turns."""
    places = sum(part is None for _, parts in drafts for part in parts)
    inline = any(isinstance(part, Media) for _, parts in drafts for part in parts)
    user_parts = next((parts for role, parts in drafts if role == "user"), None)
    if images and not places and not inline and user_parts is not None:
        user_parts[:0] = images
    elif places != len(images):
        raise CalibrationError(
            f"{source}: the turns mark a place for an image {places} times, but the images number {len(images)}: "
            'write one "<image>" or one {"type": "image"} for each image of the sample.'
        )
    waiting = iter(images)
    turns = []
    for number, (role, parts) in enumerate(drafts, start=1):
        filled = tuple(next(waiting) if part is None else part for part in parts)
        kept = tuple(part for part in filled if isinstance(part, Media) or part.strip())
        if not kept and role != "system":  # an empty system turn is a choice: it keeps a template's default prompt out
            raise CalibrationError(f"{source}: turn {number} ({role}) is empty: give it a text or remove the sample.")
        turns.append(Turn(role, kept))
    return Sample(source, turns=tuple(turns))


def _record_images(fields: dict[str, Any], source: str, folder: Path) -> list[Media]:
    """``"images"`` or ``"image"`` beside the turns: one path or an array of them."""
    value = fields.get("images", fields.get("image", []))
    return [_image(item, source, folder) for item in (value if isinstance(value, list) else [value])]


def _image(value: object, source: str, folder: Path) -> Media:
    """The local file that ``value`` names; it has to exist, and is opened only when the sample is encoded."""
    if not isinstance(value, str) or not value:
        found = _json_name(value) if value != "" else "an empty string"
        raise CalibrationError(f"{source}: an image is the path of a file, found {found}: give a path in a string.")
    shown = value if len(value) <= 80 else value[:77] + "…"
    if _URL.match(value):
        raise CalibrationError(
            f"{source}: the image {shown} is a URL, and URLs are never fetched: save it as a file and give its path."
        )
    path = folder / value
    try:
        exists = path.is_file()
    except OSError:  # a name that is too long
        exists = False
    if not exists:
        raise CalibrationError(
            f"{source}: the image {shown} is not a file in {folder}: give its path relative to the calibration file."
        )
    return Media("image", path)


def _token_ids(value: object, source: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not value or not all(type(item) is int and 0 <= item < 2**31 for item in value):
        raise CalibrationError(
            f'{source}: "input_ids" is not an array of token ids: give one or more whole numbers from 0.'
        )
    return tuple(value)


def _text(value: object, name: str, source: str) -> str:
    if not isinstance(value, str):
        raise CalibrationError(f"{source}: {name} is {_json_name(value)}: give a string.")
    if not value.strip():
        raise CalibrationError(f"{source}: {name} is empty: give it a text or remove the sample.")
    return value


def _items(value: object, name: str, source: str) -> list[Any]:
    if not isinstance(value, list):
        raise CalibrationError(f'{source}: "{name}" is {_json_name(value)}: give an array.')
    if not value:
        raise CalibrationError(f'{source}: "{name}" is empty: fill it or remove the sample.')
    return value


def _json_name(value: object) -> str:
    return _JSON_NAMES.get(type(value), "a number")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)

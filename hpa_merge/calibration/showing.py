"""A sample as the model gets it, for people: its text with the special tokens, the media in it, and the answer."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from hpa_merge.calibration.feeding import open_media
from hpa_merge.calibration.truncation import answer_of
from hpa_merge.records import Sample

if TYPE_CHECKING:
    from hpa_merge.calibration.encode import Encoded, Encoder

__all__ = ["Piece", "pieces"]

OTHER = "\ue000"
"""A private character, which no answer begins or ends with."""


class Piece(NamedTuple):
    """A stretch of a sample's tokens.

    Attributes:
        kind: ``text``, ``answer``, the kind of a medium, or ``ids`` for token ids without a tokenizer.
        text: as the tokenizer decodes it, with special tokens; of a medium its name and its size.
        tokens: how many there are.
    """

    kind: str
    text: str
    tokens: int


def pieces(encoder: "Encoder", sample: Sample, max_length: int) -> list[Piece]:
    """What the model is given of a sample, in order; nothing where it does not fit."""
    made = encoder.prepare(sample, max_length)
    if made.unfit:
        return []
    ids = made.inputs["input_ids"][0].tolist()
    if sample.input_ids:
        return [Piece("ids", " ".join(map(str, ids)), len(ids))]
    first, end = _answer(encoder, made, len(ids), ids)
    names = iter(_names(sample))
    found = []
    for kind, start, stop in _stretches(ids, encoder.media_ids if sample.media else set(), first, end):
        if kind == "media":
            name = next(names, ("image", "more of it"))
            found.append(Piece(*name, stop - start))
        else:
            text = encoder.tokenizer.decode(
                ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            found.append(Piece(kind, text, stop - start))
    return found


def _stretches(ids: list[int], media: set[int], first: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Runs of tokens of one kind: ``text``, ``answer`` or ``media``, with where each begins and ends."""
    kinds = [
        "media" if number in media else "answer" if first <= place < end else "text" for place, number in enumerate(ids)
    ]
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or kinds[place] != kinds[start]:
            yield kinds[start], start, place
            start = place


def _names(sample: Sample) -> list[tuple[str, str]]:
    """Of each medium its kind, and its name and size."""
    return [
        (media.kind, f"{media.name}, {image.width}x{image.height} pixels")
        for media, image in zip(sample.media, open_media(sample), strict=True)
    ]


def _answer(encoder: "Encoder", made: "Encoded", length: int, ids: list[int]) -> tuple[int, int]:
    """The first token of the answer, and the one behind it; counted from the end, where no medium takes tokens.

    The answer is what another answer changes of the text. Where a token holds the last sign of the prompt and the first
    of the answer, the place is off by that one.
    """
    answer = None if made.sample is None else answer_of(made.sample)
    if answer is None or made.sample is None:
        return length, length
    calls = tuple({**call, "function": {**call["function"], "name": OTHER}} for call in answer.tool_calls)
    other = replace(
        answer,
        parts=(OTHER,) if answer.parts else (),
        reasoning=OTHER if answer.reasoning else "",
        tool_calls=calls,
    )
    changed = encoder.writer.write(replace(made.sample, turns=(*made.sample.turns[:-1], other))).text
    start = _common(made.text, changed)
    tail = min(_common(made.text[::-1], changed[::-1]), len(made.text) - start)
    whole = encoder.count(made.text)
    behind = whole - encoder.count(made.text[: len(made.text) - tail])
    from_end = whole - encoder.count(made.text[:start])
    added = encoder.added_at_end(made.text, ids)
    return length - added - from_end, length - added - behind


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)

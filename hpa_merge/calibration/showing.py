"""A sample as the model gets it, for people: its text with the special tokens, the media in it, and the answer."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, final

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
        kind: ``text``, ``answer``, the kind of a medium, ``ids`` for token ids without a tokenizer, or ``cut`` where
            the prompt lost of its text.
        text: as the tokenizer decodes it, with special tokens; of a medium its name and its size; of a cut how much.
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
    places = _Places(encoder, made.text, ids)
    first, end = _answer(encoder, made, places)
    cuts = {places.of(place): lost for place, lost in _cuts(sample, made)}
    stretches = list(_stretches(ids, encoder.media_ids if sample.media else set(), first, end, cuts))
    names = iter(_names(encoder, sample, sum(kind == "media" for kind, *_ in stretches)))
    found = []
    for kind, start, stop in stretches:
        if start in cuts:
            found.append(Piece("cut", f"{cuts[start]} characters", 0))
        if kind == "media":
            found.append(Piece(*next(names), stop - start))
        else:
            text = encoder.tokenizer.decode(
                ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            found.append(Piece(kind, text, stop - start))
    return found


@final
class _Places:
    """Where signs of a text lie among its tokens, counted from the end: media take more tokens than signs."""

    def __init__(self, encoder: "Encoder", text: str, ids: list[int]) -> None:
        self._encoder = encoder
        self._text = text
        self._whole = encoder.count(text)
        self._end = len(ids) - encoder.added_at_end(text, ids)

    def of(self, place: int) -> int:
        """The token that begins at ``place``, or holds it."""
        return self._end - self._whole + self._encoder.count(self._text[:place])


def _cuts(sample: Sample, made: "Encoded") -> Iterator[tuple[int, int]]:
    """Where texts of the prompt were cut, in what was tokenised, and how many signs they lost."""
    cursor = 0
    for was, now in zip(sample.turns, made.sample.turns if made.sample else (), strict=True):
        for whole, kept in zip(was.texts, now.texts, strict=True):
            found = made.text.find(kept, cursor) if kept != whole else -1
            if found >= 0:
                yield found + len(kept) - len(kept) // 2, len(whole) - len(kept)
                cursor = found + len(kept)


def _stretches(
    ids: list[int], media: set[int], first: int, end: int, cuts: Collection[int]
) -> Iterator[tuple[str, int, int]]:
    """Runs of tokens of one kind: ``text``, ``answer`` or ``media``, with where each begins and ends."""
    kinds = [
        "media" if number in media else "answer" if first <= place < end else "text" for place, number in enumerate(ids)
    ]
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or kinds[place] != kinds[start] or place in cuts:
            yield kinds[start], start, place
            start = place


def _names(encoder: "Encoder", sample: Sample, runs: int) -> list[tuple[str, str]]:
    """Of each run of media tokens a kind, and the medium's name and size; some processors write a video as several."""
    sizes = encoder.opened(sample).sizes
    names = [(media.kind, f"{media.name}, {size}") for media, size in zip(sample.media, sizes, strict=True)]
    if len(names) == runs:
        return [*names]
    kind = sample.media[0].kind
    return [(kind, "; ".join(name for _, name in names)), *[(kind, "more of this")] * (runs - 1)]


def _answer(encoder: "Encoder", made: "Encoded", places: _Places) -> tuple[int, int]:
    """The first token of the answer, and the one behind it; the answer is what another one changes of the text.

    Where a token holds the last sign of the prompt and the first of the answer, the place is off by that one.
    """
    answer = None if made.sample is None else answer_of(made.sample)
    if answer is None or made.sample is None:
        return 0, 0
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
    return places.of(start), places.of(len(made.text) - tail)


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common from their beginning."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)

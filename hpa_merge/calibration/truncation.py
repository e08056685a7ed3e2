"""A conversation that is too long: its prompt gives way, and its answer is never cut.

All texts before the answer but those of the system are cut to one common length, the largest with which the sample
fits: so the longest give way first, and short ones stay whole. Such a text keeps its beginning and its end, and loses
its middle. What the template writes, the media, the tools and the answer stay as they are.
"""

from collections.abc import Callable
from dataclasses import replace

from hpa_merge.records import Sample, Turn

__all__ = ["answer_of", "shortened"]

KEPT = 16
"""Characters that every text keeps at least."""

SYSTEM = ("system", "developer")
"""Roles whose turns are never cut: what they say holds for the whole conversation."""


def answer_of(sample: Sample) -> Turn | None:
    """The turn that is the sample's answer, if it ends with one."""
    return sample.turns[-1] if sample.turns and sample.turns[-1].role == "assistant" else None


def shortened(sample: Sample, fits: Callable[[Sample], bool]) -> Sample | None:
    """The sample with its prompt cut as little as needed; None where it does not fit without its prompt's texts.

    Args:
        fits: whether a sample is short enough; the more of a text is kept, the less it is.
    """
    prompt = sample.turns[:-1] if answer_of(sample) else sample.turns
    longest = max((len(text) for turn in prompt if turn.role not in SYSTEM for text in turn.texts), default=0)
    if longest <= KEPT or not fits(_cut(sample, KEPT)):
        return None
    short, long = KEPT, min(2 * KEPT, longest)
    while long < longest and fits(_cut(sample, long)):  # from below: a very long text is never encoded whole
        short, long = long, min(2 * long, longest)
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if fits(_cut(sample, middle)) else (short, middle)
    return _cut(sample, short)


def _cut(sample: Sample, length: int) -> Sample:
    """The sample with no text before the answer longer than ``length`` characters, but for the system's."""
    end = len(sample.turns) - (answer_of(sample) is not None)
    turns = tuple(
        replace(turn, parts=tuple(_middle_out(part, length) if isinstance(part, str) else part for part in turn.parts))
        if number < end and turn.role not in SYSTEM
        else turn
        for number, turn in enumerate(sample.turns)
    )
    return replace(sample, turns=turns)


def _middle_out(text: str, length: int) -> str:
    """The first and the last characters of ``text``, together ``length``, where it is longer."""
    if len(text) <= length:
        return text
    return text[: length - length // 2] + text[len(text) - length // 2 :]

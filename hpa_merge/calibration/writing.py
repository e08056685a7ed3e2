"""A sample becomes one text, by its chat template or without one, and how the tokenizer has to take it."""

from dataclasses import dataclass
from typing import Any, final

from hpa_merge.calibration.messages import Messages
from hpa_merge.calibration.templates import Template
from hpa_merge.errors import CalibrationError
from hpa_merge.records import Media, Sample

__all__ = ["Writer", "Written"]

TEXT_LENGTH = 2**21
"""Characters of a sample at most, a thousand times of what is used by default."""


@final
@dataclass(frozen=True)
class Written:
    """A sample as one text.

    Attributes:
        plain: no template wrote it.
        special: whether the tokenizer adds its special tokens.
        notes: what the template leaves out on purpose, a clause each.
    """

    text: str
    plain: bool
    special: bool
    notes: tuple[str, ...] = ()


@final
class Writer:
    """Writes samples.

    Attributes:
        template: which chat template it uses, in words.
    """

    def __init__(self, tokenizer: Any, processor: Any, template: Template | None, *, multimodal: bool) -> None:
        """
        Args:
            multimodal: the tokenizer is a processor's, whether or not that is there.
        """
        self._tokenizer = tokenizer
        self._processor = processor
        self._multimodal = multimodal
        self._messages = None if template is None else Messages(template, self._token, prefer_parts=multimodal)
        self.template = "none, turns are joined by line feeds" if template is None else template.described

    def write(self, sample: Sample, *, reply: bool = False) -> Written:
        """The sample as one text; with ``reply`` it ends where the answer begins.

        Raises:
            CalibrationError: the template leaves out what it must not, or there is none that could write it.
            ValueError: the text is too long.
            Exception: whatever the template raises.
        """
        notes: tuple[str, ...] = ()
        plain = self._messages is None or sample.text is not None
        if sample.text is not None:
            text = sample.text
        elif self._messages is None:
            _check_plain(sample)
            parts = [part for turn in sample.turns for part in turn.parts]
            text = "\n".join(part if isinstance(part, str) else self._token(part) for part in parts) + "\n" * reply
        else:
            text, notes = self._messages.write(sample, reply=reply)
        if len(text) > TEXT_LENGTH:  # a tokenizer takes some 300 bytes and 3 microseconds for each
            raise ValueError(f"its text has {len(text)} characters, and more than {TEXT_LENGTH} are not encoded")
        bos = self._tokenizer.bos_token
        begun = bos is not None and text.startswith(bos) and (not plain or bool(sample.media))
        return Written(text, plain, (plain or self._multimodal) and not begun, notes)

    def _token(self, media: Media) -> str:
        """What stands for a medium in a text: the processor's token for its kind."""
        name = f"{media.kind}_token"
        token = getattr(self._processor, name, None) or getattr(self._tokenizer, name, None)
        if token is None:
            raise ValueError(f"the processor names no {media.kind} token and has no chat template that would write it")
        return str(token)


def _check_plain(sample: Sample) -> None:
    """Check that a conversation without a template has texts and media alone.

    Raises:
        CalibrationError: it has more.
    """
    there = {
        "tools": sample.tools,
        "tool calls": [turn for turn in sample.turns if turn.tool_calls],
        "reasoning": [turn for turn in sample.turns if turn.reasoning],
    }
    for what, found in there.items():
        if found:
            raise CalibrationError(
                f"{sample.source} has {what}, and the checkpoint has no chat template that would write it: "
                "give one with --chat-template, or write it into the texts."
            )
